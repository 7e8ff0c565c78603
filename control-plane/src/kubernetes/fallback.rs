//! The admission policies that inject while the webhook does not answer, kept as the settings in
//! force want them.
//!
//! Written by the leader alone. They belong to a cluster role that the chart has while the fallback
//! is on, so that the garbage collector takes them away when it is switched off or uninstalled.
//! What the policies say is decided in the webhook crate.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use lateen_webhook::admission::Injector;
use lateen_webhook::fallback::{policies, unserved};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::MANAGER;
use super::ask::{Failure, Trouble, ask};
use super::denied::Tried;
use super::owner;
use crate::cluster::Cluster;
use crate::serve::readiness::Readiness;

const GROUP: &str = "admissionregistration.k8s.io";
/// Time between looks at the settings.
const LOOK: Duration = Duration::from_secs(1);
/// Time after which what is written is written again, whoever changed it.
const REPAIR: Duration = Duration::from_secs(30);

/// The writer.
#[derive(Debug)]
pub struct Fallback {
    cluster: Cluster,
    injector: Arc<ArcSwap<Injector>>,
    role: String,
    written: (Vec<Value>, Instant),
    trouble: Trouble,
}

impl Fallback {
    /// A writer of what the injector's settings want, on behalf of the chart's cluster role `role`.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        injector: Arc<ArcSwap<Injector>>,
        role: String,
        readiness: &Arc<Readiness>,
    ) -> Self {
        Self {
            cluster: cluster.clone(),
            injector,
            role,
            written: (Vec::new(), Instant::now()),
            trouble: Trouble::none("injection fallback", Arc::clone(readiness)),
        }
    }

    /// Writes whenever this replica leads, until `stop`.
    pub async fn run(mut self, leads: watch::Receiver<bool>, stop: CancellationToken) {
        let mut pause = LOOK;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = LOOK;
            if !*leads.borrow() {
                self.written.0.clear();
                continue;
            }
            let wanted = match self.wanted() {
                Ok(wanted) => wanted,
                Err(text) => {
                    pause = self.trouble.again(text);
                    continue;
                }
            };
            if wanted.is_empty() {
                self.trouble.forget();
                continue;
            }
            if wanted == self.written.0 && self.written.1.elapsed() < REPAIR {
                continue;
            }
            let done = tokio::select! {
                () = stop.cancelled() => return,
                done = self.write(&wanted) => done,
            };
            match done {
                Ok(()) => {
                    self.well();
                    self.written = (wanted, Instant::now());
                }
                Err(failure) => pause = self.trouble.again(explained(&failure)),
            }
        }
    }

    /// It is written; whether it can do what it is for.
    fn well(&mut self) {
        match unserved(&self.injector.load().settings) {
            None => self.trouble.over(),
            Some(reason) => {
                let _until_changed = self.trouble.again(reason);
            }
        }
    }

    /// The policies, or none when the fallback is off.
    fn wanted(&self) -> Result<Vec<Value>, String> {
        let injector = self.injector.load();
        if !injector.settings.values.sidecar_injector_webhook.fallback {
            return Ok(Vec::new());
        }
        policies(&injector.settings).map_err(|error| format!("no policies can be made: {error}"))
    }

    async fn write(&self, wanted: &[Value]) -> Result<(), Failure> {
        let owner = owner::reference(&self.cluster, &self.role).await?;
        for object in wanted {
            self.apply(owned(object, owner.as_ref())).await?;
        }
        Ok(())
    }

    async fn apply(&self, object: Value) -> Result<(), Failure> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(GROUP, "v1", &kind),
            &plural(&kind),
        );
        let tried = Tried::new("patch", &resource.plural).of(GROUP).named(&name);
        let api = Api::<DynamicObject>::all_with(self.cluster.client.clone(), &resource);
        let params = PatchParams::apply(MANAGER).force();
        ask(tried, api.patch(&name, &params, &Patch::Apply(object))).await.map(drop)
    }
}

fn owned(object: &Value, owner: Option<&Value>) -> Value {
    let mut object = object.clone();
    if let Some(owner) = owner {
        object["metadata"]["ownerReferences"] = json!([owner]);
    }
    object
}

/// The resource of a kind, in plural.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    }
}

/// A server that does not know the kind answers 404.
fn explained(failure: &Failure) -> String {
    let unknown = failure.status().is_some_and(|status| status.code == 404);
    let hint = "; MutatingAdmissionPolicy v1 needs Kubernetes 1.36: without it set \
                sidecarInjectorWebhook.fallback to false";
    format!("{failure}{}", if unknown { hint } else { "" })
}

#[cfg(test)]
mod tests {
    use super::{owned, plural};
    use serde_json::json;

    #[test]
    fn resources_are_named_as_the_api_server_does() {
        assert_eq!(plural("MutatingAdmissionPolicy"), "mutatingadmissionpolicies");
        assert_eq!(plural("ValidatingAdmissionPolicyBinding"), "validatingadmissionpolicybindings");
    }

    #[test]
    fn the_chart_owns_what_is_written() {
        let object = json!({"metadata": {"name": "x"}});
        assert_eq!(owned(&object, None), object);
        let owner = json!({"uid": "u"});
        assert_eq!(owned(&object, Some(&owner))["metadata"]["ownerReferences"], json!([owner]));
    }
}
