//! Follows a configuration directory: reads it again when the kernel says that something changed,
//! and every few seconds in case it did not say so.
//!
//! The first change of a quiet directory is taken at once; what follows it waits until the
//! directory has been quiet for a moment, so that a burst of files is one load.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Source;
use super::files::Reader;
use super::load::{Load, State};

/// Quiet that ends a burst.
const QUIET: Duration = Duration::from_millis(15);
/// Longest burst that is waited for.
const LONGEST_BURST: Duration = Duration::from_millis(200);
/// Time between looks when the kernel says nothing.
const RESCAN: Duration = Duration::from_secs(5);

/// Why a directory cannot be followed.
#[derive(Debug, Error)]
pub enum SourceError {
    /// It cannot be listed.
    #[error("configuration directory {folder}: {source}; name one that exists and can be read")]
    Read {
        /// The directory.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Source {
    /// Reads `folder` once and goes on following it until `stop`.
    ///
    /// # Errors
    /// When the directory cannot be listed at first.
    pub async fn follow(folder: &Path, stop: CancellationToken) -> Result<Self, SourceError> {
        let (events_in, events) = mpsc::channel(1);
        let watcher = start_watcher(folder, events_in);
        let folder = folder.to_owned();
        let follower =
            Follower { reader: Some(Reader::new(folder.clone())), state: State::default() };
        let (follower, load) = follower.pass().await;
        let load = load.map_err(|source| SourceError::Read { folder, source })?;
        let (send, loads) = watch::channel(Arc::new(load));
        let listed = CancellationToken::new();
        listed.cancel();
        let task = tokio::spawn(follow(follower, events, send, stop, watcher));
        Ok(Self::new(loads, listed, task))
    }
}

/// What a directory holds now. Blocking.
///
/// # Errors
/// When the directory cannot be listed.
pub fn read_once(folder: &Path) -> Result<Load, SourceError> {
    let files = Reader::new(folder.to_owned())
        .read()
        .map_err(|source| SourceError::Read { folder: folder.to_owned(), source })?;
    Ok(Load::next(&State::default(), &files))
}

/// The kernel's watcher; without one, the directory is only looked at from time to time.
fn start_watcher(folder: &Path, events: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading files makes access events; they are no change.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // A full channel already holds the news that something changed.
            let _sent = events.try_send(());
        }
    });
    let watched = watcher.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    watched
        .inspect_err(|error| {
            tracing::warn!(folder = %folder.display(), %error, "no change notification; looking every few seconds");
        })
        .ok()
}

/// Reader and state; the reader is away while a pass runs.
#[derive(Debug)]
struct Follower {
    reader: Option<Reader>,
    state: State,
}

impl Follower {
    async fn pass(mut self) -> (Self, std::io::Result<Load>) {
        let Some(mut reader) = self.reader.take() else {
            return (self, Err(std::io::Error::other("the reader was lost")));
        };
        let state = std::mem::take(&mut self.state);
        let work = tokio::task::spawn_blocking(move || match reader.read() {
            Ok(files) => {
                let load = Load::next(&state, &files);
                (reader, load.state.clone(), Ok(load))
            }
            Err(error) => (reader, state, Err(error)),
        });
        match work.await {
            Ok((reader, state, load)) => (Self { reader: Some(reader), state }, load),
            Err(error) => (self, Err(std::io::Error::other(error))),
        }
    }
}

async fn follow(
    mut follower: Follower,
    mut events: mpsc::Receiver<()>,
    send: watch::Sender<Arc<Load>>,
    stop: CancellationToken,
    watcher: Option<RecommendedWatcher>,
) {
    let mut quiet_since = Instant::now();
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => break,
            event = events.recv(), if watcher.is_some() => event.is_some(),
            () = sleep_until(quiet_since + RESCAN) => false,
        };
        let burst = told && quiet_since.elapsed() < QUIET * 2;
        if burst {
            settle(&mut events).await;
        }
        let (next, load) = follower.pass().await;
        follower = next;
        quiet_since = Instant::now();
        match load {
            Ok(load) => publish(&send, load),
            Err(error) => {
                tracing::warn!(%error, "the configuration directory cannot be read; what was in force stays")
            }
        }
    }
}

/// Waits until nothing has changed for a moment.
async fn settle(events: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + LONGEST_BURST;
    while Instant::now() < end {
        if timeout(QUIET, events.recv()).await.is_err() {
            return;
        }
    }
}

fn publish(send: &watch::Sender<Arc<Load>>, load: Load) {
    let current = send.borrow();
    let same = current.state.is_same(&load.state);
    drop(current);
    if !same {
        send.send_replace(Arc::new(load));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use std::path::Path;
    use std::time::Duration;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    fn write(folder: &Path, name: &str, port: u16) {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{{port: {port}}}]}}\n"
        );
        let temporary = folder.join(format!(".{name}.new"));
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(&temporary, folder.join(name)).unwrap();
    }

    #[tokio::test]
    async fn changes_arrive_and_mistakes_leave_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.yaml", 1);
        let stop = CancellationToken::new();
        let source = Source::follow(folder.path(), stop.clone()).await.unwrap();
        let mut loads = source.loads();
        assert_eq!(loads.borrow_and_update().objects.services[0].object.spec.ports[0].port, 1);

        for port in 2..6 {
            write(folder.path(), "a.yaml", port);
            let wanted = loads.wait_for(|load| {
                load.objects.services.first().is_some_and(|it| it.object.spec.ports[0].port == port)
            });
            let arrived = timeout(Duration::from_secs(3), wanted).await;
            assert!(arrived.is_ok_and(|load| load.is_ok()), "port {port} did not arrive");
        }

        std::fs::create_dir(folder.path().join("more")).unwrap();
        std::fs::write(folder.path().join("more/b.yaml"), "kind: [").unwrap();
        let wanted = loads.wait_for(|load| !load.findings.is_empty());
        let load = timeout(Duration::from_secs(8), wanted).await.unwrap().unwrap().clone();
        assert_eq!(load.objects.services.len(), 1);
        assert_eq!(load.findings[0].file.as_deref(), Some("more/b.yaml"));

        stop.cancel();
        timeout(Duration::from_secs(3), source.stopped()).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_named() {
        let error = Source::follow(Path::new("/nowhere/at/all"), CancellationToken::new()).await;
        assert!(error.unwrap_err().to_string().contains("/nowhere/at/all"));
    }
}
