//! CORS: preflights are answered here, and responses say that their reader may have them.
//!
//! As Envoy does it: which method a preflight asks for is the browser's business.

use crate::config::Cors;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use std::sync::Arc;

const ASKS_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOWS_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// A request whose origin is let in.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    origin: HeaderValue,
    policy: Arc<Cors>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It goes on as it is.
    Unconcerned,
    /// It goes on, and its response is marked.
    Admitted(Admitted),
    /// It is answered with these headers and nothing else.
    Answered(HeaderMap),
}

/// Judges a request; `falls` says whether it falls under a share in parts per million.
pub(super) fn judge(
    policy: &Arc<Cors>,
    method: &Method,
    headers: &HeaderMap,
    falls: impl Fn(u32) -> bool,
) -> Verdict {
    let Some(origin) = headers.get(header::ORIGIN).filter(|_| falls(policy.share)) else {
        return Verdict::Unconcerned;
    };
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let preflight = method == Method::OPTIONS && asked.is_some_and(|method| !method.is_empty());
    let text = origin.to_str().unwrap_or_default();
    let known = policy.origins.iter().any(|known| known.matches("*") || known.matches(text));
    if !known && (!preflight || policy.forwards_others) {
        return Verdict::Unconcerned;
    }
    let admitted = Admitted { origin: origin.clone(), policy: Arc::clone(policy) };
    if !preflight {
        return Verdict::Admitted(admitted);
    }
    // A stranger is told what is allowed, but not that it is allowed to it.
    let mut answer = admitted.allowed();
    if known {
        admitted.mark(&mut answer);
        let asks_private = headers.get(&ASKS_PRIVATE).is_some_and(|value| *value == TRUE);
        if policy.private_network && asks_private {
            answer.insert(ALLOWS_PRIVATE, TRUE);
        }
    }
    Verdict::Answered(answer)
}

impl Admitted {
    fn allowed(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        let list = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, &self.policy.methods),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, &self.policy.headers),
            (header::ACCESS_CONTROL_MAX_AGE, &self.policy.max_age),
        ];
        for (name, value) in list {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        headers
    }

    /// Marks the response.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        if self.policy.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(exposed) = &self.policy.exposed {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StringMatch;

    fn policy() -> Arc<Cors> {
        let value = |text| Some(HeaderValue::from_static(text));
        Arc::new(Cors {
            share: 1_000_000,
            origins: vec![StringMatch::exact("http://ok.test")],
            methods: value("GET,POST"),
            headers: None,
            exposed: value("x-e"),
            max_age: value("600"),
            credentials: true,
            private_network: false,
            forwards_others: false,
        })
    }

    fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn judged(policy: &Arc<Cors>, method: &Method, headers: &HeaderMap) -> Verdict {
        judge(policy, method, headers, |share| share > 0)
    }

    #[test]
    fn preflights_of_known_origins_are_answered() {
        let asks = [("origin", "http://ok.test"), ("access-control-request-method", "DELETE")];
        let verdict = judged(&policy(), &Method::OPTIONS, &request(&asks));
        let Verdict::Answered(headers) = verdict else { panic!("{verdict:?}") };
        let wanted = request(&[
            ("access-control-allow-origin", "http://ok.test"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET,POST"),
            ("access-control-expose-headers", "x-e"),
            ("access-control-max-age", "600"),
        ]);
        assert_eq!(headers, wanted);
    }

    #[test]
    fn responses_to_known_origins_are_marked() {
        let asks = request(&[("origin", "http://ok.test")]);
        let verdict = judged(&policy(), &Method::GET, &asks);
        let Verdict::Admitted(admitted) = verdict else { panic!("{verdict:?}") };
        let mut headers = request(&[("access-control-allow-origin", "*")]);
        admitted.mark(&mut headers);
        let wanted = request(&[
            ("access-control-allow-origin", "http://ok.test"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-e"),
        ]);
        assert_eq!(headers, wanted);
    }

    #[test]
    fn others_are_not_concerned_unless_their_preflights_are_kept() {
        let bad = [("origin", "http://bad.test"), ("access-control-request-method", "GET")];
        let bad = request(&bad);
        assert!(matches!(judged(&policy(), &Method::GET, &bad), Verdict::Unconcerned));
        let kept = judged(&policy(), &Method::OPTIONS, &bad);
        let Verdict::Answered(told) = kept else { panic!("{kept:?}") };
        assert!(!told.contains_key("access-control-allow-origin"), "{told:?}");
        let lenient = Arc::new(Cors { forwards_others: true, ..(*policy()).clone() });
        assert!(matches!(judged(&lenient, &Method::OPTIONS, &bad), Verdict::Unconcerned));
        let off = Arc::new(Cors { share: 0, ..(*policy()).clone() });
        let ok = request(&[("origin", "http://ok.test")]);
        assert!(matches!(judged(&off, &Method::GET, &ok), Verdict::Unconcerned));
        assert!(matches!(judged(&policy(), &Method::GET, &request(&[])), Verdict::Unconcerned));
    }
}
