//! A blocking netlink socket with a deadline.
//!
//! Sends what others wrote and sorts the kernel's answers. Must not know what is in them.

use std::io;
use std::os::fd::AsFd;

use netlink_sys::{Socket, SocketAddr};
use nix::sys::{socket::setsockopt, socket::sockopt, time::TimeVal};

use super::wire::{Message, host32, messages};

const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
const RECEIVE_BYTES: usize = 1 << 17;
/// Room for the longest lists that settings allow, in one transaction.
const SEND_BUFFER_BYTES: usize = 4 << 20;
/// The kernel answers in microseconds; this only ends a wait that would never end.
const DEADLINE_SECONDS: i64 = 10;

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// The socket itself failed.
    #[error("netlink {step}: {source}")]
    Io { step: &'static str, source: io::Error },
    /// The kernel refused the message with this sequence number.
    #[error("{source}")]
    Refused { seq: u32, source: io::Error },
    /// What was dumped changed meanwhile.
    #[error("the kernel's tables changed while they were read")]
    Interrupted,
}

impl NetlinkError {
    /// The kernel's error number, 0 when there is none.
    pub(crate) fn errno(&self) -> i32 {
        match self {
            Self::Io { source, .. } | Self::Refused { source, .. } => {
                source.raw_os_error().unwrap_or(0)
            }
            Self::Interrupted => 0,
        }
    }
}

fn io_error(step: &'static str) -> impl FnOnce(io::Error) -> NetlinkError {
    move |source| NetlinkError::Io { step, source }
}

/// A socket to one netlink family.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
}

impl Connection {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol).map_err(io_error("socket"))?;
        socket.bind_auto().map_err(io_error("bind"))?;
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(DEADLINE_SECONDS, 0))
            .map_err(|e| io_error("timeout")(e.into()))?;
        Ok(Self { socket })
    }

    /// Sends a batch in one call and waits for the answer to message `last`.
    ///
    /// # Errors
    /// The first message the kernel refused, by sequence number.
    pub(crate) fn transact(&self, batch: &[u8], first: u32, last: u32) -> Result<(), NetlinkError> {
        if batch.len() > SEND_BUFFER_BYTES / 32 {
            // Without the privilege the default size stays, and the send below tells.
            let _ = setsockopt(&self.socket, sockopt::SndBufForce, &SEND_BUFFER_BYTES);
        }
        self.send(batch)?;
        let mut refused: Option<NetlinkError> = None;
        loop {
            let datagram = match self.receive() {
                Ok(datagram) => datagram,
                Err(e) => return Err(refused.unwrap_or(e)),
            };
            for message in messages(&datagram).into_iter().filter(|m| m.kind == ERROR) {
                if let Some(e) = error_of(&message) {
                    refused.get_or_insert(e);
                }
                // A refused first or unknown message means that nothing else is looked at.
                if message.seq == last || (message.seq == first && refused.is_some()) {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one request and gathers every answer up to its end.
    pub(crate) fn request(&self, request: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, NetlinkError> {
        self.send(request)?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram) {
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                match message.kind {
                    ERROR => return error_of(&message).map_or(Ok(answers), Err),
                    DONE if interrupted => return Err(NetlinkError::Interrupted),
                    DONE => return Ok(answers),
                    kind => answers.push((kind, message.payload.to_vec())),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        let sent =
            self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0).map_err(io_error("send"))?;
        if sent == bytes.len() {
            return Ok(());
        }
        Err(io_error("send")(io::Error::from(io::ErrorKind::WriteZero)))
    }

    fn receive(&self) -> Result<Vec<u8>, NetlinkError> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        self.socket.recv_from(&mut buffer, 0).map_err(io_error("receive"))?;
        Ok(buffer)
    }
}

fn error_of(message: &Message<'_>) -> Option<NetlinkError> {
    let code = i32::from_ne_bytes(host32(message.payload).to_ne_bytes());
    (code != 0).then(|| NetlinkError::Refused {
        seq: message.seq,
        source: io::Error::from_raw_os_error(-code),
    })
}
