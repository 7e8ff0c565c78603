//! Headers that tell the upstream about the client: `x-forwarded-client-cert`,
//! `x-forwarded-for`, `x-forwarded-proto`, `x-request-id`.
//!
//! Formats follow Envoy's documentation of these headers. Pure, but for the random id that
//! comes in as a number.

use super::downstream::{Downstream, PeerCertificate};
use crate::config::ForwardClientCert;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use std::fmt::Write;
use std::net::IpAddr;

/// `x-forwarded-client-cert`.
pub const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// `x-forwarded-for`.
pub const XFF: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-forwarded-proto`.
pub const XFP: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-envoy-internal`.
pub const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const EXTERNAL: HeaderName = HeaderName::from_static("x-envoy-external-address");
/// `x-request-id`.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The element that stands for one client certificate:
/// `By=<our URI>;Hash=<sha256>;Subject="<subject>";URI=<uri>;DNS=<name>`.
#[must_use]
pub fn certificate_element(local_uris: &[String], peer: &PeerCertificate) -> String {
    let mut out = String::with_capacity(256);
    for uri in local_uris {
        push(&mut out, "By", uri);
    }
    push(&mut out, "Hash", &peer.hash);
    if !out.is_empty() {
        out.push(';');
    }
    out.push_str("Subject=\"");
    for c in peer.subject.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    for uri in &peer.uris {
        push(&mut out, "URI", uri);
    }
    for name in &peer.dns {
        push(&mut out, "DNS", name);
    }
    out
}

fn push(out: &mut String, key: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    if !out.is_empty() {
        out.push(';');
    }
    out.push_str(key);
    out.push('=');
    out.push_str(value);
}

/// Treats `x-forwarded-client-cert` as the connection manager says.
pub fn client_cert(rule: ForwardClientCert, downstream: &Downstream, headers: &mut HeaderMap) {
    let own = || {
        let peer = downstream.tls.as_ref()?.peer.as_ref()?;
        peer.forwarded.clone()
    };
    match rule {
        ForwardClientCert::AlwaysForwardOnly => {}
        ForwardClientCert::Sanitize => drop(headers.remove(XFCC)),
        ForwardClientCert::ForwardOnly => {
            if !downstream.is_mutual_tls() {
                headers.remove(XFCC);
            }
        }
        ForwardClientCert::AppendForward => match own() {
            Some(element) => append_element(headers, element),
            None => drop(headers.remove(XFCC)),
        },
        ForwardClientCert::SanitizeSet => match own() {
            Some(element) => drop(headers.insert(XFCC, element)),
            None => drop(headers.remove(XFCC)),
        },
    }
}

fn append_element(headers: &mut HeaderMap, element: HeaderValue) {
    let Some(before) = headers.get(XFCC) else {
        headers.insert(XFCC, element);
        return;
    };
    let joined = [before.as_bytes(), b",", element.as_bytes()].concat();
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(XFCC, value);
    }
}

/// `x-forwarded-for` and `x-forwarded-proto`. A sidecar passes on what it got; an edge appends the
/// client and states the scheme.
pub fn client_address(edge: Option<IpAddr>, scheme: &'static str, headers: &mut HeaderMap) {
    let scheme = HeaderValue::from_static(scheme);
    let Some(client) = edge else {
        headers.entry(XFP).or_insert(scheme);
        return;
    };
    headers.insert(XFP, scheme);
    let chain = match headers.get(XFF).and_then(|value| value.to_str().ok()) {
        Some(before) if !before.is_empty() => format!("{before},{client}"),
        _ => client.to_string(),
    };
    if let Ok(value) = HeaderValue::try_from(chain) {
        headers.insert(XFF, value);
    }
}

/// At an edge: `x-envoy-internal` for clients of our own networks, `x-envoy-external-address` with
/// the address of any other.
pub fn origin_of(client: IpAddr, internal: bool, headers: &mut HeaderMap) {
    if internal {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
    } else if let Ok(value) = HeaderValue::try_from(client.to_string()) {
        headers.remove(INTERNAL);
        headers.insert(EXTERNAL, value);
    }
}

/// A version 4 UUID made of `random`.
#[must_use]
pub fn request_id(random: u128) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (random & !(0xf000 << 64) & !(0xc000 << 48)) | (0x4000 << 64) | (0x8000 << 48);
    let mut text = [b'-'; 36];
    let mut at = 0;
    for byte in bits.to_be_bytes() {
        if matches!(at, 8 | 13 | 18 | 23) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 0xf)];
        at += 2;
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Milliseconds as a header value, without allocation for small numbers.
#[must_use]
pub fn milliseconds(value: u128) -> HeaderValue {
    match u32::try_from(value) {
        Ok(0) => HeaderValue::from_static("0"),
        Ok(1) => HeaderValue::from_static("1"),
        Ok(small) => HeaderValue::from(small),
        Err(_) => {
            let mut text = String::new();
            let written = write!(text, "{value}");
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("0"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Direction;
    use crate::http::downstream::DownstreamTls;
    use std::sync::Arc;

    fn peer() -> PeerCertificate {
        PeerCertificate {
            uris: vec!["spiffe://cluster.local/ns/shop/sa/productpage".into()],
            dns: vec!["a.test".into()],
            subject: "CN=\"x\"".into(),
            hash: "ab12".into(),
            forwarded: None,
        }
    }

    fn downstream(mutual: bool) -> Downstream {
        let local = ["spiffe://cluster.local/ns/shop/sa/reviews".to_owned()];
        let mut peer = peer();
        peer.forwarded = HeaderValue::try_from(certificate_element(&local, &peer)).ok();
        let tls = DownstreamTls { peer: Some(peer), ..DownstreamTls::default() };
        Downstream {
            peer: "10.0.0.7:4711".parse().unwrap(),
            local: "10.0.0.1:80".parse().unwrap(),
            original_dst: None,
            direction: Direction::Inbound,
            tls: mutual.then(|| Arc::new(tls)),
        }
    }

    const ELEMENT: &str = "By=spiffe://cluster.local/ns/shop/sa/reviews;Hash=ab12;\
        Subject=\"CN=\\\"x\\\"\";URI=spiffe://cluster.local/ns/shop/sa/productpage;DNS=a.test";

    #[test]
    fn client_certificates_are_forwarded_as_configured() {
        use ForwardClientCert::{
            AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet,
        };
        let appended = format!("By=x,{ELEMENT}");
        for (rule, mutual, wanted) in [
            (Sanitize, true, None),
            (ForwardOnly, true, Some("By=x")),
            (ForwardOnly, false, None),
            (AppendForward, true, Some(appended.as_str())),
            (AppendForward, false, None),
            (SanitizeSet, true, Some(ELEMENT)),
            (SanitizeSet, false, None),
            (AlwaysForwardOnly, false, Some("By=x")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(XFCC, HeaderValue::from_static("By=x"));
            client_cert(rule, &downstream(mutual), &mut headers);
            let got = headers.get(XFCC).map(|v| v.to_str().unwrap());
            assert_eq!(got, wanted, "{rule:?} {mutual}");
        }
    }

    #[test]
    fn addresses_are_appended_only_at_the_edge() {
        let mut headers = HeaderMap::new();
        client_address(None, "http", &mut headers);
        assert_eq!(headers.get(XFF), None);
        assert_eq!(headers.get(XFP).unwrap(), "http");
        headers.insert(XFF, HeaderValue::from_static("1.2.3.4"));
        client_address(Some("10.0.0.7".parse().unwrap()), "https", &mut headers);
        assert_eq!(headers.get(XFF).unwrap(), "1.2.3.4,10.0.0.7");
        assert_eq!(headers.get(XFP).unwrap(), "https");
    }

    #[test]
    fn request_ids_are_version_4_uuids() {
        assert_eq!(request_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(request_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
