//! How a proxy sees the mesh: what the translation needs to know of it.
//!
//! Made from the node that a proxy names when it connects. What a node says of itself is not
//! trusted further than its own configuration: namespace and service account must be those of the
//! verified caller.

use std::collections::BTreeMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::value::Kind;
use thiserror::Error;

use crate::token::ServiceAccount;

/// Most labels a node may name.
const MAX_LABELS: usize = 256;
/// Most addresses a pod may have.
const MAX_ADDRESSES: usize = 16;

/// Why a node is not served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NodeError {
    /// The first request has none.
    #[error("the first discovery request names no node")]
    Missing,
    /// Its id has another form.
    #[error("node id `{0}` is not of the form TYPE~IP~POD.NAMESPACE~DOMAIN")]
    Id(String),
    /// It is of a kind that is not served yet.
    #[error("nodes of type `{0}` are not supported yet; sidecar and router are")]
    Type(String),
    /// It claims to be someone else.
    #[error("the node says it runs as {claimed}, its token says {proved}")]
    NotOwner {
        /// What the node says.
        claimed: String,
        /// What is proved.
        proved: String,
    },
}

/// What a proxy is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Beside an application.
    #[default]
    Sidecar,
    /// In front of the mesh, or at its way out.
    Router,
}

/// A proxy, as far as its configuration depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyView {
    /// What it is for.
    pub role: Role,
    /// Whether a token or certificate proved whose it is.
    pub proven: bool,
    /// Name of the pod.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// Addresses of the pod, the first one first.
    pub addresses: Vec<IpAddr>,
    /// Service account, if the node says it.
    pub service_account: Option<String>,
    /// Cluster the pod is in.
    pub cluster_id: String,
    /// Version the proxy says it has.
    pub version: String,
    /// Whether the proxy has Istio's filters; a stock Envoy has not.
    pub istio_filters: bool,
    /// Whether it is no proxy but a gRPC library in the application.
    pub grpc: bool,
}

impl ProxyView {
    /// The view of the proxy that a node describes.
    ///
    /// # Errors
    /// When the node's id is malformed or of a type that is not served.
    pub fn from_node(node: &Node) -> Result<Self, NodeError> {
        let malformed = || NodeError::Id(node.id.chars().take(256).collect());
        let mut parts = node.id.split('~');
        let (Some(kind), Some(ip), Some(name), Some(domain), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let role = match kind {
            "sidecar" => Role::Sidecar,
            "router" => Role::Router,
            other => return Err(NodeError::Type(other.to_owned())),
        };
        let ip: IpAddr = ip.parse().map_err(|_| malformed())?;
        let (name, namespace) = name.rsplit_once('.').ok_or_else(malformed)?;
        if name.is_empty() || namespace.is_empty() || domain.is_empty() {
            return Err(malformed());
        }
        let empty = Struct::default();
        let metadata = node.metadata.as_ref().unwrap_or(&empty);
        let version = field(metadata, "ISTIO_VERSION").unwrap_or_default();
        Ok(Self {
            role,
            proven: false,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            labels: labels(metadata),
            addresses: addresses(ip, metadata),
            service_account: field(metadata, "SERVICE_ACCOUNT").map(str::to_owned),
            cluster_id: field(metadata, "CLUSTER_ID").unwrap_or_default().to_owned(),
            istio_filters: !version.is_empty() || field(metadata, "LATEEN").is_some(),
            version: version.to_owned(),
            grpc: field(metadata, "GENERATOR") == Some("grpc"),
        })
    }

    /// The same view, if it belongs to the account that has been proved.
    ///
    /// # Errors
    /// When the node claims another namespace or service account.
    pub fn owned_by(self, account: &ServiceAccount) -> Result<Self, NodeError> {
        let claimed_name = self.service_account.as_deref().unwrap_or(&account.name);
        if self.namespace == account.namespace && claimed_name == account.name {
            let service_account = Some(account.name.clone());
            return Ok(Self { proven: true, service_account, ..self });
        }
        Err(NodeError::NotOwner {
            claimed: format!("{}/{claimed_name}", self.namespace),
            proved: format!("{}/{}", account.namespace, account.name),
        })
    }
}

fn field<'a>(metadata: &'a Struct, name: &str) -> Option<&'a str> {
    match metadata.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// All addresses of the pod, each once.
fn addresses(first: IpAddr, metadata: &Struct) -> Vec<IpAddr> {
    let mut all = vec![first];
    let others = field(metadata, "INSTANCE_IPS").unwrap_or_default().split(',');
    for other in others.filter_map(|text| text.trim().parse::<IpAddr>().ok()) {
        if all.len() == MAX_ADDRESSES {
            break;
        }
        if !all.contains(&other) {
            all.push(other);
        }
    }
    all
}

fn labels(metadata: &Struct) -> BTreeMap<String, String> {
    let Some(Kind::StructValue(labels)) =
        metadata.fields.get("LABELS").and_then(|value| value.kind.as_ref())
    else {
        return BTreeMap::new();
    };
    let texts = labels.fields.iter().filter_map(|(name, value)| match &value.kind {
        Some(Kind::StringValue(text)) => Some((name.clone(), text.clone())),
        _ => None,
    });
    texts.take(MAX_LABELS).collect()
}

#[cfg(test)]
mod tests {
    use super::{MAX_ADDRESSES, NodeError, ProxyView, Role};
    use crate::token::ServiceAccount;
    use crate::translate::pack::{object, structure, text};
    use envoy_types::pb::envoy::config::core::v3::Node;

    fn node(id: &str) -> Node {
        let labels = object([("app".to_owned(), text("cart"))]);
        let metadata = structure([
            ("LABELS".to_owned(), labels),
            ("INSTANCE_IPS".to_owned(), text("10.0.0.1,fd00::1")),
            ("SERVICE_ACCOUNT".to_owned(), text("cart")),
            ("LATEEN".to_owned(), text("1")),
        ]);
        Node { id: id.to_owned(), metadata: Some(metadata), ..Node::default() }
    }

    #[test]
    fn a_node_becomes_a_view() {
        let view =
            ProxyView::from_node(&node("sidecar~10.0.0.1~cart-1.v2.shop~shop.svc.x")).unwrap();
        assert_eq!((view.name.as_str(), view.namespace.as_str()), ("cart-1.v2", "shop"));
        assert_eq!(view.addresses.len(), 2);
        assert_eq!(view.labels["app"], "cart");
        assert!(view.istio_filters && !view.grpc);
    }

    #[test]
    fn addresses_are_few_and_each_is_there_once() {
        let with = |ips: &str| {
            let metadata = Some(structure([("INSTANCE_IPS".to_owned(), text(ips))]));
            let node = Node { metadata, ..node("sidecar~10.0.0.1~cart-1.shop~cluster.local") };
            ProxyView::from_node(&node).unwrap().addresses
        };
        assert_eq!(with("fd00::1, 10.0.0.1,x,fd00::1,10.0.0.2").len(), 3);
        let many: Vec<String> = (0..=255).map(|last| format!("10.0.0.{last}")).collect();
        let kept = with(&many.join(","));
        assert_eq!((kept.len(), kept[0].to_string()), (MAX_ADDRESSES, "10.0.0.1".to_owned()));
    }

    #[test]
    fn a_library_says_that_it_is_none() {
        let metadata = Some(structure([("GENERATOR".to_owned(), text("grpc"))]));
        let node = Node { metadata, ..node("sidecar~10.0.0.1~cart-1.shop~cluster.local") };
        assert!(ProxyView::from_node(&node).unwrap().grpc);
    }

    #[test]
    fn other_nodes_are_refused() {
        for id in ["", "sidecar", "sidecar~x~a.b~d", "sidecar~10.0.0.1~a~d", "sidecar~1.1.1.1~a.b~"]
        {
            assert!(matches!(ProxyView::from_node(&node(id)), Err(NodeError::Id(_))), "{id}");
        }
        let waypoint = ProxyView::from_node(&node("waypoint~10.0.0.1~a.b~d"));
        assert_eq!(waypoint, Err(NodeError::Type("waypoint".to_owned())));
    }

    #[test]
    fn a_router_is_a_gateway() {
        let view = ProxyView::from_node(&node("router~10.0.0.1~edge-1.front~d")).unwrap();
        assert_eq!((view.role, view.proven), (Role::Router, false));
    }

    #[test]
    fn a_node_must_be_its_callers() {
        let view = ProxyView::from_node(&node("sidecar~10.0.0.1~cart-1.shop~d")).unwrap();
        let account = |namespace: &str, name: &str| ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        assert!(view.clone().owned_by(&account("shop", "cart")).is_ok_and(|view| view.proven));
        assert!(view.clone().owned_by(&account("shop", "other")).is_err());
        assert!(view.owned_by(&account("bank", "cart")).is_err());
    }
}
