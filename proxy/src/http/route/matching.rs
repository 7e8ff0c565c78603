//! Whether a request meets the criteria of a route.

use super::RequestHead;
use crate::config::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, StringMatch};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// All criteria hold.
pub(super) fn matches(wanted: &RouteMatch, head: &RequestHead<'_>) -> bool {
    path(&wanted.path, head.path)
        && wanted.headers.iter().all(|matcher| header(matcher, head))
        && wanted.query.iter().all(|matcher| query(matcher, head.query))
}

fn path(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Prefix { value, case_sensitive } => starts(path, value, *case_sensitive),
        PathMatch::Exact { value, case_sensitive: true } => path == value,
        PathMatch::Exact { value, case_sensitive: false } => path.eq_ignore_ascii_case(value),
        PathMatch::SeparatedPrefix { value, case_sensitive } => {
            starts(path, value, *case_sensitive)
                && matches!(path.as_bytes().get(value.len()), None | Some(b'/'))
        }
        PathMatch::Regex(regex) => regex.is_match(path),
    }
}

fn starts(path: &str, prefix: &str, case_sensitive: bool) -> bool {
    if case_sensitive {
        path.starts_with(prefix)
    } else {
        path.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    }
}

fn header(wanted: &HeaderMatch, head: &RequestHead<'_>) -> bool {
    wanted.accepts(header_value(&wanted.name, head).as_deref())
}

/// The value of a header or pseudo header; several values are joined with commas.
fn header_value<'h>(name: &str, head: &RequestHead<'h>) -> Option<Cow<'h, str>> {
    match name {
        ":method" => Some(Cow::Borrowed(head.method.as_str())),
        ":authority" | "host" => Some(Cow::Borrowed(head.authority)),
        ":scheme" => Some(Cow::Borrowed(head.scheme)),
        ":path" => Some(match head.query {
            Some(query) => Cow::Owned(format!("{}?{query}", head.path)),
            None => Cow::Borrowed(head.path),
        }),
        _ => {
            let mut values = head.headers.get_all(name).iter();
            let first = values.next()?.to_str().ok()?;
            let mut joined = Cow::Borrowed(first);
            for value in values {
                let text = joined.to_mut();
                text.push(',');
                text.push_str(value.to_str().ok()?);
            }
            Some(joined)
        }
    }
}

fn query(wanted: &QueryMatch, query: Option<&str>) -> bool {
    let Some(value) = query_value(query, &wanted.name) else { return false };
    wanted.value.as_ref().is_none_or(|matcher: &StringMatch| matcher.matches(&value))
}

/// The first value of a query parameter, decoded.
#[must_use]
pub fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, str>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = percent_decode_str(key).decode_utf8_lossy();
        (key == name).then(|| percent_decode_str(value).decode_utf8_lossy())
    })
}
