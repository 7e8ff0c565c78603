//! The listening sockets of a worker, kept equal to what the snapshot asks for.

use super::ListenWorker;
use super::bind::{family_is_off, listen};
use super::connection::{self, Accepted};
use crate::config::{Listener, Snapshot};
use futures_util::FutureExt;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Pause after `accept` failed, as when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// The sockets of one worker.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: HashMap<SocketAddr, Socket>,
    /// Addresses that could not be bound and are tried again.
    failed: bool,
}

#[derive(Debug)]
struct Socket {
    /// The listener in force; a change of its chains needs no new socket.
    listener: Rc<RefCell<Arc<Listener>>>,
    stop: CancellationToken,
}

impl Sockets {
    /// Some address is not bound yet.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// Opens, keeps and closes sockets so that they are those of `snapshot`.
    pub(super) fn reconcile(&mut self, worker: &Rc<ListenWorker>, snapshot: &Snapshot) {
        let wanted = wanted(snapshot);
        self.open.retain(|address, socket| {
            let stays = wanted.contains_key(address);
            if !stays {
                socket.stop.cancel();
                worker.shared.bound.closed(*address);
            }
            stays
        });
        self.failed = false;
        for (address, listener) in wanted {
            match self.open.get(&address) {
                Some(socket) => *socket.listener.borrow_mut() = Arc::clone(listener),
                None => self.add(worker, address, listener),
            }
        }
    }

    fn add(&mut self, worker: &Rc<ListenWorker>, address: SocketAddr, listener: &Arc<Listener>) {
        match listen(address) {
            Ok(socket) => {
                let current = Rc::new(RefCell::new(Arc::clone(listener)));
                let stop = worker.stop.child_token();
                worker.tasks.spawn_local(accept(
                    Rc::clone(worker),
                    socket,
                    Rc::clone(&current),
                    stop.clone(),
                ));
                worker.shared.bound.opened(address);
                self.open.insert(address, Socket { listener: current, stop });
            }
            Err(error) if family_is_off(&error) && address != listener.address => {
                tracing::debug!(listener = %listener.name, %address, %error,
                    "address family is not available, listener goes without this address");
                worker.shared.bound.skipped(address);
            }
            Err(error) => {
                tracing::warn!(listener = %listener.name, %address, %error, "cannot listen");
                worker.shared.bound.failed(address, error.to_string());
                self.failed = true;
            }
        }
    }
}

/// The addresses to listen on, each with its listener.
fn wanted(snapshot: &Snapshot) -> HashMap<SocketAddr, &Arc<Listener>> {
    let mut wanted = HashMap::new();
    for listener in snapshot.listeners.values().filter(|listener| listener.bind) {
        for address in listener.additional_addresses.iter().chain([&listener.address]) {
            wanted.insert(*address, listener);
        }
    }
    wanted
}

/// Accepts connections until stopped; those already waiting then are still taken.
async fn accept(
    worker: Rc<ListenWorker>,
    socket: TcpListener,
    listener: Rc<RefCell<Arc<Listener>>>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok(connection) => begin(&worker, connection, &listener),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(listener = %listener.borrow().name, %error, "cannot accept");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
    }
    while let Some(Ok(connection)) = socket.accept().now_or_never() {
        begin(&worker, connection, &listener);
    }
}

fn begin(
    worker: &Rc<ListenWorker>,
    (stream, peer): (TcpStream, SocketAddr),
    listener: &RefCell<Arc<Listener>>,
) {
    let listener = Arc::clone(&listener.borrow());
    let accepted = Accepted { stream, peer, listener };
    worker.tasks.spawn_local(connection::serve(Rc::clone(worker), accepted));
}

/// The client gave up before it was accepted; the socket is well.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
