//! Answers the proxy gives itself, in the words and shape of Envoy.
//!
//! A gRPC client gets status 200 with `grpc-status` and `grpc-message`, anyone else a plain text
//! body.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use std::borrow::Cow;

/// Body when no route is found: none, as Envoy has it.
pub(super) const NO_ROUTE: &str = "";
/// Body when no endpoint may be picked.
pub(super) const NO_HEALTHY_UPSTREAM: &str = "no healthy upstream";
/// Body when the upstream took too long.
pub(super) const UPSTREAM_TIMEOUT: &str = "upstream request timeout";
/// Body when nothing passed for too long.
pub(super) const STREAM_TIMEOUT: &str = "stream timeout";
/// Body when the client broke the protocol.
pub(super) const BAD_REQUEST: &str = "Bad Request";
/// Body when authorization refuses.
pub(super) const RBAC_DENIED: &str = "RBAC: access denied";
/// Body when a fault answers.
pub(super) const FAULT_ABORT: &str = "fault filter abort";

/// Characters that `grpc-message` must percent-encode (gRPC over HTTP/2, "Status-Message").
const GRPC_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// An answer before it is given its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalReply {
    /// HTTP status.
    pub(super) status: StatusCode,
    /// Text.
    pub(super) body: Cow<'static, str>,
    /// gRPC status, if it does not follow from the HTTP status.
    pub(super) grpc_status: Option<u32>,
    /// Further headers.
    pub(super) headers: Option<Box<HeaderMap>>,
}

impl LocalReply {
    /// An answer with a status and a text.
    #[must_use]
    pub(super) fn new(status: StatusCode, body: impl Into<Cow<'static, str>>) -> Self {
        Self { status, body: body.into(), grpc_status: None, headers: None }
    }

    /// Status, headers, body and gRPC status of the answer.
    #[must_use]
    pub(super) fn render(self, grpc: bool) -> (StatusCode, HeaderMap, Bytes, Option<u32>) {
        let mut headers = self.headers.map_or_else(HeaderMap::new, |headers| *headers);
        headers.reserve(6);
        if grpc {
            let code = self.grpc_status.unwrap_or_else(|| grpc_of_http(self.status));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(code));
            let message = percent_encode(self.body.as_bytes(), GRPC_MESSAGE).to_string();
            if !message.is_empty()
                && let Ok(value) = HeaderValue::try_from(message)
            {
                headers.insert(HeaderName::from_static("grpc-message"), value);
            }
            return (StatusCode::OK, headers, Bytes::new(), Some(code));
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        if !self.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        let body = match self.body {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        };
        (self.status, headers, body, None)
    }
}

/// The gRPC status that stands for an HTTP status (gRPC's own mapping).
#[must_use]
pub(super) fn grpc_of_http(status: StatusCode) -> u32 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// The HTTP status that stands for a gRPC status where a client does not speak gRPC.
#[must_use]
pub(super) fn http_of_grpc(code: u32) -> StatusCode {
    match code {
        0 => StatusCode::OK,
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Text for a reset before the response began, in Envoy's words.
#[must_use]
pub(super) fn reset_text(reason: &str) -> String {
    format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_clients_get_text() {
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, NO_HEALTHY_UPSTREAM);
        let (status, headers, body, grpc) = reply.render(false);
        assert_eq!((status.as_u16(), grpc), (503, None));
        assert_eq!(headers["content-length"], "19");
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(body, "no healthy upstream");
    }

    #[test]
    fn grpc_clients_get_a_grpc_status() {
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "100% gone");
        let (status, headers, body, grpc) = reply.render(true);
        assert_eq!((status.as_u16(), grpc), (200, Some(14)));
        assert_eq!(headers["grpc-status"], "14");
        assert_eq!(headers["grpc-message"], "100%25 gone");
        assert!(body.is_empty());
    }

    #[test]
    fn an_empty_answer_has_no_content_type() {
        let (_, headers, _, _) = LocalReply::new(StatusCode::NOT_FOUND, NO_ROUTE).render(false);
        assert_eq!(headers.get("content-type"), None);
        assert_eq!(headers["content-length"], "0");
    }
}
