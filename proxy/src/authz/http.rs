//! Authorization of HTTP requests: the facts of a request, and the [`Authorizer`] over them.

use super::{Facts, PeerNames, judge};
use crate::config::Rbac;
use crate::http::route::RequestHead;
use crate::http::{Authorizer, Downstream, Judgement};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// Judges requests by their rules; shadow rules only leave a trace.
#[derive(Debug, Clone, Copy, Default)]
pub struct RbacAuthorizer;

impl Authorizer for RbacAuthorizer {
    fn judge(&self, rbac: &Rbac, head: &RequestHead<'_>, downstream: &Downstream) -> Judgement {
        let decision = judge(rbac, &RequestFacts { head, downstream });
        if rbac.shadow {
            tracing::debug!(allowed = decision.allowed, policy = ?decision.policy,
                prefix = %rbac.stat_prefix, "shadow rules");
            return Judgement::Pass;
        }
        if decision.allowed { Judgement::Pass } else { Judgement::Denied(decision.policy) }
    }
}

/// The facts of a request.
#[derive(Debug)]
pub(super) struct RequestFacts<'a> {
    pub(super) head: &'a RequestHead<'a>,
    pub(super) downstream: &'a Downstream,
}

impl Facts for RequestFacts<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let head = self.head;
        match name {
            ":method" => Some(Cow::Borrowed(head.method.as_str())),
            ":authority" | "host" => Some(Cow::Borrowed(head.authority)),
            ":scheme" => Some(Cow::Borrowed(head.scheme)),
            ":path" => Some(match head.query {
                Some(query) => Cow::Owned(format!("{}?{query}", head.path)),
                None => Cow::Borrowed(head.path),
            }),
            _ => {
                let mut values = head.headers.get_all(name).iter();
                let mut joined = String::from_utf8_lossy(values.next()?.as_bytes());
                for value in values {
                    let text = joined.to_mut();
                    text.push(',');
                    text.push_str(&String::from_utf8_lossy(value.as_bytes()));
                }
                Some(joined)
            }
        }
    }

    fn path(&self) -> Option<&str> {
        Some(self.head.path)
    }

    fn destination(&self) -> SocketAddr {
        destination(self.downstream)
    }

    fn direct_remote(&self) -> IpAddr {
        self.downstream.peer.ip()
    }

    fn remote(&self) -> IpAddr {
        // A sidecar trusts no hop before it, so the address it sees is the address.
        self.downstream.peer.ip()
    }

    fn server_name(&self) -> &str {
        server_name(self.downstream)
    }

    fn peer(&self) -> Option<PeerNames<'_>> {
        peer_names(self.downstream)
    }
}

/// Where the client of a connection wanted to go.
pub(crate) fn destination(downstream: &Downstream) -> SocketAddr {
    downstream.original_dst.unwrap_or(downstream.local)
}

/// The server name a client asked for.
pub(crate) fn server_name(downstream: &Downstream) -> &str {
    downstream.tls.as_ref().and_then(|tls| tls.sni.as_deref()).unwrap_or_default()
}

/// The names a client proved.
pub(crate) fn peer_names(downstream: &Downstream) -> Option<PeerNames<'_>> {
    let peer = downstream.tls.as_ref()?.peer.as_ref()?;
    Some(PeerNames { uris: &peer.uris, dns: &peer.dns, subject: &peer.subject })
}
