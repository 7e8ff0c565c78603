//! Connects through the rules to see that they work, for IPv4 and IPv6.
//!
//! As the proxy's user, a call from loopback to the passthrough address must arrive at a port of
//! the proxy with its original destination known. Needs no privilege when run as that user.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, listen,
    setsockopt, socket, sockopt,
};
use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};

use crate::settings::{PASSTHROUGH_SOURCE_V4, PASSTHROUGH_SOURCE_V6, Settings};

/// How long one attempt waits for the connection to arrive.
const ATTEMPT: Duration = Duration::from_millis(200);

/// Rules that do not work.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    /// The listeners could not be made.
    #[error("listening on {address} to test the rules: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The call did not come through.
    #[error(
        "the rules do not redirect {destination} to the proxy ({problem}); \
         was the CNI plugin or the init container run for this pod?"
    )]
    NotRedirected {
        /// What was called.
        destination: SocketAddr,
        /// What happened.
        problem: String,
    },
    /// A thread could not be started.
    #[error("starting the test: {0}")]
    Thread(io::Error),
}

/// Tests both families; one that the namespace does not have is left out.
///
/// # Errors
/// The first family whose calls are not redirected within `timeout`.
pub fn validate(settings: &Settings, port: u16, timeout: Duration) -> Result<(), ValidationError> {
    let owner = (
        settings.proxy_uids.first().copied().unwrap_or(crate::settings::PROXY_ID),
        settings.proxy_gids.first().copied().unwrap_or(crate::settings::PROXY_ID),
    );
    let ports = [settings.inbound_port, settings.outbound_port];
    let families: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::LOCALHOST.into(), PASSTHROUGH_SOURCE_V4.into()),
        (Ipv6Addr::LOCALHOST.into(), PASSTHROUGH_SOURCE_V6.into()),
    ];
    // Ids of the file system are those of the calling thread only, which ends here.
    thread::scope(|scope| {
        let test = move || {
            if geteuid().is_root() {
                setfsgid(Gid::from_raw(owner.1));
                setfsuid(Uid::from_raw(owner.0));
            }
            families.into_iter().try_for_each(|(local, destination)| {
                family(local, SocketAddr::new(destination, port), ports, timeout)
            })
        };
        let thread = thread::Builder::new().spawn_scoped(scope, test);
        match thread.map_err(ValidationError::Thread)?.join() {
            Ok(result) => result,
            Err(_) => Err(ValidationError::Thread(io::Error::other("the test panicked"))),
        }
    })
}

fn family(
    local: IpAddr,
    destination: SocketAddr,
    ports: [u16; 2],
    timeout: Duration,
) -> Result<(), ValidationError> {
    let mut listeners = Vec::new();
    for port in ports {
        let address = SocketAddr::new(local, port);
        match listener(address) {
            Ok(listener) => listeners.push(listener),
            Err(e) if local.is_ipv6() && no_ipv6(&e) => return Ok(()),
            Err(source) => return Err(ValidationError::Listen { address, source }),
        }
    }
    let deadline = Instant::now() + timeout;
    loop {
        let problem = match attempt(local, destination, &listeners) {
            Ok(()) => return Ok(()),
            Err(problem) => problem,
        };
        if Instant::now() >= deadline {
            return Err(ValidationError::NotRedirected { destination, problem });
        }
        // A refused call returns at once; the pause between two is a wait for a late arrival.
        wait(&listeners);
    }
}

fn no_ipv6(e: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    e.kind() == io::ErrorKind::AddrNotAvailable || e.raw_os_error() == Some(EAFNOSUPPORT)
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(16)?)?;
    Ok(TcpListener::from(fd))
}

/// One call; its source is the loopback address, as a passthrough of the proxy would not be.
fn attempt(
    local: IpAddr,
    destination: SocketAddr,
    listeners: &[TcpListener],
) -> Result<(), String> {
    let text = |e: nix::Error| io::Error::from(e).to_string();
    let family = if local.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let client = socket(family, SockType::Stream, flags, None).map_err(text)?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&client);
    bind(raw, &SockaddrStorage::from(SocketAddr::new(local, 0))).map_err(text)?;
    match connect(raw, &SockaddrStorage::from(destination)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => {}
        Err(e) => return Err(text(e)),
    }
    let client = TcpStream::from(client);
    let own = client.local_addr().map_err(|e| e.to_string())?;
    wait(listeners);
    for listener in listeners {
        while let Ok((stream, peer)) = listener.accept() {
            if peer.port() == own.port() {
                return match original_port(&stream) {
                    Some(port) if port == destination.port() => Ok(()),
                    Some(port) => Err(format!("it arrives as a call to port {port}")),
                    None => Err("its original destination is not known".to_owned()),
                };
            }
        }
    }
    match client.take_error() {
        Ok(Some(e)) => Err(e.to_string()),
        _ => Err("it does not arrive".to_owned()),
    }
}

fn wait(listeners: &[TcpListener]) {
    let mut fds: Vec<PollFd<'_>> =
        listeners.iter().map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(ATTEMPT).unwrap_or(PollTimeout::ZERO);
    // A failed wait is a short one: the caller has a deadline of its own.
    let _ = poll(&mut fds, timeout);
}

fn original_port(stream: &TcpStream) -> Option<u16> {
    if stream.local_addr().ok()?.is_ipv6() {
        let address = getsockopt(stream, sockopt::Ip6tOriginalDst).ok()?;
        return Some(u16::from_be(address.sin6_port));
    }
    let address = getsockopt(stream, sockopt::OriginalDst).ok()?;
    Some(u16::from_be(address.sin_port))
}
