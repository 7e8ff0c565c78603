//! Events on pods, where `kubectl describe` shows them.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::Value;

use super::denied::Access;
use super::within;

/// Longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1000;

/// Writes events in the agent's name.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Events by the agent's pod of this name.
    #[must_use]
    pub fn new(client: Client, pod: Option<String>) -> Self {
        let reporter = Reporter { controller: "istio-cni-node".to_owned(), instance: pod };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Tells the pod's owner; what the API server refuses goes to the log.
    pub async fn tell(&self, pod: &Value, warning: bool, (reason, note): (&str, &str)) {
        let metadata = &pod["metadata"];
        let text = |key: &str| metadata[key].as_str().map(str::to_owned);
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(shorten(note).to_owned()),
            action: "Repair".to_owned(),
            secondary: None,
        };
        let namespace = reference.namespace.as_deref();
        let access = Access { verb: "create", resource: "events.events.k8s.io", namespace };
        let told = within(access, self.recorder.publish(&event, &reference)).await;
        if let Err(problem) = told {
            tracing::warn!("no event {reason} on the pod: {problem}");
        }
    }
}

fn shorten(note: &str) -> &str {
    note.get(..note.floor_char_boundary(MAX_NOTE)).unwrap_or(note)
}
