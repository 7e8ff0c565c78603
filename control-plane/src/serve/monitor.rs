//! Readiness, metrics and debug pages over plain HTTP.
//!
//! Readiness and metrics are for everybody. Debug pages tell what is in the mesh, so they are for
//! callers on this machine (a port forwarded by `kubectl` is one).

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lateen_webhook::stats::Counters;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::generation::Generation;
use super::metrics::Metrics;
use super::proxies::Proxies;
use super::readiness::Readiness;
use super::stream::{TYPES, short_name};

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Longest wait for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the pages tell.
#[derive(Debug)]
pub struct Monitor {
    /// Whether everything serves.
    pub readiness: Arc<Readiness>,
    /// Metrics of the control plane.
    pub metrics: Arc<Metrics>,
    /// Metrics of the webhook.
    pub injections: Arc<Counters>,
    /// Connected proxies.
    pub proxies: Arc<Proxies>,
    /// The state of the mesh, once there is one.
    pub generations: OnceLock<watch::Receiver<Arc<Generation>>>,
}

/// An answer.
#[derive(Debug, PartialEq)]
struct Page {
    status: StatusCode,
    kind: &'static str,
    body: String,
}

impl Page {
    fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }

    fn json(value: &Value) -> Self {
        Self { status: StatusCode::OK, kind: "application/json", body: format!("{value:#}\n") }
    }
}

impl Monitor {
    /// The answer to `GET path?query`.
    fn page(&self, path: &str, query: &str, local: bool) -> Page {
        match path {
            "/ready" => match self.readiness.missing() {
                None => Page::text(StatusCode::OK, format!("ready\n{}", self.readiness.remarks())),
                Some(text) => {
                    let body = format!("not ready\n{text}");
                    Page::text(StatusCode::SERVICE_UNAVAILABLE, body)
                }
            },
            "/metrics" => Page {
                status: StatusCode::OK,
                kind: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body: self.metrics.text(&self.injections),
            },
            "/version" => {
                Page::text(StatusCode::OK, format!("1.30.0-lateen-{}\n", env!("CARGO_PKG_VERSION")))
            }
            _ if !path.starts_with("/debug/") => Page::text(StatusCode::NOT_FOUND, "not found\n"),
            _ if !local => {
                Page::text(StatusCode::FORBIDDEN, "debug pages are for callers on this machine\n")
            }
            _ => self.debug(path, query),
        }
    }

    fn debug(&self, path: &str, query: &str) -> Page {
        let Some(generations) = self.generations.get() else {
            return Page::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "no configuration is in force yet\n",
            );
        };
        let generation = Arc::clone(&generations.borrow());
        match path {
            "/debug/registryz" => Page::json(&generation.mesh.registry()),
            "/debug/syncz" => Page::json(&json!(self.proxies.all())),
            "/debug/configz" => Page::json(&json!({
                "version": generation.number,
                "findings": generation.mesh.findings(),
            })),
            "/debug/config_dump" => self.dump(&generation, query),
            _ => Page::text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    /// Names and versions of what a connected proxy should have.
    fn dump(&self, generation: &Generation, query: &str) -> Page {
        let wanted = query.split('&').find_map(|pair| pair.strip_prefix("proxyID="));
        let Some(wanted) = wanted else {
            return Page::text(StatusCode::BAD_REQUEST, "give ?proxyID=POD.NAMESPACE\n");
        };
        let Some(proxy) = self.proxies.all().into_iter().find(|proxy| proxy.proxy == wanted) else {
            return Page::text(StatusCode::NOT_FOUND, "no such proxy is connected\n");
        };
        let resources = generation.resources(&proxy.view);
        let types = TYPES.into_iter().filter_map(|type_url| {
            let of_type = resources.of(type_url)?.iter();
            let entries: serde_json::Map<String, Value> = of_type
                .map(|(name, it)| {
                    let entry = json!({"version": *it.version, "bytes": it.body.len()});
                    (name.to_string(), entry)
                })
                .collect();
            Some((short_name(type_url).to_owned(), Value::Object(entries)))
        });
        Page::json(&Value::Object(types.collect()))
    }
}

/// Serves the pages until `stop`.
pub async fn serve(
    monitor: Arc<Monitor>,
    listener: TcpListener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let local = peer.ip().to_canonical().is_loopback();
        let (monitor, stop) = (Arc::clone(&monitor), stop.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let monitor = Arc::clone(&monitor);
                async move { Ok::<_, Infallible>(respond(&monitor, &request, local)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "monitoring connection ended");
                }
            }
            drop(permit);
        });
    }
}

fn respond<B>(monitor: &Monitor, request: &Request<B>, local: bool) -> Response<Full<Bytes>> {
    let page = if request.method() == Method::GET {
        monitor.page(request.uri().path(), request.uri().query().unwrap_or_default(), local)
    } else {
        Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n")
    };
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = page.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    response
}

#[cfg(test)]
mod tests {
    use super::{Monitor, Page, Readiness};
    use crate::serve::generation::Generation;
    use crate::serve::generation::tests::Empty;
    use crate::serve::proxies::ProxyStatus;
    use http::StatusCode;
    use std::sync::Arc;
    use std::time::Instant;
    use tokio::sync::watch;

    fn monitor() -> Monitor {
        let generation = Generation::new(7, Arc::new(Empty::default()), Instant::now());
        let (_, generations) = watch::channel(Arc::new(generation));
        Monitor {
            readiness: Arc::new(Readiness::new("servers", "starting")),
            metrics: Arc::default(),
            injections: Arc::default(),
            proxies: Arc::default(),
            generations: generations.into(),
        }
    }

    #[test]
    fn readiness_is_honest() {
        let monitor = monitor();
        let page = monitor.page("/ready", "", false);
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(page.body, "not ready\nservers: starting\n");
        monitor.readiness.met("servers");
        assert_eq!(monitor.page("/ready", "", false).status, StatusCode::OK);
    }

    #[test]
    fn debug_pages_are_for_this_machine() {
        let monitor = monitor();
        assert_eq!(monitor.page("/debug/syncz", "", false).status, StatusCode::FORBIDDEN);
        assert_eq!(monitor.page("/debug/syncz", "", true).body, "[]\n");
        assert!(monitor.page("/debug/configz", "", true).body.contains("\"version\": 7"));
        assert_eq!(monitor.page("/nothing", "", true).status, StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_dump_is_of_a_connected_proxy() {
        let monitor = monitor();
        let status = |query: &str| monitor.page("/debug/config_dump", query, true).status;
        assert_eq!(status(""), StatusCode::BAD_REQUEST);
        assert_eq!(status("proxyID=a.b"), StatusCode::NOT_FOUND);
        monitor.proxies.set(1, ProxyStatus { proxy: "a.b".to_owned(), ..ProxyStatus::default() });
        let Page { status, body, .. } = monitor.page("/debug/config_dump", "proxyID=a.b", true);
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("virtualInbound"));
    }
}
