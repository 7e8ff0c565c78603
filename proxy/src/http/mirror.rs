//! Copies of requests to other clusters; what they answer is read and thrown away.
//!
//! A copy starts once the original is through, so it never slows it down; a body is copied only
//! when all of it was kept (the limit of [`crate::upstream::Replayable`]).

use super::forwarded::{INTERNAL, client_address};
use crate::config::UpstreamHttp;
use crate::upstream::{
    Demand, HttpVersion, PickRequest, Replayable, RequestBody, UpstreamError, Upstreams,
};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long a copy may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Copies that wait for the end of the original.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) upstreams: Rc<Upstreams>,
    /// Cluster names, each with whether the host stays as it is.
    pub(super) clusters: Vec<(Arc<str>, bool)>,
    /// Our address: copies come from us.
    pub(super) address: Option<IpAddr>,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// The body, if the request has one.
    pub(super) body: Option<Replayable>,
}

impl Pending {
    /// Sends the copies in the background.
    pub(super) fn start(self) {
        let body = match &self.body {
            None => None,
            Some(kept) => match kept.collected() {
                Some(bytes) => Some(bytes),
                None => {
                    tracing::debug!(uri = %self.uri, "request body too large to be mirrored");
                    return;
                }
            },
        };
        let mut headers = self.headers;
        if let Some(body) = &body {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
        if let Some(address) = self.address {
            client_address(Some(address), "http", &mut headers);
        }
        for (cluster, keeps_host) in self.clusters {
            let mut request = Request::new(RequestBody::Full(body.clone()));
            *request.method_mut() = self.method.clone();
            *request.uri_mut() = self.uri.clone();
            *request.headers_mut() = headers.clone();
            if !keeps_host {
                shadow(request.headers_mut());
            }
            let upstreams = Rc::clone(&self.upstreams);
            self.upstreams.tasks().spawn_local(async move {
                let sent = tokio::time::timeout(LIMIT, send(&upstreams, &cluster, request)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    tracing::debug!(%cluster, ?sent, "mirrored request failed");
                }
            });
        }
    }
}

/// The host of a copy ends in `-shadow`, as Envoy marks it.
fn shadow(headers: &mut HeaderMap) {
    if let Some(host) = headers.get(HOST).and_then(|value| value.to_str().ok()) {
        let marked = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
                format!("{name}-shadow:{port}")
            }
            _ => format!("{host}-shadow"),
        };
        if let Ok(value) = HeaderValue::try_from(marked) {
            headers.insert(HOST, value);
        }
    }
}

async fn send(
    upstreams: &Upstreams,
    cluster: &str,
    mut request: Request<RequestBody>,
) -> Result<(), UpstreamError> {
    let runtime = upstreams
        .cluster(cluster)
        .ok_or_else(|| UpstreamError::UnknownCluster(cluster.to_owned()))?;
    let host = runtime.pick(PickRequest::default()).await?;
    let version = match runtime.config().http {
        UpstreamHttp::Http2 => HttpVersion::Http2,
        UpstreamHttp::Http1 | UpstreamHttp::SameAsDownstream => HttpVersion::Http1,
    };
    let demand = Demand { version, mesh_alpn: true, host: None };
    let mut lease = runtime.checkout(&host, demand).await?;
    if lease.is_http2() {
        super::outgoing::make_http2(&mut request, lease.facts().tls);
    }
    let failed = |reason: String| UpstreamError::Http { address: host.endpoint.address, reason };
    let response = lease.send(request).await.map_err(|e| failed(e.error.to_string()))?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|e| failed(e.to_string()))?;
    }
    lease.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_copy_is_marked() {
        for (host, wanted) in
            [("reviews", "reviews-shadow"), ("reviews:9080", "reviews-shadow:9080")]
        {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            shadow(&mut headers);
            assert_eq!(headers[HOST], wanted);
        }
    }
}
