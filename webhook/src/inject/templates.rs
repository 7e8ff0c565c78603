//! Templates: which pieces a pod gets.
//!
//! Lateen's own are code; the user's are overlays, as they stand or rendered for the pod, and
//! stand in for one of Lateen's under the same name. A name that is unknown denies the pod,
//! because a pod that asked for a sidecar must not start without. Must not know how pieces are
//! put together.

use std::collections::BTreeMap;

use lateen_api::names::annotation;
use serde_json::{Map, Value};

use super::annotations::Annotations;
use super::facts::Facts;
use super::{InjectError, gateway, grpc, grpc_agent, sidecar};
use crate::gotemplate;
use crate::settings::InjectionSettings;
use crate::settings::templates::UserTemplate;

/// Most templates a pod may ask for.
const LIMIT: usize = 32;

/// What one of Lateen's templates adds to a pod.
#[derive(Debug, Default)]
pub(crate) struct Fragment {
    /// The proxy.
    pub(crate) proxy: Option<Value>,
    /// Whether the proxy belongs among the init containers.
    pub(crate) proxy_is_native: bool,
    /// An init container.
    pub(crate) init: Option<Value>,
    /// Additions to application containers, by name.
    pub(crate) apps: Vec<Value>,
    /// Volumes.
    pub(crate) volumes: Vec<Value>,
    /// Labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Pull secrets.
    pub(crate) image_pull_secrets: Vec<String>,
    /// Other fields of the spec.
    pub(crate) spec: Map<String, Value>,
}

/// A template that a pod gets.
#[derive(Debug)]
pub(crate) enum Template<'a> {
    Sidecar,
    Gateway,
    GrpcSimple,
    GrpcAgent,
    /// An overlay of the user.
    User(&'a Value),
    /// A template of the user that renders one, and its name.
    Rendered(&'a str, &'a gotemplate::Template),
}

impl Template<'_> {
    /// The pieces of a template of Lateen's; `None` for a user's.
    pub(crate) fn fragment(&self, facts: &Facts<'_>) -> Result<Option<Fragment>, InjectError> {
        match self {
            Self::Sidecar => sidecar::fragment(facts).map(Some),
            Self::Gateway => gateway::fragment(facts).map(Some),
            Self::GrpcSimple => Ok(Some(grpc::fragment(facts))),
            Self::GrpcAgent => grpc_agent::fragment(facts).map(Some),
            Self::User(_) | Self::Rendered(..) => Ok(None),
        }
    }
}

/// The templates of a pod, in order, each once.
pub(crate) fn of_pod<'a>(
    annotations: &Annotations,
    settings: &'a InjectionSettings,
) -> Result<Vec<Template<'a>>, InjectError> {
    let webhook = &settings.values.sidecar_injector_webhook;
    let mut names: Vec<&str> = match annotations.get(annotation::INJECT_TEMPLATES) {
        Some(list) => list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect(),
        None => webhook.default_templates.iter().map(String::as_str).collect(),
    };
    if names.is_empty() {
        names.push("sidecar");
    }
    let mut resolved: Vec<&str> = Vec::new();
    for name in names {
        match webhook.aliases.get(name) {
            Some(aliased) => resolved.extend(aliased.iter().map(String::as_str)),
            None => resolved.push(name),
        }
    }
    if resolved.len() > LIMIT {
        let reason = format!("more than {LIMIT} templates");
        return Err(InjectError::annotation(annotation::INJECT_TEMPLATES, reason));
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut templates = Vec::new();
    for name in resolved {
        if !seen.contains(&name) {
            seen.push(name);
            templates.push(template(name, settings)?);
        }
    }
    check_together(&templates)?;
    Ok(templates)
}

/// One container cannot be both a proxy and an agent without one: its traffic would be redirected to nobody.
fn check_together(templates: &[Template<'_>]) -> Result<(), InjectError> {
    let agent = templates.iter().any(|it| matches!(it, Template::GrpcAgent));
    let proxy = templates.iter().any(|it| matches!(it, Template::Sidecar | Template::Gateway));
    if !(agent && proxy) {
        return Ok(());
    }
    let reason = "has no proxy, and cannot be combined with sidecar or gateway, which are one; name \
                  one of them in annotation inject.istio.io/templates";
    Err(InjectError::Template { name: "grpc-agent".to_owned(), reason: reason.to_owned() })
}

fn template<'a>(name: &str, settings: &'a InjectionSettings) -> Result<Template<'a>, InjectError> {
    let refuse = |reason: &str| {
        let name = name.chars().take(64).collect();
        Err(InjectError::Template { name, reason: reason.to_owned() })
    };
    match settings.templates.get(name) {
        Some((_, UserTemplate::Overlay(overlay))) => return Ok(Template::User(overlay)),
        Some((name, UserTemplate::Rendered(template))) => {
            return Ok(Template::Rendered(name, template));
        }
        None => {}
    }
    match name {
        "sidecar" => Ok(Template::Sidecar),
        "gateway" => Ok(Template::Gateway),
        "grpc-simple" => Ok(Template::GrpcSimple),
        "grpc-agent" => Ok(Template::GrpcAgent),
        "waypoint" | "kube-gateway" | "agentgateway" | "agentgateway-waypoint" => {
            refuse("not supported by Lateen; use sidecar, gateway, grpc-simple or grpc-agent")
        }
        _ => refuse(
            "unknown; define it in sidecarInjectorWebhook.templates or correct annotation \
             inject.istio.io/templates",
        ),
    }
}
