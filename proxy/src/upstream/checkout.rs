//! Lending HTTP connections: a pooled one if there is one, else a new one within the limits.

use super::cluster::{ClusterRuntime, secured};
use super::error::UpstreamError;
use super::host::Host;
use super::limits::{Breaker, Slot};
use super::pool::{ConnectionFacts, Lease, Pool};
use super::stream::Stream;
use super::tls::Offer;
use crate::config::{Cluster, Validation};
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// HTTP version to speak to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What connection a request needs.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// HTTP version.
    pub version: HttpVersion,
    /// Offer the mesh's application protocols on mutual TLS (filter `istio.alpn`).
    pub mesh_alpn: bool,
    /// Host of the request, without port; server name with `auto_sni`.
    pub host: Option<&'a str>,
}

/// Runs hyper's tasks in the worker's task group.
#[derive(Debug, Clone)]
pub struct LocalTasks(pub TaskTracker);

impl<F> Executor<F> for LocalTasks
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn_local(future));
    }
}

impl ClusterRuntime {
    /// A connection to `host`, new or used.
    ///
    /// # Errors
    /// When a circuit breaker is open or connecting fails.
    pub async fn checkout(
        &self,
        host: &Rc<Host>,
        demand: Demand<'_>,
    ) -> Result<Lease, UpstreamError> {
        let config = self.config();
        let sni = request_sni(&config, host, demand);
        match demand.version {
            HttpVersion::Http1 => {
                let limits = (config.max_requests_per_connection, config.idle_timeout);
                match host.pool.idle_http1(sni.as_ref(), limits) {
                    Some(lease) => Ok(lease),
                    None => self.more_http1(host, &config, demand, sni).await,
                }
            }
            HttpVersion::Http2 => self.checkout_http2(host, &config, demand, sni).await,
        }
    }

    async fn more_http1(
        &self,
        host: &Rc<Host>,
        config: &Cluster,
        demand: Demand<'_>,
        sni: Option<Arc<str>>,
    ) -> Result<Lease, UpstreamError> {
        let _pending = self.take(Breaker::Pending)?;
        let max_requests = config.max_requests_per_connection;
        let slot = loop {
            match self.take(Breaker::Connections) {
                Ok(slot) => break slot,
                Err(_) => wait_released(&host.pool).await,
            }
            let limits = (max_requests, config.idle_timeout);
            if let Some(lease) = host.pool.idle_http1(sni.as_ref(), limits) {
                return Ok(lease);
            }
        };
        let stream = self.open(host, offer(config, host, demand), sni.as_deref()).await?;
        let facts = facts(&stream, sni, slot);
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| http_failure(host, &e))?;
        self.tasks.spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(host.pool.new_http1(sender, facts, max_requests))
    }

    async fn checkout_http2(
        &self,
        host: &Rc<Host>,
        config: &Cluster,
        demand: Demand<'_>,
        sni: Option<Arc<str>>,
    ) -> Result<Lease, UpstreamError> {
        let pool = &host.pool;
        let max_requests = config.max_requests_per_connection;
        if let Some(lease) = pool.stream_http2(sni.as_ref(), max_requests) {
            return Ok(lease);
        }
        let _pending = self.take(Breaker::Pending)?;
        let failures = pool.failures.borrow().0;
        let _turn = pool.opening.lock().await;
        if let Some(lease) = pool.stream_http2(sni.as_ref(), max_requests) {
            return Ok(lease);
        }
        if let (count, Some(error)) = &*pool.failures.borrow()
            && *count != failures
        {
            return Err(error.clone());
        }
        let opened = self.open_http2(host, config, demand, sni).await;
        if let Err(error) = &opened {
            let mut failures = pool.failures.borrow_mut();
            *failures = (failures.0 + 1, Some(error.clone()));
        }
        opened
    }

    async fn open_http2(
        &self,
        host: &Rc<Host>,
        config: &Cluster,
        demand: Demand<'_>,
        sni: Option<Arc<str>>,
    ) -> Result<Lease, UpstreamError> {
        let slot = self.take(Breaker::Connections)?;
        let stream = self.open(host, offer(config, host, demand), sni.as_deref()).await?;
        let facts = facts(&stream, sni, slot);
        let (sender, connection) = http2::Builder::new(LocalTasks(self.tasks.clone()))
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| http_failure(host, &e))?;
        self.tasks.spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream HTTP/2 connection ended");
            }
        });
        Ok(host.pool.new_http2(sender, facts))
    }
}

/// Another worker may give a slot back without telling us, so the wait is short.
async fn wait_released(pool: &Pool) {
    const LOOK_AGAIN: Duration = Duration::from_millis(5);
    drop(tokio::time::timeout(LOOK_AGAIN, pool.released.notified()).await);
}

fn facts(stream: &Stream, sni: Option<Arc<str>>, slot: Slot) -> Rc<ConnectionFacts> {
    Rc::new(ConnectionFacts {
        sni,
        local: stream.tcp().local_addr().ok(),
        tls: matches!(stream, Stream::Tls(_)),
        served: std::cell::Cell::new(0),
        _slot: Some(slot),
    })
}

fn http_failure(host: &Host, error: &hyper::Error) -> UpstreamError {
    UpstreamError::Http { address: host.endpoint.address, reason: error.to_string() }
}

/// The server name, where it is the request's host.
fn request_sni(config: &Cluster, host: &Host, demand: Demand<'_>) -> Option<Arc<str>> {
    let tls = secured(config, host)?;
    if tls.auto_sni && tls.sni.is_none() { demand.host.map(Arc::from) } else { None }
}

fn offer(config: &Cluster, host: &Host, demand: Demand<'_>) -> Offer {
    let Some(tls) = secured(config, host) else { return Offer::Cluster };
    let in_mesh = tls.certificate.is_some() && matches!(tls.validation, Validation::Sds(_));
    match (demand.mesh_alpn && in_mesh, demand.version) {
        (true, HttpVersion::Http1) => Offer::MeshHttp1,
        (true, HttpVersion::Http2) => Offer::MeshHttp2,
        (false, HttpVersion::Http1) => Offer::Http1,
        (false, HttpVersion::Http2) => Offer::Http2,
    }
}
