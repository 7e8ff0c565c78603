//! Authorization: whether rules let a request or connection through.
//!
//! Pure functions over [`Rbac`] rules and [`Facts`], shared by HTTP and TCP. A fact a connection
//! does not have (a header of a TCP connection, the name of a peer without certificate) meets no
//! criterion. Knows neither sockets nor hyper.

mod evaluate;
mod http;
mod network;

#[cfg(test)]
mod tests;

pub use evaluate::{matching_policy, permission_holds, principal_holds};
pub use http::RbacAuthorizer;
pub use network::ConnectionFacts;

use crate::config::{Name, Rbac, RbacAction};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What rules may ask; everything is provided when asked for.
pub trait Facts {
    /// A request header or pseudo header, by lower-case name; several values joined by commas.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
    /// The request path without query; `None` for TCP.
    fn path(&self) -> Option<&str>;
    /// Where the client connected to (the original destination).
    fn destination(&self) -> SocketAddr;
    /// The client's address on the connection.
    fn direct_remote(&self) -> IpAddr;
    /// The client's address, after trusted `x-forwarded-for`.
    fn remote(&self) -> IpAddr;
    /// Server name of the TLS handshake; empty without one.
    fn server_name(&self) -> &str;
    /// Names of the client's certificate; `None` when it proved none.
    fn peer(&self) -> Option<PeerNames<'_>>;
}

/// The names a client certificate states.
#[derive(Debug, Clone, Copy)]
pub struct PeerNames<'a> {
    /// URI names.
    pub uris: &'a [String],
    /// DNS names.
    pub dns: &'a [String],
    /// Subject.
    pub subject: &'a str,
}

/// The outcome of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The request or connection goes on.
    pub allowed: bool,
    /// The policy that decided; `None` when no policy matched.
    pub policy: Option<Name>,
}

impl Decision {
    /// What access logs say of a refusal.
    #[must_use]
    pub fn details(&self) -> String {
        let policy = self.policy.as_deref().unwrap_or("none");
        format!("rbac_access_denied_matched_policy[{policy}]")
    }
}

/// What one rule set says, whether it is enforced or shadow.
#[must_use]
pub fn judge(rules: &Rbac, facts: &dyn Facts) -> Decision {
    let policy = matching_policy(rules, facts).cloned();
    let allowed = match rules.action {
        RbacAction::Allow => policy.is_some(),
        RbacAction::Deny => policy.is_none(),
        RbacAction::Log => true,
    };
    Decision { allowed, policy }
}

/// What rule sets say together: the first enforced one that refuses decides. Shadow rules are
/// never enforced; ask [`judge`] for what they would have said.
#[must_use]
pub fn decide(rules: &[Arc<Rbac>], facts: &dyn Facts) -> Decision {
    let mut last = Decision { allowed: true, policy: None };
    for set in rules.iter().filter(|set| !set.shadow) {
        let decision = judge(set, facts);
        if !decision.allowed {
            return decision;
        }
        if decision.policy.is_some() {
            last.policy = decision.policy;
        }
    }
    last
}
