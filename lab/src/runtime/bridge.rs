//! `lateen-lab-bridge`, the main CNI plugin of the lab: connects a sandbox to the node's bridge by
//! a pair of virtual interfaces and gives it addresses.
//!
//! Must not know pods or the mesh. The bridge itself belongs to the node.

pub mod ipam;
mod links;
pub mod settings;

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use ipam::{Ipam, IpamError};
use links::Links;
use settings::{Conf, Invocation, VERSIONS, Verb};

/// An error of the specification: its code and a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// Code of the specification 1.1.0, or ours: 101 no free address, 102 the kernel refused an
    /// interface, 103 the sandbox is not as it was made.
    pub code: u32,
    /// What was wrong, and what to do.
    pub message: String,
}

impl CniError {
    /// An error with a message.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<IpamError> for CniError {
    fn from(e: IpamError) -> Self {
        match e {
            IpamError::Full(_) => Self::new(101, e.to_string()),
            IpamError::Duplicate(_) => Self::new(4, e.to_string()),
            IpamError::Io { .. } => Self::new(5, e.to_string()),
        }
    }
}

/// What is printed, and whether it is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// For standard output.
    pub text: String,
    /// Whether the call failed.
    pub failed: bool,
}

/// Runs one call of the plugin.
#[must_use]
pub fn run(invocation: Result<Invocation, CniError>, stdin: &[u8]) -> Output {
    match answer(invocation, stdin) {
        Ok(None) => Output { text: String::new(), failed: false },
        Ok(Some(value)) => Output { text: value.to_string(), failed: false },
        Err(e) => {
            let version = settings::asked_version(stdin);
            let error = json!({"cniVersion": version, "code": e.code, "msg": e.message});
            Output { text: error.to_string(), failed: true }
        }
    }
}

fn answer(
    invocation: Result<Invocation, CniError>,
    stdin: &[u8],
) -> Result<Option<Value>, CniError> {
    let invocation = invocation?;
    if invocation.verb == Verb::Version {
        let version = settings::asked_version(stdin);
        return Ok(Some(json!({"cniVersion": version, "supportedVersions": VERSIONS})));
    }
    let conf = Conf::parse(stdin)?;
    let ipam = Ipam::new(&conf.data_dir);
    let links = || Links::open(&conf.bridge);
    match invocation.verb {
        Verb::Version => Ok(None),
        Verb::Add => add(&conf, &invocation, &ipam, &links()?).map(Some),
        Verb::Check => check(&conf, &invocation, &links()?).map(|()| None),
        Verb::Delete => {
            links()?.disconnect(&invocation.netns, &invocation.interface, &host_name(&invocation));
            ipam.release(&invocation.container, &invocation.interface)?;
            Ok(None)
        }
        Verb::Status => {
            let ready = links().and_then(|links| links.bridge());
            ready.map(|_| None).map_err(|e| CniError::new(50, e.message))
        }
        Verb::Gc => {
            let valid: Vec<(&str, &str)> = conf
                .valid
                .iter()
                .map(|it| (it.container.as_str(), it.interface.as_str()))
                .collect();
            ipam.keep_only(&valid)?;
            Ok(None)
        }
    }
}

fn add(
    conf: &Conf,
    invocation: &Invocation,
    ipam: &Ipam,
    links: &Links,
) -> Result<Value, CniError> {
    let bridge = links.bridge()?;
    let nets: Vec<(IpNet, IpAddr)> = conf.ranges.iter().map(|it| (it.subnet, it.gateway)).collect();
    let addresses = ipam.reserve(&nets, &invocation.container, &invocation.interface)?;
    let host = host_name(invocation);
    let wanted = links::Wanted {
        netns: &invocation.netns,
        interface: &invocation.interface,
        host: &host,
        addresses: &addresses,
        gateways: &conf.ranges.iter().map(|it| it.gateway).collect::<Vec<_>>(),
    };
    match links.connect(&wanted) {
        Ok(macs) => Ok(result(conf, &wanted, &bridge, &macs)),
        Err(e) => {
            ipam.release(&invocation.container, &invocation.interface)?;
            Err(e)
        }
    }
}

/// The result of ADD. Pure.
fn result(conf: &Conf, wanted: &links::Wanted<'_>, bridge: &str, macs: &links::Macs) -> Value {
    let ips: Vec<Value> = wanted
        .addresses
        .iter()
        .zip(&conf.ranges)
        .map(|(ip, range)| {
            json!({"address": ip.to_string(), "gateway": range.gateway, "interface": 2})
        })
        .collect();
    let routes: Vec<Value> = conf
        .ranges
        .iter()
        .map(|range| {
            let everything = if range.gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            json!({"dst": everything, "gw": range.gateway})
        })
        .collect();
    json!({
        "cniVersion": conf.version,
        "interfaces": [
            {"name": conf.bridge, "mac": bridge},
            {"name": wanted.host, "mac": macs.host},
            {"name": wanted.interface, "mac": macs.sandbox, "sandbox": wanted.netns},
        ],
        "ips": ips,
        "routes": routes,
        "dns": {},
    })
}

fn check(conf: &Conf, invocation: &Invocation, links: &Links) -> Result<(), CniError> {
    let Some(previous) = &conf.previous else {
        return Err(CniError::new(7, "CHECK needs prevResult"));
    };
    let has = links.addresses(&invocation.netns, &invocation.interface)?;
    let ips = previous["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    for wanted in ips.iter().filter_map(|ip| ip["address"].as_str()) {
        let net: Option<IpNet> = wanted.parse().ok();
        if !net.is_some_and(|net| has.contains(&net.addr())) {
            let text = format!(
                "{} has no address {wanted} any more; delete the pod",
                invocation.interface
            );
            return Err(CniError::new(103, text));
        }
    }
    Ok(())
}

/// Name of the node's end: the same for the same sandbox, as DEL may know no more.
fn host_name(invocation: &Invocation) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (&invocation.container, &invocation.interface).hash(&mut hasher);
    format!("veth{:08x}", hasher.finish() & 0xffff_ffff)
}
