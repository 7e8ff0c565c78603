//! What HTTP keeps for a worker and for a connection.

use super::downstream::Downstream;
use super::peer_metadata::{LocalPeer, PeerCache};
use super::record::Sink;
use super::route::{RequestHead, RouteTable};
use crate::config::{Direction, HttpFilter, HttpManager, Name, Rbac, RouteConfig, RouteSource};
use crate::upstream::Upstreams;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Decides about requests by RBAC rules.
pub trait Authorizer: fmt::Debug {
    /// Judges a request.
    fn judge(&self, rbac: &Rbac, head: &RequestHead<'_>, downstream: &Downstream) -> Judgement;
}

/// What authorization says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The request goes on.
    Pass,
    /// The request is refused, by this policy if one matched.
    Denied(Option<Name>),
}

/// HTTP of one worker.
#[derive(Debug)]
pub struct HttpWorker {
    pub(super) upstreams: Rc<Upstreams>,
    pub(super) sink: Rc<dyn Sink>,
    pub(super) authorizer: Rc<dyn Authorizer>,
    pub(super) local: Option<LocalPeer>,
    /// Our address, by which clients on loopback are known to others.
    pub(super) address: Option<IpAddr>,
    pub(super) peers: PeerCache,
    tables: RefCell<HashMap<*const RouteConfig, Rc<RouteTable>>>,
}

impl HttpWorker {
    /// HTTP over `upstreams`; `local` is what peers are told about this workload, `address` its own.
    #[must_use]
    pub fn new(
        upstreams: Rc<Upstreams>,
        sink: Rc<dyn Sink>,
        authorizer: Rc<dyn Authorizer>,
        (local, address): (Option<LocalPeer>, Option<IpAddr>),
    ) -> Rc<Self> {
        let (peers, tables) = (PeerCache::default(), RefCell::default());
        Rc::new(Self { upstreams, sink, authorizer, local, address, peers, tables })
    }

    /// The compiled table of a route configuration; a table keeps its configuration alive, so
    /// an address in the map always means the same configuration.
    fn table(&self, config: &Arc<RouteConfig>) -> Rc<RouteTable> {
        let mut tables = self.tables.borrow_mut();
        if let Some(table) = tables.get(&Arc::as_ptr(config)) {
            return Rc::clone(table);
        }
        tables.retain(|_, table| Arc::strong_count(table.config()) > 1);
        let table = Rc::new(RouteTable::new(Arc::clone(config)));
        tables.insert(Arc::as_ptr(config), Rc::clone(&table));
        table
    }
}

/// What filters ask of the upstream side.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traits {
    /// Our labels go to peers in the mesh.
    pub(super) tells_peers: bool,
    /// Mutual TLS offers the mesh's application protocols.
    pub(super) mesh_alpn: bool,
    /// gRPC messages are counted.
    pub(super) counts_messages: bool,
}

impl Traits {
    fn of(manager: &HttpManager, direction: Direction) -> Self {
        let outbound = direction != Direction::Inbound;
        let has = |wanted: fn(&HttpFilter) -> bool| manager.filters.iter().any(wanted);
        Self {
            tells_peers: outbound && has(|filter| matches!(filter, HttpFilter::PeerMetadata)),
            mesh_alpn: has(|filter| matches!(filter, HttpFilter::Alpn)),
            counts_messages: has(|filter| matches!(filter, HttpFilter::GrpcStats)),
        }
    }
}

/// One downstream connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) worker: Rc<HttpWorker>,
    pub(super) downstream: Rc<Downstream>,
    pub(super) manager: Arc<HttpManager>,
    pub(super) traits: Traits,
    table: RefCell<Option<(u64, Rc<RouteTable>)>>,
    active: Cell<u32>,
    last: Cell<Instant>,
    /// The next response is the last one (HTTP/1).
    closing: Cell<bool>,
}

/// Counts a request as active on its connection.
#[derive(Debug)]
pub(super) struct Active(Rc<Session>);

impl Session {
    pub(super) fn new(
        worker: Rc<HttpWorker>,
        downstream: Rc<Downstream>,
        manager: Arc<HttpManager>,
    ) -> Rc<Self> {
        let (active, last) = (Cell::new(0), Cell::new(Instant::now()));
        let traits = Traits::of(&manager, downstream.direction);
        let table = RefCell::default();
        let closing = Cell::new(false);
        Rc::new(Self { worker, downstream, manager, traits, table, active, last, closing })
    }

    /// The route table in force; `None` while the route configuration has not arrived.
    pub(super) fn table(&self) -> Option<Rc<RouteTable>> {
        let snapshot = self.worker.upstreams.peek();
        if let Some((epoch, table)) = &*self.table.borrow()
            && *epoch == snapshot.epoch
        {
            return Some(Rc::clone(table));
        }
        let config = match &self.manager.routes {
            RouteSource::Rds(name) => snapshot.routes.get(name)?,
            RouteSource::Inline(config) => config,
        };
        let table = self.worker.table(config);
        *self.table.borrow_mut() = Some((snapshot.epoch, Rc::clone(&table)));
        Some(table)
    }

    /// The connection ends with the next response.
    pub(super) fn close_soon(&self) {
        self.closing.set(true);
    }

    /// See [`Self::close_soon`].
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    pub(super) fn enter(self: &Rc<Self>) -> Active {
        self.active.set(self.active.get() + 1);
        Active(Rc::clone(self))
    }

    /// Since when the connection has carried no request; `None` while it carries one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.active.get() == 0).then(|| self.last.get())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
        self.0.last.set(Instant::now());
    }
}
