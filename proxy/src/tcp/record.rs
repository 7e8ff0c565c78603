//! What is known of one TCP connection, for metrics and access logs.

use super::relay::Traffic;
use crate::config::{Cluster, Endpoint, FilterChain, Listener};
use crate::http::{Downstream, Flags};
use crate::upstream::TcpUpstream;
use std::borrow::Cow;
use std::cell::{Cell, Ref, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Takes TCP connections, on the worker's thread.
pub trait TcpSink: fmt::Debug {
    /// A connection was let through and its upstream is known (or could not be had). Its traffic
    /// can be read from the record until it is closed.
    fn opened(&self, record: &Rc<TcpRecord>);
    /// A connection ended; also one that was never opened because no chain took it or
    /// authorization refused it (see [`TcpRecord::was_opened`]).
    fn closed(&self, record: &Rc<TcpRecord>);
}

/// One TCP connection.
#[derive(Debug)]
pub struct TcpRecord {
    /// Addresses and TLS.
    pub downstream: Rc<Downstream>,
    /// The listener that took it.
    pub listener: Arc<Listener>,
    /// The chain that served it, if one matched.
    pub chain: Option<Arc<FilterChain>>,
    /// The server name the client asked for, whether or not TLS ends here.
    pub server_name: Option<String>,
    /// Wall-clock start.
    pub start: SystemTime,
    /// Start on the monotonic clock.
    pub started: Instant,
    /// Bytes so far.
    pub traffic: Traffic,
    opened: Cell<bool>,
    outcome: RefCell<Outcome>,
}

/// What became of a connection.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The cluster it was sent to.
    pub cluster: Option<Arc<Cluster>>,
    /// The endpoint.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Our address on the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// The upstream connection was TLS.
    pub upstream_tls: bool,
    /// Response flags.
    pub flags: Flags,
    /// Details of the end.
    pub details: Cow<'static, str>,
    /// What failed, in words.
    pub failure: Option<String>,
}

impl TcpRecord {
    /// A connection that begins now.
    #[must_use]
    pub fn new(
        downstream: Rc<Downstream>,
        listener: Arc<Listener>,
        chain: Option<Arc<FilterChain>>,
        server_name: Option<String>,
    ) -> Self {
        Self {
            downstream,
            listener,
            chain,
            server_name,
            start: SystemTime::now(),
            started: Instant::now(),
            traffic: Traffic::default(),
            opened: Cell::new(false),
            outcome: RefCell::default(),
        }
    }

    /// What became of it so far.
    #[must_use]
    pub fn outcome(&self) -> Ref<'_, Outcome> {
        self.outcome.borrow()
    }

    /// [`TcpSink::opened`] was called for it.
    #[must_use]
    pub fn was_opened(&self) -> bool {
        self.opened.get()
    }

    /// Notes why it ends; flags add up, the last detail stays.
    pub(crate) fn note(&self, flags: Flags, details: impl Into<Cow<'static, str>>) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.flags.add(flags);
        outcome.details = details.into();
    }

    pub(super) fn failed(&self, reason: String) {
        self.outcome.borrow_mut().failure = Some(reason);
        self.opened.set(true);
    }

    pub(super) fn chose_cluster(&self, cluster: Option<Arc<Cluster>>) {
        self.outcome.borrow_mut().cluster = cluster;
    }

    pub(super) fn connected(&self, upstream: &TcpUpstream) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.cluster = Some(Arc::clone(&upstream.cluster));
        outcome.endpoint = Some(Arc::clone(&upstream.host.endpoint));
        outcome.upstream_local = upstream.stream.tcp().local_addr().ok();
        outcome.upstream_tls = upstream.tls;
        self.opened.set(true);
    }
}
