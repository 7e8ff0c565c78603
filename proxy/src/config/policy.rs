//! Authorization (`envoy.config.rbac.v3.RBAC`).

use super::{HeaderMatch, Name, PathMatch, StringMatch};
use ipnet::IpNet;

/// A role-based access rule set; HTTP and TCP share it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rbac {
    /// What a match means.
    pub action: RbacAction,
    /// Named policies; they are tried in the order of their names.
    pub policies: Vec<(Name, Policy)>,
    /// Only counted, never enforced (`istio_dry_run_*`).
    pub shadow: bool,
    /// Prefix of statistics.
    pub stat_prefix: Name,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RbacAction {
    /// Let through only what matches.
    Allow,
    /// Refuse what matches.
    Deny,
    /// Note what matches, let all through.
    Log,
}

/// Who may do what: any permission and any principal.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// One of these must hold.
    pub permissions: Vec<Permission>,
    /// One of these must hold.
    pub principals: Vec<Principal>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Permission {
    /// Anything.
    Any,
    /// All of them.
    All(Vec<Self>),
    /// One of them.
    OneOf(Vec<Self>),
    /// The opposite.
    Not(Box<Self>),
    /// A request header.
    Header(HeaderMatch),
    /// The path without query.
    Path(PathMatch),
    /// The path without query, any string matcher.
    UrlPath(StringMatch),
    /// Destination address.
    DestinationIp(IpNet),
    /// Destination port.
    DestinationPort(u16),
    /// Half-open range of destination ports.
    DestinationPortRange(u16, u32),
    /// Server name of the TLS handshake.
    RequestedServerName(StringMatch),
}

/// Who does it.
#[derive(Debug, Clone, PartialEq)]
pub enum Principal {
    /// Anyone.
    Any,
    /// All of them.
    All(Vec<Self>),
    /// One of them.
    OneOf(Vec<Self>),
    /// The opposite.
    Not(Box<Self>),
    /// The URI of the client's certificate; `None`: any authenticated peer.
    Authenticated(Option<StringMatch>),
    /// Address of the connection.
    DirectRemoteIp(IpNet),
    /// Address after `x-forwarded-for`.
    RemoteIp(IpNet),
    /// A request header.
    Header(HeaderMatch),
    /// The path without query.
    UrlPath(StringMatch),
}
