//! HTTP: the connection manager, route configurations and their parts.

use super::{Cors, Fault, HeaderEdit, HeaderMatch, HeaderOps, Name, Rbac, Retry, StringMatch};
use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;
use regex::Regex;
use std::sync::Arc;
use std::time::Duration;

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "one flag for each option of the message")]
pub struct HttpManager {
    /// Prefix of statistics.
    pub stat_prefix: Name,
    /// Where routes come from.
    pub routes: RouteSource,
    /// HTTP filters in order, without the router that ends them.
    pub filters: Vec<HttpFilter>,
    /// Access logs.
    pub access_log: Vec<AccessLog>,
    /// What is done with `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
    /// Trust the connection's own address rather than `x-forwarded-for`.
    pub use_remote_address: bool,
    /// With `use_remote_address`: whose clients are not strangers.
    pub internal_networks: Vec<IpNet>,
    /// Make `x-request-id` where there is none.
    pub generate_request_id: bool,
    /// Upgrades let through, lower case (`websocket`).
    pub upgrades: Vec<String>,
    /// Value of the `server` response header.
    pub server_name: HeaderValue,
    /// Leave the upstream's `server` header alone (inbound sidecars pass it through).
    pub pass_server_header: bool,
    /// Close connections idle this long.
    pub idle_timeout: Option<Duration>,
    /// Reset streams idle this long.
    pub stream_idle_timeout: Option<Duration>,
    /// Merge adjacent slashes, normalise dot segments.
    pub normalize_path: bool,
    /// Merge adjacent slashes.
    pub merge_slashes: bool,
    /// What is added to answers of the proxy itself; the first that fits counts.
    pub reply_headers: Vec<ReplyHeaders>,
}

/// Headers of answers that the proxy gives itself, for some reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyHeaders {
    /// Response flags, one of which the answer has.
    pub flags: Vec<String>,
    /// The headers.
    pub edit: HeaderEdit,
}

/// Where the routes of an HTTP connection manager come from.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// Route discovery under this name.
    Rds(Name),
    /// Given in place.
    Inline(Arc<RouteConfig>),
}

/// An HTTP filter that runs before the router.
#[derive(Debug, Clone, PartialEq)]
pub enum HttpFilter {
    /// Authorization.
    Rbac(Arc<Rbac>),
    /// Fault injection is on; what is injected stands in the route.
    Fault,
    /// Exchange of workload labels between peers by header (`istio.metadata_exchange`).
    PeerMetadata,
    /// `istio_*` metrics (`istio.stats`).
    Stats,
    /// gRPC status is read for metrics (`envoy.filters.http.grpc_stats`).
    GrpcStats,
    /// CORS is on; the policy stands in the route.
    Cors,
    /// The ALPN of mutual TLS follows the request's protocol (`istio.alpn`).
    Alpn,
}

/// `x-forwarded-client-cert` handling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Remove it.
    Sanitize,
    /// Pass it on if the connection is mutual TLS.
    ForwardOnly,
    /// Append this connection's certificate (inbound sidecars).
    AppendForward,
    /// Put this connection's certificate in its place.
    SanitizeSet,
    /// Pass it on always.
    AlwaysForwardOnly,
}

/// A route configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteConfig {
    /// Resource name.
    pub name: Name,
    /// Virtual hosts.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// The port in `:authority` is not compared.
    pub ignore_port: bool,
}

impl RouteConfig {
    /// The clusters that its routes name, mirrors included.
    pub fn cluster_names(&self) -> impl Iterator<Item = &Name> {
        let routes = self.virtual_hosts.iter().flat_map(|host| &host.routes);
        let forwards = routes.filter_map(|route| match &route.action {
            RouteAction::Forward(forward) => Some(forward),
            RouteAction::Redirect(_) | RouteAction::Respond(_) => None,
        });
        forwards.flat_map(|forward| {
            let shares = forward.clusters.iter().map(|share| &share.cluster);
            shares.chain(forward.mirrors.iter().map(|mirror| &mirror.cluster))
        })
    }
}

/// Routes of a set of domains.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VirtualHost {
    /// Name, unique in the configuration.
    pub name: Name,
    /// `*`, exact, `*.suffix` or `prefix.*`; lower case.
    pub domains: Vec<String>,
    /// Routes; the first that matches is taken.
    pub routes: Vec<Arc<Route>>,
    /// Add `x-envoy-attempt-count` to requests.
    pub attempt_count: bool,
    /// Add it to responses.
    pub attempt_count_in_response: bool,
    /// Header changes for all routes.
    pub headers: HeaderOps,
}

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Name, for access log and `explain`.
    pub name: Name,
    /// When it is taken.
    pub matches: RouteMatch,
    /// What is done.
    pub action: RouteAction,
    /// Header changes.
    pub headers: HeaderOps,
    /// Fault injection.
    pub fault: Option<Arc<Fault>>,
    /// What pages of other origins may do.
    pub cors: Option<Arc<Cors>>,
}

/// Criteria of a route; all must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// Path.
    pub path: PathMatch,
    /// Headers (pseudo headers `:method`, `:authority`, `:scheme` included).
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
}

/// How the path (without query) is compared.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// Starts with.
    Prefix {
        /// Prefix.
        value: String,
        /// Compare case.
        case_sensitive: bool,
    },
    /// Equal.
    Exact {
        /// Path.
        value: String,
        /// Compare case.
        case_sensitive: bool,
    },
    /// Equal, or the prefix followed by `/`.
    SeparatedPrefix {
        /// Prefix without trailing slash.
        value: String,
        /// Compare case.
        case_sensitive: bool,
    },
    /// The whole path matches.
    Regex(Regex),
}

impl PartialEq for PathMatch {
    /// Equal patterns are equal matchers.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Prefix { value: a, case_sensitive: x },
                Self::Prefix { value: b, case_sensitive: y },
            )
            | (
                Self::Exact { value: a, case_sensitive: x },
                Self::Exact { value: b, case_sensitive: y },
            )
            | (
                Self::SeparatedPrefix { value: a, case_sensitive: x },
                Self::SeparatedPrefix { value: b, case_sensitive: y },
            ) => a == b && x == y,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// A query parameter criterion.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatch {
    /// Parameter name.
    pub name: String,
    /// `None`: present is enough.
    pub value: Option<StringMatch>,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteAction {
    /// Send the request to a cluster.
    Forward(Box<Forward>),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer at once.
    Respond(DirectResponse),
}

/// Sending a request upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Clusters with their share; the sum of weights is not 0.
    pub clusters: Vec<WeightedCluster>,
    /// Whole time for the response; `None` is without limit.
    pub timeout: Option<Duration>,
    /// Reset the stream when idle this long.
    pub idle_timeout: Option<Duration>,
    /// Retries.
    pub retry: Option<Arc<Retry>>,
    /// Changes of the path.
    pub rewrite: Option<PathRewrite>,
    /// New `:authority`.
    pub host_rewrite: Option<HeaderValue>,
    /// What is hashed for consistent balancing, in order.
    pub hash_policy: Vec<HashRule>,
    /// Requests copied to other clusters.
    pub mirrors: Vec<Mirror>,
    /// Upgrades (`websocket`) let through or not on this route, whatever the manager says.
    pub upgrades: Vec<(String, bool)>,
}

/// A cluster with its share of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// Cluster name.
    pub cluster: Name,
    /// Share; 0 gets nothing.
    pub weight: u32,
    /// Header changes for this share.
    pub headers: HeaderOps,
}

/// A copy of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Cluster name.
    pub cluster: Name,
    /// Parts per million of requests.
    pub fraction_ppm: u32,
    /// The host is not marked with `-shadow`.
    pub keeps_host: bool,
}

/// One of the things a request is hashed by.
#[derive(Debug, Clone, PartialEq)]
pub struct HashRule {
    /// What.
    pub by: HashPolicy,
    /// If it gives a hash, the rules after it do not count.
    pub terminal: bool,
}

/// What a request is hashed by.
#[derive(Debug, Clone, PartialEq)]
pub enum HashPolicy {
    /// A header.
    Header(HeaderName),
    /// A cookie, made with this lifetime and path where absent and a lifetime is given.
    Cookie {
        /// Cookie name.
        name: String,
        /// Lifetime.
        ttl: Option<Duration>,
        /// Path attribute.
        path: String,
    },
    /// The source address.
    SourceIp,
    /// A query parameter.
    Query(String),
}

/// Changes of the path.
#[derive(Debug, Clone)]
pub enum PathRewrite {
    /// The matched prefix (or whole exact path) becomes this.
    Prefix(String),
    /// Every match becomes the substitution (`\1` is the first group).
    Regex {
        /// Pattern.
        pattern: Regex,
        /// Substitution.
        substitution: String,
    },
}

impl PartialEq for PathRewrite {
    /// Equal patterns are equal rewrites.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (
                Self::Regex { pattern: a, substitution: x },
                Self::Regex { pattern: b, substitution: y },
            ) => a.as_str() == b.as_str() && x == y,
            _ => false,
        }
    }
}

/// A redirect.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// New host.
    pub host: Option<String>,
    /// New path.
    pub path: Option<String>,
    /// New prefix in place of the matched one.
    pub prefix_rewrite: Option<String>,
    /// New scheme.
    pub scheme: Option<String>,
    /// New port.
    pub port: Option<u16>,
    /// The query is left out.
    pub strip_query: bool,
    /// Status code.
    pub status: StatusCode,
}

/// An answer given by the proxy itself.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// Status code.
    pub status: StatusCode,
    /// Body.
    pub body: bytes::Bytes,
}

/// Carrying bytes (`envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`).
#[derive(Debug, Clone, PartialEq)]
pub struct TcpProxy {
    /// Prefix of statistics.
    pub stat_prefix: Name,
    /// Clusters with their share.
    pub clusters: Vec<(Name, u32)>,
    /// Close when idle this long; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// Close after this long, whatever passes; `None` is never.
    pub max_duration: Option<Duration>,
    /// Access logs.
    pub access_log: Vec<AccessLog>,
}

/// A file access log.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// `/dev/stdout`, `/dev/stderr` or a file.
    pub path: String,
    /// Format.
    pub format: LogFormat,
    /// Only lines whose response flags hold one of these; empty logs all.
    pub flags: Vec<String>,
}

/// Form of an access log line, with Envoy's `%OPERATORS%`.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFormat {
    /// Text, its line end included.
    Text(String),
    /// One JSON object a line: key and operator text.
    Json(Vec<(String, String)>),
}
