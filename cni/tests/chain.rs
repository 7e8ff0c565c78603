//! The plugin at the end of a chain of the reference plugins, each executed as a runtime does it:
//! bridge, portmap, bandwidth, firewall, tuning, ours. The node is this test's own namespace.
//!
//! Needs the package containernetworking-plugins; without it the test fails and says so.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

#[expect(dead_code, reason = "a chain needs less than the tests of the agent")]
mod stage;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lateen_interception::netns;
use lateen_testkit::netns::inside;
use nix::sys::socket::{getsockopt, sockopt::OriginalDst};
use nix::unistd::{Uid, setfsuid};
use serde_json::{Value, json};
use stage::{CART, Process, change, rules, sandbox, sidecar};

const APPLICATION: u32 = 2000;
const PROXY: u32 = 1337;
/// The node, as pods see it.
const NODE: &str = "10.88.0.1";
/// Folders where distributions have the reference plugins.
const PLUGINS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

struct Chain {
    folder: tempfile::TempDir,
    programs: PathBuf,
    version: &'static str,
    _agent: Process,
}

impl Chain {
    fn new(version: &'static str) -> Self {
        let programs = PLUGINS.iter().map(PathBuf::from).find(|path| path.join("bridge").exists());
        let programs = programs.unwrap_or_else(|| {
            panic!("no CNI plugins in {PLUGINS:?}: apt-get install containernetworking-plugins")
        });
        run(&["ip", "link", "set", "lo", "up"]);
        // What the plugins keep on a node, and the lock of iptables.
        for path in ["/run", "/var/lib"] {
            run(&["mount", "-t", "tmpfs", "none", path]);
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pods")).unwrap();
        let pod = sidecar(&json!({})).to_string();
        std::fs::write(folder.path().join("pods/shop_cart.json"), pod).unwrap();
        let agent = Command::new(env!("CARGO_BIN_EXE_lateen-cni-node"))
            .arg("--pods-dir")
            .arg(folder.path().join("pods"))
            .arg("--run-dir")
            .arg(folder.path().join("agent"))
            .spawn();
        let agent = Process(agent.unwrap());
        let deadline = Instant::now() + Duration::from_secs(8);
        while !folder.path().join("agent/pluginevent.sock").exists() {
            assert!(Instant::now() < deadline, "the agent does not listen");
            std::thread::yield_now();
        }
        Self { folder, programs, version, _agent: agent }
    }

    /// The entries of the list; `meshed` is with ours.
    fn entries(&self, meshed: bool) -> Vec<Value> {
        let mut all = vec![
            json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
                "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                    "dataDir": self.folder.path().join("addresses"),
                    "ranges": [[{"subnet": "10.88.0.0/24", "gateway": NODE}],
                        [{"subnet": "fd88::/64"}]]}}),
            json!({"type": "portmap", "snat": true, "runtimeConfig": {"portMappings":
                [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}),
            json!({"type": "bandwidth", "runtimeConfig": {"bandwidth": {"ingressRate": 80_000_000,
                "ingressBurst": 80_000_000, "egressRate": 80_000_000, "egressBurst": 80_000_000}}}),
            json!({"type": "firewall", "backend": "iptables"}),
            json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}),
        ];
        if meshed {
            all.push(json!({"type": "lateen-cni", "pod_namespace": "istio-system",
                "cni_agent_run_dir": self.folder.path().join("agent")}));
        }
        all
    }

    /// Runs one plugin; what it prints.
    fn call(&self, verb: &str, netns: &str, entry: &Value, previous: &Value) -> Value {
        let mut conf = entry.clone();
        conf["cniVersion"] = json!(self.version);
        conf["name"] = json!("chain");
        if !previous.is_null() {
            conf["prevResult"] = previous.clone();
        }
        let kind = entry["type"].as_str().unwrap();
        let program = match kind {
            "lateen-cni" => PathBuf::from(env!("CARGO_BIN_EXE_lateen-cni")),
            other => self.programs.join(other),
        };
        let mut child = Command::new(program)
            .env_clear()
            .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")])
            .envs([("CNI_NETNS", netns), ("CNI_ARGS", CART)])
            .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")])
            .env("CNI_PATH", &self.programs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{verb} {kind}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn add(&self, netns: &str, entries: &[Value]) -> Value {
        entries.iter().fold(Value::Null, |previous, one| self.call("ADD", netns, one, &previous))
    }

    fn check(&self, netns: &str, entries: &[Value], result: &Value) {
        // CHECK of portmap looks for rules of IPv4 in the tables of IPv6 up to version 1.1.1.
        for entry in entries.iter().filter(|entry| entry["type"] != "portmap") {
            self.call("CHECK", netns, entry, result);
        }
    }

    fn delete(&self, netns: &str, entries: &[Value], result: &Value) {
        for entry in entries.iter().rev() {
            self.call("DEL", netns, entry, result);
        }
    }
}

fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Rules of a namespace without what counts.
fn still(rules: &str) -> String {
    let mut words: Vec<&str> = rules.split_inclusive([' ', '\n']).collect();
    for at in 0..words.len() {
        if ["packets ", "bytes "].contains(&words[at]) {
            words[at + 1] = "";
        }
    }
    words.concat()
}

/// What a pod that ended may have left on the node: rules, interfaces, addresses that are taken.
fn traces(chain: &Chain) -> (String, Vec<String>, Vec<PathBuf>) {
    let links: Value = serde_json::from_str(&run(&["ip", "-json", "link"])).unwrap();
    let name = |link: &Value| link["ifname"].as_str().unwrap().to_owned();
    let links = links.as_array().unwrap().iter().map(name).collect();
    let taken = std::fs::read_dir(chain.folder.path().join("addresses/chain")).unwrap();
    let taken = taken.map(|entry| entry.unwrap().path());
    let taken = taken.filter(|path| path.to_str().unwrap().contains("10.88.0."));
    (still(&run(&["nft", "list", "ruleset"])), links, taken.collect())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Connects from the pod as a user.
fn connect(netns: &str, user: u32, to: &str) -> io::Result<()> {
    let to = address(to);
    let done = netns::run_in(Path::new(netns), || {
        setfsuid(Uid::from_raw(user));
        TcpStream::connect_timeout(&to, Duration::from_secs(5)).map(drop)
    });
    done.unwrap()
}

fn listen(netns: &str, at: &str) -> TcpListener {
    let at = address(at);
    netns::run_in(Path::new(netns), || TcpListener::bind(at)).unwrap().unwrap()
}

#[test]
fn a_chain_of_the_reference_plugins_works_with_us_at_its_end() {
    if !inside("a_chain_of_the_reference_plugins_works_with_us_at_its_end") {
        return;
    }
    for version in ["0.4.0", "1.0.0"] {
        chain_of(version);
    }
}

fn chain_of(version: &'static str) {
    let chain = Chain::new(version);
    let theirs = chain.entries(false);
    // What the reference plugins leave behind when they are without us.
    let (process, netns) = pod();
    let result = chain.add(&netns, &theirs);
    chain.delete(&netns, &theirs, &result);
    drop(process);
    let before = traces(&chain);

    let (_process, netns) = pod();
    let foreign = "nft add table ip theirs";
    change(&netns, foreign);
    change(&netns, "nft add chain ip theirs c { type filter hook output priority 5 ; }");
    change(&netns, "nft add rule ip theirs c tcp dport 1 counter drop");
    let result = chain.add(&netns, &theirs);
    let _node = TcpListener::bind(address(&format!("{NODE}:9090"))).unwrap();
    connect(&netns, APPLICATION, &format!("{NODE}:9090")).expect("the network works");
    let (on_node, in_pod) = (run(&["nft", "list", "ruleset"]), rules(&netns));

    let meshed = chain.entries(true);
    let ours = meshed.last().unwrap();
    assert_eq!(chain.call("ADD", &netns, ours, &result), result, "handed on as it came");
    assert_eq!(still(&run(&["nft", "list", "ruleset"])), still(&on_node), "rules of the node");
    let with = rules(&netns);
    let (kept, own) = with.split_at(with.find("table inet lateen").unwrap());
    assert_eq!(still(kept), still(&in_pod), "rules of others in the pod");
    assert!(!own.contains("theirs"), "{own}");
    chain.check(&netns, &meshed, &result);
    captured(&netns);
    chain.check(&netns, &meshed, &result);

    for _ in 0..3 {
        chain.delete(&netns, &meshed, &result);
    }
    assert_eq!(traces(&chain), before);
}

/// A sandbox as a runtime makes it.
fn pod() -> (Process, String) {
    let (process, netns) = sandbox();
    change(&netns, "ip link set lo up");
    (process, netns)
}

/// Connections of the application go to the proxy, those of the proxy go out, and what comes in by
/// the mapped port of the node goes to the proxy too.
fn captured(netns: &str) {
    let out = format!("{NODE}:9090");
    let refused = connect(netns, APPLICATION, &out).expect_err("there is no proxy yet");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    connect(netns, PROXY, &out).expect("the proxy goes out");
    let outbound = listen(netns, "0.0.0.0:15001");
    connect(netns, APPLICATION, &out).expect("the application reaches the proxy");
    assert_eq!(original(&outbound), (NODE.to_owned(), 9090));
    let inbound = listen(netns, "0.0.0.0:15006");
    let mapped = address(&format!("{NODE}:8080"));
    TcpStream::connect_timeout(&mapped, Duration::from_secs(5)).expect("the mapped port answers");
    assert_eq!(original(&inbound).1, 80);
}

/// Where the next connection wanted to go.
fn original(listener: &TcpListener) -> (String, u16) {
    let (stream, _) = listener.accept().unwrap();
    let to = getsockopt(&stream, OriginalDst).unwrap();
    let ip = std::net::Ipv4Addr::from(u32::from_be(to.sin_addr.s_addr));
    (ip.to_string(), u16::from_be(to.sin_port))
}
