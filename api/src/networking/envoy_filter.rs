//! `EnvoyFilter`: changes to the configuration that proxies are sent.
//!
//! The values of patches are objects of Envoy's API, which is not known here.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::WorkloadSelector;
use crate::meta::Labels;
use crate::proto_enum::proto_enum;
use crate::target::TargetRef;

/// `spec` of an EnvoyFilter.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EnvoyFilter {
    /// Workloads; the whole namespace where absent.
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Objects it is attached to.
    #[serde(alias = "target_refs")]
    pub target_refs: Vec<TargetRef>,
    /// Changes, in order.
    #[serde(alias = "config_patches")]
    pub config_patches: Vec<ConfigPatch>,
    /// Order among filters, lowest first.
    pub priority: i32,
}

/// A change.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConfigPatch {
    /// To which kind of object.
    #[serde(alias = "apply_to")]
    pub apply_to: ApplyTo,
    /// To which objects; all where absent.
    #[serde(rename = "match")]
    pub matches: Option<ObjectMatch>,
    /// The change.
    pub patch: Option<Patch>,
}

proto_enum! {
    /// What is changed.
    pub enum ApplyTo {
        /// Not said.
        Invalid = "INVALID" / 0,
        /// A listener.
        Listener = "LISTENER" / 1,
        /// A filter chain.
        FilterChain = "FILTER_CHAIN" / 2,
        /// A network filter.
        NetworkFilter = "NETWORK_FILTER" / 3,
        /// An HTTP filter.
        HttpFilter = "HTTP_FILTER" / 4,
        /// A route configuration.
        RouteConfiguration = "ROUTE_CONFIGURATION" / 5,
        /// A virtual host.
        VirtualHost = "VIRTUAL_HOST" / 6,
        /// A route.
        HttpRoute = "HTTP_ROUTE" / 7,
        /// A cluster.
        Cluster = "CLUSTER" / 8,
        /// An extension of its own.
        ExtensionConfig = "EXTENSION_CONFIG" / 9,
        /// The bootstrap.
        Bootstrap = "BOOTSTRAP" / 10,
        /// A listener filter.
        ListenerFilter = "LISTENER_FILTER" / 11,
    }
}

/// Which objects are changed; one of the last four.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ObjectMatch {
    /// Direction.
    pub context: Option<PatchContext>,
    /// Proxies.
    pub proxy: Option<ProxyMatch>,
    /// Listeners.
    pub listener: Option<ListenerMatch>,
    /// Routes.
    #[serde(alias = "route_configuration")]
    pub route_configuration: Option<RouteConfigurationMatch>,
    /// Clusters.
    pub cluster: Option<ClusterMatch>,
    /// What a waypoint has.
    pub waypoint: Option<WaypointMatch>,
}

proto_enum! {
    /// In which direction objects work.
    pub enum PatchContext {
        /// Any but waypoints.
        Any = "ANY" / 0,
        /// To the workload.
        SidecarInbound = "SIDECAR_INBOUND" / 1,
        /// From the workload.
        SidecarOutbound = "SIDECAR_OUTBOUND" / 2,
        /// Of gateways.
        Gateway = "GATEWAY" / 3,
        /// Of waypoints.
        Waypoint = "WAYPOINT" / 4,
    }
}

/// Which proxies are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyMatch {
    /// A regular expression.
    #[serde(alias = "proxy_version")]
    pub proxy_version: String,
    /// Metadata of the node.
    pub metadata: Labels,
}

/// Which listeners are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenerMatch {
    /// Port.
    #[serde(alias = "port_number")]
    pub port_number: u32,
    /// Name of the port; without effect, as in Istio.
    #[serde(alias = "port_name")]
    pub port_name: String,
    /// A filter chain.
    #[serde(alias = "filter_chain")]
    pub filter_chain: Option<FilterChainMatch>,
    /// A listener filter.
    #[serde(alias = "listener_filter")]
    pub listener_filter: String,
    /// Name.
    pub name: String,
}

/// Which filter chains are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FilterChainMatch {
    /// Name.
    pub name: String,
    /// Server name.
    pub sni: String,
    /// `raw_buffer` or `tls`.
    #[serde(alias = "transport_protocol")]
    pub transport_protocol: String,
    /// Name of the transport socket.
    #[serde(alias = "transport_socket")]
    pub transport_socket: String,
    /// Protocols, with commas between.
    #[serde(alias = "application_protocols")]
    pub application_protocols: String,
    /// A filter.
    pub filter: Option<FilterMatch>,
    /// Port.
    #[serde(alias = "destination_port")]
    pub destination_port: u32,
}

/// Which filters are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FilterMatch {
    /// Name.
    pub name: String,
    /// A filter within.
    #[serde(alias = "sub_filter")]
    pub sub_filter: Option<NameMatch>,
}

/// By name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NameMatch {
    /// The name.
    pub name: String,
}

/// Which route configurations are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteConfigurationMatch {
    /// Port.
    #[serde(alias = "port_number")]
    pub port_number: u32,
    /// Name of the port of a gateway.
    #[serde(alias = "port_name")]
    pub port_name: String,
    /// `NAMESPACE/NAME` of a gateway.
    pub gateway: String,
    /// A virtual host.
    pub vhost: Option<VirtualHostMatch>,
    /// Name.
    pub name: String,
}

/// Which virtual hosts are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VirtualHostMatch {
    /// Name.
    pub name: String,
    /// One of its domains.
    #[serde(alias = "domain_name")]
    pub domain_name: String,
    /// A route.
    pub route: Option<RouteMatch>,
}

/// Which routes are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteMatch {
    /// Name.
    pub name: String,
    /// What it does.
    pub action: RouteActionMatch,
}

proto_enum! {
    /// What a route does.
    pub enum RouteActionMatch {
        /// Anything.
        Any = "ANY" / 0,
        /// It forwards.
        Route = "ROUTE" / 1,
        /// It redirects.
        Redirect = "REDIRECT" / 2,
        /// It answers.
        DirectResponse = "DIRECT_RESPONSE" / 3,
    }
}

/// Which clusters are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterMatch {
    /// Port.
    #[serde(alias = "port_number")]
    pub port_number: u32,
    /// Host of the service.
    pub service: String,
    /// Subset.
    pub subset: String,
    /// Name.
    pub name: String,
}

/// What of a waypoint is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WaypointMatch {
    /// Port of the service.
    #[serde(alias = "port_number")]
    pub port_number: Option<u32>,
    /// A route.
    pub route: Option<NameMatch>,
    /// A filter.
    pub filter: Option<FilterMatch>,
}

/// A change.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Patch {
    /// What is done.
    pub operation: PatchOperation,
    /// With what.
    pub value: Option<Map<String, Value>>,
    /// Where an inserted filter stands.
    #[serde(alias = "filter_class")]
    pub filter_class: FilterClass,
}

proto_enum! {
    /// What a patch does.
    pub enum PatchOperation {
        /// Not said.
        Invalid = "INVALID" / 0,
        /// Merges.
        Merge = "MERGE" / 1,
        /// Adds.
        Add = "ADD" / 2,
        /// Removes.
        Remove = "REMOVE" / 3,
        /// Inserts before what matches.
        InsertBefore = "INSERT_BEFORE" / 4,
        /// Inserts behind what matches.
        InsertAfter = "INSERT_AFTER" / 5,
        /// Inserts in front.
        InsertFirst = "INSERT_FIRST" / 6,
        /// Replaces.
        Replace = "REPLACE" / 7,
        /// Merges, lists replaced.
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST" / 8,
    }
}

proto_enum! {
    /// Where an inserted filter stands.
    pub enum FilterClass {
        /// As the operation says.
        Unspecified = "UNSPECIFIED" / 0,
        /// Behind authentication.
        Authn = "AUTHN" / 1,
        /// Behind authorization.
        Authz = "AUTHZ" / 2,
        /// Before statistics.
        Stats = "STATS" / 3,
    }
}
