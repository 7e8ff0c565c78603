//! One attempt to get an answer from a cluster: circuit breaker, endpoint, connection, request.

use super::flags::Flags;
use super::local_reply::{
    BAD_REQUEST, LocalReply, NO_HEALTHY_UPSTREAM, STREAM_TIMEOUT, UPSTREAM_TIMEOUT, reset_text,
};
use super::outgoing::make_http2;
use super::record::RequestRecord;
use super::response_body::Held;
use super::retry::AttemptEnd;
use crate::config::UpstreamHttp;
use crate::upstream::outlier::Outcome;
use crate::upstream::{
    BodyError, Breaker, ClusterRuntime, Demand, Host, HttpVersion, Lease, PickRequest, RequestBody,
    SendFailure, Slot, UpstreamError,
};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What an attempt needs beside the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) cluster: &'a Rc<ClusterRuntime>,
    pub(super) pick: PickRequest<'a>,
    pub(super) version: HttpVersion,
    pub(super) mesh_alpn: bool,
    pub(super) per_try: Option<Duration>,
}

/// An upstream answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
    pub(super) busy: crate::upstream::Busy,
    pub(super) slot: Slot,
}

/// No answer: what the client would get, and what may be done about it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reply: LocalReply,
    pub(super) flags: Flags,
    pub(super) details: Cow<'static, str>,
    /// How the attempt ended, if another may be made.
    pub(super) end: Option<AttemptEnd>,
    /// The transport's words.
    pub(super) reason: Option<String>,
    /// The request, when nothing of it was sent.
    pub(super) unsent: Option<Box<Request<RequestBody>>>,
}

/// The HTTP version for a cluster and a downstream request.
pub(super) fn version(configured: UpstreamHttp, downstream: Version, upgrade: bool) -> HttpVersion {
    match configured {
        _ if upgrade => HttpVersion::Http1,
        UpstreamHttp::Http2 => HttpVersion::Http2,
        UpstreamHttp::SameAsDownstream if downstream == Version::HTTP_2 => HttpVersion::Http2,
        UpstreamHttp::Http1 | UpstreamHttp::SameAsDownstream => HttpVersion::Http1,
    }
}

/// Makes one attempt. The endpoint picked is noted in `record` and, for later attempts, in
/// `tried`.
pub(super) async fn attempt(
    target: Target<'_>,
    request: Request<RequestBody>,
    record: &mut RequestRecord,
    tried: &mut Option<SocketAddr>,
) -> Result<Answer, Failure> {
    let cluster = target.cluster;
    let slot = match cluster.take(Breaker::Requests) {
        Ok(slot) => slot,
        Err(error) => return Err(no_connection(&error, request)),
    };
    let host = match cluster.pick(target.pick).await {
        Ok(host) => host,
        Err(error) => return Err(no_connection(&error, request)),
    };
    *tried = Some(host.endpoint.address);
    record.endpoint = Some(host.endpoint.clone());
    let busy = host.busy();
    let exchange = send(target, &host, request, record);
    let sent = match target.per_try {
        None => exchange.await,
        Some(limit) => match tokio::time::timeout(limit, exchange).await {
            Ok(sent) => sent,
            Err(_) => {
                cluster.record(&host, Outcome::GatewayError);
                return Err(per_try_timeout());
            }
        },
    };
    match sent {
        Ok((response, lease)) => {
            cluster.record(&host, Outcome::of_status(response.status().as_u16()));
            Ok(Answer { response, lease, busy, slot })
        }
        Err(failure) => {
            let answered_nothing = matches!(failure.end, Some(AttemptEnd::Reset { .. }));
            if answered_nothing {
                cluster.record(&host, Outcome::GatewayError);
            }
            Err(failure)
        }
    }
}

/// Sends on a pooled or new connection. A pooled connection that turns out to be closed before
/// anything was written is replaced without a word.
async fn send(
    target: Target<'_>,
    host: &Rc<Host>,
    request: Request<RequestBody>,
    record: &mut RequestRecord,
) -> Result<(Response<Incoming>, Lease), Failure> {
    let mut request = request;
    loop {
        let demand = Demand {
            version: target.version,
            mesh_alpn: target.mesh_alpn,
            host: host_name(&request),
        };
        let mut lease = match target.cluster.checkout(host, demand).await {
            Ok(lease) => lease,
            Err(error) => return Err(no_connection(&error, request)),
        };
        record.upstream_local = lease.facts().local;
        record.upstream_tls = lease.facts().tls;
        if lease.is_http2() && request.version() != Version::HTTP_2 {
            make_http2(&mut request, lease.facts().tls);
        }
        let started = Instant::now();
        match lease.send(request).await {
            Ok(response) => {
                record.response_duration = Some(started.elapsed());
                return Ok((response, lease));
            }
            Err(SendFailure { unsent: Some(unsent), .. }) if lease.is_reused() => {
                request = *unsent;
            }
            Err(failure) => return Err(reset(failure)),
        }
    }
}

fn host_name(request: &Request<RequestBody>) -> Option<&str> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => super::outgoing::authority(request.headers()),
    };
    let host = super::route::without_port(authority);
    (!host.is_empty()).then_some(host)
}

fn no_connection(error: &UpstreamError, request: Request<RequestBody>) -> Failure {
    let flags = Flags::named(error.flag());
    let unavailable =
        |body: Cow<'static, str>| LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body);
    let reason = error.to_string();
    let (reply, details, end): (_, Cow<'static, str>, _) = match error {
        UpstreamError::UnknownCluster(_) => {
            (unavailable(Cow::Borrowed("")), "cluster_not_found".into(), None)
        }
        UpstreamError::NoHealthyHost(_) | UpstreamError::NoOriginalDestination(_) => {
            (unavailable(Cow::Borrowed(NO_HEALTHY_UPSTREAM)), "no_healthy_upstream".into(), None)
        }
        UpstreamError::Overflow { .. } => (
            unavailable(reset_text("overflow").into()),
            "upstream_reset_before_response_started{overflow}".into(),
            None,
        ),
        UpstreamError::ConnectTimeout(_) => (
            unavailable(reset_text("connection timeout").into()),
            "upstream_reset_before_response_started{connection_timeout}".into(),
            Some(AttemptEnd::ConnectFailure),
        ),
        UpstreamError::Connect { .. } | UpstreamError::Tls { .. } | UpstreamError::Http { .. } => (
            // The client is not told where we tried to connect to.
            unavailable(reset_text("remote connection failure").into()),
            format!("upstream_reset_before_response_started{{remote_connection_failure|{reason}}}")
                .into(),
            Some(AttemptEnd::ConnectFailure),
        ),
    };
    let unsent = Some(Box::new(request));
    Failure { reply, flags, details, end, reason: Some(reason), unsent }
}

fn per_try_timeout() -> Failure {
    Failure {
        reply: LocalReply::new(StatusCode::GATEWAY_TIMEOUT, UPSTREAM_TIMEOUT),
        flags: Flags::UPSTREAM_TIMEOUT,
        details: "upstream_per_try_timeout".into(),
        end: Some(AttemptEnd::PerTryTimeout),
        reason: None,
        unsent: None,
    }
}

/// The route's whole time is up.
pub(super) fn route_timeout() -> Failure {
    Failure { details: "response_timeout".into(), end: None, ..per_try_timeout() }
}

/// Nothing passed for too long: the upstream's fault if the whole request is through.
pub(super) fn idle_timeout(request_ended: bool) -> Failure {
    let status =
        if request_ended { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::REQUEST_TIMEOUT };
    Failure {
        reply: LocalReply::new(status, STREAM_TIMEOUT),
        flags: Flags::IDLE_TIMEOUT,
        details: "stream_idle_timeout".into(),
        end: None,
        ..per_try_timeout()
    }
}

/// The request's own body broke: that is the client's fault, and no other upstream helps.
fn broken_request(reason: String) -> Failure {
    Failure {
        reply: LocalReply::new(StatusCode::BAD_REQUEST, BAD_REQUEST),
        flags: Flags::DOWNSTREAM_PROTOCOL,
        details: "http1.codec_error".into(),
        end: None,
        reason: Some(reason),
        unsent: None,
    }
}

fn reset(failure: SendFailure) -> Failure {
    let SendFailure { error, unsent } = failure;
    if matches!(source_of::<BodyError>(&error), Some(BodyError::Downstream(_))) {
        return broken_request(error.to_string());
    }
    let h2 = h2_reason(&error);
    let (word, flags, status) = if error.is_parse() || error.is_parse_status() {
        ("protocol error", Flags::UPSTREAM_PROTOCOL, StatusCode::BAD_GATEWAY)
    } else if h2.is_some() {
        ("remote reset", Flags::UPSTREAM_RESET, StatusCode::SERVICE_UNAVAILABLE)
    } else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        ("connection termination", Flags::UPSTREAM_TERMINATION, status)
    };
    let end = if h2 == Some(h2::Reason::REFUSED_STREAM) {
        AttemptEnd::Refused
    } else {
        AttemptEnd::Reset { before_request: unsent.is_some() }
    };
    Failure {
        reply: LocalReply::new(status, reset_text(word)),
        flags,
        details: format!("upstream_reset_before_response_started{{{}}}", word.replace(' ', "_"))
            .into(),
        end: Some(end),
        reason: Some(error.to_string()),
        unsent,
    }
}

/// Why an HTTP/2 stream was reset by the peer.
fn h2_reason(error: &hyper::Error) -> Option<h2::Reason> {
    let h2 = source_of::<h2::Error>(error)?;
    if h2.is_reset() || h2.is_remote() { h2.reason() } else { None }
}

/// The error of this kind that stands behind another.
fn source_of<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(found) = current.downcast_ref::<E>() {
            return Some(found);
        }
        source = current.source();
    }
    None
}

impl Answer {
    /// The response, and what it holds on to while its body passes.
    pub(super) fn split(self, retry_slot: Option<Slot>) -> (Response<Incoming>, Held) {
        let slots = [Some(self.slot), retry_slot];
        (self.response, Held { lease: Some(self.lease), _busy: self.busy, _slots: slots })
    }
}
