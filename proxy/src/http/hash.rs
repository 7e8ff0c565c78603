//! The hash of a request for consistent balancing (`hash_policy` of a route).

use super::downstream::Downstream;
use super::route::RequestHead;
use crate::config::{HashPolicy, HashRule};
use crate::upstream::balance::key_hash;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// The hash, and a cookie to set where the policy asks for one that the client lacks.
#[derive(Debug, Default)]
pub(super) struct RequestHash {
    /// Hash; `None` when no policy found anything.
    pub(super) value: Option<u64>,
    /// `set-cookie` of the response.
    pub(super) cookie: Option<HeaderValue>,
}

impl RequestHash {
    /// Hashes a request; `random` becomes the value of a new cookie.
    #[must_use]
    pub(super) fn new(
        policies: &[HashRule],
        head: &RequestHead<'_>,
        downstream: &Downstream,
        random: u64,
    ) -> Self {
        let mut out = Self::default();
        for policy in policies {
            let found = match &policy.by {
                HashPolicy::Header(name) => {
                    head.headers.get(name).and_then(|v| v.to_str().ok()).map(key_hash)
                }
                HashPolicy::SourceIp => Some(key_hash(&downstream.peer.ip().to_string())),
                HashPolicy::Query(name) => {
                    super::route::query_parameter(head.query, name).map(|value| key_hash(&value))
                }
                HashPolicy::Cookie { name, ttl, path } => match cookie(head.headers, name) {
                    Some(value) => Some(key_hash(value)),
                    None => ttl.map(|ttl| {
                        let value = format!("{random:016x}");
                        out.cookie = set_cookie(name, &value, ttl, path);
                        key_hash(&value)
                    }),
                },
            };
            if let Some(found) = found {
                out.value = Some(out.value.map_or(found, |before| before.rotate_left(1) ^ found));
                if policy.terminal {
                    break;
                }
            }
        }
        out
    }

    /// Adds the cookie to a response.
    pub(super) fn add_cookie(&mut self, headers: &mut HeaderMap) {
        if let Some(cookie) = self.cookie.take() {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

fn set_cookie(name: &str, value: &str, ttl: Duration, path: &str) -> Option<HeaderValue> {
    let mut text = format!("{name}=\"{value}\"");
    if !ttl.is_zero() {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !path.is_empty() {
        text.push_str(&format!("; Path={path}"));
    }
    text.push_str("; HttpOnly");
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Direction;
    use http::Method;

    fn hash(policies: &[HashPolicy], headers: &HeaderMap, query: Option<&str>) -> RequestHash {
        let head = RequestHead {
            method: &Method::GET,
            authority: "h",
            scheme: "http",
            path: "/",
            query,
            headers,
        };
        let downstream = Downstream {
            peer: "10.0.0.7:4711".parse().unwrap(),
            local: "10.0.0.1:80".parse().unwrap(),
            original_dst: None,
            direction: Direction::Outbound,
            tls: None,
        };
        let rule = |by: &HashPolicy| HashRule { by: by.clone(), terminal: false };
        let rules: Vec<_> = policies.iter().map(rule).collect();
        RequestHash::new(&rules, &head, &downstream, 0xabc)
    }

    #[test]
    fn each_policy_hashes_its_own() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("jason"));
        headers.insert(COOKIE, HeaderValue::from_static("a=1; sticky=\"v\""));
        let header = [HashPolicy::Header(http::HeaderName::from_static("x-user"))];
        assert_eq!(hash(&header, &headers, None).value, Some(key_hash("jason")));
        let cookie = [HashPolicy::Cookie { name: "sticky".into(), ttl: None, path: String::new() }];
        assert_eq!(hash(&cookie, &headers, None).value, Some(key_hash("v")));
        assert_eq!(hash(&[HashPolicy::SourceIp], &headers, None).value, Some(key_hash("10.0.0.7")));
        let query = [HashPolicy::Query("k".into())];
        assert_eq!(hash(&query, &headers, Some("k=v")).value, Some(key_hash("v")));
        assert_eq!(hash(&query, &headers, None).value, None);
    }

    #[test]
    fn an_absent_cookie_is_made() {
        let policy = [HashPolicy::Cookie {
            name: "sticky".into(),
            ttl: Some(Duration::from_secs(60)),
            path: "/".into(),
        }];
        let mut made = hash(&policy, &HeaderMap::new(), None);
        let mut response = HeaderMap::new();
        made.add_cookie(&mut response);
        let wanted = "sticky=\"0000000000000abc\"; Max-Age=60; Path=/; HttpOnly";
        assert_eq!(response[SET_COOKIE], wanted);
        assert_eq!(made.value, Some(key_hash("0000000000000abc")));
    }
}
