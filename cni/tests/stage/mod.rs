//! What the tests of plugin and agent have in common: sandboxes, calls of the plugin, answers.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::{Value, json};

pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) fn sidecar(annotations: &Value) -> Value {
    let mut annotations = annotations.clone();
    annotations["sidecar.istio.io/status"] = json!("{}");
    json!({"metadata": {"name": "cart", "namespace": "shop", "uid": "u-1", "labels": {},
            "annotations": annotations},
        "spec": {"initContainers": [{"name": "istio-proxy", "args": ["proxy", "sidecar"]}],
            "containers": [{"name": "app"}]}})
}

pub(crate) fn sandbox() -> (Process, String) {
    let child = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
    let path = format!("/proc/{}/ns/net", child.id());
    let process = Process(child);
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    while std::fs::read_link(&path).is_ok_and(|theirs| theirs == own) {
        thread::yield_now();
    }
    (process, path)
}

pub(crate) fn rules(netns: &str) -> String {
    let net = format!("--net={netns}");
    let listed = Command::new("nsenter").args([&net, "nft", "list", "ruleset"]).output().unwrap();
    assert!(listed.status.success());
    String::from_utf8(listed.stdout).unwrap()
}

pub(crate) fn change(netns: &str, command: &str) {
    let net = format!("--net={netns}");
    let done = Command::new("nsenter").arg(net).args(command.split(' ')).status().unwrap();
    assert!(done.success(), "{command}");
}

pub(crate) const CART: &str =
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=u-1";

pub(crate) fn call(env: &[(&str, &str)], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lateen-cni"))
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A call that fails on its environment does not read all of its input.
    drop(child.stdin.take().unwrap().write_all(stdin));
    child.wait_with_output().unwrap()
}

pub(crate) fn verb(command: &str, netns: &str, args: &str, conf: &Value) -> Output {
    let env = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", args),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    call(&env, conf.to_string().as_bytes())
}

pub(crate) fn code(output: &Output) -> u64 {
    assert!(!output.status.success());
    let error: Value = serde_json::from_slice(&output.stdout).expect("an error is JSON");
    error["code"].as_u64().expect("an error has a code")
}

pub(crate) fn message(output: &Output) -> String {
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    error["msg"].as_str().unwrap().to_owned()
}
