//! The facts of a connection, for network authorization.

use super::http::{destination, peer_names};
use super::{Facts, PeerNames};
use crate::http::Downstream;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// A connection with the server name it asked for, whether or not TLS ends here.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// Addresses and peer.
    pub downstream: &'a Downstream,
    /// Server name; empty without one.
    pub server_name: &'a str,
}

impl Facts for ConnectionFacts<'_> {
    fn header(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn path(&self) -> Option<&str> {
        None
    }

    fn destination(&self) -> SocketAddr {
        destination(self.downstream)
    }

    fn direct_remote(&self) -> IpAddr {
        self.downstream.peer.ip()
    }

    fn remote(&self) -> IpAddr {
        self.downstream.peer.ip()
    }

    fn server_name(&self) -> &str {
        self.server_name
    }

    fn peer(&self) -> Option<PeerNames<'_>> {
        peer_names(self.downstream)
    }
}
