//! Settings of a pod object, as the CNI plugin sees it: annotations, and the proxy container's
//! environment and security context. Pure; the pod's author is not trusted.

use serde_json::Value;

use super::{
    DnsCapture, ListError, Mode, OwnerGroups, PROXY_ID, PortSelection, RangeSelection, Setting,
    Settings, lists,
};

/// Annotation: interception mode.
pub const MODE: &str = "sidecar.istio.io/interceptionMode";
/// Annotation: inbound ports captured.
pub const INCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
/// Annotation: inbound ports left alone.
pub const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// Annotation: outbound ranges captured.
pub const INCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/includeOutboundIPRanges";
/// Annotation: outbound ranges left alone.
pub const EXCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
/// Annotation: outbound ports always captured.
pub const INCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeOutboundPorts";
/// Annotation: outbound ports left alone.
pub const EXCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
/// Annotation: interfaces left alone.
pub const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
/// Annotation: interfaces of virtual machines.
pub const REROUTE_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
/// Annotation: interfaces of virtual machines, its old name.
pub const KUBEVIRT_INTERFACES: &str = "traffic.sidecar.istio.io/kubevirtInterfaces";

/// The proxy's status, health and Prometheus ports, never captured inbound.
const OWN_PORTS: [u16; 3] = [15020, 15021, 15090];
const PROXY: &str = "istio-proxy";
const DNS_CAPTURE: &str = "ISTIO_META_DNS_CAPTURE";
const DISABLED: &str = "DISABLE_ENVOY";
const INVALID_DROP: &str = "INVALID_DROP";

/// A pod whose settings cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// An annotation with a list that is none.
    #[error("annotation {annotation}: {source}; correct it and create the pod again")]
    Annotation {
        /// Its name.
        annotation: &'static str,
        /// What is wrong.
        source: ListError,
    },
    /// An unknown interception mode.
    #[error("annotation {MODE}: {0:?} is not REDIRECT, TPROXY or NONE")]
    Mode(String),
    /// A user or group id of the proxy that is no id.
    #[error("container {PROXY}: securityContext.{field}: {value} is not an id")]
    Id {
        /// Field of the security context.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

/// Settings of a pod, and what in it was not understood but does not stop it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSettings {
    /// `None` when the pod asks for no interception (mode NONE).
    pub settings: Option<Settings>,
    /// Warnings, each naming the field.
    pub warnings: Vec<String>,
}

/// The container that runs the proxy, among the containers and the init containers.
#[must_use]
pub fn proxy_container(pod: &Value) -> Option<&Value> {
    containers(pod).find(|c| c["name"] == PROXY)
}

/// All containers of a pod, init containers last.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default())
}

/// The value of an environment variable of a container; one that is `valueFrom` is unknown here.
#[must_use]
pub fn environment<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let list = container["env"].as_array()?;
    list.iter().find(|e| e["name"] == name).and_then(|e| e["value"].as_str())
}

/// Whether the proxy's container has none in it: `DISABLE_ENVOY`. Then there is nobody to redirect to.
#[must_use]
pub fn is_disabled(proxy: &Value) -> bool {
    environment(proxy, DISABLED).and_then(super::flags::boolean) == Some(true)
}

/// Where a pod says a setting, and what it says there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Annotation, or field of the proxy's container.
    pub place: String,
    /// What stands there; `None` where nothing does, so that the default holds.
    pub value: Option<String>,
}

/// Where this pod says the setting; `None` for one that no pod can say.
#[must_use]
pub fn said(pod: &Value, setting: Setting) -> Option<Said> {
    let annotations = &pod["metadata"]["annotations"];
    if let Some(mut name) = setting.annotation() {
        if name == REROUTE_INTERFACES && annotations.get(name).is_none() {
            name = KUBEVIRT_INTERFACES;
        }
        let value = annotations[name].as_str().map(str::to_owned);
        return Some(Said { place: format!("annotation {name}"), value });
    }
    let proxy = proxy_container(pod).unwrap_or(&Value::Null);
    let (place, value) = match setting {
        Setting::ProxyUid | Setting::ProxyGid => {
            let field = if setting == Setting::ProxyUid { "runAsUser" } else { "runAsGroup" };
            let value = proxy["securityContext"][field].as_u64().map(|id| id.to_string());
            (format!("securityContext.{field}"), value)
        }
        Setting::RedirectDns | Setting::DropInvalid => {
            let name = if setting == Setting::RedirectDns { DNS_CAPTURE } else { INVALID_DROP };
            (format!("env {name}"), environment(proxy, name).map(str::to_owned))
        }
        _ => return None,
    };
    Some(Said { place: format!("container {PROXY}: {place}"), value })
}

/// Settings from a pod object.
///
/// # Errors
/// An annotation or field that cannot be honoured.
pub fn from_pod(pod: &Value) -> Result<PodSettings, PodError> {
    let annotations = &pod["metadata"]["annotations"];
    let get = |name: &str| annotations[name].as_str();
    let mode = match get(MODE).unwrap_or_default() {
        "" | "REDIRECT" => Mode::Redirect,
        "TPROXY" => Mode::Tproxy,
        "NONE" => return Ok(PodSettings { settings: None, warnings: Vec::new() }),
        other => return Err(PodError::Mode(other.chars().take(64).collect())),
    };
    let list = |annotation: &'static str, default: &'static str| {
        (annotation, get(annotation).unwrap_or(default))
    };
    let mut exclude_inbound = parse(list(EXCLUDE_INBOUND_PORTS, "15020"), lists::ports)?;
    for port in OWN_PORTS {
        if !exclude_inbound.contains(&port) {
            exclude_inbound.push(port);
        }
    }
    let reroute = match get(REROUTE_INTERFACES) {
        Some(value) => (REROUTE_INTERFACES, value),
        None => list(KUBEVIRT_INTERFACES, ""),
    };
    let proxy = proxy_container(pod).unwrap_or(&Value::Null);
    let mut warnings = Vec::new();
    let dns = flag(proxy, DNS_CAPTURE, &mut warnings);
    let inbound: PortSelection = parse(list(INCLUDE_INBOUND_PORTS, "*"), lists::port_selection)?;
    let outbound: RangeSelection =
        parse(list(INCLUDE_OUTBOUND_RANGES, "*"), lists::range_selection)?;
    let settings = Settings {
        proxy_uids: vec![id(proxy, "runAsUser")?],
        proxy_gids: vec![id(proxy, "runAsGroup")?],
        mode,
        inbound_ports: inbound,
        inbound_ports_exclude: exclude_inbound,
        outbound_ranges: outbound,
        outbound_ranges_exclude: parse(list(EXCLUDE_OUTBOUND_RANGES, ""), lists::ranges)?,
        outbound_ports: parse(list(INCLUDE_OUTBOUND_PORTS, ""), lists::ports)?,
        outbound_ports_exclude: parse(list(EXCLUDE_OUTBOUND_PORTS, "15020"), lists::ports)?,
        exclude_interfaces: parse(list(EXCLUDE_INTERFACES, ""), lists::interfaces)?,
        reroute_interfaces: parse(reroute, lists::interfaces)?,
        owner_groups: OwnerGroups::AllExcept(Vec::new()),
        dns: if dns { DnsCapture::All } else { DnsCapture::Off },
        drop_invalid: flag(proxy, INVALID_DROP, &mut warnings),
        ..Settings::default()
    };
    Ok(PodSettings { settings: Some(settings), warnings })
}

fn parse<T>(
    (annotation, value): (&'static str, &str),
    parse: impl Fn(&str) -> Result<T, ListError>,
) -> Result<T, PodError> {
    parse(value).map_err(|source| PodError::Annotation { annotation, source })
}

/// A Go boolean of the proxy's environment; anything else is off, with a warning.
fn flag(proxy: &Value, name: &str, warnings: &mut Vec<String>) -> bool {
    let Some(value) = environment(proxy, name).filter(|v| !v.is_empty()) else { return false };
    super::flags::boolean(value).unwrap_or_else(|| {
        warnings.push(format!("container {PROXY}: env {name}: not a boolean, taken as false"));
        false
    })
}

/// The proxy's id; absent and 0 (root) mean the usual one.
fn id(proxy: &Value, field: &'static str) -> Result<u32, PodError> {
    let value = &proxy["securityContext"][field];
    if value.is_null() {
        return Ok(PROXY_ID);
    }
    match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(0) => Ok(PROXY_ID),
        Some(id) => Ok(id),
        None => Err(PodError::Id { field, value: value.to_string().chars().take(64).collect() }),
    }
}
