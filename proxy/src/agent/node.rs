//! Who this proxy says it is: the xDS node, the labels of its workload, what peers are told.
//!
//! Pure, but for [`read_labels`] and [`own_addresses`].

use crate::config::{Name, WorkloadLabels};
use crate::http::LocalPeer;
use crate::settings::{Settings, VERSION, Workload};
use lateen_api::names::label;
use lateen_xds::any;
use lateen_xds::envoy::core::{BuildVersion, Locality, Node, node::UserAgentVersionType};
use lateen_xds::pb::envoy::r#type::v3::SemanticVersion;
use lateen_xds::pb::google::protobuf::{Struct, Value as ProtoValue};
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::path::Path;

/// Largest labels file that is read.
const MAX_LABELS: u64 = 1 << 20;
/// Deepest nesting of metadata that is passed on.
const MAX_DEPTH: u32 = 32;

/// This proxy among others.
#[derive(Debug, Clone)]
pub struct Identity {
    /// For discovery.
    pub node: Node,
    /// What the node says of itself, as JSON.
    pub metadata: Map<String, Value>,
    /// For metrics.
    pub labels: WorkloadLabels,
    /// For peers.
    pub peer: Option<LocalPeer>,
}

impl Identity {
    /// Puts together what is known. `labels` are those of the pod; `found` are addresses of the
    /// network namespace.
    #[must_use]
    pub fn new(settings: &Settings, labels: &Map<String, Value>, found: &[IpAddr]) -> Self {
        let workload = &settings.workload;
        let mut addresses = workload.addresses.clone();
        addresses.extend(found.iter().filter(|address| !workload.addresses.contains(address)));
        let main = addresses.first().map_or_else(|| "127.0.0.1".to_owned(), ToString::to_string);
        let id = format!(
            "{}~{main}~{}.{}~{}",
            workload.role.name(),
            workload.pod,
            workload.namespace,
            workload.domain
        );
        let described = describe(workload, labels);
        let peer = LocalPeer::new(&id, &workload.pod, &described).ok();
        let metadata = metadata(workload, labels, (&addresses, &described));
        let node = node(workload, labels, &metadata, (id, &described));
        Self { node, metadata, labels: described, peer }
    }
}

fn metadata(
    workload: &Workload,
    labels: &Map<String, Value>,
    (addresses, described): (&[IpAddr], &WorkloadLabels),
) -> Map<String, Value> {
    let mut metadata = workload.metadata.clone();
    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    metadata.insert("INSTANCE_IPS".to_owned(), Value::from(list.join(",")));
    metadata.insert("LABELS".to_owned(), Value::Object(labels.clone()));
    metadata.insert("WORKLOAD_NAME".to_owned(), Value::from(&*described.name));
    metadata
}

fn node(
    workload: &Workload,
    labels: &Map<String, Value>,
    metadata: &Map<String, Value>,
    (id, described): (String, &WorkloadLabels),
) -> Node {
    Node {
        id,
        cluster: format!("{}.{}", described.canonical_service, workload.namespace),
        metadata: Some(to_struct(metadata, 0)),
        locality: locality(labels),
        user_agent_name: "lateen".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
            version: Some(SemanticVersion {
                major_number: number(env!("CARGO_PKG_VERSION_MAJOR")),
                minor_number: number(env!("CARGO_PKG_VERSION_MINOR")),
                patch: number(env!("CARGO_PKG_VERSION_PATCH")),
            }),
            metadata: Some(any::fields([("version", any::text(VERSION))])),
        })),
        ..Node::default()
    }
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_default()
}

fn describe(workload: &Workload, labels: &Map<String, Value>) -> WorkloadLabels {
    let label = |names: &[&str]| {
        let found = names.iter().find_map(|name| labels.get(*name)?.as_str());
        found.filter(|text| !text.is_empty()).map(ToOwned::to_owned)
    };
    let given = workload.metadata.get("WORKLOAD_NAME").and_then(Value::as_str);
    let name = given.filter(|name| !name.is_empty()).unwrap_or(&workload.pod).to_owned();
    let canonical = label(&[label::CANONICAL_NAME, label::KUBE_NAME, label::APP]);
    let revision = label(&[label::CANONICAL_REVISION, label::KUBE_VERSION, label::VERSION]);
    let text = |text: Option<String>| -> Name { text.unwrap_or_default().into() };
    WorkloadLabels {
        canonical_service: canonical.unwrap_or_else(|| name.clone()).into(),
        canonical_revision: revision.unwrap_or_else(|| "latest".to_owned()).into(),
        name: name.into(),
        namespace: workload.namespace.as_str().into(),
        app: text(label(&[label::APP])),
        version: text(label(&[label::VERSION])),
        cluster: workload.cluster.as_str().into(),
    }
}

/// The override label, `region.zone.subzone` (or with slashes); what else is known of the place
/// the control plane has from the node object.
fn locality(labels: &Map<String, Value>) -> Option<Locality> {
    let text = labels.get(label::LOCALITY)?.as_str()?;
    let separator = if text.contains('/') { '/' } else { '.' };
    let mut parts = text.splitn(3, separator).map(ToOwned::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Some(Locality { region: next(), zone: next(), sub_zone: next() })
}

fn to_struct(map: &Map<String, Value>, depth: u32) -> Struct {
    any::fields(map.iter().map(|(name, value)| (name.clone(), to_value(value, depth + 1))))
}

fn to_value(value: &Value, depth: u32) -> ProtoValue {
    match value {
        _ if depth > MAX_DEPTH => ProtoValue::default(),
        Value::Null => ProtoValue::default(),
        Value::Bool(flag) => any::boolean(*flag),
        Value::Number(number) => any::number(number.as_f64().unwrap_or_default()),
        Value::String(text) => any::text(text.as_str()),
        Value::Array(list) => any::list(list.iter().map(|item| to_value(item, depth + 1))),
        Value::Object(map) => any::object(to_struct(map, depth)),
    }
}

/// The pod's labels from a downward API file; none when there is no such file.
#[must_use]
pub fn read_labels(path: &Path) -> Map<String, Value> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_LABELS).read_to_string(&mut text).map(|_| ()));
    if let Err(error) = read {
        tracing::debug!(%error, path = %path.display(), "no pod labels");
    }
    parse_labels(&text)
}

/// Lines of `name="value"`, quoted as in JSON.
fn parse_labels(text: &str) -> Map<String, Value> {
    let line = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let value: String = serde_json::from_str(value.trim()).ok()?;
        Some((name.trim().to_owned(), Value::from(value)))
    };
    text.lines().filter_map(line).collect()
}

/// Addresses of the network namespace that others can reach, IPv4 first.
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut addresses: Vec<IpAddr> = interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
            IpAddr::V6(v6) => {
                !v6.is_loopback() && !v6.is_unicast_link_local() && v6.segments()[..7] != [0; 7]
            }
        })
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Environment, ProxyArgs};
    use lateen_xds::any::{struct_field, text_field};

    #[test]
    fn the_node_is_what_istio_would_say() {
        let env = Environment::from([
            ("POD_NAME", "reviews-v2-abc"),
            ("POD_NAMESPACE", "shop"),
            ("INSTANCE_IP", "10.0.0.7"),
            ("ISTIO_META_WORKLOAD_NAME", "reviews-v2"),
            ("ISTIO_META_POD_PORTS", "[{\"containerPort\":9080}]"),
        ]);
        let settings = Settings::new(&ProxyArgs::default(), &env, 2).unwrap();
        let labels = parse_labels("app=\"reviews\"\nversion=\"v2\"\nodd=\"a\\\"b\"\nbroken\n");
        let found = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        let identity = Identity::new(&settings, &labels, &found);
        let node = identity.node;
        assert_eq!(node.id, "sidecar~10.0.0.7~reviews-v2-abc.shop~shop.svc.cluster.local");
        assert_eq!(node.cluster, "reviews.shop");
        let metadata = node.metadata.unwrap();
        assert_eq!(text_field(&metadata, "INSTANCE_IPS"), Some("10.0.0.7,fd00::7"));
        assert_eq!(text_field(&metadata, "LATEEN"), Some("1"));
        let labels = struct_field(&metadata, "LABELS").unwrap();
        assert_eq!(text_field(labels, "odd"), Some("a\"b"));
        assert_eq!(&*identity.labels.name, "reviews-v2");
        assert_eq!(&*identity.labels.canonical_revision, "v2");
        assert!(identity.peer.is_some());
    }

    #[test]
    fn a_locality_label_is_taken_apart() {
        let labels = parse_labels("istio-locality=\"eu.eu-1.rack-2\"");
        let locality = locality(&labels).unwrap();
        assert_eq!((locality.region.as_str(), locality.sub_zone.as_str()), ("eu", "rack-2"));
    }
}
