//! The plugin and the agent as processes, with sandboxes that are real network namespaces.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod stage;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use lateen_testkit::netns::inside;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use stage::{CART, Process, call, change, code, message, rules, sandbox, sidecar, verb};

struct Node {
    folder: tempfile::TempDir,
    agent: Option<Process>,
}

impl Node {
    fn without_agent() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pods")).unwrap();
        Self { folder, agent: None }
    }

    fn new() -> Self {
        let mut node = Self::without_agent();
        let child = Command::new(env!("CARGO_BIN_EXE_lateen-cni-node"))
            .args(["--pod-wait", "300", "--pods-dir"])
            .arg(node.folder.path().join("pods"))
            .arg("--run-dir")
            .arg(node.run_dir())
            .spawn()
            .unwrap();
        node.agent = Some(Process(child));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !node.run_dir().join("pluginevent.sock").exists() {
            assert!(Instant::now() < deadline, "the agent does not listen");
            thread::yield_now();
        }
        node
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn pod(&self, pod: &Value) {
        let file = self.folder.path().join("pods/shop_cart.json");
        std::fs::write(file, pod.to_string()).unwrap();
    }

    fn conf(&self) -> Value {
        json!({"cniVersion": "1.1.0", "name": "net", "type": "lateen-cni",
            "cni_agent_run_dir": self.run_dir(), "exclude_namespaces": ["kube-system"],
            "pod_namespace": "istio-system",
            "prevResult": {"cniVersion": "1.1.0", "z": 1, "a": [{"address": "10.0.0.2/24"}]}})
    }
}

#[test]
fn a_pod_is_added_checked_and_deleted() {
    if !inside("a_pod_is_added_checked_and_deleted") {
        return;
    }
    let node = Node::new();
    node.pod(&sidecar(&json!({})));
    let (_process, netns) = sandbox();
    let add = verb("ADD", &netns, CART, &node.conf());
    assert!(add.status.success(), "{add:?}");
    // Unchanged, to the order of its keys.
    assert_eq!(String::from_utf8(add.stdout).unwrap(), node.conf()["prevResult"].to_string());
    assert!(rules(&netns).contains("redirect to :15006"));
    assert!(verb("CHECK", &netns, CART, &node.conf()).status.success());
    change(&netns, "nft insert rule inet lateen nat-output accept");
    let check = verb("CHECK", &netns, CART, &node.conf());
    assert_eq!(code(&check), 100);
    assert!(message(&check).contains("nat-output, rule 1"), "{}", message(&check));
    change(&netns, "nft delete table inet lateen");
    assert_eq!(code(&verb("CHECK", &netns, CART, &node.conf())), 100);
    for path in [netns.as_str(), "", "/gone"] {
        assert!(verb("DEL", path, "", &node.conf()).status.success());
    }
    assert!(verb("STATUS", "", "", &node.conf()).status.success());
    assert!(verb("GC", "", "", &node.conf()).status.success());
}

#[test]
fn check_names_the_rule_that_is_missing_added_or_in_another_place() {
    if !inside("check_names_the_rule_that_is_missing_added_or_in_another_place") {
        return;
    }
    let node = Node::new();
    node.pod(&sidecar(&json!({})));
    let (_process, netns) = sandbox();
    let handles = || -> Vec<String> {
        let listed = ["--handle", "list", "chain", "inet", "lateen", "nat-output"];
        let net = format!("--net={netns}");
        let listed = Command::new("nsenter").args([&net, "nft"]).args(listed).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        let of =
            |line: &str| Some(line.split_once("comment ")?.1.split_once("# handle ")?.1.into());
        text.lines().filter_map(of).collect()
    };
    let tampered = |how: &dyn Fn(&[String]), wanted: &str| {
        assert!(verb("ADD", &netns, CART, &node.conf()).status.success());
        assert!(verb("CHECK", &netns, CART, &node.conf()).status.success());
        how(&handles());
        let check = verb("CHECK", &netns, CART, &node.conf());
        assert_eq!(code(&check), 100);
        assert!(message(&check).contains(wanted), "{wanted}: {}", message(&check));
    };
    let nft = |command: String| change(&netns, &format!("nft {command}"));
    let count = {
        assert!(verb("ADD", &netns, CART, &node.conf()).status.success());
        handles().len()
    };
    assert!(count > 3, "{count} rules");
    for at in 0..count {
        let delete = |handles: &[String]| {
            nft(format!("delete rule inet lateen nat-output handle {}", handles[at]));
        };
        tampered(&delete, &format!("chain nat-output, rule {}", at + 1));
    }
    tampered(
        &|handles| nft(format!("add rule inet lateen nat-output handle {} drop", handles[1])),
        "chain nat-output, rule 3",
    );
    // The second rule again, as it is, at the end: only the order differs.
    tampered(
        &|handles| {
            let moved = format!(
                "nft list chain inet lateen nat-output | grep -v '^table\\|chain\\|hook\\|}}' \
                 | sed -n 2p | sed 's/^\\s*/add rule inet lateen nat-output /; s/packets [0-9]* bytes [0-9]*//' \
                 | nft -f - && nft delete rule inet lateen nat-output handle {}",
                handles[1]
            );
            let net = format!("--net={netns}");
            let done = Command::new("nsenter").args([&net, "sh", "-c", &moved]).status().unwrap();
            assert!(done.success(), "{moved}");
        },
        "chain nat-output, rule 2: planned",
    );
}

#[test]
fn every_version_captures_and_hands_on_what_came() {
    if !inside("every_version_captures_and_hands_on_what_came") {
        return;
    }
    let node = Node::new();
    node.pod(&sidecar(&json!({})));
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (_process, netns) = sandbox();
        let mut conf = node.conf();
        conf["cniVersion"] = json!(version);
        conf["prevResult"]["cniVersion"] = json!(version);
        let add = verb("ADD", &netns, CART, &conf);
        assert_eq!(String::from_utf8(add.stdout).unwrap(), conf["prevResult"].to_string());
        assert!(rules(&netns).contains("redirect to :15006"), "{version}");
        for (command, since) in [("CHECK", "0.4.0"), ("STATUS", "1.1.0"), ("GC", "1.1.0")] {
            let output = verb(command, &netns, CART, &conf);
            if version >= since {
                assert!(output.status.success(), "{version} {command}: {output:?}");
            } else {
                assert_eq!(code(&output), 1, "{version} {command}");
            }
        }
        for _ in 0..3 {
            let delete = verb("DEL", "", CART, &conf);
            assert!(delete.status.success() && delete.stdout.is_empty(), "{version}: {delete:?}");
        }
    }
}

#[test]
fn pods_outside_of_the_mesh_get_no_rules() {
    if !inside("pods_outside_of_the_mesh_get_no_rules") {
        return;
    }
    let node = Node::new();
    let (_process, netns) = sandbox();
    let mut plain = sidecar(&json!({}));
    plain["metadata"]["annotations"] = json!({});
    let none = sidecar(&json!({"sidecar.istio.io/interceptionMode": "NONE"}));
    for pod in [plain, none] {
        node.pod(&pod);
        let add = verb("ADD", &netns, CART, &node.conf());
        assert!(add.status.success(), "{add:?}");
        assert_eq!(rules(&netns), "");
    }
}

#[test]
fn a_pod_that_cannot_be_honoured_is_refused() {
    if !inside("a_pod_that_cannot_be_honoured_is_refused") {
        return;
    }
    let node = Node::new();
    let (_process, netns) = sandbox();
    node.pod(&sidecar(&json!({"traffic.sidecar.istio.io/excludeOutboundPorts": "80,abc"})));
    let add = verb("ADD", &netns, CART, &node.conf());
    assert_eq!(code(&add), 7);
    assert!(message(&add).contains("excludeOutboundPorts"));
    assert_eq!(rules(&netns), "");
    node.pod(&sidecar(&json!({})));
    let replaced = CART.replace("u-1", "u-2");
    assert_eq!(code(&verb("ADD", &netns, &replaced, &node.conf())), 11);
    assert_eq!(code(&verb("ADD", "/proc/self/ns/net", CART, &node.conf())), 8);
    assert_eq!(code(&verb("ADD", "/etc/hostname", CART, &node.conf())), 8);
    assert_eq!(rules("/proc/self/ns/net"), "");
}

#[test]
fn an_agent_ends_at_once_and_takes_its_socket_away() {
    if !inside("an_agent_ends_at_once_and_takes_its_socket_away") {
        return;
    }
    let mut node = Node::new();
    let second = Command::new(env!("CARGO_BIN_EXE_lateen-cni-node"))
        .arg("--pods-dir")
        .arg(node.folder.path())
        .arg("--run-dir")
        .arg(node.run_dir())
        .output()
        .unwrap();
    assert!(!second.status.success(), "a second agent took the socket");
    let mut agent = node.agent.take().unwrap();
    let pid = Pid::from_raw(i32::try_from(agent.0.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(agent.0.wait().unwrap().success());
    assert!(!node.run_dir().join("pluginevent.sock").exists());
    let add = verb("ADD", "/proc/self/ns/net", CART, &node.conf());
    assert_eq!(code(&add), 11);
    assert!(message(&add).contains("exclude_namespaces"));
    assert_eq!(code(&verb("STATUS", "", "", &node.conf())), 50);
}

#[test]
fn without_an_agent_only_add_and_check_fail() {
    if !inside("without_an_agent_only_add_and_check_fail") {
        return;
    }
    let node = Node::without_agent();
    let (_process, netns) = sandbox();
    let add = verb("ADD", &netns, CART, &node.conf());
    assert_eq!(code(&add), 11);
    for part in ["pod shop/cart", "pluginevent.sock", "start lateen-cni-node"] {
        assert!(message(&add).contains(part), "{part}: {}", message(&add));
    }
    assert_eq!(rules(&netns), "");
    assert_eq!(code(&verb("CHECK", &netns, CART, &node.conf())), 11);
    assert_eq!(code(&verb("STATUS", "", "", &node.conf())), 50);
    for path in [netns.as_str(), "", "/gone"] {
        let delete = verb("DEL", path, CART, &node.conf());
        assert!(delete.status.success() && delete.stdout.is_empty(), "{path}: {delete:?}");
    }
    let mut all = node.conf();
    all["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    assert!(verb("GC", "", "", &all).status.success());
}

#[test]
fn an_agent_that_talks_nonsense_is_no_agent() {
    let node = Node::without_agent();
    std::fs::create_dir(node.run_dir()).unwrap();
    let listener = UnixListener::bind(node.run_dir().join("pluginevent.sock")).unwrap();
    for answer in ["", "{}\n", "[]\n", "{\"outcome\":\"ok\",\"reason\":\"redirected\"}", "\0\n"] {
        thread::scope(|scope| {
            scope.spawn(|| listener.accept().unwrap().0.write_all(answer.as_bytes()).unwrap());
            let add = verb("ADD", "/proc/self/ns/net", CART, &node.conf());
            assert_eq!(code(&add), 11, "{answer:?}: {add:?}");
        });
    }
}

#[test]
fn an_agent_outlives_callers_that_talk_nonsense() {
    if !inside("an_agent_outlives_callers_that_talk_nonsense") {
        return;
    }
    let node = Node::new();
    node.pod(&sidecar(&json!({})));
    let long = "a".repeat(1 << 20);
    for text in ["", "\n", "null\n", "{\"verb\":\"add\"}\n", "\u{0}\u{7f}\n", "{", &long] {
        let mut caller = UnixStream::connect(node.run_dir().join("pluginevent.sock")).unwrap();
        // The agent may have closed already: it reads no line without an end.
        drop(caller.write_all(text.as_bytes()));
        caller.shutdown(Shutdown::Write).unwrap_or_default();
        let mut answer = String::new();
        drop(caller.read_to_string(&mut answer));
        assert_eq!(answer, "", "{text:.20?}");
    }
    let (_process, netns) = sandbox();
    assert!(verb("ADD", &netns, CART, &node.conf()).status.success());
}

#[test]
fn two_hundred_sandboxes_at_once() {
    if !inside("two_hundred_sandboxes_at_once") {
        return;
    }
    const SANDBOXES: usize = 200;
    let node = Node::new();
    node.pod(&sidecar(&json!({})));
    let sandboxes: Vec<(Process, String)> = (0..SANDBOXES).map(|_| sandbox()).collect();
    let together = Barrier::new(SANDBOXES);
    let failed: Vec<_> = thread::scope(|scope| {
        let calls: Vec<_> = sandboxes
            .iter()
            .map(|(_, netns)| {
                scope.spawn(|| {
                    together.wait();
                    verb("ADD", netns, CART, &node.conf())
                })
            })
            .collect();
        let outputs = calls.into_iter().map(|call| call.join().unwrap());
        outputs.filter(|output| !output.status.success()).collect()
    });
    assert!(failed.is_empty(), "{} of {SANDBOXES} failed: {:?}", failed.len(), failed[0]);
    for (_, netns) in &sandboxes {
        assert!(rules(netns).contains("redirect to :15006"));
    }
}

#[test]
fn what_the_plugin_knows_needs_no_agent() {
    let node = Node::without_agent();
    for args in [
        "",
        "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns",
        "K8S_POD_NAMESPACE=istio-system;K8S_POD_NAME=lateen-cni-node-abcde",
    ] {
        let add = verb("ADD", "/proc/self/ns/net", args, &node.conf());
        assert!(add.status.success(), "{args}: {add:?}");
        assert_eq!(String::from_utf8(add.stdout).unwrap(), node.conf()["prevResult"].to_string());
    }
}

#[test]
fn annotations_of_the_runtime_decide_without_agent_and_api_server() {
    let node = Node::without_agent();
    let with = |runtime: Value| {
        let mut conf = node.conf();
        conf["runtimeConfig"] = runtime;
        verb("ADD", "/proc/self/ns/net", CART, &conf)
    };
    let plain = json!({"kubernetes.io/config.source": "api"});
    let add = with(json!({"io.kubernetes.cri.pod-annotations": plain}));
    assert!(add.status.success(), "{add:?}");
    assert_eq!(String::from_utf8(add.stdout).unwrap(), node.conf()["prevResult"].to_string());
    let injected = json!({"sidecar.istio.io/status": "{}"});
    for unknown in [
        json!({"io.kubernetes.cri.pod-annotations": injected}),
        json!({"io.kubernetes.cri.pod-annotations": null}),
        json!({"io.kubernetes.cri.pod-annotations": [1]}),
        json!({"portMappings": []}),
        json!({}),
    ] {
        assert_eq!(code(&with(unknown.clone())), 11, "{unknown}");
    }
}

#[test]
fn an_add_waits_for_an_agent_that_is_being_replaced() {
    let node = Node::without_agent();
    std::fs::create_dir(node.run_dir()).unwrap();
    let mut conf = node.conf();
    conf["agent_wait"] = json!(8000);
    let socket = node.run_dir().join("pluginevent.sock");
    thread::scope(|scope| {
        let add = scope.spawn(|| verb("ADD", "/n", CART, &conf));
        // The old agent takes a call and ends without an answer; the new one answers.
        let old = UnixListener::bind(&socket).unwrap();
        drop(old.accept().unwrap());
        drop(old);
        std::fs::remove_file(&socket).unwrap();
        let new = UnixListener::bind(&socket).unwrap();
        let (mut call, _) = new.accept().unwrap();
        call.write_all(b"{\"outcome\":\"ok\",\"reason\":\"redirected\"}\n").unwrap();
        let add = add.join().unwrap();
        assert!(add.status.success(), "{add:?}");
    });
}

#[test]
fn the_plugin_is_small() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_lateen-cni")).unwrap();
    let number = |at: usize, length: usize| {
        program[at..at + length].iter().rev().fold(0, |all, byte| (all << 8) | usize::from(*byte))
    };
    // The program headers of ELF: what is loaded, without debug information.
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let loaded = (0..count).map(|at| table + at * size).filter(|at| number(*at, 4) == 1);
    let bytes: usize = loaded.map(|at| number(at + 40, 8)).sum();
    assert!((100_000..3_000_000).contains(&bytes), "{bytes} bytes are loaded");
}

#[test]
fn versions_are_served_from_0_3_0_to_1_1_0() {
    let node = Node::without_agent();
    let version = call(&[("CNI_COMMAND", "VERSION")], br#"{"cniVersion":"0.4.0"}"#);
    let answer: Value = serde_json::from_slice(&version.stdout).unwrap();
    let known = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    assert_eq!(answer, json!({"cniVersion": "0.4.0", "supportedVersions": known}));
    for version in known {
        let mut conf = node.conf();
        conf["cniVersion"] = json!(version);
        conf["prevResult"]["cniVersion"] = json!(version);
        let add = verb("ADD", "/n", "", &conf);
        assert_eq!(String::from_utf8(add.stdout).unwrap(), conf["prevResult"].to_string());
        let check = verb("CHECK", "/n", "", &conf);
        assert_eq!(check.status.success(), version != "0.3.0" && version != "0.3.1", "{version}");
        let gc = verb("GC", "", "", &conf);
        assert_eq!(gc.status.success(), version == "1.1.0", "{version}");
    }
}

#[test]
fn bad_calls_have_the_codes_of_the_specification() {
    let node = Node::without_agent();
    let with = |key: &str, value: Value| {
        let mut conf = node.conf();
        conf[key] = value;
        conf
    };
    let good = "CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_IFNAME=eth0 CNI_NETNS=/n";
    let table: Vec<(String, String, u64)> = vec![
        (good.into(), "{".into(), 6),
        (good.into(), String::new(), 6),
        (good.into(), "[]".into(), 6),
        (good.into(), r#"["1.1.0", "net"]"#.into(), 6),
        (good.into(), "null".into(), 6),
        (good.into(), "1".into(), 6),
        (good.into(), "\"1.1.0\"".into(), 6),
        (good.into(), "true".into(), 6),
        (good.into(), format!("{} {{}}", node.conf()), 6),
        (good.into(), "[".repeat(100_000), 6),
        (good.into(), with("cniVersion", json!(1.1)).to_string(), 6),
        (good.into(), with("prevResult", json!([])).to_string(), 6),
        (good.into(), "\u{0}".into(), 6),
        (good.into(), with("prevResult", json!("text")).to_string(), 6),
        (good.into(), with("cniVersion", json!("9.9.9")).to_string(), 1),
        (good.into(), with("cniVersion", json!("0.2.0")).to_string(), 1),
        (good.into(), with("cniVersion", json!("")).to_string(), 1),
        (good.into(), with("name", json!("")).to_string(), 7),
        (good.into(), with("name", json!("a/b")).to_string(), 7),
        (good.into(), with("prevResult", json!({"cniVersion": "0.3.1"})).to_string(), 7),
        (good.replace("ADD", "CHECK"), with("prevResult", Value::Null).to_string(), 7),
        (good.replace("ADD", "MAKE"), node.conf().to_string(), 4),
        (good.replace("CNI_COMMAND=ADD", ""), node.conf().to_string(), 4),
        (good.replace("CNI_CONTAINERID=c", ""), node.conf().to_string(), 4),
        (good.replace("CNI_CONTAINERID=c", "CNI_CONTAINERID=../x"), node.conf().to_string(), 4),
        (good.replace("CNI_IFNAME=eth0", ""), node.conf().to_string(), 4),
        (good.replace("eth0", "an-interface-too-long"), node.conf().to_string(), 4),
        (good.replace("eth0", ".."), node.conf().to_string(), 4),
        (good.replace("CNI_NETNS=/n", ""), node.conf().to_string(), 4),
        (good.replace("/n", "relative"), node.conf().to_string(), 4),
        (
            format!("{good} CNI_ARGS=K8S_POD_NAMESPACE=..;K8S_POD_NAME=../../etc/passwd"),
            node.conf().to_string(),
            4,
        ),
        (
            format!("{good} CNI_ARGS=K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart"),
            node.conf().to_string(),
            11,
        ),
    ];
    for (env, stdin, wanted) in table {
        let env: Vec<(&str, &str)> = env.split(' ').filter_map(|e| e.split_once('=')).collect();
        let output = call(&env, stdin.as_bytes());
        assert_eq!(code(&output), wanted, "{env:?} {stdin}: {output:?}");
    }
    let empty = verb("ADD", "/n", "", &with("prevResult", Value::Null));
    assert_eq!(empty.stdout, br#"{"cniVersion":"1.1.0"}"#);
}
