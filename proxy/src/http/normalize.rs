//! Path normalisation, so that what authorization and routes compare is what the application
//! sees: dot segments, backslashes, doubled slashes (RFC 3986, 5.2.4; Envoy's `normalize_path`
//! and `merge_slashes`).

use std::borrow::Cow;

/// The path (without query) in normal form; `None` when it climbs above the root.
#[must_use]
pub fn normalize(path: &str, dots: bool, slashes: bool) -> Option<Cow<'_, str>> {
    let suspicious = (dots && has_dots(path)) || (slashes && path.contains("//"));
    if !suspicious {
        return Some(Cow::Borrowed(path));
    }
    let mut text = Cow::Borrowed(path);
    if dots {
        text = Cow::Owned(remove_dots(&decode_dots(&text.replace('\\', "/")))?);
    }
    if slashes {
        text = Cow::Owned(merge(&text));
    }
    Some(text)
}

fn has_dots(path: &str) -> bool {
    path.contains("/.") || path.contains('\\') || path.contains("%2e") || path.contains("%2E")
}

/// A dot is unreserved: its encoded form means the same (RFC 3986, 6.2.2.2).
fn decode_dots(path: &str) -> String {
    path.replace("%2e", ".").replace("%2E", ".")
}

fn remove_dots(path: &str) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {
                if last {
                    kept.push("");
                }
            }
            ".." => {
                kept.pop()?;
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    Some(format!("/{}", kept.join("/")))
}

fn merge(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_into_normal_form() {
        for (path, wanted) in [
            ("/a/b", Some("/a/b")),
            ("/a/./b", Some("/a/b")),
            ("/a/../b", Some("/b")),
            ("/a/b/..", Some("/a/")),
            ("/a/.", Some("/a/")),
            ("/%2e%2E/b", None),
            ("/..", None),
            ("/a/%2e%2e/admin", Some("/admin")),
            ("/a\\..\\admin", Some("/admin")),
            ("/a//b", Some("/a//b")),
            ("/.hidden", Some("/.hidden")),
            ("*", Some("*")),
        ] {
            assert_eq!(normalize(path, true, false).as_deref(), wanted, "{path}");
        }
        assert_eq!(normalize("//a///b/", false, true).as_deref(), Some("/a/b/"));
        assert_eq!(normalize("/a/../b", false, false).as_deref(), Some("/a/../b"));
    }
}
