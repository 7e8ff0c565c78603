//! Passes discovery streams of applications on to the control plane.
//!
//! Message by message as they are, state of the world and delta alike, each stream on a connection of its
//! own with the workload's token; what an application says of itself in headers does not count. When the
//! way to the control plane breaks, the application's stream ends with UNAVAILABLE, upon which gRPC
//! libraries begin anew. Two streams may be open at once, where Istio's agent ends the first
//! (`pkg/istio-agent/xds_proxy.go`): a pod can hold several applications. Must not know messages.

use crate::agent::authority::metadata;
use crate::agent::connector::{CONNECTED, channel};
use crate::settings::Settings;
use crate::telemetry::Hub;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version, header};
use http_body::Frame;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::error::Error;
use std::fmt::Display;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::Channel;

/// The methods of the discovery service.
const METHODS: [&str; 2] = [
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
];
/// Most streams of all applications together: libraries open one for each target.
pub const MAX_STREAMS: u32 = 1024;
/// Header or trailer with the status of a gRPC answer.
const STATUS: &str = "grpc-status";

/// The way to the control plane.
#[derive(Debug)]
pub struct Relay {
    settings: Arc<Settings>,
    hub: Arc<Hub>,
    open: AtomicU32,
    end: CancellationToken,
}

impl Relay {
    /// Passes on until `end`.
    #[must_use]
    pub fn new(settings: Arc<Settings>, hub: Arc<Hub>, end: CancellationToken) -> Arc<Self> {
        Arc::new(Self { settings, hub, open: AtomicU32::new(0), end })
    }

    /// Streams that are open.
    #[must_use]
    pub fn open_streams(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    /// Answers a call of an application.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let asked = request.uri().path();
        let Some(method) = METHODS.into_iter().find(|method| *method == asked) else {
            return Status::unimplemented(format!("{asked} is not discovery")).into_http();
        };
        let Some(place) = Place::take(&self) else {
            let reason = format!("{MAX_STREAMS} discovery streams are open already");
            return Status::resource_exhausted(reason).into_http();
        };
        let passed = tokio::select! {
            passed = self.pass_on(method, request) => passed,
            () = self.end.cancelled() => Err(ends()),
        };
        match passed {
            Ok((response, channel)) => {
                let end = Box::pin(self.end.clone().cancelled_owned());
                // A status among the headers is all of the answer.
                let ended = response.headers().contains_key(STATUS);
                response.map(|body| {
                    Body::new(Answer { body, end, ended, _place: place, _channel: channel })
                })
            }
            Err(status) => {
                tracing::warn!(reason = status.message(), "a discovery stream is not passed on");
                status.into_http()
            }
        }
    }

    /// Opens the stream at the control plane. The channel is needed for as long as the stream is.
    async fn pass_on(
        &self,
        method: &'static str,
        from: Request<Incoming>,
    ) -> Result<(Response<Body>, Channel), Status> {
        let to = &self.settings.control_plane;
        let cluster = &self.settings.workload.cluster;
        let own = metadata(to, cluster, &to.discovery_headers).map_err(|e| unavailable(&e))?;
        let mut channel = channel(&to.discovery, to).map_err(|e| unavailable(&e))?;
        let (head, body) = from.into_parts();
        let mut onward = Request::new(Body::new(body));
        *onward.uri_mut() = Uri::from_static(method);
        *onward.method_mut() = head.method;
        *onward.version_mut() = Version::HTTP_2;
        *onward.headers_mut() = headers(&head.headers, own.into_headers());
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|e| unavailable(&innermost(&e)))?;
        let response = channel.call(onward).await.map_err(|e| unavailable(&innermost(&e)))?;
        Ok((response, channel))
    }
}

/// What goes with the stream: of the application's headers those of the protocol, and ours.
fn headers(theirs: &HeaderMap, own: HeaderMap) -> HeaderMap {
    let of_protocol = |name: &HeaderName| {
        [header::CONTENT_TYPE, header::TE].contains(name) || name.as_str().starts_with("grpc-")
    };
    let kept = theirs.iter().filter(|(name, _)| of_protocol(name));
    let mut headers: HeaderMap = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    headers.extend(own);
    headers
}

/// The way is broken.
fn unavailable(reason: &dyn Display) -> Status {
    Status::unavailable(format!("control plane: {reason}"))
}

/// Of what the transport says, the last part says most.
fn innermost<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

fn ends() -> Status {
    Status::unavailable("the agent ends")
}

/// A stream that is counted while it is open.
#[derive(Debug)]
struct Place(Arc<Relay>);

impl Place {
    fn take(relay: &Arc<Relay>) -> Option<Self> {
        let more = |open: u32| (open < MAX_STREAMS).then_some(open + 1);
        relay.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        let place = Self(Arc::clone(relay));
        place.show();
        Some(place)
    }

    fn show(&self) {
        self.0.hub.set(CONNECTED, f64::from(self.0.open_streams()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.show();
    }
}

/// The control plane's answer. It ends with a status in any case.
struct Answer {
    body: Body,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
    _place: Place,
    _channel: Channel,
}

impl Answer {
    /// The last frame.
    fn last(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        // A text that cannot be a header is left out, the code is not.
        if status.add_header(&mut trailers).is_err() {
            trailers.insert(STATUS, HeaderValue::from(i32::from(status.code())));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if this.end.as_mut().poll(cx).is_ready() {
            return this.last(&ends());
        }
        match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.ended = frame.is_trailers();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => this.last(&unavailable(&innermost(&error))),
            None => this.last(&unavailable(&"it closed the stream")),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        list.iter().map(pair).collect()
    }

    #[test]
    fn an_application_cannot_say_who_it_is() {
        let theirs = map(&[
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-encoding", "identity"),
            ("authorization", "Bearer theirs"),
            ("clusterid", "theirs"),
            ("x-own", "theirs"),
            ("user-agent", "grpc-go"),
        ]);
        let own = map(&[("authorization", "Bearer ours"), ("clusterid", "c1")]);
        let expected = map(&[
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-encoding", "identity"),
            ("authorization", "Bearer ours"),
            ("clusterid", "c1"),
        ]);
        assert_eq!(headers(&theirs, own), expected);
    }
}
