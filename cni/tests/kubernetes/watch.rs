//! Pods known by the watch or by a question, and what is said when neither may be.

use std::time::{Duration, Instant};

use lateen_testkit::netns::inside;
use serde_json::json;

use crate::node::{
    DAEMONSET, HEALTH, LIST, METRICS, Node, POD, event, keep, page, pod, started_pod, within,
};
use crate::stage::{CART, Process, code, message, rules, sandbox};

#[test]
fn pods_come_by_the_watch_or_by_a_direct_question() {
    if !inside("watch::pods_come_by_the_watch_or_by_a_direct_question") {
        return;
    }
    let mut node = Node::new();
    node.start(&[]);
    node.ready();
    let (_process, netns) = sandbox();
    let unknown = node.add(&netns, CART);
    assert_eq!(code(&unknown), 11, "{unknown:?}");
    assert!(message(&unknown).contains("has not told"), "{}", message(&unknown));

    // The watch says nothing of it.
    node.api.hide(POD);
    node.api.put(POD, pod());
    assert!(node.add(&netns, CART).status.success());
    assert!(rules(&netns).contains("redirect to :15006"));
    let replaced = node.add(&netns, &CART.replace("u-1", "u-2"));
    assert_eq!(code(&replaced), 11);
    assert!(message(&replaced).contains("has taken its place"), "{}", message(&replaced));
    assert!(
        page(METRICS, "/metrics").contains("lateen_cni_calls_total{verb=\"ADD\",code=\"11\"} 2")
    );

    // Of a static pod the runtime knows the kubelet's uid.
    let mut mirrored = pod();
    mirrored["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("u-3");
    node.api.put(POD, mirrored);
    assert!(node.add(&netns, &CART.replace("u-1", "u-3")).status.success());
    node.stop();
}

#[test]
fn known_pods_stay_known_while_the_api_server_is_away() {
    if !inside("watch::known_pods_stay_known_while_the_api_server_is_away") {
        return;
    }
    let mut node = Node::new();
    node.api.put(POD, pod());
    node.start(&[]);
    node.ready();
    let (_process, netns) = sandbox();
    node.api.down();
    let start = Instant::now();
    assert!(node.add(&netns, CART).status.success());
    assert!(start.elapsed() < Duration::from_secs(1));
    let other = CART.replace("cart", "other");
    let unknown = node.add(&netns, &other);
    assert_eq!(code(&unknown), 11);
    assert!(message(&unknown).contains("cannot be reached (get pods)"), "{}", message(&unknown));
    assert!(page(HEALTH, "/readyz").starts_with("HTTP/1.1 200"), "what it can do it does");

    // It comes back, and tells of pods that were made since.
    node.api.up();
    let path = POD.replace("cart", "other");
    let mut pod = pod();
    pod["metadata"]["name"] = json!("other");
    node.api.put(&path, pod);
    within("the other pod is known", || node.add(&netns, &other).status.success());
    node.stop();
}

#[test]
fn a_refused_permission_is_named() {
    if !inside("watch::a_refused_permission_is_named") {
        return;
    }
    let mut node = Node::new();
    node.api.deny("list", "pods");
    node.api.deny("get", "pods");
    node.start(&[]);
    within("readiness names it", || {
        let page = page(HEALTH, "/readyz");
        page.starts_with("HTTP/1.1 503")
            && page.contains("may not list pods")
            && page.contains("chart cni")
    });
    let refused = node.add("/proc/self/ns/net", CART);
    assert_eq!(code(&refused), 11);
    assert!(message(&refused).contains("may not get pods"), "{}", message(&refused));
    assert!(page(HEALTH, "/healthz").starts_with("HTTP/1.1 200"));
    node.stop();
}

#[test]
fn two_capabilities_are_enough() {
    if !inside("watch::two_capabilities_are_enough") {
        return;
    }
    let mut node = Node::new();
    let (_process, _, pod) = started_pod(&node);
    node.api.put(POD, pod);
    let capabilities = "--bounding-set=-all,+net_admin,+sys_admin";
    let program =
        ["setpriv", capabilities, "--no-new-privs", env!("CARGO_BIN_EXE_lateen-cni-node")];
    node.agent = Some(Process(node.command(&program).spawn().unwrap()));
    node.ready();
    within("an event tells", || event(&node).is_some());
    assert_eq!(event(&node).unwrap().0, "Captured");
    // Not by a process, which takes a right over processes: by the path that the runtime gives.
    let (_other, netns) = sandbox();
    let kept = node.path("netns/cni-2");
    keep(&netns, &kept);
    let add = node.add(kept.to_str().unwrap(), CART);
    assert!(add.status.success(), "{add:?}");
    assert!(rules(&netns).contains("redirect to :15006"));
    node.api.delete(DAEMONSET);
    node.stop();
    assert_eq!(node.list(), LIST);
    assert!(!node.path("bin/lateen-cni").exists());
}
