//! What routes say to single HTTP filters: CORS and fault injection.

use super::StringMatch;
use http::{HeaderValue, StatusCode};
use std::time::Duration;

/// What pages of other origins may do (`CorsPolicy`).
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// On which share of requests it is in force, parts per million.
    pub share: u32,
    /// Origins that are let in.
    pub origins: Vec<StringMatch>,
    /// `access-control-allow-methods`.
    pub methods: Option<HeaderValue>,
    /// `access-control-allow-headers`.
    pub headers: Option<HeaderValue>,
    /// `access-control-expose-headers`.
    pub exposed: Option<HeaderValue>,
    /// `access-control-max-age`.
    pub max_age: Option<HeaderValue>,
    /// `access-control-allow-credentials`.
    pub credentials: bool,
    /// `access-control-allow-private-network`, where asked for.
    pub private_network: bool,
    /// Preflights of other origins go upstream.
    pub forwards_others: bool,
}

/// Fault injection of a route.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fault {
    /// Delay before the request goes on, with its share in parts per million.
    pub delay: Option<(Duration, u32)>,
    /// Answer instead of the request, with its share in parts per million.
    pub abort: Option<(Abort, u32)>,
}

/// What an injected failure looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status.
    Http(StatusCode),
    /// A gRPC status code.
    Grpc(u32),
}
