//! What is fed with anything: one target for each parser of what strangers send.
//!
//! A target takes bytes, and panics when something that always holds does not. Which engine makes
//! the bytes is not known here; `docs/design` says which, and why. To add one: a function, a row
//! in [`TARGETS`], a folder of seeds in `corpus/`.
#![expect(clippy::panic, reason = "this is how an engine is told")]

mod admission;
mod discovery;
mod identity;
mod node;
mod rules;
pub mod settings;
mod wire;

/// Something that is fed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// What it is fed with.
    pub about: &'static str,
    /// Takes one input; panics when it finds something.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, about: &'static str, run: fn(&[u8])) -> Target {
    Target { name, about, run }
}

/// All of them, by name.
pub const TARGETS: [Target; 19] = [
    target("admission", "body of an admission review of a pod", admission::review),
    target("agent", "line that the CNI plugin sends to the agent", node::agent),
    target("bootstrap", "bootstrap of a router or of an Envoy, JSON or YAML", discovery::bootstrap),
    target("client-hello", "first bytes of a TLS connection", wire::client_hello),
    target("cni", "configuration that a container runtime gives the plugin", node::cni),
    target("csr", "signing request of a workload, PEM", identity::signing_request),
    target("dns", "DNS query of an application", wire::dns),
    target("gotemplate", "injection template in Go's language", admission::template),
    target("http-head", "first bytes of a connection that may be HTTP", wire::http_head),
    target("injection", "Helm values and mesh configuration, YAML", admission::settings),
    target("objects", "Kubernetes and Istio objects, YAML", rules::objects),
    target("path", "path of a request", wire::path),
    target("peer", "metadata of a caller, in a header", wire::peer),
    target("pod", "pod that may be injected, JSON", admission::pod),
    target("redirect", "pod whose traffic is to be redirected, JSON", node::redirect),
    target(
        "resources",
        "resource of a discovery server, a type and protobuf",
        discovery::resources,
    ),
    target("rules", "objects of a mesh, YAML, down to what proxies take", rules::translate),
    target("token", "token of a service account", identity::token),
    target("validation", "body of an admission review of an Istio kind", admission::validation),
];

/// The target of a name.
#[must_use]
pub fn named(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
