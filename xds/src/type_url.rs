//! Type URLs of the resources and extensions that travel over discovery.
//!
//! Resource types come first, in the order in which a control plane pushes them; extension
//! configurations follow. Only names, no behaviour.

/// What every type URL starts with.
pub const PREFIX: &str = "type.googleapis.com/";

/// Clusters (CDS).
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Endpoints of clusters (EDS).
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Listeners (LDS).
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Route configurations (RDS).
pub const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Certificates and trust anchors (SDS).
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Names the DNS proxy answers (NDS).
pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";

/// Order in which a control plane pushes: what is pointed at comes before what points.
pub const PUSH_ORDER: [&str; 6] = [CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, NAME_TABLE];

/// TLS towards endpoints.
pub const UPSTREAM_TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// TLS of listeners.
pub const DOWNSTREAM_TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
/// No TLS.
pub const RAW_BUFFER: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
/// HTTP options of a cluster.
pub const HTTP_PROTOCOL_OPTIONS: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// HTTP connection manager.
pub const HTTP_CONNECTION_MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// TCP proxy.
pub const TCP_PROXY: &str =
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// Network authorization.
pub const NETWORK_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";
/// HTTP authorization.
pub const HTTP_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
/// Router, the last HTTP filter.
pub const HTTP_ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
/// Fault injection.
pub const HTTP_FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
/// CORS filter.
pub const HTTP_CORS: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";
/// CORS policy of a route.
pub const HTTP_CORS_POLICY: &str =
    "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";
/// gRPC statistics.
pub const HTTP_GRPC_STATS: &str =
    "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";
/// Reads the original destination.
pub const ORIGINAL_DST: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
/// Looks for a TLS `ClientHello`.
pub const TLS_INSPECTOR: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
/// Looks for an HTTP request.
pub const HTTP_INSPECTOR: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
/// Access log to a file.
pub const FILE_ACCESS_LOG: &str =
    "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
/// Retry predicate: do not pick an endpoint again.
pub const PREVIOUS_HOSTS: &str =
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
/// Request ids.
pub const UUID_REQUEST_ID: &str =
    "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig";

/// A struct that stands for another type (older package name, which Istio uses).
pub const TYPED_STRUCT_UDPA: &str = "type.googleapis.com/udpa.type.v1.TypedStruct";
/// A struct that stands for another type.
pub const TYPED_STRUCT_XDS: &str = "type.googleapis.com/xds.type.v3.TypedStruct";
/// HTTP peer metadata exchange (`istio.metadata_exchange`).
pub const ISTIO_PEER_METADATA: &str = "type.googleapis.com/io.istio.http.peer_metadata.Config";
/// Istio metrics (`istio.stats`), HTTP and TCP.
pub const ISTIO_STATS: &str = "type.googleapis.com/stats.PluginConfig";
/// ALPN by request protocol (`istio.alpn`).
pub const ISTIO_ALPN: &str =
    "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
/// TCP metadata exchange.
pub const ISTIO_TCP_METADATA: &str =
    "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange";
