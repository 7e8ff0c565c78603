//! Rules of captured pods that somebody changes: they are put back, and it is told.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lateen_testkit::netns::inside;
use serde_json::json;

use crate::node::{METRICS, Node, POD, events, keep, page, pod, started_pod, unkeep, within};
use crate::stage::{CART, Process, change, code, rules, sandbox, verb};

/// A node with a pod that the plugin captured; the pod's network namespace.
fn captured() -> (Node, Process, String) {
    let mut node = Node::new();
    let (process, netns) = sandbox();
    let kept = node.path("netns/cni-1");
    keep(&netns, &kept);
    node.api.put(POD, pod());
    node.start(&[]);
    node.ready();
    let add = node.add(kept.to_str().unwrap(), CART);
    assert!(add.status.success(), "{add:?}");
    within("the pod is watched", || watched(1));
    (node, process, netns)
}

fn watched(pods: usize) -> bool {
    page(METRICS, "/metrics").contains(&format!("lateen_cni_watched_pods {pods}\n"))
}

fn restored(times: usize) -> bool {
    let line = format!("lateen_cni_rules_restored_total{{result=\"success\"}} {times}\n");
    page(METRICS, "/metrics").contains(&line)
}

/// The rules as CHECK sees them.
fn as_planned(node: &Node) -> bool {
    let kept = node.path("netns/cni-1");
    verb("CHECK", kept.to_str().unwrap(), CART, &node.conf()).status.success()
}

#[test]
fn whatever_is_changed_is_put_back_and_told() {
    if !inside("drift::whatever_is_changed_is_put_back_and_told") {
        return;
    }
    let (mut node, _process, netns) = captured();
    for (times, tampering) in [
        "nft flush ruleset",
        "nft delete table inet lateen",
        "nft insert rule inet lateen nat-output accept",
    ]
    .into_iter()
    .enumerate()
    {
        change(&netns, tampering);
        within(tampering, || restored(times + 1));
        assert!(as_planned(&node), "{tampering}");
    }
    let (reason, note) = events(&node).remove(0);
    assert_eq!(reason, "RulesRestored");
    assert!(note.contains("changed by nft (all of them were gone)"), "{note}");
    // Once, not for each time.
    assert_eq!(events(&node).len(), 1, "{:?}", events(&node));
    node.stop();
}

#[test]
fn one_rule_that_is_deleted_is_put_back() {
    if !inside("drift::one_rule_that_is_deleted_is_put_back") {
        return;
    }
    let (mut node, _process, netns) = captured();
    let before = rules(&netns);
    let net = format!("--net={netns}");
    let listed = ["nft", "-a", "list", "chain", "inet", "lateen", "nat-prerouting"];
    let listed = Command::new("nsenter").arg(&net).args(listed).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let redirect = listed.lines().find(|line| line.contains("redirect to")).unwrap();
    let handle = redirect.rsplit(' ').next().unwrap();
    change(&netns, &format!("nft delete rule inet lateen nat-prerouting handle {handle}"));
    within("the rule is back", || restored(1));
    assert!(as_planned(&node));
    assert_eq!(rules(&netns), before);
    let (_, note) = events(&node).remove(0);
    assert!(note.contains("chain nat-prerouting, rule "), "{note}");
    node.stop();
}

#[test]
fn what_others_do_with_their_own_rules_is_no_drift() {
    if !inside("drift::what_others_do_with_their_own_rules_is_no_drift") {
        return;
    }
    let (mut node, _process, netns) = captured();
    for _ in 0..20 {
        change(&netns, "nft add table inet theirs");
        change(&netns, "nft delete table inet theirs");
    }
    change(&netns, "nft add table inet theirs");
    // What the plugin sets anew is heard too, and as planned.
    let kept = node.path("netns/cni-1");
    assert!(node.add(kept.to_str().unwrap(), CART).status.success());
    // The watcher is up to date when it has answered a change that came later.
    change(&netns, "nft delete table inet lateen");
    within("the rules are back", || restored(1));
    assert!(rules(&netns).contains("table inet theirs"));
    node.stop();
}

#[test]
fn somebody_who_does_not_stop_is_not_fought_and_told_of() {
    if !inside("drift::somebody_who_does_not_stop_is_not_fought_and_told_of") {
        return;
    }
    let (mut node, _process, netns) = captured();
    let over = AtomicBool::new(false);
    let flushes = thread::scope(|scope| {
        let flushing = scope.spawn(|| {
            let mut times = 0;
            while !over.load(Ordering::Relaxed) {
                change(&netns, "nft flush ruleset");
                times += 1;
            }
            times
        });
        within("it is told", || events(&node).iter().any(|(reason, _)| reason == "RulesContested"));
        over.store(true, Ordering::Relaxed);
        flushing.join().unwrap()
    });
    let text = page(METRICS, "/metrics");
    let times = text.split_once("rules_restored_total{result=\"success\"} ").unwrap().1;
    let times: usize = times.lines().next().unwrap().parse().unwrap();
    assert!((5..20).contains(&times) && times < flushes, "{times} repairs of {flushes} flushes");
    let reasons: Vec<String> = events(&node).into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, ["RulesRestored", "RulesContested"]);
    // When it has stopped, they come back for good.
    within("the rules are back", || as_planned(&node));
    node.stop();
}

#[test]
fn an_agent_that_starts_again_finds_what_was_changed_meanwhile() {
    if !inside("drift::an_agent_that_starts_again_finds_what_was_changed_meanwhile") {
        return;
    }
    let mut node = Node::new();
    let (_process, netns, mut pod) = started_pod(&node);
    node.api.put(POD, pod.clone());
    node.start(&[]);
    node.ready();
    within("the pod is captured", || rules(&netns).contains("redirect to :15006"));
    let before = rules(&netns);
    node.stop();
    change(&netns, "nft flush chain inet lateen nat-output");
    node.start(&[]);
    within("the rules are back", || restored(1));
    assert_eq!(rules(&netns), before);
    change(&netns, "nft delete table inet lateen");
    within("it is watched again", || restored(2));
    node.stop();

    // Annotations that somebody changes do not change a running pod.
    pod["metadata"]["annotations"]["traffic.sidecar.istio.io/excludeOutboundPorts"] = json!("5432");
    node.api.put(POD, pod);
    node.start(&[]);
    node.ready();
    within("the pod is watched", || watched(1));
    change(&netns, "nft insert rule inet lateen nat-output accept");
    let changed = rules(&netns);
    change(&netns, "nft add table inet theirs");
    change(&netns, "nft delete table inet theirs");
    assert_eq!(rules(&netns), changed, "the rules of other settings are left");
    change(&netns, "nft delete table inet lateen");
    within("a pod without rules is captured by what it says now", || {
        rules(&netns).contains("5432") && restored(1)
    });
    node.stop();
}

#[test]
fn a_pod_that_ends_is_let_go() {
    if !inside("drift::a_pod_that_ends_is_let_go") {
        return;
    }
    let (mut node, process, _) = captured();
    let pid = process.0.id();
    // An interface whose other end is in the pod's namespace ends with it, not before.
    let link = format!("link add host0 type veth peer name eth0 netns {pid}");
    assert!(Command::new("ip").args(link.split(' ')).status().unwrap().success());
    let is_there = || {
        let shown = Command::new("ip").args(["link", "show", "host0"]).output().unwrap();
        shown.status.success()
    };
    assert!(is_there());
    drop(process);
    unkeep(&node.path("netns/cni-1"));
    within("nothing is watched", || watched(0));
    within("the namespace is gone: nobody holds a socket in it", || !is_there());
    node.stop();
}

#[test]
fn with_repair_off_it_is_only_told() {
    if !inside("drift::with_repair_off_it_is_only_told") {
        return;
    }
    let mut node = Node::new();
    let (_process, netns) = sandbox();
    let kept = node.path("netns/cni-1");
    keep(&netns, &kept);
    node.api.put(POD, pod());
    node.start(&["--repair", "off"]);
    node.ready();
    assert!(node.add(kept.to_str().unwrap(), CART).status.success());
    within("the pod is watched", || watched(1));
    change(&netns, "nft delete table inet lateen");
    within("it is told", || !events(&node).is_empty());
    assert_eq!(events(&node)[0].0, "RulesChanged");
    assert_eq!(rules(&netns), "");
    assert_eq!(code(&verb("CHECK", kept.to_str().unwrap(), CART, &node.conf())), 100);
    node.stop();
}
