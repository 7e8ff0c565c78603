//! From this machine's loopback to the API server inside: the listener was made outside, the
//! connections are made inside.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Pause after a connection could not be taken: there may be no file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The listener that came in as standard input.
pub(super) fn listener() -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Carries connections to `port`, until it is dropped.
pub(super) async fn forward(listener: TcpListener, port: u16) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((mut outside, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        connections.spawn(async move {
            // An API server that is away looks as it would without us: the connection ends.
            let mut inside = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            copy_bidirectional(&mut outside, &mut inside).await
        });
    }
}
