//! Finishing responses: what every answer gets on its way downstream, ours and the upstream's.

use super::cors::Admitted;
use super::forwarded::milliseconds;
use super::headers::{apply, grpc_status, strip_hop_by_hop};
use super::local_reply::LocalReply;
use super::record::Exchange;
use super::response_body::{BodyLimits, Held, ResponseBody};
use super::session::Session;
use crate::config::{Direction, ReplyHeaders, Route, VirtualHost, WeightedCluster};
use http::header::{CONNECTION, HeaderName, SERVER};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use hyper::body::Incoming;

/// How many attempts were made.
pub(super) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// What the request asked of the response.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The peer exchanges metadata and wants ours.
    pub(super) peer_metadata: bool,
    /// gRPC was asked for.
    pub(super) grpc: bool,
    /// The response says how many attempts were made.
    pub(super) attempt_count: bool,
    /// A page of another origin asked and may have it.
    pub(super) cors: Option<Box<Admitted>>,
}

/// Header changes of the response, from the narrowest to the widest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Edits<'r> {
    pub(super) cluster: Option<&'r WeightedCluster>,
    pub(super) route: Option<&'r Route>,
    pub(super) host: Option<&'r VirtualHost>,
}

impl Edits<'_> {
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        if let Some(cluster) = self.cluster {
            apply(&cluster.headers.response, headers);
        }
        if let Some(route) = self.route {
            apply(&route.headers.response, headers);
        }
        if let Some(host) = self.host {
            apply(&host.headers.response, headers);
        }
    }
}

/// An answer of the proxy itself.
pub(super) fn local(
    session: &Session,
    mut exchange: Exchange,
    wanted: &Wanted,
    reply: LocalReply,
) -> Response<ResponseBody> {
    let (status, mut headers, body, grpc) = reply.render(wanted.grpc);
    exchange.record.grpc_status = grpc;
    if exchange.is_unread() && exchange.record.version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let flags = exchange.record.flags;
    let fits = |it: &&ReplyHeaders| it.flags.iter().any(|flag| flags.has_named(flag));
    if let Some(added) = session.manager.reply_headers.iter().find(fits) {
        apply(&added.edit, &mut headers);
    }
    finish_headers(session, &mut exchange, wanted, status, &mut headers);
    let sent = exchange.record.method != Method::HEAD;
    let mut response = Response::new(ResponseBody::ready(body, exchange, sent));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An answer with headers of its own (redirects, direct responses).
pub(super) fn direct(
    session: &Session,
    mut exchange: Exchange,
    wanted: &Wanted,
    answer: (StatusCode, HeaderMap, bytes::Bytes),
) -> Response<ResponseBody> {
    let (status, mut headers, body) = answer;
    finish_headers(session, &mut exchange, wanted, status, &mut headers);
    let sent = exchange.record.method != Method::HEAD;
    let mut response = Response::new(ResponseBody::ready(body, exchange, sent));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The upstream's answer.
pub(super) fn upstream(
    session: &Session,
    mut exchange: Exchange,
    wanted: &Wanted,
    answer: (Response<Incoming>, Held, BodyLimits),
    edits: Edits<'_>,
) -> Response<ResponseBody> {
    let (response, held, limits) = answer;
    let (mut parts, incoming) = response.into_parts();
    upstream_headers(session, &mut exchange, &mut parts.headers, edits);
    finish_headers(session, &mut exchange, wanted, parts.status, &mut parts.headers);
    let mut response = Response::new(ResponseBody::upstream(incoming, held, limits, exchange));
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

/// What is done to an upstream's headers before anything else.
pub(super) fn upstream_headers(
    session: &Session,
    exchange: &mut Exchange,
    headers: &mut HeaderMap,
    edits: Edits<'_>,
) {
    strip_hop_by_hop(headers);
    let inbound = session.downstream.direction == Direction::Inbound;
    let taken = session.worker.peers.take(headers);
    if !inbound {
        exchange.record.upstream_peer = taken.labels;
    }
    if exchange.record.grpc {
        exchange.record.grpc_status = grpc_status(headers);
    }
    let taken = exchange.record.response_duration.unwrap_or_default();
    headers.insert(SERVICE_TIME, milliseconds(taken.as_millis()));
    edits.apply(headers);
}

/// What every response gets.
pub(super) fn finish_headers(
    session: &Session,
    exchange: &mut Exchange,
    wanted: &Wanted,
    status: StatusCode,
    headers: &mut HeaderMap,
) {
    let manager = &session.manager;
    if session.is_closing() && exchange.record.version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if !manager.pass_server_header {
        headers.insert(SERVER, manager.server_name.clone());
    }
    if wanted.peer_metadata
        && let Some(local) = &session.worker.local
    {
        local.add_to(headers);
    }
    if wanted.attempt_count {
        headers.insert(ATTEMPT_COUNT, HeaderValue::from(exchange.record.attempts));
    }
    if let Some(admitted) = &wanted.cors {
        admitted.mark(headers);
    }
    exchange.record.status = Some(status);
    if !manager.access_log.is_empty() {
        exchange.record.response_headers = Some(Box::new(headers.clone()));
    }
}
