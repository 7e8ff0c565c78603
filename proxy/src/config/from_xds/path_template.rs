//! Path templates (`envoy.extensions.path.match.uri_template.v3`) as regular expressions.
//!
//! `*` is one segment, `**` any number of characters, `{name}` and `{name=pattern}` the same with
//! a name. Only matching is done; names are not captured.

use super::field::unpack;
use super::{At, Refusal, pattern};
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use regex::Regex;

/// Characters of one path segment.
const SEGMENT: &str = r"[a-zA-Z0-9._~%!$&'()+,;:@=*-]+";
/// Characters of any number of segments.
const SEGMENTS: &str = r"[a-zA-Z0-9._~%!$&'()+,;:@=*/-]*";

/// The matcher of a template extension.
pub(super) fn matcher(extension: &TypedExtensionConfig) -> Result<Regex, Refusal> {
    let any = extension.typed_config.as_ref().ok_or_else(|| Refusal::new("no configuration"))?;
    if !any.type_url.ends_with(".UriTemplateMatchConfig") {
        return Err(Refusal::new(format!("unknown extension {}", any.type_url)));
    }
    let config: UriTemplateMatchConfig = unpack(any)?;
    compile(&config.path_template).at("path_template")
}

fn compile(template: &str) -> Result<Regex, Refusal> {
    let path = template
        .strip_prefix('/')
        .ok_or_else(|| Refusal::new(format!("{template:?} does not begin with /")))?;
    let mut out = String::from("/");
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**") {
            out.push_str(SEGMENTS);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('*') {
            out.push_str(SEGMENT);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (variable, tail) = after
                .split_once('}')
                .ok_or_else(|| Refusal::new(format!("{template:?} has an open brace")))?;
            out.push_str(&variable_pattern(variable));
            rest = tail;
        } else {
            out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
    }
    pattern::full(&out)
}

fn variable_pattern(variable: &str) -> String {
    // `{*}` and `{**}` are how AuthorizationPolicy writes them.
    match variable {
        "*" => return SEGMENT.to_owned(),
        "**" => return SEGMENTS.to_owned(),
        _ => {}
    }
    match variable.split_once('=').map(|(_, inner)| inner) {
        None | Some("*") => SEGMENT.to_owned(),
        Some("**") => SEGMENTS.to_owned(),
        Some(inner) => inner
            .split('/')
            .map(|part| match part {
                "*" => SEGMENT.to_owned(),
                "**" => SEGMENTS.to_owned(),
                text => regex::escape(text),
            })
            .collect::<Vec<_>>()
            .join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_as_documented() {
        for (template, path, wanted) in [
            ("/path/template/*", "/path/template/x", true),
            ("/path/template/*", "/path/template/x/y", false),
            ("/path/template/*", "/path/template/", false),
            ("/**/path/template", "/a/b/path/template", true),
            ("/**/path/template", "/path", false),
            ("/foo/{*}/bar", "/foo/x/bar", true),
            ("/foo/{a=v1/*}/bar", "/foo/v1/x/bar", true),
            ("/foo/{a=v1/*}/bar", "/foo/v2/x/bar", false),
            ("/a.b", "/axb", false),
        ] {
            assert_eq!(compile(template).unwrap().is_match(path), wanted, "{template} {path}");
        }
        assert!(compile("foo").is_err());
        assert!(compile("/{a").is_err());
    }
}
