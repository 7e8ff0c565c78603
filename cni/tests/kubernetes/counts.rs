//! What becomes of a pod's connections, as metrics.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use lateen_interception::netns;
use lateen_testkit::netns::inside;
use nix::unistd::{Uid, setfsuid};

use crate::node::{METRICS, Node, POD, keep, page, pod, unkeep, within};
use crate::stage::{CART, change, sandbox};

const APPLICATION: u32 = 2000;
const PROXY: u32 = 1337;

/// Tries to connect from the pod as a user, once.
fn try_to_connect(netns: &Path, user: u32, to: &str) {
    let to: SocketAddr = to.parse().unwrap();
    let tried = netns::run_in(netns, || {
        setfsuid(Uid::from_raw(user));
        TcpStream::connect_timeout(&to, Duration::from_millis(100)).is_ok()
    });
    tried.unwrap();
}

fn counted(verdict: &str, times: u64) -> bool {
    let line = format!(
        "lateen_cni_pod_verdicts_total{{namespace=\"shop\",pod=\"cart\",verdict=\"{verdict}\"}} {times}\n"
    );
    page(METRICS, "/metrics").contains(&line)
}

#[test]
fn connections_of_a_pod_are_counted_by_what_its_rules_did() {
    if !inside("counts::connections_of_a_pod_are_counted_by_what_its_rules_did") {
        return;
    }
    let mut node = Node::new();
    let (process, netns) = sandbox();
    let kept = node.path("netns/cni-1");
    keep(&netns, &kept);
    for command in [
        "ip link set lo up",
        "ip link add eth0 type veth peer name peer0",
        "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1",
        "sysctl -qw net.ipv6.conf.peer0.disable_ipv6=1",
        "ip link set peer0 up",
        "ip address add 10.5.0.1/24 dev eth0",
        "ip link set eth0 up",
    ] {
        change(&netns, command);
    }
    node.api.put(POD, pod());
    node.start(&[]);
    node.ready();
    assert!(node.add(kept.to_str().unwrap(), CART).status.success());
    within("the counters are shown, all at nothing", || {
        ["redirect:15001", "redirect:15006", "pass"].into_iter().all(|one| counted(one, 0))
    });
    let here: SocketAddr = "0.0.0.0:15001".parse().unwrap();
    let proxy = netns::run_in(&kept, || TcpListener::bind(here)).unwrap().unwrap();
    for _ in 0..5 {
        try_to_connect(&kept, APPLICATION, "10.5.0.9:80");
    }
    for _ in 0..3 {
        try_to_connect(&kept, PROXY, "10.5.0.9:80");
    }
    // The proxy's call of its own pod by a service is inbound.
    try_to_connect(&kept, PROXY, "10.5.0.1:8080");
    within("outbound is counted", || counted("redirect:15001", 5));
    within("inbound is counted", || counted("redirect:15006", 1));
    within("what passed is counted", || counted("pass", 3));
    assert!(page(METRICS, "/metrics").contains("lateen_cni_unread_pods 0\n"));

    drop(process);
    drop(proxy);
    unkeep(&kept);
    within("a pod that ended is shown no more", || {
        !page(METRICS, "/metrics").contains("pod=\"cart\"")
    });
    node.stop();
}
