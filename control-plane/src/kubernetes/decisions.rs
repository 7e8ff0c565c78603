//! Tells the owners of pods what the webhook decided against them, as events: every replica of what it
//! decided itself, after it answered.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use lateen_webhook::stats::Decided;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events::{Events, Note};

/// Tells of each decision until `stop`.
pub async fn tell(
    mut decisions: mpsc::Receiver<Decided>,
    events: Arc<Events>,
    stop: CancellationToken,
) {
    loop {
        let decided = tokio::select! {
            () = stop.cancelled() => return,
            decided = decisions.recv() => decided,
        };
        let Some(decided) = decided else { return };
        let reason = if decided.reason.denies() { "SidecarDenied" } else { "SidecarSkipped" };
        let about = about(&decided);
        let note = Note { warning: true, reason, text: &decided.message };
        tokio::select! {
            () = stop.cancelled() => return,
            () = events.tell(&about, note) => {}
        }
    }
}

/// Who is told: the pod's controller, since a denied pod is never there; else the pod.
fn about(decided: &Decided) -> ObjectReference {
    let namespace = Some(decided.namespace.clone());
    match &decided.controller {
        Some(owner) => ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            name: Some(owner.name.clone()),
            uid: Some(owner.uid.clone()).filter(|uid| !uid.is_empty()),
            namespace,
            ..ObjectReference::default()
        },
        None => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(decided.name.clone()),
            namespace,
            ..ObjectReference::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::about;
    use lateen_webhook::Reason;
    use lateen_webhook::stats::{Controller, Decided};

    #[test]
    fn the_controller_is_told_else_the_pod() {
        let mut decided = Decided {
            reason: Reason::DeniedAnnotation,
            namespace: "shop".to_owned(),
            name: "cart".to_owned(),
            controller: None,
            message: String::new(),
        };
        assert_eq!(about(&decided).kind.as_deref(), Some("Pod"));
        decided.controller = Some(Controller {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: "cart-1".to_owned(),
            uid: "u".to_owned(),
        });
        let told = about(&decided);
        assert_eq!(
            (told.kind.as_deref(), told.name.as_deref()),
            (Some("ReplicaSet"), Some("cart-1"))
        );
        assert_eq!(told.namespace.as_deref(), Some("shop"));
    }
}
