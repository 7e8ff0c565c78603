//! The taint of a node whose agent cannot serve.

use std::fs;

use lateen_testkit::netns::inside;
use serde_json::{Value, json};

use crate::node::{DAEMONSET, LIST, METRICS, Node, page, within};

const NODE: &str = "/api/v1/nodes/n1";
const KEY: &str = "cni.istio.io/not-ready";

/// The node as it registers: with our taint, and one of somebody else.
fn registered(node: &Node) {
    node.api.put(
        NODE,
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "n"},
            "spec": {"podCIDR": "10.9.0.0/24", "taints": [
                {"key": KEY, "effect": "NoSchedule"},
                {"key": "dedicated", "value": "db", "effect": "NoExecute"}]}}),
    );
}

fn keys(node: &Node) -> Vec<String> {
    let object = node.api.object(NODE).unwrap();
    let taints = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_node_loses_its_taint_when_its_agent_is_ready() {
    if !inside("taint::a_node_loses_its_taint_when_its_agent_is_ready") {
        return;
    }
    let mut node = Node::new();
    registered(&node);
    // Somebody else changes the node in the same moment, twice.
    node.api.conflict(2);
    fs::remove_file(node.path("net.d/10-b.conflist")).unwrap();
    node.start(&["--taint", "true"]);
    within("the node is watched", || node.api.is_watched("nodes"));
    assert_eq!(keys(&node), [KEY, "dedicated"], "it is not ready yet");
    fs::write(node.path("net.d/10-b.conflist"), LIST).unwrap();
    node.ready();
    within("the taint is gone", || keys(&node) == ["dedicated"]);
    let object = node.api.object(NODE).unwrap();
    assert_eq!(object["spec"]["podCIDR"], "10.9.0.0/24");
    assert_eq!(object["spec"]["taints"][0]["value"], "db");
    // It comes again without us, as from a node group: it goes again.
    registered(&node);
    within("the taint is gone again", || keys(&node) == ["dedicated"]);
    node.stop();
    assert_eq!(keys(&node), ["dedicated"], "an update taints nothing");
}

#[test]
fn a_node_whose_agent_cannot_serve_for_long_is_tainted_until_it_can() {
    if !inside("taint::a_node_whose_agent_cannot_serve_for_long_is_tainted_until_it_can") {
        return;
    }
    let mut node = Node::new();
    node.api.put(NODE, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
    node.start(&["--taint", "true", "--taint-after", "300"]);
    node.ready();
    // A machine that is busy may take longer than it has patience.
    within("there is no taint", || keys(&node).is_empty());
    let patches = |node: &Node| node.api.changes().len();
    let before = patches(&node);
    // Whoever makes the cluster's network takes the configuration away.
    fs::remove_file(node.path("net.d/10-b.conflist")).unwrap();
    within("the node is tainted", || keys(&node) == [KEY]);
    let object = node.api.object(NODE).unwrap();
    assert_eq!(object["spec"]["taints"], json!([{"key": KEY, "effect": "NoSchedule"}]));
    assert!(page(METRICS, "/metrics").contains("lateen_cni_node_tainted 1\n"));
    fs::write(node.path("net.d/10-b.conflist"), LIST).unwrap();
    within("the taint is gone", || keys(&node).is_empty());
    assert_eq!(patches(&node), before + 2);

    // An uninstall leaves no taint that nobody takes away any more.
    fs::remove_file(node.path("net.d/10-b.conflist")).unwrap();
    within("the node is tainted", || keys(&node) == [KEY]);
    node.api.delete(DAEMONSET);
    node.stop();
    assert_eq!(keys(&node), Vec::<String>::new());
}

#[test]
fn nobody_who_did_not_ask_for_taints_gets_one() {
    if !inside("taint::nobody_who_did_not_ask_for_taints_gets_one") {
        return;
    }
    let mut node = Node::new();
    registered(&node);
    node.start(&["--taint-after", "1"]);
    node.ready();
    node.api.delete(DAEMONSET);
    node.stop();
    assert!(!node.api.is_watched("nodes"));
    let of_nodes = |(_, path, _): &(String, String, Value)| path.contains("/nodes");
    assert!(!node.api.changes().iter().any(of_nodes));
    assert_eq!(keys(&node), [KEY, "dedicated"]);
}
