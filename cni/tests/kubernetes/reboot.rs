//! A node that starts again: nothing runs yet, the run folder is empty, what is on disk is all there is.

use std::fs;
use std::process::Output;

use lateen_testkit::netns::inside;
use serde_json::{Value, json};

use crate::node::{HEALTH, Node, POD, keep, page, pod, within};
use crate::stage::{CART, code, message, rules, sandbox, verb};

const AGENT: &str = "K8S_POD_NAMESPACE=istio-system;K8S_POD_NAME=istio-cni-node-abcde";
const DNS: &str = "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=coredns-1";

/// The call that a runtime makes of what is on disk.
fn add(node: &Node, netns: &str, args: &str, annotations: &Value) -> Output {
    let list: Value = serde_json::from_str(&node.list()).unwrap();
    let mut conf = list["plugins"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(conf["type"], "lateen-cni");
    conf["cniVersion"] = list["cniVersion"].clone();
    conf["name"] = list["name"].clone();
    conf["prevResult"] = json!({"cniVersion": "1.1.0"});
    conf["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": annotations});
    verb("ADD", netns, args, &conf)
}

/// Pods that have nothing to do with the mesh start, whoever is away.
fn others_start(node: &Node, netns: &str) {
    for (args, annotations) in
        [(AGENT, json!({})), (DNS, json!({})), (CART, json!({"app": "not of the mesh"}))]
    {
        let started = add(node, netns, args, &annotations);
        assert!(started.status.success(), "{args}: {started:?}");
    }
    assert_eq!(rules(netns), "");
}

#[test]
fn a_node_that_starts_again_starts_meshed_pods_last_and_captured() {
    if !inside("reboot::a_node_that_starts_again_starts_meshed_pods_last_and_captured") {
        return;
    }
    let mut node = Node::new();
    node.api.put(POD, pod());
    node.start(&["--agent-wait", "100"]);
    node.ready();

    // The power fails. What was in memory is gone: sockets, namespaces.
    drop(node.agent.take());
    fs::remove_dir_all(node.path("run")).unwrap();
    node.api.down();
    let (_process, netns) = sandbox();
    let kept = node.path("netns/cni-1");
    keep(&netns, &kept);
    let path = kept.to_str().unwrap();
    let meshed = json!({"sidecar.istio.io/status": "{}"});

    // The kubelet is faster than everybody else.
    others_start(&node, path);
    let waits = add(&node, path, CART, &meshed);
    assert_eq!(code(&waits), 11);
    assert!(message(&waits).contains("the node agent does not answer"), "{}", message(&waits));
    assert_eq!(rules(path), "");

    // The agent is there, the API server is not.
    node.start(&["--agent-wait", "100"]);
    others_start(&node, path);
    let waits = add(&node, path, CART, &meshed);
    assert_eq!(code(&waits), 11);
    assert!(message(&waits).contains("cannot be reached"), "{}", message(&waits));
    assert_eq!(rules(path), "");
    let ready = page(HEALTH, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("pods: "), "{ready}");

    // The API server answers: what the kubelet tries again succeeds, and with rules.
    node.api.up();
    within("the meshed pod starts", || {
        let started = add(&node, path, CART, &meshed).status.success();
        assert!(!started || rules(path).contains("redirect to :15006"), "started uncaptured");
        started
    });
    node.ready();
    node.stop();
}
