//! The node agent as a process on a node of a cluster: pods from the API server, repair, readiness,
//! update and uninstall. The API server is a small one; `tests/cluster` has the real one.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "stage/api.rs"]
mod api;
mod stage;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use api::Api;
use lateen_testkit::netns::inside;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use stage::{CART, Process, code, message, rules, sandbox, sidecar, verb};

const POD: &str = "/api/v1/namespaces/shop/pods/cart";
const DAEMONSET: &str = "/apis/apps/v1/namespaces/istio-system/daemonsets/istio-cni-node";
const LIST: &str = r#"{"cniVersion":"1.1.0","name":"b","plugins":[{"type":"bridge"}]}"#;
/// Ports of pages; each test has a network namespace of its own.
const HEALTH: u16 = 8000;
const METRICS: u16 = 15014;

struct Node {
    folder: tempfile::TempDir,
    api: Api,
    agent: Option<Process>,
}

impl Node {
    fn new() -> Self {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "net.d", "run", "netns"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("net.d/10-b.conflist"), LIST).unwrap();
        let api = Api::new();
        api.put(
            DAEMONSET,
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "istio-cni-node", "namespace": "istio-system", "uid": "d"}}),
        );
        Self { folder, api, agent: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn list(&self) -> String {
        fs::read_to_string(self.path("net.d/10-b.conflist")).unwrap()
    }

    fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .args(["--plugin", env!("CARGO_BIN_EXE_lateen-cni"), "--pod-wait", "300", "--run-dir"])
            .arg(self.path("run"))
            .arg("--cni-bin-dir")
            .arg(self.path("bin"))
            .arg("--cni-conf-dir")
            .arg(self.path("net.d"))
            .arg("--netns-dir")
            .arg(self.path("netns"))
            .env("KUBECONFIG", self.api.kubeconfig(self.folder.path()))
            .envs([("NODE_NAME", "n1"), ("POD_NAME", "istio-cni-node-x")]);
        command
    }

    fn start(&mut self, arguments: &[&str]) {
        let program = [env!("CARGO_BIN_EXE_lateen-cni-node")];
        self.agent = Some(Process(self.command(&program).args(arguments).spawn().unwrap()));
        let socket = self.path("run/pluginevent.sock");
        within("the agent listens", || socket.exists());
    }

    fn ready(&self) {
        within("the agent is ready", || page(HEALTH, "/readyz").starts_with("HTTP/1.1 200"));
    }

    fn stop(&mut self) {
        let mut agent = self.agent.take().unwrap();
        end(&mut agent.0);
    }

    fn conf(&self) -> Value {
        json!({"cniVersion": "1.1.0", "name": "b", "type": "lateen-cni",
            "cni_agent_run_dir": self.path("run"),
            "prevResult": {"cniVersion": "1.1.0"}})
    }

    fn add(&self, netns: &str, args: &str) -> std::process::Output {
        verb("ADD", netns, args, &self.conf())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for kept in fs::read_dir(self.path("netns")).unwrap() {
            let done = Command::new("umount").arg(kept.unwrap().path()).status().unwrap();
            assert!(done.success());
        }
    }
}

fn end(child: &mut Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

fn within(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(8);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::yield_now();
    }
}

/// A page of the agent; empty when it does not answer.
fn page(port: u16, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let mut text = String::new();
    stream.write_all(request.as_bytes()).ok();
    stream.read_to_string(&mut text).ok();
    text
}

fn pod() -> Value {
    let mut pod = sidecar(&json!({}));
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["spec"]["nodeName"] = json!("n1");
    pod
}

/// Keeps a network namespace at a path, as the runtime does.
fn keep(netns: &str, path: &Path) {
    fs::write(path, "").unwrap();
    let bound = Command::new("mount").args(["--bind", netns]).arg(path).status().unwrap();
    assert!(bound.success());
}

/// A sandbox with an address, kept at a path as the runtime does, and its pod.
fn started_pod(node: &Node) -> (Process, String, Value) {
    let (process, netns) = sandbox();
    let inside = format!("--net={netns}");
    for command in [
        "ip link add eth0 type veth peer name peer0",
        "ip address add 10.9.0.7/24 dev eth0",
        "ip link set eth0 up",
    ] {
        let done = Command::new("nsenter").arg(&inside).args(command.split(' ')).status().unwrap();
        assert!(done.success(), "{command}");
    }
    keep(&netns, &node.path("netns/cni-1"));
    let mut pod = pod();
    pod["status"] = json!({"phase": "Pending", "podIPs": [{"ip": "10.9.0.7"}]});
    (process, netns, pod)
}

fn event(node: &Node) -> Option<(String, String)> {
    let changes = node.api.changes();
    let (_, _, event) = changes.iter().find(|(_, path, _)| path.ends_with("/events"))?;
    assert_eq!(event["regarding"]["uid"], "u-1");
    let text = |key: &str| event[key].as_str().unwrap().to_owned();
    Some((text("reason"), text("note")))
}

#[test]
fn pods_come_by_the_watch_or_by_a_direct_question() {
    if !inside("pods_come_by_the_watch_or_by_a_direct_question") {
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
    if !inside("known_pods_stay_known_while_the_api_server_is_away") {
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
    if !inside("a_refused_permission_is_named") {
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
fn a_pod_that_started_uncaptured_is_captured_in_place() {
    if !inside("a_pod_that_started_uncaptured_is_captured_in_place") {
        return;
    }
    let mut node = Node::new();
    let (_process, netns, pod) = started_pod(&node);
    node.start(&[]);
    node.ready();
    node.api.put(POD, pod.clone());
    within("an event tells", || event(&node).is_some());
    let (reason, note) = event(&node).unwrap();
    assert_eq!(reason, "Captured", "{note}");
    assert!(rules(&netns).contains("redirect to :15006"));
    assert_eq!(node.api.changes().len(), 1, "{:?}", node.api.changes());

    // Its sandbox was made again without the plugin: the validation container tells.
    stage::change(&netns, "nft delete table inet lateen");
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
    if !inside("a_pod_that_started_uncaptured_is_deleted_labelled_or_left") {
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
fn an_update_keeps_what_an_uninstall_takes_away() {
    if !inside("an_update_keeps_what_an_uninstall_takes_away") {
        return;
    }
    let mut node = Node::new();
    let program = node.path("bin/lateen-cni");
    node.start(&[]);
    node.ready();
    assert!(node.list().contains("lateen-cni") && program.exists());
    node.stop();
    assert!(node.list().contains("lateen-cni") && program.exists());

    // The API server is away: that is no uninstall.
    node.start(&[]);
    node.ready();
    node.api.down();
    node.stop();
    assert!(node.list().contains("lateen-cni") && program.exists());

    // With the DaemonSet goes the permission to ask for it.
    node.api.up();
    node.start(&[]);
    node.ready();
    within("the DaemonSet is watched", || node.api.is_watched("daemonsets"));
    node.api.deny("get", "daemonsets");
    node.api.delete(DAEMONSET);
    node.stop();
    assert_eq!(node.list(), LIST);
    assert!(!program.exists());
    assert!(!Path::new(&node.path("run/pluginevent.sock")).exists());
}

#[test]
fn news_of_the_daemonset_while_it_is_asked_for_do_no_harm() {
    if !inside("news_of_the_daemonset_while_it_is_asked_for_do_no_harm") {
        return;
    }
    let mut node = Node::new();
    node.start(&[]);
    node.ready();
    within("the DaemonSet is watched", || node.api.is_watched("daemonsets"));
    node.api.hold("daemonsets");
    let mut agent = node.agent.take().unwrap();
    kill(Pid::from_raw(i32::try_from(agent.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    within("the agent asks for its DaemonSet", || node.api.is_waited_for());
    node.api.delete(DAEMONSET);
    // No answer comes within its patience: what the watch told decides.
    let deadline = Instant::now() + Duration::from_secs(20);
    while agent.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the agent does not end");
        thread::yield_now();
    }
    assert_eq!(node.list(), LIST);
}

#[test]
fn no_pod_starts_uncaptured_while_agents_come_and_go() {
    if !inside("no_pod_starts_uncaptured_while_agents_come_and_go") {
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
fn a_configuration_that_cannot_be_restored_keeps_its_program() {
    if !inside("a_configuration_that_cannot_be_restored_keeps_its_program") {
        return;
    }
    let mut node = Node::new();
    let folder = node.path("net.d");
    let mount = |options: &[&str]| {
        let done = Command::new("mount").args(options).arg(&folder).status().unwrap();
        assert!(done.success(), "{options:?}");
    };
    mount(&["-t", "tmpfs", "none"]);
    fs::write(folder.join("10-b.conflist"), LIST).unwrap();
    node.start(&[]);
    node.ready();
    mount(&["-o", "remount,ro"]);
    node.api.delete(DAEMONSET);
    node.stop();
    assert!(node.list().contains("lateen-cni"));
    assert!(node.path("bin/lateen-cni").exists());
    let done = Command::new("umount").arg(&folder).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_node_that_takes_no_rules_starts_pods_outside_of_the_mesh_only() {
    if !inside("a_node_that_takes_no_rules_starts_pods_outside_of_the_mesh_only") {
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

#[test]
fn two_capabilities_are_enough() {
    if !inside("two_capabilities_are_enough") {
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

#[test]
fn an_uninstall_leaves_the_plugin_where_pods_that_end_still_need_it() {
    if !inside("an_uninstall_leaves_the_plugin_where_pods_that_end_still_need_it") {
        return;
    }
    let mut node = Node::new();
    node.start(&["--keep-plugin", "true"]);
    node.ready();
    node.api.delete(DAEMONSET);
    node.stop();
    assert_eq!(node.list(), LIST);
    let delete = verb("DEL", "", CART, &node.conf());
    assert!(node.path("bin/lateen-cni").exists() && delete.status.success());
}
