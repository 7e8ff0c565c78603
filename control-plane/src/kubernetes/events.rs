//! Events, where `kubectl describe` and `kubectl get events` show them; never more than a few at once.
//!
//! What is told alike again within minutes is one event with a count. Knows nothing of what is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::MANAGER;
use super::ask::ask;
use super::denied::Tried;
use crate::cluster::Cluster;
use crate::serve::metrics::Metrics;

/// Events that may be written at once.
const BURST: u32 = 20;
/// Time in which room for one more comes.
const PACE: Duration = Duration::from_secs(3);
/// Longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1000;

/// Writes events in the name of this replica.
pub struct Events {
    recorder: Recorder,
    room: Mutex<Room>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Events {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Events").finish_non_exhaustive()
    }
}

/// What is told of an object.
#[derive(Debug, Clone, Copy)]
pub struct Note<'a> {
    /// Whether something is wrong.
    pub warning: bool,
    /// One word, such as `SidecarMissing`.
    pub reason: &'a str,
    /// For people.
    pub text: &'a str,
}

impl Events {
    /// Events by the pod of this replica.
    #[must_use]
    pub fn new(cluster: &Cluster, metrics: &Arc<Metrics>) -> Self {
        let reporter =
            Reporter { controller: MANAGER.to_owned(), instance: Some(cluster.pod.clone()) };
        Self {
            recorder: Recorder::new(cluster.client.clone(), reporter),
            room: Mutex::new(Room { left: BURST, since: Instant::now() }),
            metrics: Arc::clone(metrics),
        }
    }

    /// Tells of an object, if there is room. What the API server refuses is logged.
    pub async fn tell(&self, about: &ObjectReference, note: Note<'_>) {
        if !self.room.lock().take(Instant::now()) {
            self.metrics.count_event("left-out");
            return;
        }
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            note: Some(shorten(note.text).to_owned()),
            action: "Inject".to_owned(),
            secondary: None,
        };
        let mut tried = Tried::new("create", "events").of("events.k8s.io");
        tried.namespace.clone_from(&about.namespace);
        match ask(tried, self.recorder.publish(&event, about)).await {
            Ok(()) => self.metrics.count_event("written"),
            Err(failure) => {
                self.metrics.count_event("refused");
                tracing::warn!(reason = note.reason, "no event: {failure}");
            }
        }
    }
}

/// Room for events.
#[derive(Debug)]
struct Room {
    left: u32,
    since: Instant,
}

impl Room {
    fn take(&mut self, now: Instant) -> bool {
        let periods = now.duration_since(self.since).as_secs() / PACE.as_secs();
        if periods > 0 {
            let more = u32::try_from(periods).unwrap_or(BURST);
            self.left = self.left.saturating_add(more).min(BURST);
            self.since = now;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

fn shorten(note: &str) -> &str {
    note.get(..note.floor_char_boundary(MAX_NOTE)).unwrap_or(note)
}

#[cfg(test)]
mod tests {
    use super::{BURST, PACE, Room, shorten};
    use tokio::time::Instant;

    #[test]
    fn there_is_room_for_some_at_once_and_then_now_and_again() {
        let begun = Instant::now();
        let mut room = Room { left: BURST, since: begun };
        assert_eq!((0..100).filter(|_| room.take(begun)).count(), BURST as usize);
        assert!(room.take(begun + PACE));
        assert!(!room.take(begun + PACE));
        assert_eq!((0..100).filter(|_| room.take(begun + 1000 * PACE)).count(), BURST as usize);
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(shorten(&"\u{e4}".repeat(600)).len(), 1000);
        assert_eq!(shorten("short"), "short");
    }
}
