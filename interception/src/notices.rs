//! Hears of every change to the nftables rules of a network namespace, whoever makes it.
//!
//! Says that something changed and by which program; what the rules now are says
//! [`mod@crate::verify`]. An open socket keeps its namespace alive: whoever holds one must drop it
//! when the pod has ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::apply::{ApplyError, step};
use crate::netlink::socket::NetlinkError;
use crate::netlink::wire::{attributes, find, messages, text};
use crate::render::nft;

/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const GROUP: u32 = 7;
/// `NFT_MSG_NEWGEN`, the last message of each transaction.
const NEW_GENERATION: u16 = 15;
/// `NFTA_GEN_PROC_NAME`.
const PROGRAM: u16 = 3;
/// `ENOBUFS`: more happened than there was room for.
const OVERRUN: i32 = 105;
const RECEIVE_BYTES: usize = 16 << 10;

/// A socket that hears of changes.
#[derive(Debug)]
pub struct Notices {
    socket: Socket,
}

/// What was heard since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether anything was.
    pub any: bool,
    /// The program that made the last change, by the name its process has.
    pub by: Option<String>,
}

impl Notices {
    /// Listens in the network namespace of the calling thread, and goes on doing so wherever the
    /// thread goes.
    ///
    /// # Errors
    /// When the kernel has no nf_tables or refuses.
    pub fn open() -> Result<Self, ApplyError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(GROUP)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let failed = |source| NetlinkError::Io { step: "socket for notifications", source };
        let opened = open().map_err(|e| step("listening for changes of rules")(failed(e)));
        opened.map(|socket| Self { socket })
    }

    /// Takes what has been heard so far. Does not block.
    ///
    /// # Errors
    /// When the socket cannot be read.
    pub fn take(&self) -> io::Result<Heard> {
        let mut heard = Heard::default();
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            match self.socket.recv_from(&mut buffer, 0) {
                Ok(_) => {
                    heard.any = true;
                    heard.by = author(&buffer).or(heard.by);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(heard),
                Err(e) if e.raw_os_error() == Some(OVERRUN) => heard.any = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The program that ended a transaction in these messages.
fn author(datagram: &[u8]) -> Option<String> {
    let generation = nft::message_type(NEW_GENERATION);
    let ends = messages(datagram).into_iter().filter(|m| m.kind == generation);
    ends.filter_map(|m| find(&attributes(m.payload.get(4..)?), PROGRAM).map(text)).next_back()
}

#[cfg(test)]
mod tests {
    use super::{NEW_GENERATION, PROGRAM, author};
    use crate::netlink::wire::Writer;
    use crate::render::nft;

    #[test]
    fn the_program_is_that_of_the_last_transaction() {
        let mut w = Writer::default();
        for name in ["nft", "firewalld"] {
            w.message(nft::message_type(NEW_GENERATION), 0, 1, |w| {
                w.raw(&[0; 4]);
                w.be32(1, 7);
                w.string(PROGRAM, name);
            });
        }
        let bytes = w.finish().unwrap();
        assert_eq!(author(&bytes).as_deref(), Some("firewalld"));
        assert_eq!(author(&bytes[..20]), None);
        assert_eq!(author(&[]), None);
    }
}
