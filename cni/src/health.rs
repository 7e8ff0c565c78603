//! What must hold for the agent to be ready, and the pages that tell: `/healthz`, `/readyz`,
//! `/metrics`.
//!
//! Conditions are set by those who know; this only remembers and shows them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;

/// Most connections of one port.
const CONNECTIONS: usize = 64;
/// Longest time for a request head; also ends idle connections.
const HEAD: Duration = Duration::from_secs(10);

/// The conditions of readiness.
#[derive(Debug)]
pub struct Health {
    conditions: Mutex<BTreeMap<&'static str, Result<(), String>>>,
    ready: watch::Sender<bool>,
}

impl Health {
    /// Conditions none of which holds yet.
    #[must_use]
    pub fn of(names: &[&'static str]) -> Self {
        let open = |name: &&'static str| (*name, Err("not yet".to_owned()));
        let (ready, _) = watch::channel(false);
        Self { conditions: Mutex::new(names.iter().map(open).collect()), ready }
    }

    /// Sets a condition; a change is logged.
    pub fn set(&self, name: &'static str, state: Result<(), String>) {
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        if conditions.get(name) == Some(&state) {
            return;
        }
        match &state {
            Ok(()) => tracing::info!(condition = name, "holds"),
            Err(reason) => tracing::warn!(condition = name, "does not hold: {reason}"),
        }
        conditions.insert(name, state);
        let ready = conditions.values().all(Result::is_ok);
        self.ready.send_if_modified(|was| std::mem::replace(was, ready) != ready);
    }

    /// Tells whether all conditions hold.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Whether all conditions hold, and a line for each.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = conditions.iter().map(|(name, state)| match state {
            Ok(()) => format!("{name}: ok\n"),
            Err(reason) => format!("{name}: {reason}\n"),
        });
        (conditions.values().all(Result::is_ok), lines.collect())
    }
}

/// A socket on every address, of both families where there are two.
///
/// # Errors
/// When the port cannot be had.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

/// What the pages show; shared.
#[derive(Debug, Clone)]
pub struct Pages {
    /// Readiness.
    pub health: Arc<Health>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Pages {
    /// Serves until `stop`.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, say: connections that end give some back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (pages, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = pages.converse(stream) => {}
                    () = stop.cancelled() => {}
                }
                drop(place);
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn converse(self, stream: TcpStream) {
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let pages = self.clone();
            async move {
                let (status, text) = pages.page(request.uri().path()).await;
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!("a connection to the pages: {error}");
        }
    }

    async fn page(&self, path: &str) -> (hyper::StatusCode, String) {
        match path {
            "/healthz" => (hyper::StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match self.health.report() {
                (true, text) => (hyper::StatusCode::OK, text),
                (false, text) => (hyper::StatusCode::SERVICE_UNAVAILABLE, text),
            },
            "/metrics" => {
                let metrics = Arc::clone(&self.metrics);
                // No text: the runtime ends.
                let text = spawn_blocking(move || metrics.text()).await.unwrap_or_default();
                (hyper::StatusCode::OK, text)
            }
            _ => (hyper::StatusCode::NOT_FOUND, "/healthz, /readyz or /metrics\n".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Health;

    #[test]
    fn one_condition_that_does_not_hold_is_named_and_enough() {
        let health = Health::of(&["pods", "plugin"]);
        health.set("pods", Ok(()));
        health.set("plugin", Err("the disk is full".to_owned()));
        assert_eq!(health.report(), (false, "plugin: the disk is full\npods: ok\n".to_owned()));
        health.set("plugin", Ok(()));
        assert!(health.report().0);
    }
}
