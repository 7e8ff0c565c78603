//! Listening sockets: one for each worker on the same address (`SO_REUSEPORT`).

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Connections the kernel holds for us until they are accepted.
const BACKLOG: i32 = 4096;

/// Opens a listening socket on the calling runtime. IPv6 sockets take IPv6 only; IPv4 has its
/// own.
///
/// # Errors
/// When the address is taken by another program, not ours to take, or of a family that is off.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The pod has no such address family, so nothing can arrive by it either.
#[must_use]
pub(super) fn family_is_off(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}
