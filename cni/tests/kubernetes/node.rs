//! A node of a cluster: its folders, the agent on it, and pods that the runtime made.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::api::Api;
use crate::stage::{Process, sandbox, sidecar, verb};

pub(crate) const POD: &str = "/api/v1/namespaces/shop/pods/cart";
pub(crate) const DAEMONSET: &str =
    "/apis/apps/v1/namespaces/istio-system/daemonsets/istio-cni-node";
pub(crate) const LIST: &str = r#"{"cniVersion":"1.1.0","name":"b","plugins":[{"type":"bridge"}]}"#;
/// Ports of pages; each test has a network namespace of its own.
pub(crate) const HEALTH: u16 = 8000;
pub(crate) const METRICS: u16 = 15014;

pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) api: Api,
    pub(crate) agent: Option<Process>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "net.d", "run", "netns"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("net.d/10-b.conflist"), LIST).unwrap();
        fs::write(folder.path().join("bin/bridge"), "").unwrap();
        let api = Api::new();
        api.put(
            DAEMONSET,
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "istio-cni-node", "namespace": "istio-system", "uid": "d"}}),
        );
        Self { folder, api, agent: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn list(&self) -> String {
        fs::read_to_string(self.path("net.d/10-b.conflist")).unwrap()
    }

    pub(crate) fn command(&self, program: &[&str]) -> Command {
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

    pub(crate) fn start(&mut self, arguments: &[&str]) {
        let program = [env!("CARGO_BIN_EXE_lateen-cni-node")];
        self.agent = Some(Process(self.command(&program).args(arguments).spawn().unwrap()));
        let socket = self.path("run/pluginevent.sock");
        within("the agent listens", || socket.exists());
    }

    pub(crate) fn ready(&self) {
        within("the agent is ready", || page(HEALTH, "/readyz").starts_with("HTTP/1.1 200"));
    }

    pub(crate) fn stop(&mut self) {
        let mut agent = self.agent.take().unwrap();
        end(&mut agent.0);
    }

    pub(crate) fn conf(&self) -> Value {
        json!({"cniVersion": "1.1.0", "name": "b", "type": "lateen-cni",
            "cni_agent_run_dir": self.path("run"),
            "prevResult": {"cniVersion": "1.1.0"}})
    }

    pub(crate) fn add(&self, netns: &str, args: &str) -> std::process::Output {
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

pub(crate) fn end(child: &mut Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

pub(crate) fn within(what: &str, holds: impl Fn() -> bool) {
    // Only what never happens takes so long, on a machine that is busy too.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::yield_now();
    }
}

/// A page of the agent; empty when it does not answer.
pub(crate) fn page(port: u16, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let mut text = String::new();
    stream.write_all(request.as_bytes()).ok();
    stream.read_to_string(&mut text).ok();
    text
}

pub(crate) fn pod() -> Value {
    let mut pod = sidecar(&json!({}));
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["spec"]["nodeName"] = json!("n1");
    pod
}

/// Keeps a network namespace at a path, as the runtime does.
pub(crate) fn keep(netns: &str, path: &Path) {
    fs::write(path, "").unwrap();
    let bound = Command::new("mount").args(["--bind", netns]).arg(path).status().unwrap();
    assert!(bound.success());
}

/// A sandbox with an address, kept at a path as the runtime does, and its pod.
pub(crate) fn started_pod(node: &Node) -> (Process, String, Value) {
    let (process, netns) = addressed_sandbox(node, "netns/cni-1");
    let mut pod = pod();
    pod["status"] = json!({"phase": "Pending", "podIPs": [{"ip": "10.9.0.7"}]});
    (process, netns, pod)
}

/// A sandbox with that pod's address, kept at this path of the node.
pub(crate) fn addressed_sandbox(node: &Node, kept: &str) -> (Process, String) {
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
    keep(&netns, &node.path(kept));
    (process, netns)
}

/// Takes a network namespace away, as the runtime does when the pod has ended.
pub(crate) fn unkeep(path: &Path) {
    let done = Command::new("umount").arg(path).status().unwrap();
    assert!(done.success());
    fs::remove_file(path).unwrap();
}

pub(crate) fn event(node: &Node) -> Option<(String, String)> {
    events(node).into_iter().next()
}

/// Reason and note of each event, in order.
pub(crate) fn events(node: &Node) -> Vec<(String, String)> {
    let changes = node.api.changes();
    let events = changes.iter().filter(|(_, path, _)| path.ends_with("/events"));
    let told = events.map(|(_, _, event)| {
        assert_eq!(event["regarding"]["uid"], "u-1");
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        (text("reason"), text("note"))
    });
    told.collect()
}
