//! Gateways of one workload, merged: which addresses are opened, and what is served on each.
//!
//! The oldest gateway comes first. Servers of HTTP on one port become one; servers of TLS on one
//! port are told apart by server name; everything else that wants a taken port is left out, and
//! said. Knows no Envoy.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use lateen_api::Finding;
use lateen_api::host::{self, Host};
use lateen_api::meta::ObjectRef;
use lateen_api::networking::{
    Gateway, Server, ServerTlsMode, VirtualService, gateway_of, server_host,
};
use lateen_api::object::Resource;
use lateen_api::port::Protocol;

use super::input::Edge;

/// How connections to a port are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carried {
    /// HTTP without TLS.
    Http,
    /// TLS, told apart by server name.
    Tls,
    /// Bytes.
    Tcp,
}

impl Carried {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
        }
    }
}

/// A server of a gateway.
#[derive(Debug)]
pub(crate) struct Placed<'a> {
    /// The gateway.
    pub(crate) gateway: &'a Resource<Gateway>,
    /// The server.
    pub(crate) server: &'a Server,
    /// Port number that the server names, which routes refer to.
    pub(crate) number: u16,
    /// Hosts, each with the namespace whose rules may serve it (`*` is any).
    hosts: Vec<(&'a str, Host)>,
}

impl<'a> Placed<'a> {
    fn new(gateway: &'a Resource<Gateway>, server: &'a Server, number: u16) -> Self {
        let hosts = server.hosts.iter().filter_map(|entry| {
            let (namespace, host) = server_host(entry);
            let namespace = if namespace == "." { gateway.namespace() } else { namespace };
            Some((namespace, Host::parse(host).ok()?))
        });
        Self { gateway, server, number, hosts: hosts.collect() }
    }

    /// Names in TLS handshakes; none where every name is served.
    pub(crate) fn server_names(&self) -> Vec<String> {
        if self.hosts.iter().any(|(_, host)| host.as_str() == "*") {
            return Vec::new();
        }
        self.hosts().map(|host| host.as_str().to_owned()).collect()
    }

    /// Hosts that are served.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().map(|(_, host)| host)
    }

    /// Whether a rule names this gateway.
    pub(crate) fn carries(&self, rule: &Resource<VirtualService>) -> bool {
        let own = (self.gateway.namespace(), self.gateway.name());
        rule.spec.gateways.iter().any(|it| gateway_of(it, rule.namespace()) == Some(own))
    }

    /// Of the names that `names` stand for in a rule, those that are served here.
    pub(crate) fn shared(&self, names: &[String], namespace: &str, domain: &str) -> Vec<Host> {
        let mut shared: Vec<Host> = Vec::new();
        for name in names {
            let Ok(name) = Host::parse(&host::resolve(name, namespace, domain)) else { continue };
            let visible = self.hosts.iter().filter(|(of, _)| *of == "*" || *of == namespace);
            for (_, own) in visible {
                let narrower = if own.covers(&name) {
                    &name
                } else if name.covers(own) {
                    own
                } else {
                    continue;
                };
                if !shared.contains(narrower) {
                    shared.push(narrower.clone());
                }
            }
        }
        shared
    }

    /// Whether TLS is handed on as it came.
    pub(crate) fn passes_tls(&self) -> bool {
        self.server.tls.as_ref().is_some_and(|tls| tls.mode.is_passthrough())
    }

    /// Whether requests are read.
    pub(crate) fn reads_http(&self) -> bool {
        let protocol = self.server.protocol();
        protocol.is_http() || (protocol == Protocol::Https && !self.passes_tls())
    }

    /// Name of its route table, at the port where it listens.
    pub(crate) fn table_name(&self, port: u16) -> String {
        let bind = &self.server.bind;
        let at = if bind.is_empty() { String::new() } else { format!(".{bind}") };
        if self.server.protocol().is_http() {
            return format!("http.{port}{at}");
        }
        let name = self.server.port.as_ref().map(|port| port.name.as_str()).unwrap_or_default();
        let (gateway, namespace) = (self.gateway.name(), self.gateway.namespace());
        format!("https.{}.{name}.{gateway}.{namespace}{at}", self.number)
    }
}

/// An address that is opened.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    /// Address; every one where absent.
    pub(crate) bind: Option<IpAddr>,
    /// Port of the workload.
    pub(crate) port: u16,
    /// How connections are carried.
    pub(crate) carried: Carried,
    /// Its servers, one at least.
    pub(crate) servers: Vec<Placed<'a>>,
}

/// What is opened, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// By port and address.
    pub(crate) openings: Vec<Opening<'a>>,
    /// Servers that are left out.
    pub(crate) conflicts: Vec<Finding>,
}

/// Merges the gateways of a workload.
pub(crate) fn plan(edge: &Edge) -> Plan<'_> {
    let mut openings: BTreeMap<(u16, Option<IpAddr>), Opening<'_>> = BTreeMap::new();
    let mut taken: HashMap<(u16, Option<IpAddr>, Host), String> = HashMap::new();
    let mut conflicts = Vec::new();
    for gateway in &edge.gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some((bind, number)) = place(server) else { continue };
            let port = edge.target_ports.get(&number).copied().unwrap_or(number);
            let placed = Placed::new(gateway, server, number);
            let open = openings.get(&(port, bind));
            let refusal = open
                .and_then(|open| taken_port(open, carried(server)))
                .or_else(|| taken_name(&placed, (port, bind), &mut taken));
            if let Some(message) = refusal {
                let object = ObjectRef::new("Gateway", gateway.namespace(), gateway.name());
                let finding = Finding::warning(format!("spec.servers[{index}]"), message);
                conflicts.push(finding.on(&object, &gateway.origin));
                continue;
            }
            let carried = carried(server);
            let fresh = || Opening { bind, port, carried, servers: Vec::new() };
            openings.entry((port, bind)).or_insert_with(fresh).servers.push(placed);
        }
    }
    Plan { openings: openings.into_values().collect(), conflicts }
}

/// Address and port number of a server that can be opened.
fn place(server: &Server) -> Option<(Option<IpAddr>, u16)> {
    let number = u16::try_from(server.port.as_ref()?.number).ok().filter(|it| *it != 0)?;
    let honoured = server.tls.as_ref().is_none_or(|tls| {
        tls.mode != ServerTlsMode::AutoPassthrough
            && tls.verify_certificate_spki.is_empty()
            && tls.verify_certificate_hash.is_empty()
            && tls.ca_crl.is_empty()
            && tls.insecure_skip_verify != Some(true)
    });
    if !honoured {
        return None;
    }
    if server.bind.is_empty() {
        return Some((None, number));
    }
    server.bind.parse().ok().map(|bind| (Some(bind), number))
}

fn carried(server: &Server) -> Carried {
    match server.protocol() {
        protocol if protocol.is_http() => Carried::Http,
        protocol if protocol.is_tls() => Carried::Tls,
        _ => Carried::Tcp,
    }
}

fn taken_port(open: &Opening<'_>, carried: Carried) -> Option<String> {
    if open.carried == carried && carried != Carried::Tcp {
        return None;
    }
    let first = open.servers.first()?.gateway;
    Some(format!(
        "port {} is {} of the older Gateway {}/{}: this server is not opened",
        open.port,
        open.carried.name(),
        first.namespace(),
        first.name()
    ))
}

/// Claims the names of a TLS server; what has one of them already keeps all.
fn taken_name(
    placed: &Placed<'_>,
    (port, bind): (u16, Option<IpAddr>),
    taken: &mut HashMap<(u16, Option<IpAddr>, Host), String>,
) -> Option<String> {
    if carried(placed.server) != Carried::Tls {
        return None;
    }
    let key = |host: &Host| (port, bind, host.clone());
    for host in placed.hosts() {
        if let Some(owner) = taken.get(&key(host)) {
            return Some(format!(
                "TLS for `{host}` on port {port} is served by the older {owner}: this server is not opened"
            ));
        }
    }
    let owner = format!("Gateway {}/{}", placed.gateway.namespace(), placed.gateway.name());
    for host in placed.hosts() {
        taken.insert(key(host), owner.clone());
    }
    None
}
