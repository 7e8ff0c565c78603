//! Admission of a pod: which webhooks are asked, what they change, and what it means when one does
//! not answer.
//!
//! As the API server does it: hooks one after the other in the order of their configuration, each
//! with the pod as the ones before left it. Where a Service is comes from the caller.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lateen_webhook::client::{self, Endpoint};
use lateen_webhook::selectors::{AdmittedRequest, Hook, HookTarget, hooks_for};
use serde_json::Value;
use thiserror::Error;

use super::names;

/// Reason of a pod for which no hook fired: no label of its namespace or its own asks for one.
pub const NOT_SELECTED: &str = "skipped.not-selected";
/// Reason of a pod whose hook failed and whose failure policy lets it pass.
pub const HOOK_FAILED: &str = "skipped.hook-failed";
/// Reason of a pod that a hook changed without saying why.
const CHANGED: &str = "injected.unsaid";
/// Reason of a pod that a hook let pass without saying why.
const UNCHANGED: &str = "skipped.unsaid";

/// An admitted pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// The pod with all patches.
    pub pod: Value,
    /// Reason code of the last hook that gave one.
    pub reason: String,
    /// Names of the hooks that were asked.
    pub hooks: Vec<String>,
    /// What hooks want people to know.
    pub warnings: Vec<String>,
}

/// Why a pod is not created.
#[derive(Debug, Error)]
pub enum AdmissionError {
    /// The registration cannot be evaluated.
    #[error("webhook configuration: {0}")]
    Configuration(String),
    /// A hook did not answer, and nothing may pass without it.
    #[error("failed calling webhook {hook:?} (failurePolicy Fail): {reason}")]
    Call {
        /// Name of the hook.
        hook: String,
        /// What happened.
        reason: String,
    },
    /// A hook refused the pod.
    #[error("admission webhook {hook:?} denied the request: {message}")]
    Denied {
        /// Name of the hook.
        hook: String,
        /// Its words.
        message: String,
        /// Its reason code.
        reason: String,
    },
}

impl AdmissionError {
    /// Stable code.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Configuration(_) => "failed.webhook-configuration",
            Self::Call { .. } => "failed.webhook-call",
            Self::Denied { reason, .. } => reason,
        }
    }
}

/// What admission needs to know beyond the pod.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The MutatingWebhookConfiguration.
    pub configuration: &'a Value,
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Labels of that namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Whether hooks are only asked what they would say.
    pub dry_run: bool,
}

/// Finds an endpoint of a Service: namespace, name, port.
pub trait Resolve: Send + Sync {
    /// Where the Service is, or why nowhere.
    ///
    /// # Errors
    /// When there is no such Service, port or endpoint.
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, String>;
}

/// Admits `pod`.
///
/// # Errors
/// Why it must not be created.
pub async fn admit(
    pod: Value,
    around: Surroundings<'_>,
    services: &dyn Resolve,
) -> Result<Admitted, AdmissionError> {
    let labels: BTreeMap<String, String> =
        serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
    let request = AdmittedRequest {
        operation: "CREATE",
        group: "",
        version: "v1",
        resource: "pods",
        namespace_labels: around.namespace_labels,
        object_labels: &labels,
        namespace: around.namespace,
        object: &pod,
    };
    let hooks = hooks_for(around.configuration, &request)
        .map_err(|error| AdmissionError::Configuration(error.to_string()))?;
    let mut admitted =
        Admitted { pod, reason: NOT_SELECTED.to_owned(), hooks: Vec::new(), warnings: Vec::new() };
    for hook in hooks {
        match ask(&hook, &admitted.pod, &around, services).await {
            Ok(answer) => take(&mut admitted, &hook, answer)?,
            Err(reason) if hook.fail_closed => {
                return Err(AdmissionError::Call { hook: hook.name, reason });
            }
            Err(reason) => {
                let warning = format!("webhook {:?} was left out: {reason}", hook.name);
                admitted.warnings.push(warning);
                admitted.reason = HOOK_FAILED.to_owned();
            }
        }
        admitted.hooks.push(hook.name);
    }
    Ok(admitted)
}

/// An answer and the pod with its patch.
struct Answer {
    outcome: client::Outcome,
    patched: Value,
}

fn take(admitted: &mut Admitted, hook: &Hook, answer: Answer) -> Result<(), AdmissionError> {
    let Answer { outcome, patched } = answer;
    if !outcome.allowed {
        return Err(AdmissionError::Denied {
            hook: hook.name.clone(),
            message: outcome.message,
            reason: outcome.reason.unwrap_or_else(|| "denied.unsaid".to_owned()),
        });
    }
    let changed = patched != admitted.pod;
    let unsaid = if changed { CHANGED } else { UNCHANGED };
    admitted.reason = outcome.reason.unwrap_or_else(|| unsaid.to_owned());
    admitted.warnings.extend(outcome.warnings);
    admitted.pod = patched;
    Ok(())
}

async fn ask(
    hook: &Hook,
    pod: &Value,
    around: &Surroundings<'_>,
    services: &dyn Resolve,
) -> Result<Answer, String> {
    let endpoint = match &hook.target {
        HookTarget::Service { namespace, name, port, path } => Endpoint {
            address: services.resolve(namespace, name, *port)?,
            server_name: format!("{name}.{namespace}.svc"),
            path: path.clone(),
        },
        HookTarget::Url(url) => {
            return Err(format!("{url}: the lab calls Services only, no URLs"));
        }
    };
    let review = client::build_review(pod, around.namespace, &names::uid(), around.dry_run);
    let patience = Duration::from_secs(hook.timeout_seconds);
    let outcome = client::call(&endpoint, &hook.ca_bundle, &review, patience)
        .await
        .map_err(|error| error.to_string())?;
    let mut patched = pod.clone();
    if outcome.allowed {
        client::apply(&mut patched, &outcome).map_err(|error| error.to_string())?;
    }
    Ok(Answer { outcome, patched })
}
