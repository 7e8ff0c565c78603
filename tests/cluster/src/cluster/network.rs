//! The network between nodes: a bridge in the cluster's own namespace, which is that of node 1,
//! and a pair of interfaces for every other node. Written as batches for `ip`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Plan;
use crate::ClusterError;

/// The bridge between nodes.
const BRIDGE: &str = "nodes0";
/// The interface of another node to it.
pub(super) const UPLINK: &str = "eth0";

/// What node 1 needs: `lo`, the bridge with its addresses, ways to the pods of other nodes.
pub(super) fn first(plan: &Plan) -> String {
    let mut batch =
        format!("link set lo up\nlink add {BRIDGE} type bridge\nlink set {BRIDGE} up\n");
    addresses(&mut batch, plan, 1, BRIDGE);
    batch
}

/// Joins node `node`, whose first process is `pid`, to the bridge.
pub(super) fn join(plan: &Plan, node: u8, pid: u32) -> String {
    let name = plan.node_name(node);
    let mut batch = format!(
        "link add {name} type veth peer name {UPLINK} netns {pid}\n\
         link set {name} master {BRIDGE}\nlink set {name} up\n"
    );
    way(&mut batch, plan, node);
    batch
}

/// What another node needs once its interface is there.
pub(super) fn other(plan: &Plan, node: u8) -> String {
    let mut batch = format!("link set lo up\nlink set {UPLINK} up\n");
    addresses(&mut batch, plan, node, UPLINK);
    for other in (1..=plan.nodes).filter(|other| *other != node) {
        way(&mut batch, plan, other);
    }
    batch
}

fn addresses(batch: &mut String, plan: &Plan, node: u8, interface: &str) {
    for address in plan.node_addresses(node) {
        let (length, more) = if address.contains(':') { (64, " nodad") } else { (24, "") };
        line(batch, &format!("address add {address}/{length} dev {interface}{more}"));
    }
    // Services are addresses that no interface has; a process of the node that calls one needs a
    // route before its packets are sent elsewhere.
    let gateways = [format!("172.30.{}.254", plan.number), format!("fd00:30:{}::fe", plan.number)];
    for (range, gateway) in plan.service_ranges().iter().zip(gateways) {
        line(batch, &format!("route add {range} via {gateway} dev {interface}"));
    }
}

/// The way to the pods of another node.
fn way(batch: &mut String, plan: &Plan, node: u8) {
    for (range, gateway) in plan.pod_ranges(node).iter().zip(plan.node_addresses(node)) {
        line(batch, &format!("route add {range} via {gateway}"));
    }
}

fn line(batch: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(batch, "{text}");
}

/// Kernel settings of a node, where the kernel has them.
pub(super) const SETTINGS: [(&str, &str); 8] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    // Answers between pods of one bridge pass the rules of Services.
    ("bridge/bridge-nf-call-iptables", "1"),
    ("bridge/bridge-nf-call-ip6tables", "1"),
];

/// Sets them in the network namespace of this process.
pub(super) fn settings() -> Result<(), ClusterError> {
    for (name, value) in SETTINGS {
        let file = Path::new("/proc/sys/net").join(name);
        if file.exists() {
            std::fs::write(&file, value).map_err(ClusterError::file(&file))?;
        }
    }
    let bridge = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if bridge.exists() {
        return Ok(());
    }
    let text = "the kernel module br_netfilter is missing, and Services between pods of one node \
                need it; run: modprobe br_netfilter";
    Err(ClusterError::Other(text.to_owned()))
}

/// Runs a batch in the network namespace of this process.
pub(super) fn run(batch: &str) -> Result<(), ClusterError> {
    let failed = |source| ClusterError::Start { program: "ip".to_owned(), source };
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(batch.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!("{}\n{batch}", String::from_utf8_lossy(&output.stderr).trim());
    Err(ClusterError::Command { command: "ip -batch -".to_owned(), status: output.status, text })
}

#[cfg(test)]
mod tests {
    use super::{Plan, join, other};

    #[test]
    fn nodes_know_the_way_to_the_pods_of_each_other() {
        let plan = Plan { name: "a".to_owned(), nodes: 2, number: 3, port: 1, ipv6: false };
        assert!(join(&plan, 2, 77).contains("route add 10.103.2.0/24 via 172.30.3.2\n"));
        assert!(join(&plan, 2, 77).contains("netns 77\n"));
        let second = other(&plan, 2);
        assert!(second.contains("address add 172.30.3.2/24 dev eth0\n"));
        assert!(second.contains("route add 10.103.1.0/24 via 172.30.3.1\n"));
        assert!(!second.contains("10.103.2.0/24"));
    }
}
