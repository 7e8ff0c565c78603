//! Kinds of `security.istio.io`, strictly typed.
//!
//! An unknown field is refused: a policy whose misspelt part is dropped would let in what it was
//! written to keep out.

mod request_authentication;

pub use request_authentication::{
    ClaimToHeader, JwtRule, Presence, RequestAuthentication, TokenHeader,
};

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::meta::Labels;
use crate::proto_enum::proto_enum;
use crate::target::TargetRef;

/// `selector` of security kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selector {
    /// Labels that must be equal; an empty map selects the whole namespace.
    #[serde(alias = "match_labels")]
    pub match_labels: Labels,
}

proto_enum! {
    /// Mutual TLS of inbound traffic.
    pub enum MutualTlsMode {
        /// As the wider level says.
        Unset = "UNSET" / 0,
        /// Plaintext only.
        Disable = "DISABLE" / 1,
        /// Both.
        Permissive = "PERMISSIVE" / 2,
        /// Mutual TLS only.
        Strict = "STRICT" / 3,
    }
}

/// `spec` of a PeerAuthentication.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PeerAuthentication {
    /// Workloads; the whole namespace where absent.
    pub selector: Option<Selector>,
    /// Mode of all ports.
    pub mtls: Option<MutualTls>,
    /// Modes of single ports of the workload.
    #[serde(alias = "port_level_mtls")]
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

/// A mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MutualTls {
    /// The mode.
    pub mode: MutualTlsMode,
}

proto_enum! {
    /// What a matching policy does.
    pub enum Action {
        /// Allow; nothing else is allowed any more.
        Allow = "ALLOW" / 0,
        /// Deny.
        Deny = "DENY" / 1,
        /// Log.
        Audit = "AUDIT" / 2,
        /// Ask an external authorizer.
        Custom = "CUSTOM" / 3,
    }
}

/// `spec` of an AuthorizationPolicy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthorizationPolicy {
    /// Workloads; the whole namespace where absent.
    pub selector: Option<Selector>,
    /// Object it is attached to.
    #[serde(alias = "target_ref")]
    pub target_ref: Option<TargetRef>,
    /// Objects it is attached to.
    #[serde(alias = "target_refs")]
    pub target_refs: Vec<TargetRef>,
    /// What matches. None at all matches nothing.
    pub rules: Vec<Rule>,
    /// What is done.
    pub action: Action,
    /// External authorizer of `CUSTOM`.
    pub provider: Option<Provider>,
}

/// Names an extension provider of the mesh configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Provider {
    /// Its name.
    pub name: String,
}

/// One of the callers, one of the calls, and all conditions.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// Callers; anybody where empty.
    pub from: Vec<From>,
    /// Calls; anything where empty.
    pub to: Vec<To>,
    /// Conditions.
    pub when: Vec<Condition>,
}

/// Wraps a caller.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct From {
    /// The caller.
    pub source: Source,
}

/// Wraps a call.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct To {
    /// The call.
    pub operation: Operation,
}

/// Who calls; all lists that are given must match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Source {
    /// Identities, without `spiffe://`.
    pub principals: Vec<String>,
    /// None of these identities.
    #[serde(alias = "not_principals")]
    pub not_principals: Vec<String>,
    /// Identities of end users.
    #[serde(alias = "request_principals")]
    pub request_principals: Vec<String>,
    /// None of these identities of end users.
    #[serde(alias = "not_request_principals")]
    pub not_request_principals: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// None of these namespaces.
    #[serde(alias = "not_namespaces")]
    pub not_namespaces: Vec<String>,
    /// Addresses of the connection.
    #[serde(alias = "ip_blocks")]
    pub ip_blocks: Vec<String>,
    /// None of these addresses of the connection.
    #[serde(alias = "not_ip_blocks")]
    pub not_ip_blocks: Vec<String>,
    /// Addresses of the caller as forwarded.
    #[serde(alias = "remote_ip_blocks")]
    pub remote_ip_blocks: Vec<String>,
    /// None of these addresses as forwarded.
    #[serde(alias = "not_remote_ip_blocks")]
    pub not_remote_ip_blocks: Vec<String>,
    /// Service accounts, `namespace/name` or `name`.
    #[serde(alias = "service_accounts")]
    pub service_accounts: Vec<String>,
    /// None of these service accounts.
    #[serde(alias = "not_service_accounts")]
    pub not_service_accounts: Vec<String>,
    /// Trust domains.
    #[serde(alias = "trust_domains")]
    pub trust_domains: Vec<String>,
    /// None of these trust domains.
    #[serde(alias = "not_trust_domains")]
    pub not_trust_domains: Vec<String>,
}

/// What is called; all lists that are given must match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Operation {
    /// Hosts.
    pub hosts: Vec<String>,
    /// None of these hosts.
    #[serde(alias = "not_hosts")]
    pub not_hosts: Vec<String>,
    /// Ports of the workload.
    pub ports: Vec<String>,
    /// None of these ports.
    #[serde(alias = "not_ports")]
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// None of these methods.
    #[serde(alias = "not_methods")]
    pub not_methods: Vec<String>,
    /// Paths, `*` in front or behind, or templates with `{*}` and `{**}`.
    pub paths: Vec<String>,
    /// None of these paths.
    #[serde(alias = "not_paths")]
    pub not_paths: Vec<String>,
}

/// A condition on an attribute.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Condition {
    /// The attribute, such as `source.namespace` or `request.headers[x-id]`.
    pub key: String,
    /// One of these.
    pub values: Vec<String>,
    /// None of these.
    #[serde(alias = "not_values")]
    pub not_values: Vec<String>,
}
