//! What an injected pod looks like.
//!
//! A pod goes in, the injected pod and the patch to it come out. An earlier injection is taken
//! out first, so that injecting twice is injecting once. The pod of the user stays untyped and
//! keeps what is unknown here; what is added is built from typed parts, so that no annotation
//! can become structure. Pure: no clock, no I/O.

mod annotations;
mod assembly;
pub(crate) mod custom;
mod digest;
mod environment;
mod facts;
mod finish;
mod gateway;
mod grpc;
mod grpc_agent;
mod identity;
mod images;
mod metadata;
mod overlay;
mod owner;
mod previous;
mod probes;
mod prometheus;
mod proxy_config;
mod redirect;
mod resources;
mod shape;
mod sidecar;
mod templates;
mod volumes;

use std::collections::BTreeMap;

use lateen_api::names::annotation;
use serde_json::Value;

use crate::patch::{self, Operation};
use crate::policy::{self, Reason};
use crate::settings::InjectionSettings;
use assembly::Assembled;

pub use lateen_api::core::Workload;
pub(crate) use proxy_config::check as check_proxy_config;

/// What is known about a pod apart from the pod.
#[derive(Debug, Clone, Default)]
pub struct AdmissionContext {
    /// Namespace of the request; empty only where no server is involved.
    pub namespace: String,
    /// Labels of the namespace, where known.
    pub namespace_labels: BTreeMap<String, String>,
    /// Annotations of the namespace, where known.
    pub namespace_annotations: BTreeMap<String, String>,
    /// Environment of the proxy from the webhook's URL; wins over everything else.
    pub environment: BTreeMap<String, String>,
    /// Workload, where it is known better than the pod tells.
    pub workload: Option<Workload>,
}

/// A decided pod.
#[derive(Debug, Clone)]
pub struct Injection {
    /// The pod as it is to be.
    pub pod: Value,
    /// What the pod's owner should know, each naming the field.
    pub warnings: Vec<String>,
    /// What happened and why.
    pub reason: Reason,
}

impl Injection {
    /// How to get here from the pod that was given; empty when it is skipped.
    #[must_use]
    pub fn patch(&self, given: &Value) -> Vec<Operation<'_>> {
        if self.reason.injects() { patch::between(given, &self.pod) } else { Vec::new() }
    }
}

/// A pod that must not be created as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// An annotation with a value that cannot be honoured.
    #[error("annotation {key}: {reason}; correct it and create the pod again")]
    Annotation {
        /// The annotation in full.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A template that is unknown or unusable.
    #[error("injection template {name:?}: {reason}")]
    Template {
        /// Name as the pod gives it.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A field of the pod that is not what a pod has there.
    #[error("pod field {field}: {reason}")]
    Pod {
        /// Path of the field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

impl InjectError {
    fn annotation(key: &str, reason: impl Into<String>) -> Self {
        Self::Annotation { key: key.to_owned(), reason: reason.into() }
    }

    fn pod(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Pod { field: field.into(), reason: reason.into() }
    }

    /// The reason code of the denial.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Annotation { .. } => Reason::DeniedAnnotation,
            Self::Template { .. } => Reason::DeniedTemplate,
            Self::Pod { .. } => Reason::DeniedPod,
        }
    }
}

/// Whether a pod has been injected.
#[must_use]
pub fn is_injected(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(annotation::STATUS).is_some()
}

/// The pod that its owner wrote: without an earlier injection.
#[must_use]
pub fn original(pod: &Value) -> Value {
    let mut original = pod.clone();
    if is_injected(pod) {
        previous::strip(&mut original, &mut Vec::new());
        digest::unmark(&mut original);
    }
    original
}

/// Decides about a pod and injects it.
///
/// # Errors
/// The pod must be denied: it asks for something that cannot be honoured.
pub fn inject(
    pod: &Value,
    settings: &InjectionSettings,
    context: &AdmissionContext,
) -> Result<Injection, InjectError> {
    let decision = policy::decide(pod, settings, context);
    let mut warnings = decision.warnings;
    if !decision.reason.injects() {
        return Ok(Injection { pod: pod.clone(), warnings, reason: decision.reason });
    }
    shape::check(pod)?;
    let mut stripped = pod.clone();
    previous::strip(&mut stripped, &mut warnings);
    let before = digest::Before::of(&mut stripped, is_injected(pod));
    let Assembled { pod: mut injected, beyond } =
        assembly::assemble(stripped, settings, context, &mut warnings)?;
    before.mark(&mut injected, &beyond);
    Ok(Injection { pod: injected, warnings, reason: decision.reason })
}
