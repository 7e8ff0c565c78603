//! Changes of the path on the way upstream, and the `location` of redirects.

use super::{RequestHead, without_port};
use crate::config::{PathMatch, PathRewrite, Redirect, Route};

/// The new path with query, or `None` when the path stays.
#[must_use]
pub fn rewritten_path(
    rewrite: &PathRewrite,
    matched: &PathMatch,
    path: &str,
    query: Option<&str>,
) -> String {
    let mut new = match rewrite {
        PathRewrite::Prefix(prefix) => replace_matched(matched, prefix, path),
        PathRewrite::Regex { pattern, substitution } => {
            pattern.replace_all(path, dollar_groups(substitution).as_str()).into_owned()
        }
    };
    if !new.starts_with('/') {
        new.insert(0, '/');
    }
    if let Some(query) = query {
        new.push('?');
        new.push_str(query);
    }
    new
}

/// The matched part of the path becomes `new`; the rest stays.
fn replace_matched(matched: &PathMatch, new: &str, path: &str) -> String {
    let length = match matched {
        PathMatch::Prefix { value, .. }
        | PathMatch::Exact { value, .. }
        | PathMatch::SeparatedPrefix { value, .. } => value.len(),
        PathMatch::Regex(_) => path.len(),
    };
    let rest = path.get(length..).unwrap_or_default();
    format!("{new}{rest}")
}

/// RE2 writes groups as `\1`, the regex crate as `${1}`.
fn dollar_groups(substitution: &str) -> String {
    let mut out = String::with_capacity(substitution.len() + 8);
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    out
}

/// The `location` of a redirect.
#[must_use]
pub fn location(redirect: &Redirect, route: &Route, head: &RequestHead<'_>) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(head.scheme);
    let host = redirect.host.as_deref().unwrap_or(head.authority);
    let authority = match redirect.port {
        Some(port) if default_port(scheme) == Some(port) => without_port(host).to_owned(),
        Some(port) => format!("{}:{port}", without_port(host)),
        None if redirect.scheme.is_some() && redirect.host.is_none() => {
            drop_other_default(host, scheme).to_owned()
        }
        None => host.to_owned(),
    };
    let path = match (&redirect.path, &redirect.prefix_rewrite) {
        (Some(path), _) => path.clone(),
        (None, Some(prefix)) => replace_matched(&route.matches.path, prefix, head.path),
        (None, None) => head.path.to_owned(),
    };
    match head.query {
        Some(query) if !redirect.strip_query && !path.contains('?') => {
            format!("{scheme}://{authority}{path}?{query}")
        }
        _ => format!("{scheme}://{authority}{path}"),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// `:80` means nothing once the scheme became `https`, and the other way round.
fn drop_other_default<'h>(host: &'h str, scheme: &str) -> &'h str {
    let old_default = if scheme == "https" { ":80" } else { ":443" };
    host.strip_suffix(old_default).unwrap_or(host)
}
