//! What is known of one exchange (a request with its response) when it ends.
//!
//! Metrics and access logs are made from it by whoever implements [`Sink`]; this module knows
//! neither. It is filled in place while the request passes, so nothing is copied for it unless
//! an access log wants headers.

use super::downstream::Downstream;
use super::flags::Flags;
use crate::config::{Cluster, Endpoint, HttpManager, Name, Route, WorkloadLabels};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Takes finished exchanges, once each, on the worker's thread.
pub trait Sink: fmt::Debug {
    /// An exchange ended.
    fn exchange(&self, record: &RequestRecord);
}

/// One finished exchange.
#[derive(Debug)]
pub struct RequestRecord {
    /// The connection it came on.
    pub downstream: Rc<Downstream>,
    /// The HTTP connection manager that served it (access logs, filters).
    pub manager: Arc<HttpManager>,
    /// Wall-clock start.
    pub start: SystemTime,
    /// Start on the monotonic clock.
    pub started: Instant,
    /// From start to end; set at the end.
    pub duration: Duration,
    /// Until the request body had been received; `None` if it never was.
    pub request_duration: Option<Duration>,
    /// Until the response head was had from upstream.
    pub response_duration: Option<Duration>,
    /// Method.
    pub method: Method,
    /// Path and query as they came, before rewrites.
    pub uri: Uri,
    /// `:authority` or `Host` as it came.
    pub authority: Option<HeaderValue>,
    /// Downstream HTTP version.
    pub version: Version,
    /// gRPC by `content-type`.
    pub grpc: bool,
    /// Request headers, kept only for access logs.
    pub request_headers: Option<Box<HeaderMap>>,
    /// Response headers, kept only for access logs.
    pub response_headers: Option<Box<HeaderMap>>,
    /// Status sent downstream; `None` when the client left before.
    pub status: Option<StatusCode>,
    /// `grpc-status`, from headers or trailers.
    pub grpc_status: Option<u32>,
    /// Response flags.
    pub flags: Flags,
    /// Response code details.
    pub details: Cow<'static, str>,
    /// What failed on the way upstream, for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub failure: Option<String>,
    /// Body bytes from downstream.
    pub bytes_received: u64,
    /// Body bytes to downstream.
    pub bytes_sent: u64,
    /// gRPC messages from downstream (0 unless counted).
    pub request_messages: u64,
    /// gRPC messages to downstream (0 unless counted).
    pub response_messages: u64,
    /// The route taken.
    pub route: Option<Arc<Route>>,
    /// The upstream side, once a cluster was chosen.
    pub cluster: Option<Arc<Cluster>>,
    /// The endpoint used last.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Our address on the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// The upstream connection was mutual TLS.
    pub upstream_tls: bool,
    /// Attempts made.
    pub attempts: u32,
    /// Downstream peer by metadata exchange (inbound).
    pub downstream_peer: Option<Arc<WorkloadLabels>>,
    /// Upstream peer by metadata exchange (outbound).
    pub upstream_peer: Option<Arc<WorkloadLabels>>,
}

impl RequestRecord {
    /// A header of the request, if headers were kept.
    #[must_use]
    pub fn request_header(&self, name: &str) -> Option<&HeaderValue> {
        self.request_headers.as_ref()?.get(name)
    }

    /// The route's name; empty without route.
    #[must_use]
    pub fn route_name(&self) -> &str {
        self.route.as_ref().map_or("", |route| &route.name)
    }

    /// The cluster's name; `None` without cluster.
    #[must_use]
    pub fn cluster_name(&self) -> Option<&Name> {
        self.cluster.as_ref().map(|cluster| &cluster.name)
    }
}

/// A record on its way: reported when dropped, whatever happened.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) record: Box<RequestRecord>,
    pub(super) sink: Rc<dyn Sink>,
    /// The connection is busy while this lives.
    pub(super) _active: super::session::Active,
    /// Body bytes read from downstream so far.
    pub(super) meter: Option<Rc<crate::upstream::Meter>>,
    /// Counts gRPC messages of the response, where they are to be counted.
    pub(super) grpc: Option<crate::upstream::FrameCounter>,
    /// An answer of our own ends an HTTP/1 connection: of the request not all was read.
    pub(super) unread: bool,
    /// The response was handed over whole.
    pub(super) complete: bool,
    /// Work that waits for the end of the exchange (mirrored requests).
    pub(super) after: Option<super::mirror::Pending>,
}

impl Exchange {
    /// The request has not been read to its end.
    pub(super) fn is_unread(&self) -> bool {
        self.meter.as_ref().map_or(self.unread, |meter| !meter.is_ended())
    }

    /// Sets why this response is sent; flags add up, the last detail stays.
    pub(super) fn note(&mut self, flags: Flags, details: impl Into<Cow<'static, str>>) {
        self.record.flags.add(flags);
        self.record.details = details.into();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let record = &mut self.record;
        record.duration = record.started.elapsed();
        if let Some(meter) = &self.meter {
            record.bytes_received = meter.bytes.get();
            record.request_messages = meter.grpc.get().map_or(0, |counter| counter.messages);
            let ended = meter.ended_at.get();
            record.request_duration = ended.map(|at| at.duration_since(record.started));
        }
        record.response_messages = self.grpc.map_or(0, |counter| counter.messages);
        let upstream_fault = Flags::UPSTREAM_RESET;
        if !self.complete
            && !record.flags.has(upstream_fault)
            && !record.flags.has(Flags::UPSTREAM_TERMINATION)
            && !record.flags.has(Flags::UPSTREAM_TIMEOUT)
            && !record.flags.has(Flags::IDLE_TIMEOUT)
        {
            record.flags.add(Flags::DOWNSTREAM_TERMINATION);
            record.details = Cow::Borrowed("downstream_remote_disconnect");
        }
        if let Some(pending) = self.after.take() {
            pending.start();
        }
        self.sink.exchange(record);
    }
}
