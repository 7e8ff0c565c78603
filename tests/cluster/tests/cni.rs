//! The CNI node agent with a real API server, with the rights that the chart gives it and no other:
//! pods, repair and drift with their events, the node's taint, an API server that goes away, a
//! permission that is missing, and the end of the release. The node is this machine's folders and network namespaces; as root.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lateen_cluster::api_server::ApiServer;
use lateen_cluster::binaries::{self, Version};
use lateen_cluster::{Kubectl, settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const SYSTEM: &str = "istio-system";
const LIST: &str = r#"{"cniVersion":"1.1.0","name":"b","plugins":[{"type":"bridge"}]}"#;
const TAINT: &str = "cni.istio.io/not-ready";
/// Address of the pod that started uncaptured.
const ADDRESS: &str = "10.9.0.7";

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Node {
    folder: tempfile::TempDir,
    kubectl: Kubectl,
    agent: Option<Process>,
    port: u16,
}

impl Node {
    fn new(kubectl: &Kubectl) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "net.d", "run", "netns"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("net.d/10-b.conflist"), LIST).unwrap();
        fs::write(folder.path().join("bin/bridge"), "").unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        Self { folder, kubectl: kubectl.clone(), agent: None, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn list(&self) -> String {
        fs::read_to_string(self.path("net.d/10-b.conflist")).unwrap()
    }

    /// The kubeconfig of the agent's own ServiceAccount.
    async fn account(&self) -> PathBuf {
        let token = self.kubectl.run(["create", "token", "istio-cni", "-n", SYSTEM]).await.unwrap();
        let view = ["config", "view", "--raw", "--flatten"];
        let mut config = self.kubectl.json(&view).await.unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let path = self.path("kubeconfig");
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    async fn start(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let child = Command::new(binaries::lateen("lateen-cni-node").unwrap())
            .args(["--metrics-port", "0", "--health-port", &self.port.to_string()])
            .args(["--taint", "true"])
            .arg("--plugin")
            .arg(binaries::lateen("lateen-cni").unwrap())
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("--cni-bin-dir")
            .arg(self.path("bin"))
            .arg("--cni-conf-dir")
            .arg(self.path("net.d"))
            .arg("--netns-dir")
            .arg(self.path("netns"))
            .env("KUBECONFIG", self.account().await)
            .envs([
                ("NODE_NAME", "n1"),
                ("POD_NAME", "istio-cni-node-x"),
                ("POD_NAMESPACE", SYSTEM),
            ])
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(Process(child));
    }

    fn stop(&mut self) {
        let mut agent = self.agent.take().unwrap();
        kill(Pid::from_raw(i32::try_from(agent.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(agent.0.wait().unwrap().success(), "{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn readiness(&self) -> String {
        let address = format!("http://127.0.0.1:{}/readyz", self.port);
        let output = Command::new("curl").args(["-s", "-m", "5", &address]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn is_ready(&self) -> bool {
        self.readiness() == "kernel: ok\nplugin: ok\npods: ok\n"
    }

    /// One ADD for the sandbox that is kept at `netns`.
    fn add(&self, netns: &str, (name, uid): (&str, &str), annotations: &Value) -> Output {
        let mut child = Command::new(self.path("bin/lateen-cni"))
            .env_clear()
            .envs([("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")])
            .env("CNI_NETNS", self.path(netns))
            .env(
                "CNI_ARGS",
                format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID={uid}"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // As the runtime makes it of our entry.
        let list: Value = serde_json::from_str(&self.list()).unwrap();
        let mut conf = list["plugins"].as_array().unwrap().last().unwrap().clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        conf["name"] = list["name"].clone();
        conf["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": annotations});
        conf["prevResult"] = json!({"cniVersion": "1.1.0"});
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// A sandbox with an address, kept in the runtime's folder.
    fn sandbox(&self, name: &str, address: &str) -> Process {
        let child = Process(Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap());
        let netns = PathBuf::from(format!("/proc/{}/ns/net", child.0.id()));
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        until("a network namespace", || fs::read_link(&netns).is_ok_and(|it| it != own));
        let kept = self.path(name);
        fs::write(&kept, "").unwrap();
        run(Command::new("mount").arg("--bind").arg(&netns).arg(&kept));
        for command in [
            "ip link add eth0 type veth peer name peer0".to_owned(),
            format!("ip address add {address}/24 dev eth0"),
            "ip link set eth0 up".to_owned(),
        ] {
            run(Command::new("nsenter").arg(in_namespace(&kept)).args(command.split(' ')));
        }
        child
    }

    fn is_captured(&self, netns: &str) -> bool {
        let mut list = Command::new("nsenter");
        list.arg(in_namespace(&self.path(netns))).args(["nft", "list", "ruleset"]);
        String::from_utf8(list.output().unwrap().stdout).unwrap().contains("redirect to :15006")
    }

    /// Makes a pod of this node, and says its uid.
    async fn pod(&self, name: &str, annotations: &Value) -> String {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
            "spec": {"nodeName": "n1", "automountServiceAccountToken": false,
                "initContainers": [{"name": "istio-proxy", "image": "p", "args": ["proxy", "sidecar"],
                    "restartPolicy": "Always"}],
                "containers": [{"name": "app", "image": "a"}]}});
        self.kubectl.apply(&pod.to_string()).await.unwrap();
        let pod = self.kubectl.json(&["get", "pod", name, "-n", "shop"]).await.unwrap();
        pod["metadata"]["uid"].as_str().unwrap().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for kept in fs::read_dir(self.path("netns")).unwrap().flatten() {
            run(Command::new("umount").arg(kept.path()));
        }
    }
}

fn in_namespace(path: &Path) -> String {
    format!("--net={}", path.display())
}

fn run(command: &mut Command) {
    let done = command.status().unwrap();
    assert!(done.success(), "{command:?}");
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

fn helm(program: &Path, kubectl: &Kubectl, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).args(["--namespace", SYSTEM]).stdout(Stdio::null());
    run(command.arg("--kubeconfig").arg(kubectl.kubeconfig()));
}

fn message(output: &Output) -> String {
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 11, "{error}");
    error["msg"].as_str().unwrap().to_owned()
}

fn injected() -> Value {
    json!({"sidecar.istio.io/status": "{}"})
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes and Helm, as root: make e2e"]
async fn the_agent_needs_what_the_chart_gives_and_leaves_with_it() {
    let mut server = ApiServer::start(Version::V1_36).await.unwrap();
    server.start_controllers().await.unwrap();
    let kubectl = server.kubectl().clone();
    let program = binaries::helm().await.unwrap();
    let chart = settings::root().join("charts/cni").display().to_string();
    // As a node registers that is to have no pods before the agent can capture them.
    let tainted = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]}});
    kubectl.apply(&tainted.to_string()).await.unwrap();
    kubectl.run(["create", "namespace", "shop"]).await.unwrap();
    let install = ["install", "cni", &chart, "--create-namespace", "--set", "taint.enabled=true"];
    helm(&program, &kubectl, &install);
    let mut node = Node::new(&kubectl);
    node.start().await;
    until("the agent is ready", || node.is_ready());
    untainted(&node).await;

    let _sandbox = node.sandbox("netns/cni-1", "10.9.0.5");
    let cart = node.pod("cart", &injected()).await;
    let add = node.add("netns/cni-1", ("cart", &cart), &injected());
    assert!(add.status.success(), "{add:?}");
    assert!(node.is_captured("netns/cni-1"));

    let flush = ["nft", "flush", "ruleset"];
    run(Command::new("nsenter").arg(in_namespace(&node.path("netns/cni-1"))).args(flush));
    until("the rules are back", || node.is_captured("netns/cni-1"));
    told(&node, "cart", "RulesRestored").await;

    repaired(&node).await;
    without_the_api_server(&mut server, &node, &cart).await;
    node.stop();
    assert!(node.list().contains("lateen-cni"), "the release is still there: {}", node.log());

    without_a_permission(&mut node).await;

    node.start().await;
    until("the agent is ready", || node.is_ready());
    helm(&program, &kubectl, &["uninstall", "cni"]);
    node.stop();
    assert_eq!(node.list(), LIST, "{}", node.log());
    assert!(!node.path("bin/lateen-cni").exists());
}

async fn repaired(node: &Node) {
    let _sandbox = node.sandbox("netns/cni-2", ADDRESS);
    node.pod("late", &injected()).await;
    let status = json!({"status": {"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}}).to_string();
    let patch =
        ["patch", "pod", "late", "-n", "shop", "--subresource=status", "--type=merge", "-p"];
    node.kubectl.run(patch.iter().copied().chain([status.as_str()])).await.unwrap();
    until("the pod is captured", || node.is_captured("netns/cni-2"));
    told(node, "late", "Captured").await;
}

/// An event on a pod of `shop`.
async fn told(node: &Node, pod: &str, reason: &str) {
    let (reason, of_it) = (
        format!("--for=jsonpath={{.reason}}={reason}"),
        format!("--field-selector=involvedObject.name={pod}"),
    );
    let events = ["wait", "event", "-n", "shop", &reason, &of_it, "--timeout=30s"];
    // `wait` gives up at once when there is none yet.
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = node.kubectl.run(events).await {
        assert!(Instant::now() < deadline, "no event: {error}; {}", node.log());
    }
}

async fn untainted(node: &Node) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = node.kubectl.json(&["get", "node", "n1"]).await.unwrap();
        let taints = found["spec"]["taints"].as_array().cloned().unwrap_or_default();
        if taints.iter().all(|taint| taint["key"] != TAINT) {
            return;
        }
        assert!(Instant::now() < deadline, "the node keeps its taint: {}", node.log());
    }
}

async fn without_the_api_server(server: &mut ApiServer, node: &Node, cart: &str) {
    server.pause().await;
    let known = node.add("netns/cni-1", ("cart", cart), &injected());
    assert!(known.status.success(), "{known:?}");
    let plain = node.add("netns/cni-1", ("other", "u"), &json!({"app": "x"}));
    assert!(plain.status.success(), "{plain:?}");
    let unknown = message(&node.add("netns/cni-1", ("other", "u"), &injected()));
    assert!(unknown.contains("cannot be reached"), "{unknown}");
    server.resume().await.unwrap();
    let other = node.pod("other", &injected()).await;
    until("a pod made since is known", || {
        node.add("netns/cni-1", ("other", &other), &injected()).status.success()
    });
}

async fn without_a_permission(node: &mut Node) {
    let rules = json!([{"op": "replace", "path": "/rules/0/verbs", "value": ["get", "list"]}]);
    let role = ["patch", "clusterrole", "istio-cni", "--type=json", "-p"];
    node.kubectl.run(role.iter().copied().chain([rules.to_string().as_str()])).await.unwrap();
    node.start().await;
    until("the log names it", || node.log().contains("may not watch pods"));
    node.stop();
    let rules =
        json!([{"op": "replace", "path": "/rules/0/verbs", "value": ["get", "list", "watch"]}]);
    node.kubectl.run(role.iter().copied().chain([rules.to_string().as_str()])).await.unwrap();
}
