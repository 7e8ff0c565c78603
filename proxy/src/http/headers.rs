//! Header hygiene: what never crosses a proxy, and the changes routes ask for.

use crate::config::HeaderEdit;
use http::header::{CONNECTION, EXPECT, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The upgrade a request asks for (`websocket`, in any case); `None` without one.
#[must_use]
pub fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let connection = headers.get_all(CONNECTION).iter();
    let asks = connection
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    asks.then(|| protocol.clone())
}

/// Removes what belongs to one connection only: hop-by-hop headers, headers that `connection`
/// nominates, and `expect` (the proxy itself answers `100-continue`). `te: trailers` stays,
/// because gRPC needs it.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have one of them or none; finding those by name is cheaper than by hash.
    let found: u32 = headers.keys().map(|name| hop_by_hop_bit(name.as_str())).sum();
    if found == 0 {
        return;
    }
    if headers.contains_key(CONNECTION) {
        strip_nominated(headers);
    }
    if found == hop_by_hop_bit(CONNECTION.as_str()) {
        return;
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &TRANSFER_ENCODING, &UPGRADE, &HTTP2_SETTINGS] {
        headers.remove(name);
    }
    headers.remove(EXPECT);
    if let Some(te) = headers.get(TE) {
        let trailers = te
            .to_str()
            .is_ok_and(|text| text.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")));
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(TE);
        }
    }
}

/// A number of its own for `connection`, another for everything else that goes; names of a map are
/// different, so sums do not run into each other.
fn hop_by_hop_bit(name: &str) -> u32 {
    match name {
        "connection" => 1,
        "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "http2-settings"
        | "expect" | "te" => 2,
        _ => 0,
    }
}

/// Headers that `connection` names go, but never those that routing and framing rest on.
fn strip_nominated(headers: &mut HeaderMap) {
    let mut values = headers.get_all(CONNECTION).iter();
    if let (Some(only), None) = (values.next(), values.next())
        && matches!(only.as_bytes(), b"keep-alive" | b"close")
    {
        headers.remove(CONNECTION);
        return;
    }
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .filter(|name: &HeaderName| {
            *name != HOST
                && *name != TE
                && *name != http::header::CONTENT_LENGTH
                && !name.as_str().starts_with("x-forwarded-")
                && !name.as_str().starts_with("x-envoy-")
        })
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

/// Makes the changes of a route, virtual host or cluster.
pub fn apply(edit: &HeaderEdit, headers: &mut HeaderMap) {
    for name in &edit.remove {
        headers.remove(name);
    }
    for (name, value) in &edit.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &edit.overwrite {
        if headers.contains_key(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in &edit.add {
        headers.append(name.clone(), value.clone());
    }
    for (name, value) in &edit.add_absent {
        if !headers.contains_key(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// The request is gRPC by its `content-type`.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(http::header::CONTENT_TYPE) else { return false };
    let text = value.as_bytes();
    text.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// `grpc-status` as a number.
#[must_use]
pub fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn hop_by_hop_headers_and_nominated_ones_go() {
        let mut map = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "host"),
            ("x-secret", "1"),
            ("host", "reviews"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("expect", "100-continue"),
            ("x-request-id", "1"),
        ]);
        strip_hop_by_hop(&mut map);
        let left = headers(&[("host", "reviews"), ("te", "trailers"), ("x-request-id", "1")]);
        assert_eq!(map, left);
    }

    #[test]
    fn upgrades_need_both_headers() {
        let both = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert_eq!(upgrade_of(&both).unwrap(), "WebSocket");
        assert_eq!(upgrade_of(&headers(&[("upgrade", "websocket")])), None);
    }

    #[test]
    fn edits_remove_then_set_then_add() {
        let name = |text: &'static str| HeaderName::from_static(text);
        let value = HeaderValue::from_static;
        let mut map = headers(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let edit = HeaderEdit {
            remove: vec![name("a")],
            set: vec![(name("b"), value("2"))],
            add: vec![(name("c"), value("2")), (name("a"), value("3"))],
            add_absent: vec![(name("b"), value("9")), (name("d"), value("4"))],
            overwrite: vec![(name("c"), value("0")), (name("e"), value("9"))],
        };
        apply(&edit, &mut map);
        let wanted = [("b", "2"), ("c", "0"), ("c", "2"), ("a", "3"), ("d", "4")];
        assert_eq!(map, headers(&wanted));
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (text, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", text)])), wanted, "{text}");
        }
    }
}
