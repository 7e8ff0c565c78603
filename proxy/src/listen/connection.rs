//! One connection: original destination, listener, inspection, filter chain, TLS, authorization,
//! and whoever serves it.

use super::choose::{ConnectionFacts, choose};
use super::destination::{canonical, original};
use super::drain::Deadline;
use super::inspect::{Found, InspectError, inspect};
use super::tls::HandshakeError;
use super::{ClientStream, ListenWorker};
use crate::authz::{ConnectionFacts as AuthzFacts, decide};
use crate::config::{FilterChain, Listener, Terminal};
use crate::http::{Downstream, Flags, ServeError};
use crate::tcp::{self, TcpRecord};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// A connection as it was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) listener: Arc<Listener>,
}

/// Why a connection ended otherwise than by being served.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Http(#[from] ServeError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Counts a connection as open while it lives.
struct Open(Arc<AtomicU64>);

impl Open {
    fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(worker: Rc<ListenWorker>, accepted: Accepted) {
    let _open = Open::new(&worker.shared.open);
    let (peer, name) = (accepted.peer, Arc::clone(&accepted.listener.name));
    if let Err(error) = take(&worker, accepted).await {
        tracing::debug!(%peer, listener = %name, %error, "connection ended");
    }
}

async fn take(worker: &Rc<ListenWorker>, accepted: Accepted) -> Result<(), ConnectionError> {
    let Accepted { stream, peer, listener } = accepted;
    stream.set_nodelay(true)?;
    let local = canonical(stream.local_addr()?);
    let redirected = listener.inspect.original_dst || listener.use_original_dst;
    let original_dst = if redirected { original(&stream) } else { None };
    let listener = successor(worker, listener, original_dst);
    let destination = original_dst.unwrap_or(local);
    let found = tokio::select! {
        found = inspect(&stream, &listener.inspect, destination.port()) => found?,
        () = worker.stop.cancelled() => return Ok(()),
    };
    let downstream = Downstream {
        peer: canonical(peer),
        local: destination,
        original_dst,
        direction: listener.direction,
        tls: None,
    };
    let connection = Connection { stream, downstream, found, listener };
    let Some(chain) = connection.chain() else {
        connection.no_chain(worker);
        return Ok(());
    };
    let life = worker.lives.enter(&connection.listener, &chain);
    let drain = life.drain.clone();
    let mut deadline = Deadline::new(drain.clone(), worker.drain_time);
    let mut serving = Box::pin(connection.serve(worker, &chain, drain));
    poll_fn(|cx| match serving.as_mut().poll(cx) {
        Poll::Ready(served) => Poll::Ready(served),
        Poll::Pending => deadline.poll(cx).map(Ok),
    })
    .await
}

/// The listener that stands for the original destination, if this one hands over.
fn successor(
    worker: &ListenWorker,
    listener: Arc<Listener>,
    original_dst: Option<SocketAddr>,
) -> Arc<Listener> {
    let Some(destination) = original_dst.filter(|_| listener.use_original_dst) else {
        return listener;
    };
    worker.shared.index.find(&worker.config.load(), destination).unwrap_or(listener)
}

/// A connection of which is known where it goes and what it speaks.
struct Connection {
    stream: TcpStream,
    downstream: Downstream,
    found: Found,
    listener: Arc<Listener>,
}

impl Connection {
    fn chain(&self) -> Option<Arc<FilterChain>> {
        let sniffed: Vec<String> = self.found.http.iter().map(|p| (*p).to_owned()).collect();
        let hello = self.found.tls.as_ref();
        let facts = ConnectionFacts {
            destination: self.downstream.local,
            server_name: hello.and_then(|h| h.server_name.as_deref()).unwrap_or_default(),
            tls: hello.is_some(),
            application_protocols: hello.map_or(&sniffed, |h| &h.application_protocols),
        };
        choose(&self.listener, &facts).cloned()
    }

    fn server_name(&self) -> Option<String> {
        let sniffed = self.found.tls.as_ref().and_then(|hello| hello.server_name.clone());
        sniffed.or_else(|| self.downstream.tls.as_ref()?.sni.clone())
    }

    /// No chain matches: the connection is closed, and the listener's log says so.
    fn no_chain(self, worker: &ListenWorker) {
        let server_name = self.server_name();
        let record = TcpRecord::new(Rc::new(self.downstream), self.listener, None, server_name);
        record.note(Flags::NO_ROUTE, "filter_chain_not_found");
        worker.tcp.sink().closed(&Rc::new(record));
    }

    async fn serve(
        mut self,
        worker: &ListenWorker,
        chain: &Arc<FilterChain>,
        drain: CancellationToken,
    ) -> Result<(), ConnectionError> {
        let server_name = self.server_name();
        let stream = match &chain.tls {
            None => ClientStream::Plain(self.stream),
            Some(tls) => {
                let limit = chain.handshake_timeout;
                let (stream, mut facts) = worker.shared.tls.accept(self.stream, tls, limit).await?;
                facts.sni = facts.sni.or_else(|| server_name.clone());
                self.downstream.tls = Some(Arc::new(facts));
                ClientStream::Tls(stream)
            }
        };
        let downstream = Rc::new(self.downstream);
        let record = |server_name| {
            let chain = Some(Arc::clone(chain));
            TcpRecord::new(Rc::clone(&downstream), Arc::clone(&self.listener), chain, server_name)
        };
        let facts = AuthzFacts {
            downstream: &downstream,
            server_name: server_name.as_deref().unwrap_or_default(),
        };
        let decision = decide(&chain.rbac, &facts);
        if !decision.allowed {
            let record = record(server_name);
            record.note(Flags::UNAUTHORIZED, decision.details());
            worker.tcp.sink().closed(&Rc::new(record));
            return Ok(());
        }
        match &chain.terminal {
            Terminal::Tcp(proxy) => {
                tcp::serve(&worker.tcp, stream, record(server_name), proxy).await;
            }
            Terminal::Http(manager) => {
                let http = Rc::clone(&worker.http);
                let manager = Arc::clone(manager);
                crate::http::serve(http, stream, downstream, manager, drain).await?;
            }
        }
        Ok(())
    }
}
