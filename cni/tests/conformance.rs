//! Plugin and installer on the cases of others: network configuration, arguments and pod to answer
//! and rules; folder to folder.
//!
//! The cases are not part of this project: `LATEEN_CONFORMANCE` names their folder, and `make test`
//! runs this where it does.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

#[path = "stage/api.rs"]
#[expect(dead_code, reason = "the cases need less than the tests of the agent")]
mod api;
#[path = "kubernetes/node.rs"]
#[expect(dead_code, reason = "the cases need less than the tests of the agent")]
mod node;
#[path = "stage/mod.rs"]
#[expect(dead_code, reason = "the cases need less than the tests of the agent")]
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use clap::Parser;
use lateen_cni::install::choose::{Found, choose};
use lateen_cni::install::{Entry, Installer, Place};
use lateen_interception::settings::flags::{Flags, Surroundings};
use lateen_interception::{RedirectPlan, State, netns, verify};
use lateen_testkit::netns::inside;
use node::Node;
use serde_json::{Map, Value, json};
use stage::{call, code, rules, sandbox};

fn cases(file: &str) -> Vec<Value> {
    let root = std::env::var_os("LATEEN_CONFORMANCE").expect("LATEEN_CONFORMANCE names the files");
    let path = PathBuf::from(root).join("interception").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut whole: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(cases) = whole["cases"].take() else { panic!("{file} has no cases") };
    cases
}

#[test]
#[ignore = "reads files of others: make test"]
fn the_plugin_answers_as_in_the_cases() {
    if !inside("the_plugin_answers_as_in_the_cases") {
        return;
    }
    let mut node = Node::new();
    node.start(&[]);
    node.ready();
    let cases = cases("cni-plugin.json");
    assert_eq!(cases.len(), 35, "fewer cases than there are count for nothing");
    for case in &cases {
        plugin_case(&node, case);
    }
    node.stop();
}

fn plugin_case(node: &Node, case: &Value) {
    let name = case["name"].as_str().unwrap();
    let (_process, netns) = sandbox();
    let run_dir = if knows_without_asking(name) { "nobody" } else { "run" };
    let run_dir = node.path(run_dir).display().to_string();
    let text = case["netconf"].as_str().map_or_else(|| case["netconf"].to_string(), str::to_owned);
    let text = text.replace("\"NETNS\"", &format!("{netns:?}"));
    let text = text.replace("\"RUNDIR\"", &format!("{run_dir:?}"));
    let path = put_pod(node, &case["pod"]);
    let environment = environment(case, &netns);
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let repeated = if case["command"] == "DEL" { 3 } else { 1 };
    for _ in 0..repeated {
        let output = call(&environment, text.as_bytes());
        answered(case, &text, &output);
    }
    match &case["expect"]["rules"] {
        Value::Null => assert_eq!(rules(&netns), "", "{name}"),
        wanted => captured(name, &netns, wanted),
    }
    if let Some(path) = path {
        node.api.delete(&path);
    }
}

/// Cases that say that the agent, or nothing, need be asked: there is none for them.
fn knows_without_asking(name: &str) -> bool {
    ["own-agent-pod", "excluded-namespace", "not-kubernetes"].contains(&name)
}

/// The watch does not show it, so that every call sees the pod of its own case.
fn put_pod(node: &Node, pod: &Value) -> Option<String> {
    let of = |key: &str| pod["metadata"][key].as_str();
    let path = format!("/api/v1/namespaces/{}/pods/{}", of("namespace")?, of("name")?);
    let mut pod = pod.clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    node.api.hide(&path);
    node.api.put(&path, pod);
    Some(path)
}

fn environment(case: &Value, netns: &str) -> Vec<(String, String)> {
    let command = case["command"].as_str().unwrap();
    let arguments = case["cni_args"].as_str().unwrap();
    let mut all: Vec<(String, String)> = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "test"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", netns),
        ("CNI_ARGS", arguments),
        ("CNI_PATH", "/opt/cni/bin"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    for (key, value) in case["env"].as_object().into_iter().flatten() {
        all.retain(|(name, _)| name != key);
        if let Some(value) = value.as_str() {
            all.push((key.clone(), value.to_owned()));
        }
    }
    all
}

fn answered(case: &Value, netconf: &str, output: &Output) {
    let (name, expect) = (&case["name"], &case["expect"]);
    let exit = output.status.code().map(i64::from);
    assert_eq!(exit, expect["exit"].as_i64(), "{name}: {output:?}");
    let netconf: Value = serde_json::from_str(netconf).unwrap_or_default();
    let said = || -> Value { serde_json::from_slice(&output.stdout).expect("stdout is JSON") };
    match &expect["stdout"] {
        Value::Object(wanted) => {
            assert_eq!(said()["cniVersion"], wanted["cniVersion"], "{name}");
            let versions = said()["supportedVersions"].clone();
            let versions = versions.as_array().unwrap();
            let all = wanted["supportedVersions contains"].as_array().unwrap();
            assert!(all.iter().all(|version| versions.contains(version)), "{name}: {versions:?}");
        }
        Value::String(wanted) => match wanted.as_str() {
            "" => assert!(output.stdout.is_empty(), "{name}: {output:?}"),
            "prevResult" => assert_eq!(said(), netconf["prevResult"], "{name}"),
            "empty result of the version asked for" => {
                assert_eq!(said(), json!({"cniVersion": netconf["cniVersion"]}), "{name}");
            }
            "CNI error, code 7 or at least 100" => {
                assert!(code(output) == 7 || code(output) >= 100, "{name}: {output:?}");
            }
            code_text => {
                let number = code_text.strip_prefix("CNI error, code ").unwrap();
                assert_eq!(code(output), number.parse::<u64>().unwrap(), "{name}: {output:?}");
            }
        },
        other => panic!("{name}: what is {other}?"),
    }
}

/// The rules in place are exactly those of these settings, order and all.
fn captured(name: &str, netns: &str, wanted: &Value) {
    let wanted = wanted.as_object().unwrap();
    let flags = [
        ("uid", "-u"),
        ("gid", "-g"),
        ("mode", "-m"),
        ("outbound_cidrs_include", "-i"),
        ("outbound_cidrs_exclude", "-x"),
        ("inbound_ports_include", "-b"),
        ("inbound_ports_exclude", "-d"),
        ("outbound_ports_include", "-q"),
        ("outbound_ports_exclude", "-o"),
        ("exclude_interfaces", "-c"),
        ("reroute_interfaces", "-k"),
        ("redirect_dns", "--redirect-dns"),
        ("capture_all_dns", "--capture-all-dns"),
        ("drop_invalid", "--drop-invalid"),
        ("proxy_port", "-p"),
        ("inbound_port", "-z"),
    ];
    assert_eq!(wanted.len(), flags.len(), "{name}: a setting that is not compared");
    let mut words = vec!["lateen-init".to_owned()];
    for (key, flag) in flags {
        let value = &wanted[key];
        words.push(format!(
            "{flag}={}",
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        ));
    }
    let around = Surroundings {
        variable: |_: &str| None,
        passwd: String::new(),
        group: String::new(),
        resolv_conf: String::new(),
    };
    let run = Flags::parse_from(&words).resolve(&around).unwrap();
    let plan = RedirectPlan::new(&run.settings);
    let state = netns::run_in(Path::new(netns), || verify(&plan)).unwrap().unwrap();
    assert_eq!(state, State::Planned, "{name}");
}

#[test]
#[ignore = "reads files of others: make test"]
fn the_installer_leaves_folders_as_in_the_cases() {
    let cases = cases("cni-installer.json");
    assert_eq!(cases.len(), 19, "fewer cases than there are count for nothing");
    for case in &cases {
        match case["kind"].as_str().unwrap() {
            "install" => install_case(case),
            "select" => select_case(case),
            "cleanup" => cleanup_case(case),
            other => panic!("what is {other}?"),
        }
    }
}

struct Folder {
    folder: tempfile::TempDir,
    installer: Installer,
}

impl Folder {
    fn of(case: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "net.d"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("plugin"), "program").unwrap();
        fs::write(folder.path().join("bin/bridge"), "").unwrap();
        let config = &case["config"];
        let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
        let entry = Entry {
            run_dir: PathBuf::from(text("cni_agent_run_dir")),
            exclude_namespaces: Vec::new(),
            pod_namespace: text("pod_namespace"),
            log_level: text("plugin_log_level"),
            agent_wait: 5000,
        };
        let installer = Installer {
            program: folder.path().join("plugin"),
            programs: folder.path().join("bin"),
            configurations: folder.path().join("net.d"),
            place: place(config),
            entry: entry.json(),
        };
        let made = Self { folder, installer };
        for (name, text) in case["files"].as_object().unwrap() {
            made.put(name, text.as_str().unwrap());
        }
        made
    }

    /// A file that nobody has touched for a while.
    fn put(&self, name: &str, text: &str) {
        let path = self.folder.path().join("net.d").join(name);
        fs::write(&path, text).unwrap();
        let touched = Command::new("touch").args(["-d", "1 hour ago"]).arg(&path).status();
        assert!(touched.unwrap().success());
    }

    fn files(&self) -> Map<String, Value> {
        let all = fs::read_dir(self.folder.path().join("net.d")).unwrap();
        let one = |path: PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, Value::from(fs::read_to_string(path).unwrap()))
        };
        all.map(|entry| one(entry.unwrap().path())).collect()
    }
}

/// The flags of the agent for the settings of a case.
fn place(config: &Value) -> Place {
    let own = config["own_config"] == true;
    let own = if own { config["own_config_name"].as_str().unwrap() } else { "" };
    let words = [
        "lateen-cni-node".to_owned(),
        format!("--chained={}", config["chained"]),
        format!("--cni-conf-name={}", config["conf_name"].as_str().unwrap()),
        format!("--own-list={own}"),
    ];
    lateen_cni::settings::AgentSettings::parse_from(words).install.place().unwrap()
}

fn install_case(case: &Value) {
    let (name, expect) = (&case["name"], &case["expect"]);
    let folder = Folder::of(case);
    let before = folder.files();
    let result = folder.installer.pass();
    if expect["waits"] == true || expect["fails"] == true {
        let problem = result.expect_err("it waits or fails").to_string();
        assert_eq!(problem.contains("waiting"), expect["waits"] == true, "{name}: {problem}");
        assert_eq!(folder.files(), before, "{name}");
        if expect["waits"] == true {
            the_file_appears(&folder, case);
        }
        return;
    }
    result.unwrap_or_else(|e| panic!("{name}: {e}"));
    let after = folder.files();
    let file = expect["file"].as_str().unwrap();
    assert_eq!(folder.installer.pass().unwrap().changed, Vec::<PathBuf>::new(), "{name}");
    let mut gone: Vec<&String> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    gone.sort();
    assert_eq!(json!(gone), expect["gone"], "{name}");
    let changed = after.iter().filter(|(name, text)| before.get(*name) != Some(text));
    let changed: Vec<&String> = changed.map(|(name, _)| name).collect();
    assert_eq!(changed, [file], "{name}");
    let written = serde_json::from_str(after[file].as_str().unwrap()).unwrap();
    let (rest, ours) = apart(written);
    let (mut wanted, theirs) = apart(expect["content"].clone());
    if let [single] = gone.as_slice() {
        keep_network(&mut wanted, before[*single].as_str().unwrap());
    }
    assert_eq!(rest, wanted, "{name}");
    for key in ["plugin_log_level", "cni_agent_run_dir", "pod_namespace"] {
        assert_eq!(ours[key], theirs[key], "{name}: {key}");
    }
    assert_eq!(ours["type"], "lateen-cni", "{name}");
    assert_eq!(ours["exclude_namespaces"], json!([]), "{name}");
}

/// A file of one plugin that becomes a list keeps its network's name and version, where Istio's list
/// has a name and version of its own. Pods have their addresses by that name (host-local has a folder
/// for each), and pods that were started by the file are ended by the list. See docs/compatibility.md.
fn keep_network(wanted: &mut Value, single: &str) {
    let single: Value = serde_json::from_str(single).unwrap();
    for key in ["cniVersion", "name"] {
        wanted[key] = single[key].clone();
        // The runtime puts those of the list in their place.
        wanted["plugins"][0][key] = single[key].clone();
    }
}

/// What waits does so for a file, and for no other thing. A list of our own that is to be a copy of
/// itself waits for good, and is not written over.
fn the_file_appears(folder: &Folder, case: &Value) {
    let config = &case["config"];
    let of_itself =
        config["own_config"] == true && config["own_config_name"] == config["conf_name"];
    let name = config["conf_name"].as_str().filter(|name| !name.is_empty());
    let name = name.unwrap_or("10-new.conf");
    let network = json!({"cniVersion": "1.0.0", "name": "n", "type": "bridge"});
    let list = json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]});
    let text = if name.ends_with("list") { list } else { network };
    folder.put(name, &text.to_string());
    if of_itself {
        let before = folder.files();
        folder.installer.pass().unwrap_err();
        return assert_eq!(folder.files(), before, "{}", case["name"]);
    }
    folder.installer.pass().unwrap_or_else(|e| panic!("{}: {e}", case["name"]));
    let after = folder.files();
    let with = after.values().filter(|text| text.as_str().unwrap().contains("lateen-cni"));
    assert_eq!(with.count(), 1, "{}", case["name"]);
}

/// A configuration without the entry, and the entry, which must be the last, alone of its kind.
fn apart(mut content: Value) -> (Value, Value) {
    let is_ours = |plugin: &Value| plugin["type"] == "lateen-cni" || plugin["type"] == "istio-cni";
    if let Some(plugins) = content["plugins"].as_array_mut() {
        let ours = plugins.pop().unwrap();
        assert!(is_ours(&ours) && !plugins.iter().any(is_ours), "{ours}");
        return (content, ours);
    }
    let rest = json!({"cniVersion": content["cniVersion"], "name": content["name"]});
    assert!(is_ours(&content), "{content}");
    (rest, content)
}

fn select_case(case: &Value) {
    let files = case["files"].as_object().unwrap().iter();
    let files: Vec<Found> = files
        .map(|(name, text)| Found {
            name: name.clone(),
            text: Ok(text.as_str().unwrap().to_owned()),
            age: Duration::from_secs(3600),
        })
        .collect();
    let chosen = choose(&files, None).ok().map(|primary| files[primary.at].name.as_str());
    assert_eq!(chosen, case["expect"]["first"].as_str(), "{}", case["name"]);
}

fn cleanup_case(case: &Value) {
    let folder = Folder::of(case);
    folder.installer.pass().unwrap();
    folder.installer.remove_configuration().unwrap();
    let after = folder.files();
    for name in case["expect"]["gone"].as_array().unwrap() {
        assert!(!after.contains_key(name.as_str().unwrap()), "{}: {after:?}", case["name"]);
    }
}
