//! The Unix socket to which applications come for discovery.

use super::authority_header::Lenient;
use super::relay::{MAX_STREAMS, Relay};
use crate::agent::files::remove;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections of all applications together: some libraries open one for each target.
const MAX_CONNECTIONS: usize = 1024;
/// Longest time for a peer to begin; libraries do at once.
const BEGIN: Duration = Duration::from_secs(10);
/// For the applications, whatever user they are. In a pod only containers that mount the volume get there;
/// on a machine the folder's own mode says who does.
const MODE: u32 = 0o666;

/// A socket at this path, in the place of one that an earlier process left.
///
/// # Errors
/// When it cannot be had.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    remove(path)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    Ok(listener)
}

/// Serves applications until cancelled.
pub async fn serve(
    listener: UnixListener,
    relay: Arc<Relay>,
    tasks: TaskTracker,
    end: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(
                limit = MAX_CONNECTIONS,
                "too many applications; a connection is refused"
            );
            continue;
        };
        let (relay, end) = (Arc::clone(&relay), end.clone());
        tasks.spawn(async move {
            let _place = place;
            converse(stream, relay, end).await;
        });
    }
}

async fn converse(stream: UnixStream, relay: Arc<Relay>, end: CancellationToken) {
    let begun = tokio::select! {
        begun = Lenient::begun(stream, BEGIN) => begun,
        () = end.cancelled() => return,
    };
    let stream = match begun {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a connection did not begin");
            return;
        }
    };
    let service = service_fn(move |request| {
        let relay = Arc::clone(&relay);
        async move { Ok::<_, Infallible>(Box::pin(relay.answer(request)).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection of an application ended");
    }
}
