//! One cluster on one worker: picks endpoints, opens connections, lends pooled ones.
//!
//! Outlasts configuration changes: [`ClusterRuntime::update`] takes a new description and keeps
//! endpoints and connections that stay valid. Knows HTTP connections but no requests.

use super::connect::{Dial, TlsStart, dial};
use super::error::UpstreamError;
use super::host::Host;
use super::hosts::{HostRegistry, Hosts, new_host};
use super::limits::{Breaker, Slot, Usage};
use super::outlier::Outcome;
use super::stream::Stream;
use super::tls::{ClientConfigs, Offer, TlsMaterials};
use super::{dns, same_transport};
use crate::config::{ClientTls, Cluster, Discovery, EndpointSet, Name, Transport};
use rustls_pki_types::ServerName;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// State of a cluster that all workers share.
#[derive(Debug, Default)]
pub(super) struct ClusterShared {
    pub(super) usage: Arc<Usage>,
    pub(super) registry: HostRegistry,
}

/// A cluster with its endpoints and connections on this worker.
#[derive(Debug)]
pub struct ClusterRuntime {
    shared: Arc<ClusterShared>,
    materials: Arc<dyn TlsMaterials>,
    pub(super) tasks: tokio_util::task::TaskTracker,
    state: RefCell<State>,
    /// Hosts of original destinations, made as they are asked for.
    original: RefCell<HashMap<SocketAddr, Rc<Host>>>,
    resolved: Notify,
    seen: Cell<u64>,
    /// Sweeps that did not find it in the configuration.
    missed: Cell<u32>,
}

#[derive(Debug)]
struct State {
    config: Arc<Cluster>,
    endpoints: Option<Arc<EndpointSet>>,
    hosts: Rc<Hosts>,
    tls: Rc<ClientConfigs>,
}

/// What a pick depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickRequest<'a> {
    /// Hash for consistent balancing.
    pub hash: Option<u64>,
    /// Endpoints tried before.
    pub avoid: &'a [SocketAddr],
    /// Where the downstream connection was going.
    pub original_dst: Option<SocketAddr>,
}

/// Bytes to an endpoint for a connection that is not HTTP.
#[derive(Debug)]
pub struct TcpUpstream {
    /// The connection.
    pub stream: Stream,
    /// The endpoint.
    pub host: Rc<Host>,
    /// The cluster as it was when the endpoint was picked.
    pub cluster: Arc<Cluster>,
    /// TLS is spoken.
    pub tls: bool,
    _slot: Slot,
    _busy: super::host::Busy,
}

impl ClusterRuntime {
    pub(super) fn new(
        config: Arc<Cluster>,
        endpoints: Option<Arc<EndpointSet>>,
        shared: Arc<ClusterShared>,
        materials: Arc<dyn TlsMaterials>,
        tasks: tokio_util::task::TaskTracker,
    ) -> Rc<Self> {
        let list = endpoints.as_ref().map(|set| set.endpoints.as_slice()).unwrap_or_default();
        let hosts = Rc::new(Hosts::build(&config, list, None, &shared.registry));
        let state = State { config, endpoints, hosts, tls: Rc::default() };
        let runtime = Rc::new(Self {
            shared,
            materials,
            tasks,
            state: RefCell::new(state),
            original: RefCell::default(),
            resolved: Notify::new(),
            seen: Cell::new(0),
            missed: Cell::new(0),
        });
        runtime.watch_names();
        runtime
    }

    /// The description in force.
    #[must_use]
    pub fn config(&self) -> Arc<Cluster> {
        Arc::clone(&self.state.borrow().config)
    }

    pub(super) fn hosts(&self) -> Rc<Hosts> {
        Rc::clone(&self.state.borrow().hosts)
    }

    /// True once for each `epoch`: the caller then calls [`Self::update`].
    pub(super) fn is_behind(&self, epoch: u64) -> bool {
        self.seen.replace(epoch) != epoch
    }

    /// A sweep found it in the configuration.
    pub(super) fn found(&self) {
        self.missed.set(0);
    }

    /// A sweep did not find it; gives how many did not.
    pub(super) fn missed(&self) -> u32 {
        self.missed.set(self.missed.get() + 1);
        self.missed.get()
    }

    /// Takes over a new description and endpoints.
    pub(super) fn update(
        self: &Rc<Self>,
        config: &Arc<Cluster>,
        endpoints: Option<&Arc<EndpointSet>>,
    ) {
        let mut state = self.state.borrow_mut();
        let same_config = Arc::ptr_eq(&state.config, config);
        let resolves = is_named(&config.discovery);
        let endpoints = if resolves { state.endpoints.clone() } else { endpoints.cloned() };
        let same_endpoints = match (&state.endpoints, &endpoints) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
            (None, None) => true,
            _ => false,
        };
        if same_config && same_endpoints {
            return;
        }
        let keep = same_transport(&state.config, config);
        if !keep {
            state.hosts.retire();
            for (_, host) in self.original.borrow_mut().drain() {
                host.pool.retire();
            }
            state.tls = Rc::default();
        }
        let list = endpoints.as_ref().map(|set| set.endpoints.as_slice()).unwrap_or_default();
        let old = keep.then(|| Rc::clone(&state.hosts));
        state.hosts = Rc::new(Hosts::build(config, list, old.as_deref(), &self.shared.registry));
        let started_resolving = resolves && !is_named(&state.config.discovery);
        state.config = Arc::clone(config);
        state.endpoints = endpoints;
        drop(state);
        if started_resolving {
            self.watch_names();
        }
    }

    /// Resolves the names of a DNS cluster for as long as the cluster lives.
    fn watch_names(self: &Rc<Self>) {
        if !is_named(&self.config().discovery) {
            return;
        }
        let weak = Rc::downgrade(self);
        self.tasks.spawn_local(async move {
            loop {
                let Some(cluster) = weak.upgrade() else { return };
                let config = cluster.config();
                if !is_named(&config.discovery) {
                    return;
                }
                let before = cluster.state.borrow().endpoints.clone();
                drop(cluster);
                let found = dns::resolve(&config.discovery, before.as_deref()).await;
                let Some(cluster) = weak.upgrade() else { return };
                if let Some(set) = found {
                    cluster.set_resolved(set);
                }
                cluster.resolved.notify_waiters();
                drop(cluster);
                tokio::time::sleep(dns::REFRESH).await;
            }
        });
    }

    fn set_resolved(&self, set: EndpointSet) {
        let mut state = self.state.borrow_mut();
        if state.endpoints.as_deref() == Some(&set) {
            return;
        }
        let old = Rc::clone(&state.hosts);
        let hosts = Hosts::build(&state.config, &set.endpoints, Some(&old), &self.shared.registry);
        state.hosts = Rc::new(hosts);
        state.endpoints = Some(Arc::new(set));
    }

    /// Waits for the first answer of the resolver, if names are still unresolved.
    async fn wait_resolved(&self, config: &Cluster) {
        if is_named(&config.discovery) && self.state.borrow().endpoints.is_none() {
            let answered = self.resolved.notified();
            drop(tokio::time::timeout(config.connect_timeout, answered).await);
        }
    }

    /// Picks an endpoint.
    ///
    /// # Errors
    /// When none may be picked.
    pub async fn pick(&self, request: PickRequest<'_>) -> Result<Rc<Host>, UpstreamError> {
        let config = self.config();
        self.wait_resolved(&config).await;
        if let Discovery::OriginalDst { port } = config.discovery {
            let mut address = request
                .original_dst
                .ok_or_else(|| UpstreamError::NoOriginalDestination(config.name.to_string()))?;
            if let Some(port) = port {
                address.set_port(port);
            }
            return Ok(self.original_host(address));
        }
        self.hosts()
            .pick(request.hash, request.avoid)
            .ok_or_else(|| UpstreamError::NoHealthyHost(config.name.to_string()))
    }

    fn original_host(&self, address: SocketAddr) -> Rc<Host> {
        let mut known = self.original.borrow_mut();
        let host = known
            .entry(address)
            .or_insert_with(|| new_host(dns::endpoint(address), &self.shared.registry));
        Rc::clone(host)
    }

    /// Takes a circuit breaker slot.
    ///
    /// # Errors
    /// When the breaker is open.
    pub fn take(&self, breaker: Breaker) -> Result<Slot, UpstreamError> {
        let config = self.config();
        self.shared.usage.take(breaker, &config.limits).ok_or_else(|| UpstreamError::Overflow {
            cluster: config.name.to_string(),
            limit: breaker.name(),
        })
    }

    /// Tells outlier detection how a request or connect to `host` ended.
    pub fn record(&self, host: &Host, outcome: Outcome) {
        let config = self.config();
        if let Some(rules) = &config.outlier
            && self.hosts().record(host, rules, outcome)
        {
            tracing::info!(cluster = %config.name, address = %host.endpoint.address,
                "endpoint set aside after failures");
        }
    }

    /// Opens a connection that is not pooled, for a TCP proxy.
    ///
    /// # Errors
    /// When no endpoint may be picked or connecting fails.
    pub async fn connect_tcp(
        &self,
        original_dst: Option<SocketAddr>,
    ) -> Result<TcpUpstream, UpstreamError> {
        let host = self.pick(PickRequest { original_dst, ..PickRequest::default() }).await?;
        let busy = host.busy();
        let slot = self.take(Breaker::Connections)?;
        let stream = self.open(&host, Offer::Cluster, None).await?;
        self.record(&host, Outcome::Success);
        let tls = matches!(stream, Stream::Tls(_));
        Ok(TcpUpstream { stream, host, cluster: self.config(), tls, _slot: slot, _busy: busy })
    }

    /// Opens a connection; a failure counts against the endpoint.
    pub(super) async fn open(
        &self,
        host: &Host,
        offer: Offer,
        sni: Option<&str>,
    ) -> Result<Stream, UpstreamError> {
        let config = self.config();
        let address = host.endpoint.address;
        let opened = match self.tls_start(&config, host, offer, sni) {
            Ok(tls) => {
                let (source, timeout) = (config.bind_source, config.connect_timeout);
                dial(Dial { address, source, timeout, tls }).await
            }
            Err(error) => Err(error),
        };
        if opened.is_err() {
            self.record(host, Outcome::GatewayError);
        }
        opened
    }

    fn tls_start(
        &self,
        config: &Cluster,
        host: &Host,
        offer: Offer,
        sni: Option<&str>,
    ) -> Result<Option<TlsStart>, UpstreamError> {
        let Some(tls) = secured(config, host) else { return Ok(None) };
        let address = host.endpoint.address;
        let refuse = |reason: String| UpstreamError::Tls { address, reason };
        let configs = Rc::clone(&self.state.borrow().tls);
        let client =
            configs.get(tls, offer, &*self.materials).map_err(|e| refuse(e.to_string()))?;
        let name = match tls.sni.as_deref().or(sni) {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|e| refuse(format!("server name {name}: {e}")))?,
            None => ServerName::from(address.ip()),
        };
        Ok(Some(TlsStart { config: client, name }))
    }

    /// Once a second: idle connections close, ejections relax.
    pub(super) fn sweep(&self, now: Instant, now_ms: u64, relax: bool) {
        let idle = self.config().idle_timeout;
        for host in &self.hosts().list {
            host.pool.sweep(now, idle);
            if relax {
                host.shared.ejection.relax(now_ms);
            }
        }
        self.original
            .borrow_mut()
            .retain(|_, host| host.pool.sweep(now, idle) || Rc::strong_count(host) > 1);
    }

    /// The cluster is gone from the configuration.
    pub(super) fn retire(&self) {
        self.hosts().retire();
        for (_, host) in self.original.borrow_mut().drain() {
            host.pool.retire();
        }
    }

    /// Name of the cluster.
    #[must_use]
    pub fn name(&self) -> Name {
        Arc::clone(&self.state.borrow().config.name)
    }
}

/// The TLS context for an endpoint, if its connections are secured.
pub(super) fn secured<'c>(config: &'c Cluster, host: &Host) -> Option<&'c Arc<ClientTls>> {
    match &config.transport {
        Transport::Plain => None,
        Transport::Tls(tls) => Some(tls),
        Transport::Auto(tls) => host.endpoint.mtls.then_some(tls),
    }
}

fn is_named(discovery: &Discovery) -> bool {
    matches!(discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_))
}
