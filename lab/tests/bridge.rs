//! The bridge plugin as a process, with sandboxes that are real network namespaces.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use lateen_testkit::netns::inside;
use serde_json::{Value, json};

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn sandbox() -> (Process, String) {
    let child = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
    let path = format!("/proc/{}/ns/net", child.id());
    let process = Process(child);
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    while std::fs::read_link(&path).is_ok_and(|theirs| theirs == own) {
        thread::yield_now();
    }
    (process, path)
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn ip_in(netns: &str, arguments: &str) -> String {
    let net = format!("--net={netns}");
    let ip = Command::new("nsenter").arg(net).arg("ip").args(arguments.split(' ')).output();
    String::from_utf8(ip.unwrap().stdout).unwrap()
}

struct Network(tempfile::TempDir);

impl Network {
    fn new() -> Self {
        ip("link add lab0 type bridge");
        ip("addr add 10.1.0.1/24 dev lab0");
        ip("link set lab0 up");
        ip("link set lo up");
        Self(tempfile::tempdir().unwrap())
    }

    fn conf(&self) -> Value {
        json!({"cniVersion": "1.1.0", "name": "lab", "type": "lateen-lab-bridge", "bridge": "lab0",
            "dataDir": self.0.path(), "ranges": [
                {"subnet": "10.1.0.0/24", "gateway": "10.1.0.1"},
                {"subnet": "fd01::/64", "gateway": "fd01::1"}]})
    }

    fn call(&self, verb: &str, container: &str, netns: &str, more: &Value) -> Output {
        let mut conf = self.conf();
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut child = Command::new(env!("CARGO_BIN_EXE_lateen-lab-bridge"))
            .env_clear()
            .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", container)])
            .envs([("CNI_NETNS", netns), ("CNI_IFNAME", "eth0")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn ok(&self, verb: &str, container: &str, netns: &str, more: &Value) -> Value {
        let output = self.call(verb, container, netns, more);
        assert!(output.status.success(), "{verb}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn code(&self, verb: &str, container: &str, netns: &str, more: &Value) -> u64 {
        let output = self.call(verb, container, netns, more);
        assert!(!output.status.success(), "{verb}: {output:?}");
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        error["code"].as_u64().unwrap_or_else(|| panic!("{error}"))
    }

    fn taken(&self) -> usize {
        let files = std::fs::read_dir(self.0.path()).unwrap().flatten();
        files.filter(|file| !file.file_name().to_string_lossy().starts_with("last")).count()
    }
}

#[test]
fn a_sandbox_is_connected_checked_and_taken_out() {
    if !inside("a_sandbox_is_connected_checked_and_taken_out") {
        return;
    }
    let (network, none) = (Network::new(), json!({}));
    let (_one, first) = sandbox();
    let (_two, second) = sandbox();
    let result = network.ok("ADD", "a", &first, &none);
    assert_eq!(
        result["ips"][0],
        json!({"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2})
    );
    assert_eq!(result["ips"][1]["address"], "fd01::2/64");
    assert_eq!(result["routes"][1], json!({"dst": "::/0", "gw": "fd01::1"}));
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(
        (&interfaces[0]["name"], &interfaces[2]["sandbox"]),
        (&json!("lab0"), &json!(first))
    );
    let shown = ip_in(&first, "-br link show eth0");
    assert!(shown.contains(interfaces[2]["mac"].as_str().unwrap()), "{shown}");
    assert!(ip_in(&first, "route").contains("default via 10.1.0.1"));
    network.ok("ADD", "b", &second, &none);
    let previous = json!({"prevResult": result});
    network.ok("CHECK", "a", &first, &previous);
    assert_eq!(network.code("CHECK", "a", &first, &none), 7);
    assert_eq!(network.code("ADD", "a", &first, &none), 4, "added twice");
    ip_in(&first, "addr flush dev eth0");
    assert_eq!(network.code("CHECK", "a", &first, &previous), 103);
    assert_eq!(network.taken(), 4);
    network.ok("DEL", "a", &first, &previous);
    network.ok("DEL", "a", &first, &none);
    network.ok("DEL", "a", "", &none);
    assert_eq!(network.taken(), 2);
    assert!(ip_in(&first, "-br link show").lines().all(|line| line.starts_with("lo")));
    assert_eq!(ip("-br link show master lab0").lines().count(), 1);
}

#[test]
fn what_cannot_be_connected_leaves_nothing() {
    if !inside("what_cannot_be_connected_leaves_nothing") {
        return;
    }
    let (network, none) = (Network::new(), json!({}));
    let (_process, netns) = sandbox();
    assert_eq!(network.code("ADD", "a", "/no/such/namespace", &none), 5);
    assert_eq!(network.code("ADD", "a", &netns, &json!({"bridge": "none0"})), 50);
    // An interface of that name is there already.
    ip_in(&netns, "link add eth0 type bridge");
    assert_eq!(network.code("ADD", "a", &netns, &none), 102);
    assert_eq!(network.taken(), 0);
    assert!(ip_in(&netns, "-br link show").contains("eth0"), "what is another's was removed");
    assert_eq!(ip("-br link show master lab0").lines().count(), 0);
    network.ok("STATUS", "", "", &none);
    assert_eq!(network.code("STATUS", "", "", &json!({"bridge": "none0"})), 50);
    let (_other, other) = sandbox();
    network.ok("ADD", "b", &other, &none);
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]});
    network.ok("GC", "", "", &valid);
    assert_eq!(network.taken(), 2);
    network.ok("GC", "", "", &json!({"cni.dev/valid-attachments": []}));
    assert_eq!(network.taken(), 0);
}
