//! Pods that started uncaptured, and that none does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lateen_testkit::netns::inside;
use serde_json::json;

use crate::node::{
    HEALTH, METRICS, Node, POD, addressed_sandbox, event, keep, page, pod, started_pod, unkeep,
    within,
};
use crate::stage::{CART, Process, code, rules, sandbox, verb};

#[test]
fn a_pod_that_started_uncaptured_is_captured_in_place() {
    if !inside("uncaptured::a_pod_that_started_uncaptured_is_captured_in_place") {
        return;
    }
    let mut node = Node::new();
    let (process, netns, pod) = started_pod(&node);
    node.start(&[]);
    node.ready();
    node.api.put(POD, pod.clone());
    within("an event tells", || event(&node).is_some());
    let (reason, note) = event(&node).unwrap();
    assert_eq!(reason, "Captured", "{note}");
    assert!(rules(&netns).contains("redirect to :15006"));
    assert_eq!(node.api.changes().len(), 1, "{:?}", node.api.changes());

    // Its sandbox is made again without the plugin: the validation container tells.
    drop(process);
    unkeep(&node.path("netns/cni-1"));
    let (_process, netns) = addressed_sandbox(&node, "netns/cni-2");
    let mut again = pod;
    again["status"]["initContainerStatuses"] = json!([{"name": "istio-validation", "image": "i",
        "imageID": "", "ready": false, "restartCount": 1, "state": {"waiting": {}},
        "lastState": {"terminated": {"exitCode": 126}}}]);
    node.api.put(POD, again);
    within("the rules are back", || rules(&netns).contains("redirect to :15006"));
    assert!(
        page(METRICS, "/metrics").contains(
            "istio_cni_repair_pods_repaired_total{type=\"in-place\",result=\"success\"} 2"
        )
    );
    node.stop();
}

#[test]
fn a_pod_that_started_uncaptured_is_deleted_labelled_or_left() {
    if !inside("uncaptured::a_pod_that_started_uncaptured_is_deleted_labelled_or_left") {
        return;
    }
    for (mode, verb, reason) in [
        ("delete", "delete", "Deleted"),
        ("label", "patch", "Labelled"),
        ("off", "", "NotCaptured"),
    ] {
        let mut node = Node::new();
        let (_process, netns, pod) = started_pod(&node);
        node.api.put(POD, pod);
        node.start(&["--repair", mode]);
        within("an event tells", || event(&node).is_some());
        assert_eq!(event(&node).unwrap().0, reason);
        assert_eq!(rules(&netns), "");
        let changes = node.api.changes();
        let change = changes.iter().find(|(_, path, _)| path == POD);
        assert_eq!(change.map_or("", |(verb, ..)| verb), verb, "{changes:?}");
        if mode == "delete" {
            assert_eq!(change.unwrap().2["preconditions"]["uid"], "u-1");
        }
        node.stop();
    }
    let mut node = Node::new();
    node.api.deny("delete", "pods");
    let (_process, _, pod) = started_pod(&node);
    node.api.put(POD, pod);
    node.start(&["--repair", "delete"]);
    within("an event tells", || event(&node).is_some());
    let (reason, note) = event(&node).unwrap();
    assert_eq!(reason, "NotRepaired");
    assert!(note.contains("may not delete pods"), "{note}");
    node.stop();
}

#[test]
fn no_pod_starts_uncaptured_while_agents_come_and_go() {
    if !inside("uncaptured::no_pod_starts_uncaptured_while_agents_come_and_go") {
        return;
    }
    let mut node = Node::new();
    node.api.put(POD, pod());
    node.start(&[]);
    node.ready();
    let mut conf = node.conf();
    conf["agent_wait"] = json!(8000);
    let over = AtomicBool::new(false);
    let added = AtomicUsize::new(0);
    let limit = Instant::now() + Duration::from_secs(90);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) && Instant::now() < limit {
                    let (_process, netns) = sandbox();
                    let add = verb("ADD", &netns, CART, &conf);
                    assert!(add.status.success(), "{add:?}");
                    assert!(rules(&netns).contains("redirect to :15006"), "started uncaptured");
                    added.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..6 {
            let before = added.load(Ordering::Relaxed);
            if round % 2 == 0 {
                node.stop();
            } else {
                // Killed, in the middle of whatever it does; its socket stays.
                drop(node.agent.take());
            }
            node.start(&[]);
            within("pods start again", || added.load(Ordering::Relaxed) > before + 8);
        }
        over.store(true, Ordering::Relaxed);
    });
    node.stop();
}

#[test]
fn a_node_that_takes_no_rules_starts_pods_outside_of_the_mesh_only() {
    if !inside("uncaptured::a_node_that_takes_no_rules_starts_pods_outside_of_the_mesh_only") {
        return;
    }
    let mut node = Node::new();
    node.api.put(POD, pod());
    let (_process, netns) = sandbox();
    let kept = node.path("netns/cni-1");
    keep(&netns, &kept);
    // What the kernel answers to one who may not is what one without nf_tables does: an error.
    let program =
        ["setpriv", "--bounding-set=-all,+sys_admin", env!("CARGO_BIN_EXE_lateen-cni-node")];
    node.agent = Some(Process(node.command(&program).spawn().unwrap()));
    within("readiness names the kernel", || {
        let page = page(HEALTH, "/readyz");
        page.starts_with("HTTP/1.1 503") && page.contains("kernel: ") && page.contains("pods: ok")
    });
    let path = kept.to_str().unwrap();
    let meshed = node.add(path, CART);
    assert_eq!(code(&meshed), 101, "{meshed:?}");
    assert_eq!(rules(&netns), "");
    let mut plain = pod();
    plain["metadata"]["annotations"] = json!({});
    node.api.put(POD, plain);
    within("the pod outside of the mesh starts", || node.add(path, CART).status.success());
    node.stop();
}
