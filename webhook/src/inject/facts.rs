//! Everything the parts of an injection are built from, found out once per pod.
//!
//! A borrowed view: the settings, the pod without any earlier injection, and what follows from
//! both. The parts themselves decide nothing about where it comes from.

use serde_json::Value;

use lateen_api::core::Workload;
use lateen_api::names::{annotation, label};

use super::annotations::Annotations;
use super::identity::Ids;
use super::owner;
use super::proxy_config::{Mode, ProxyConfig};
use super::redirect::Redirect;
use super::{AdmissionContext, InjectError};
use crate::kube::text_map;
use crate::settings::InjectionSettings;

/// What the parts are built from.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) settings: &'a InjectionSettings,
    pub(crate) context: &'a AdmissionContext,
    pub(crate) annotations: Annotations,
    pub(crate) labels: Annotations,
    pub(crate) config: ProxyConfig,
    pub(crate) workload: Workload,
    pub(crate) mode: Mode,
    /// Whether the proxy is a native sidecar.
    pub(crate) native: bool,
    /// Whether applications wait for the proxy (of consequence only when it is not native).
    pub(crate) holds: bool,
    /// Port of the proxy's own probes and drain hook; `None` switches them off.
    pub(crate) status_port: Option<u16>,
    /// Port to which application probes are redirected.
    pub(crate) probe_port: u16,
    pub(crate) ids: Ids,
    pub(crate) redirect: Redirect,
    pub(crate) app_containers: Vec<String>,
    /// Ports of the application containers, as the user wrote them.
    pub(crate) app_ports: Vec<Value>,
    pub(crate) service_account: String,
}

impl<'a> Facts<'a> {
    /// Finds out about a pod without earlier injection; `proxy` is the user's own `istio-proxy`.
    pub(crate) fn new(
        pod: &Value,
        proxy: Option<&Value>,
        settings: &'a InjectionSettings,
        context: &'a AdmissionContext,
    ) -> Result<Self, InjectError> {
        let annotations = text_map(&pod["metadata"]["annotations"]);
        super::annotations::check(&annotations)?;
        let config = ProxyConfig::effective(settings, &annotations)?;
        let mode = annotations
            .get(annotation::INTERCEPTION_MODE)
            .and_then(|mode| Mode::parse(mode))
            .unwrap_or_else(|| config.mode());
        let status = annotations
            .get(annotation::STATUS_PORT)
            .unwrap_or(&settings.values.global.proxy.status_port);
        let status_port = status.parse::<u16>().ok().filter(|port| *port != 0);
        let annotated = annotations.get(annotation::STATUS_PORT);
        let probe_port = annotated
            .and_then(|port| port.parse().ok())
            .filter(|port| *port != 0)
            .unwrap_or_else(|| config.status_port());
        let ids = Ids::new(pod, proxy, (settings, context, &annotations, mode));
        let hold = settings.values.global.proxy.hold_application_until_proxy_starts;
        let workload = context.workload.clone().unwrap_or_else(|| owner::of_pod(pod));
        let apps = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            native: annotations
                .get(annotation::NATIVE_SIDECAR)
                .map_or(settings.native_sidecars, |value| value != "false"),
            holds: hold || config.holds_application(),
            redirect: Redirect::new(settings, &annotations, status_port),
            labels: text_map(&pod["metadata"]["labels"]),
            app_containers: apps.iter().map(|app| text(&app["name"])).collect(),
            app_ports: apps
                .iter()
                .filter_map(|app| app["ports"].as_array())
                .flatten()
                .cloned()
                .collect(),
            service_account: text(&pod["spec"]["serviceAccountName"]),
            settings,
            context,
            annotations,
            config,
            workload,
            mode,
            status_port,
            probe_port,
            ids,
        })
    }

    /// Namespace of the pod, as names in the mesh have it.
    pub(crate) fn namespace(&self) -> &str {
        if self.context.namespace.is_empty() { "default" } else { &self.context.namespace }
    }

    /// Name of the workload in the mesh.
    pub(crate) fn workload_name(&self) -> &str {
        self.labels.get(label::WORKLOAD_NAME).unwrap_or(&self.workload.name)
    }

    /// Network of the pod, if it is known.
    pub(crate) fn network(&self) -> Option<&str> {
        let configured = &self.settings.values.global.network;
        self.labels
            .get(label::NETWORK)
            .or_else(|| self.context.environment.get(lateen_api::names::env::META_NETWORK))
            .or(Some(configured))
            .map(String::as_str)
            .filter(|network| !network.is_empty())
    }
}
