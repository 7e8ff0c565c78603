//! The head of the upstream request: rewrites of the route, and its two forms on the wire.
//!
//! Between downstream and upstream a head is kept in one form: path and query as URI, the host
//! in the `host` header.

use super::route::{RequestHead, rewritten_path};
use crate::config::{Forward, Route};
use crate::upstream::RequestBody;
use http::header::{COOKIE, HOST, HeaderName};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// Method, path and headers of a request, to be sent once or several times.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

impl Head {
    pub(super) fn request(self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Brings a downstream head into the form kept between both sides. `false`: no usable host.
pub(super) fn canonical(parts: &mut Parts) -> bool {
    if let Some(authority) = parts.uri.authority() {
        let Ok(host) = HeaderValue::from_str(authority.as_str()) else { return false };
        parts.headers.insert(HOST, host);
        let path = parts.uri.path_and_query().cloned();
        parts.uri = match path {
            Some(path) => Uri::from(path),
            None => Uri::from(PathAndQuery::from_static("/")),
        };
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(is_host),
        (None, None) => parts.version == Version::HTTP_10,
        _ => false,
    }
}

/// HTTP/2 may split `cookie` into crumbs; everything else wants it whole (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// A host header that can be part of a URI; anything else is a smuggling attempt.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| {
            b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'-' | b'.'
                        | b'_'
                        | b'~'
                        | b':'
                        | b'['
                        | b']'
                        | b'%'
                        | b'*'
                        | b'!'
                        | b'$'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'+'
                        | b','
                        | b';'
                        | b'='
                )
        })
}

/// Makes the route's changes of path and host.
pub(super) fn rewrite(parts: &mut Parts, forward: &Forward, route: &Route) {
    if let Some(rewrite) = &forward.rewrite {
        let (path, query) = (parts.uri.path(), parts.uri.query());
        let new = rewritten_path(rewrite, &route.matches.path, path, query);
        if let Ok(new) = PathAndQuery::try_from(new) {
            let old = parts.uri.path_and_query().map(PathAndQuery::as_str);
            if let Some(old) = old.and_then(|old| HeaderValue::from_str(old).ok()) {
                parts.headers.insert(ORIGINAL_PATH, old);
            }
            parts.uri = Uri::from(new);
        }
    }
    if let Some(host) = &forward.host_rewrite {
        parts.headers.insert(HOST, host.clone());
    }
}

/// Gives a request the form of HTTP/2: scheme and authority in the URI, no `host` header.
pub(super) fn make_http2(request: &mut Request<RequestBody>, tls: bool) {
    let host = request.headers_mut().remove(HOST);
    let authority = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    uri.authority = authority.or_else(|| Some(Authority::from_static("unknown.invalid")));
    if uri.path_and_query.is_none() {
        uri.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

/// What a route choice looks at in a canonical head.
pub(super) fn request_head<'a>(parts: &'a Parts, scheme: &'a str) -> RequestHead<'a> {
    RequestHead {
        method: &parts.method,
        authority: authority(&parts.headers),
        scheme,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
    }
}

/// The host of a canonical head.
pub(super) fn authority(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn heads_become_canonical() {
        let mut h2 = parts(Request::get("http://reviews:9080/a?b=1").version(Version::HTTP_2));
        assert!(canonical(&mut h2));
        assert_eq!(
            (h2.uri.to_string().as_str(), authority(&h2.headers)),
            ("/a?b=1", "reviews:9080")
        );
        let mut absolute = parts(Request::get("http://real/").header("host", "fake"));
        assert!(canonical(&mut absolute));
        assert_eq!(authority(&absolute.headers), "real", "the request line wins (RFC 9112, 3.2.2)");
    }

    #[test]
    fn hosts_that_are_missing_doubled_or_odd_are_refused() {
        assert!(!canonical(&mut parts(Request::get("/"))));
        assert!(canonical(&mut parts(Request::get("/").version(Version::HTTP_10))));
        let doubled = Request::get("/").header("host", "a").header("host", "b");
        assert!(!canonical(&mut parts(doubled)));
        for odd in ["a b", "a/b", "a@b", ""] {
            assert!(!canonical(&mut parts(Request::get("/").header("host", odd))), "{odd}");
        }
    }

    #[test]
    fn http2_carries_the_host_in_the_uri() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("reviews:9080"));
        let head = Head { method: Method::GET, uri: Uri::from_static("/x?y"), headers };
        let mut request = head.request(RequestBody::Empty);
        make_http2(&mut request, true);
        assert_eq!(request.uri(), "https://reviews:9080/x?y");
        assert!(request.headers().is_empty());
    }
}
