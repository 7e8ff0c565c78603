//! Carrying TCP connections to a cluster, byte for byte.
//!
//! Knows nothing of listeners' sockets or of HTTP. Metrics and access logs are made by whoever
//! implements [`TcpSink`].

mod record;
mod relay;

#[cfg(test)]
mod tests;

pub use record::{Outcome, TcpRecord, TcpSink};
pub use relay::{Ended, Limits, Traffic, relay};

use crate::config::{Name, TcpProxy};
use crate::http::Flags;
use crate::upstream::{UpstreamError, Upstreams};
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncWrite};

/// TCP of one worker.
#[derive(Debug, Clone)]
pub struct TcpWorker {
    upstreams: Rc<Upstreams>,
    sink: Rc<dyn TcpSink>,
}

impl TcpWorker {
    /// TCP over `upstreams`, reported to `sink`.
    #[must_use]
    pub fn new(upstreams: Rc<Upstreams>, sink: Rc<dyn TcpSink>) -> Self {
        Self { upstreams, sink }
    }

    /// Where connections are reported.
    #[must_use]
    pub fn sink(&self) -> &Rc<dyn TcpSink> {
        &self.sink
    }
}

/// Carries a connection until either side has had enough.
pub async fn serve<IO>(worker: &TcpWorker, io: IO, record: TcpRecord, proxy: &TcpProxy)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let record = Rc::new(record);
    let guard = Closing { sink: Rc::clone(&worker.sink), record: Rc::clone(&record) };
    carry(worker, io, &record, proxy).await;
    drop(guard);
}

/// Reports the end of a connection, also when its task is dropped.
struct Closing {
    sink: Rc<dyn TcpSink>,
    record: Rc<TcpRecord>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.sink.closed(&self.record);
    }
}

async fn carry<IO>(worker: &TcpWorker, io: IO, record: &Rc<TcpRecord>, proxy: &TcpProxy)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let Some(cluster) = pick(&proxy.clusters, rand::random()) else {
        record.note(Flags::NO_CLUSTER, "cluster_not_found");
        return;
    };
    record.chose_cluster(worker.upstreams.cluster(cluster).map(|runtime| runtime.config()));
    let connected = worker.upstreams.connect_tcp(cluster, Some(record.downstream.destination()));
    let upstream = match Box::pin(connected).await {
        Ok(upstream) => upstream,
        Err(error) => {
            fail(record, &error);
            worker.sink.opened(record);
            return;
        }
    };
    record.connected(&upstream);
    worker.sink.opened(record);
    let limits = Limits { idle: proxy.idle_timeout, whole: proxy.max_duration };
    // Kept until the end: it counts against the limits of the cluster.
    let mut upstream = upstream;
    let ended = relay(io, &mut upstream.stream, &record.traffic, limits).await;
    match ended {
        Ok(Ended::Both) => {}
        Ok(Ended::Idle) => record.note(Flags::IDLE_TIMEOUT, "idle_timeout"),
        Ok(Ended::TooLong) => record.note(Flags::default(), "max_duration_timeout"),
        Err(error) => record.failed(error.to_string()),
    }
}

fn fail(record: &TcpRecord, error: &UpstreamError) {
    let details = match error {
        UpstreamError::UnknownCluster(_) => "cluster_not_found",
        UpstreamError::NoHealthyHost(_) | UpstreamError::NoOriginalDestination(_) => {
            "no_healthy_upstream"
        }
        UpstreamError::Overflow { .. } => "overflow",
        _ => "upstream_connection_failure",
    };
    record.note(Flags::named(error.flag()), details);
    record.failed(error.to_string());
}

/// The cluster that `random` falls on.
fn pick(clusters: &[(Name, u32)], random: u64) -> Option<&Name> {
    if let [(only, _)] = clusters {
        return Some(only);
    }
    let total: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut ticket = random.checked_rem(total)?;
    for (name, weight) in clusters {
        let weight = u64::from(*weight);
        if ticket < weight {
            return Some(name);
        }
        ticket -= weight;
    }
    None
}
