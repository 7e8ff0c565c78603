//! Where a redirected connection was going, and which listener stands for that place.

use crate::config::{Listener, Name, Snapshot};
use arc_swap::ArcSwapOption;
use socket2::SockRef;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpStream;

/// The destination before redirection (`SO_ORIGINAL_DST`); `None` where the kernel knows none,
/// as without redirection.
#[must_use]
pub fn original(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = match stream.local_addr().ok()? {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    address.ok()?.as_socket().map(canonical)
}

/// IPv4 in IPv6 clothes is IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Listeners without a socket of their own, by the destination they stand for.
#[derive(Debug, Default)]
pub struct DestinationIndex {
    by_address: HashMap<SocketAddr, Arc<Listener>>,
}

impl DestinationIndex {
    /// Indexes the listeners of a snapshot.
    #[must_use]
    pub fn new(listeners: &HashMap<Name, Arc<Listener>>) -> Self {
        let mut by_address = HashMap::with_capacity(listeners.len());
        for listener in listeners.values().filter(|listener| !listener.bind) {
            for address in listener.additional_addresses.iter().chain([&listener.address]) {
                by_address.insert(canonical(*address), Arc::clone(listener));
            }
        }
        Self { by_address }
    }

    /// The listener of a destination: its exact address, then any address with its port.
    #[must_use]
    pub fn find(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let destination = canonical(destination);
        let any = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.by_address
            .get(&destination)
            .or_else(|| self.by_address.get(&SocketAddr::new(any, destination.port())))
    }
}

/// The index of the latest snapshot, made once for all workers.
#[derive(Debug, Default)]
pub struct IndexCache(ArcSwapOption<(u64, DestinationIndex)>);

impl IndexCache {
    /// The listener that stands for `destination` in `snapshot`.
    #[must_use]
    pub fn find(&self, snapshot: &Snapshot, destination: SocketAddr) -> Option<Arc<Listener>> {
        if let Some(known) = self.0.load().as_ref()
            && known.0 == snapshot.epoch
        {
            return known.1.find(destination).cloned();
        }
        let index = DestinationIndex::new(&snapshot.listeners);
        let found = index.find(destination).cloned();
        self.0.store(Some(Arc::new((snapshot.epoch, index))));
        found
    }
}
