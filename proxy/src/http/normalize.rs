//! Path normalisation, so that what authorization and routes compare is what the application
//! sees: dot segments, backslashes, encoded letters, doubled slashes (RFC 3986, 5.2.4 and 6.2.2.2;
//! Envoy's `normalize_path` and `merge_slashes`).

use std::borrow::Cow;

/// The path (without query) in normal form; `None` when it is malformed.
#[must_use]
pub fn normalize(path: &str, dots: bool, slashes: bool) -> Option<Cow<'_, str>> {
    let suspicious = (dots && is_odd(path)) || (slashes && path.contains("//"));
    if !suspicious {
        return Some(Cow::Borrowed(path));
    }
    let mut text = Cow::Borrowed(path);
    if dots {
        text = Cow::Owned(remove_dots(&decode_unreserved(&text.replace('\\', "/"))));
    }
    if slashes {
        text = Cow::Owned(merge(&text));
    }
    text.starts_with(['/', '*']).then_some(text)
}

fn is_odd(path: &str) -> bool {
    path.contains("/.") || path.contains(['\\', '%'])
}

/// Letters, digits and `-._~` mean the same encoded or not; everything else stays as it is.
fn decode_unreserved(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, encoded) = rest.split_at(at);
        out.push_str(before);
        let code = encoded.get(1..3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let plain =
            |c: &char| (c.is_ascii_alphanumeric() || "-._~".contains(*c)) && !completes(&out, *c);
        match code.map(char::from).filter(plain) {
            Some(plain) => {
                out.push(plain);
                rest = encoded.get(3..).unwrap_or_default();
            }
            None => {
                out.push('%');
                rest = encoded.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether `next` would make an escape of one that was cut off: `%2` and an encoded `e` must not
/// become `%2e`, which the application would read as a dot.
fn completes(before: &str, next: char) -> bool {
    let cut_off = match before.as_bytes() {
        [.., b'%'] => true,
        [.., b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    };
    cut_off && next.is_ascii_hexdigit()
}

/// Above the root there is only the root.
fn remove_dots(path: &str) -> String {
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
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
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
            ("/%2e%2E/b", Some("/b")),
            ("/..", Some("/")),
            ("/%61%7E%2d%2f%C3", Some("/a~-%2f%C3")),
            ("/a%2", Some("/a%2")),
            ("/a/%2e%2e/admin", Some("/admin")),
            ("/a\\..\\admin", Some("/admin")),
            ("/a//b", Some("/a//b")),
            ("/.hidden", Some("/.hidden")),
            ("*", Some("*")),
            ("/a/%2%65%2%65/admin", Some("/a/%2%65%2%65/admin")),
            ("/%%32e/%%%32%65", Some("/%%32e/%%%32e")),
            ("/%2%6a", Some("/%2j")),
        ] {
            assert_eq!(normalize(path, true, false).as_deref(), wanted, "{path}");
        }
        assert_eq!(normalize("//a///b/", false, true).as_deref(), Some("/a/b/"));
        assert_eq!(normalize("/a/../b", false, false).as_deref(), Some("/a/../b"));
    }
}
