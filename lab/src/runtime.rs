//! The container runtime: sandboxes with a network, connected by CNI plugins.
//!
//! Must not know what runs in a sandbox.

pub mod bridge;
pub mod cni;
mod sandbox;

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::node::network::PREFIXES;
use crate::node::{BRIDGE, NodeContext};

pub(crate) use sandbox::{Sandbox, SandboxName};

/// The network configuration list of the lab: our bridge, then the mesh.
#[must_use]
pub fn conflist(node: &NodeContext, ipv6: bool) -> Value {
    let ranges = node.gateway.iter().zip(PREFIXES);
    let ranges: Vec<Value> = ranges
        .filter(|(gateway, _)| gateway.is_ipv4() || ipv6)
        .map(|(gateway, prefix)| json!({"subnet": subnet(*gateway, prefix), "gateway": gateway}))
        .collect();
    json!({
        "cniVersion": "1.1.0",
        "name": "lateen-lab",
        "plugins": [
            {
                "type": "lateen-lab-bridge",
                "bridge": BRIDGE,
                "dataDir": node.inner().join("ipam"),
                "ranges": ranges,
            },
            {
                "type": "lateen-cni",
                "cni_agent_run_dir": node.state.join("run/cni"),
                "plugin_log_level": "info",
            },
        ],
    })
}

fn subnet(gateway: IpAddr, prefix: u8) -> String {
    let net = ipnet::IpNet::new(gateway, prefix).map(|net| net.trunc().to_string());
    net.unwrap_or_else(|_| format!("{gateway}/{prefix}"))
}
