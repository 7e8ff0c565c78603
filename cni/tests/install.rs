//! The installer on folders like a node's: what it writes, what it leaves alone, how it takes
//! everything away again, and what it does about others who write too.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lateen_cni::install::conflist::{ConfError, Form, Removed, check, convert, insert, remove};
use lateen_cni::install::{Entry, InstallError, Installer, Place, follow};
use lateen_testkit::netns::inside;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

const BRIDGE: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "bridge",
  "future": [1.0, 1e2, 12345678901234567890123, "\u00e9"],
  "plugins": [
    {
      "type": "bridge", "x": {"plugins": [{"type": "lateen-cni"}]}
    },
    {
      "type": "portmap",
      "capabilities": {"portMappings": true}
    }
  ]
}
"#;
const SINGLE: &str = "{\"cniVersion\": \"0.3.1\", \"name\": \"flat\", \"type\": \"bridge\"}\n";

fn entry() -> Map<String, Value> {
    Entry {
        run_dir: PathBuf::from("/var/run/istio-cni"),
        exclude_namespaces: vec!["kube-system".to_owned()],
        pod_namespace: "istio-system".to_owned(),
        log_level: "info".to_owned(),
        agent_wait: 5000,
    }
    .json()
}

struct Node {
    folder: tempfile::TempDir,
    installer: Installer,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::at(folder, "")
    }

    fn at(folder: tempfile::TempDir, under: &str) -> Self {
        let path = folder.path().join(under);
        for name in ["bin", "net.d"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        fs::write(folder.path().join("plugin"), "program").unwrap();
        for program in ["bridge", "portmap"] {
            fs::write(path.join("bin").join(program), "").unwrap();
        }
        let installer = Installer {
            program: folder.path().join("plugin"),
            programs: path.join("bin"),
            configurations: path.join("net.d"),
            place: Place::Joined(None),
            entry: entry(),
        };
        Self { folder, installer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.installer.configurations.join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let all = fs::read_dir(&self.installer.configurations).unwrap();
        let mut names: Vec<String> =
            all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn has_entry(&self, name: &str) -> bool {
        let conf: Value = serde_json::from_str(&self.text(name)).unwrap();
        conf["plugins"].as_array().unwrap().last().unwrap()["type"] == "lateen-cni"
    }
}

/// Makes a file look as if nobody had touched it for a while.
fn age(path: &Path) {
    let done = Command::new("touch").args(["-d", "1 hour ago"]).arg(path).status().unwrap();
    assert!(done.success());
}

#[test]
fn the_entry_joins_a_list_and_leaves_it_to_the_byte() {
    let with = insert(BRIDGE, &entry()).unwrap();
    let added = "    },\n    {\"type\":\"lateen-cni\",\"cni_agent_run_dir\":\"/var/run/istio-cni\",\
        \"exclude_namespaces\":[\"kube-system\"],\"pod_namespace\":\"istio-system\",\
        \"plugin_log_level\":\"info\",\"agent_wait\":5000,\
        \"capabilities\":{\"io.kubernetes.cri.pod-annotations\":true}}\n  ]\n}\n";
    assert_eq!(with, BRIDGE.replace("    }\n  ]\n}\n", added));
    assert_eq!(insert(&with, &entry()).unwrap(), with);
    assert_eq!(remove(&with).unwrap(), Removed::List(BRIDGE.to_owned()));
    assert_eq!(remove(BRIDGE).unwrap(), Removed::Unchanged);

    // An older entry, one in the middle, and two of them become the one at the end.
    for old in [
        with.replace("5000", "1"),
        BRIDGE.replace("  \"plugins\": [", "  \"plugins\": [{\"type\":\"lateen-cni\"},"),
        with.replace("  \"plugins\": [", "  \"plugins\": [{\"type\": \"lateen-cni\"},"),
    ] {
        let once = insert(&old, &entry()).unwrap();
        assert_eq!(once.matches("\"lateen-cni\",").count(), 1, "{once}");
        assert!(once.ends_with(&added[6..]), "{once}");
    }
}

#[test]
fn what_the_runtime_or_the_plugin_would_not_take_is_refused() {
    let list = |text: &str| insert(text, &entry()).unwrap_err().to_string();
    for (text, wanted) in [
        ("", "not complete JSON"),
        (&BRIDGE[..BRIDGE.len() / 2], "not complete JSON"),
        ("[]", "not complete JSON"),
        ("null", "not complete JSON"),
        ("{}", "no name"),
        (r#"{"cniVersion":"1.0.0","name":"n"}"#, "no list of plugins"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":{}}"#, "no list of plugins"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#, "no plugin that makes a network"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[1]}"#, "no type"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":7}]}"#, "no type"),
        (r#"{"cniVersion":"0.2.0","name":"n","plugins":[{"type":"a"}]}"#, "\"0.2.0\" is none"),
        (r#"{"name":"n","plugins":[{"type":"a"}]}"#, "\"\" is none of those"),
        (r#"{"cniVersion":9,"name":"n","plugins":[{"type":"a"}]}"#, "\"\" is none of those"),
    ] {
        assert!(list(text).contains(wanted), "{text}: {}", list(text));
    }
    let several = r#"{"cniVersion":"0.4.0","cniVersions":["0.4.0","1.10.0","1.1.0"],"name":"n",
        "plugins":[{"type":"a"}]}"#;
    assert_eq!(insert(several, &entry()), Err(ConfError::Version("1.10.0".to_owned())));
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(list(&deep).contains("recursion limit"));
    // A list in a .conf is what the runtime refuses too.
    assert!(check(BRIDGE, Form::Single).unwrap_err().to_string().contains(".conflist?"));
}

#[test]
fn a_single_plugin_becomes_a_list_and_comes_back() {
    let node = Node::new();
    node.put("10-flat.conf", SINGLE);
    fs::set_permissions(node.path("10-flat.conf"), fs::Permissions::from_mode(0o640)).unwrap();
    node.installer.pass().unwrap();
    assert_eq!(node.names(), ["10-flat.conflist"]);
    check(&node.text("10-flat.conflist"), Form::List).unwrap();
    assert!(node.has_entry("10-flat.conflist"));
    // Its owner writes it again.
    node.put("10-flat.conf", &SINGLE.replace("flat", "new"));
    node.installer.pass().unwrap();
    assert_eq!(node.names(), ["10-flat.conflist"]);
    assert!(node.text("10-flat.conflist").contains("\"name\": \"new\""));
    node.installer.remove_configuration().unwrap();
    assert_eq!(node.names(), ["10-flat.conf"]);
    assert_eq!(node.text("10-flat.conf"), SINGLE.replace("flat", "new"));
    let unnamed = convert(r#"{"cniVersion":"1.0.0","type":"a"}"#, "a.conf", &entry()).unwrap();
    check(&unnamed, Form::List).unwrap();
    // Others added a plugin to the list: it stays a list.
    let grown = unnamed.replace("[\n", "[\n{\"type\":\"b\"},");
    assert!(matches!(remove(&grown).unwrap(), Removed::List(text) if !text.contains("lateen")));
    // A name that leads elsewhere is not followed.
    let hostile = unnamed.replace("a.conf", "../../evil.conf");
    assert!(matches!(remove(&hostile).unwrap(), Removed::List(_)));
}

#[test]
fn a_pass_installs_repeats_nothing_and_is_undone_without_a_trace() {
    let node = Node::new();
    let before = BRIDGE.to_owned();
    node.put("10-bridge.conflist", &before);
    node.put("99-other.conflist", &BRIDGE.replace("\"bridge\"", "\"other\""));
    fs::set_permissions(node.path("10-bridge.conflist"), fs::Permissions::from_mode(0o600))
        .unwrap();
    let done = node.installer.pass().unwrap();
    let program = node.installer.programs.join("lateen-cni");
    assert_eq!(done.changed, [program.clone(), node.path("10-bridge.conflist")]);
    assert_eq!(fs::metadata(&program).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(node.path("10-bridge.conflist")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(node.installer.pass().unwrap().changed, Vec::<PathBuf>::new());

    // Somebody takes the entry out, damages the program, and brings a list that comes first.
    fs::write(&program, "damaged").unwrap();
    node.put("05-first.conflist", &BRIDGE.replace("\"bridge\"", "\"first\""));
    let done = node.installer.pass().unwrap();
    assert_eq!(done.file, node.path("05-first.conflist"));
    assert_eq!(fs::read_to_string(&program).unwrap(), "program");
    assert!(node.has_entry("05-first.conflist") && !node.has_entry("99-other.conflist"));
    assert_eq!(node.text("10-bridge.conflist"), before);

    node.installer.remove_configuration().unwrap();
    node.installer.remove_configuration().unwrap();
    assert_eq!(node.text("05-first.conflist"), BRIDGE.replace("\"bridge\"", "\"first\""));
    assert!(program.exists());
    node.installer.remove_program().unwrap();
    node.installer.remove_program().unwrap();
    assert_eq!(fs::read_dir(&node.installer.programs).unwrap().count(), 2);
    assert_eq!(node.names(), ["05-first.conflist", "10-bridge.conflist", "99-other.conflist"]);
}

#[test]
fn a_file_of_our_own_is_written_and_removed() {
    let mut node = Node::new();
    node.installer.place = Place::Alone("istio-cni.conf".to_owned());
    node.put("00-multus.conf", &SINGLE.replace("bridge", "multus"));
    node.installer.pass().unwrap();
    assert_eq!(node.installer.pass().unwrap().changed, Vec::<PathBuf>::new());
    // It is no network: an agent that joins others does not join it.
    assert!(check(&node.text("istio-cni.conf"), Form::Single).is_err());
    assert_eq!(node.text("00-multus.conf"), SINGLE.replace("bridge", "multus"));
    node.installer.remove_configuration().unwrap();
    assert_eq!(node.names(), ["00-multus.conf"]);
}

#[test]
fn a_list_of_our_own_follows_the_primary_one_and_leaves_it_alone() {
    let mut node = Node::new();
    node.put("10-bridge.conflist", BRIDGE);
    // An earlier agent joined it.
    node.installer.pass().unwrap();
    let copied = |to: &str| Place::Copied { to: to.to_owned(), of: None };
    node.installer.place = copied("02-istio-cni.conflist");
    node.installer.pass().unwrap();
    assert_eq!(node.text("10-bridge.conflist"), BRIDGE);
    assert!(node.has_entry("02-istio-cni.conflist"));
    assert_eq!(node.installer.pass().unwrap().changed, Vec::<PathBuf>::new());
    // Its owner changes it, takes it away, and brings one of one plugin.
    node.put("10-bridge.conflist", &BRIDGE.replace("portmap", "bandwidth"));
    node.installer.pass().unwrap();
    assert!(node.text("02-istio-cni.conflist").contains("bandwidth"));
    fs::remove_file(node.path("10-bridge.conflist")).unwrap();
    assert!(node.installer.pass().unwrap_err().to_string().contains("no network configuration"));
    assert!(node.has_entry("02-istio-cni.conflist"), "pods must not start without us");
    node.put("20-flat.conf", SINGLE);
    node.installer.pass().unwrap();
    assert!(node.text("02-istio-cni.conflist").contains("flat"));
    assert_eq!(node.text("20-flat.conf"), SINGLE);
    // Another comes first: the runtime would take that one.
    node.put("01-other.conflist", BRIDGE);
    let problem = node.installer.pass().unwrap_err().to_string();
    assert!(problem.contains("takes 01-other.conflist"), "{problem}");
    fs::remove_file(node.path("01-other.conflist")).unwrap();
    // An agent of other settings knows the copy for what it is.
    node.installer.place = Place::Joined(None);
    node.installer.pass().unwrap();
    assert_eq!(node.names(), ["20-flat.conflist"]);
    node.installer.place = copied("03-x.conflist");
    node.installer.pass().unwrap();
    assert_eq!(node.names(), ["03-x.conflist", "20-flat.conf"]);
    node.installer.remove_configuration().unwrap();
    assert_eq!(
        (node.names(), node.text("20-flat.conf")),
        (vec!["20-flat.conf".to_owned()], SINGLE.to_owned())
    );
}

#[test]
fn istios_entry_is_replaced() {
    let istio = BRIDGE.replace("\n  ]\n}", ",\n    {\"type\": \"istio-cni\", \"x\": 1}\n  ]\n}");
    let with = insert(&istio, &entry()).unwrap();
    assert_eq!(with, insert(BRIDGE, &entry()).unwrap());
    assert_eq!(remove(&istio).unwrap(), Removed::Unchanged);
    let alone = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"istio-cni"}]}"#;
    assert!(insert(alone, &entry()).is_err());
}

#[test]
fn what_cannot_be_used_yet_is_waited_for_by_name() {
    let node = Node::new();
    let problem = || node.installer.pass().unwrap_err().to_string();
    fs::rename(node.folder.path().join("plugin"), node.folder.path().join("p")).unwrap();
    assert!(problem().contains("plugin to install") && problem().contains("--plugin"));
    fs::rename(node.folder.path().join("p"), node.folder.path().join("plugin")).unwrap();
    assert!(problem().contains("no network configuration"), "{}", problem());
    node.put("10-half.conflist", &BRIDGE[..40]);
    assert!(problem().contains("10-half.conflist") && problem().contains("to be finished"));
    assert_eq!(node.text("10-half.conflist"), BRIDGE[..40]);
    age(&node.path("10-half.conflist"));
    assert!(problem().contains("no valid network configuration"), "{}", problem());
    fs::write(node.path("11-binary.conflist"), [0xff, 0xfe]).unwrap();
    let huge = fs::File::create(node.path("12-huge.conflist")).unwrap();
    huge.set_len(3 << 20).unwrap();
    drop(huge);
    let pipe = Command::new("mkfifo").arg(node.path("13-pipe.conflist")).status().unwrap();
    assert!(pipe.success());
    for name in ["11-binary.conflist", "12-huge.conflist"] {
        age(&node.path(name));
    }
    for part in ["11-binary.conflist: it is not UTF-8", "12-huge.conflist: it is longer", "13-pipe"]
    {
        assert!(problem().contains(part), "{part}: {}", problem());
    }
    node.put("20-good.conflist", BRIDGE);
    let done = node.installer.pass().unwrap();
    assert_eq!((done.file, done.skipped.len()), (node.path("20-good.conflist"), 4));
    node.put("05-old.conflist", &BRIDGE.replace("1.0.0", "0.1.0"));
    assert!(problem().contains("05-old.conflist: its cniVersion \"0.1.0\""), "{}", problem());
    assert_eq!(node.text("05-old.conflist"), BRIDGE.replace("1.0.0", "0.1.0"));
    assert!(node.has_entry("20-good.conflist"), "the entry that works was given up");
}

#[test]
fn a_full_or_read_only_disk_is_named_and_left_whole() {
    if !inside("a_full_or_read_only_disk_is_named_and_left_whole") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "none"]).arg(&disk);
        assert!(command.status().unwrap().success());
    };
    mount("size=64k,mode=755");
    let node = Node::at(folder, "disk");
    node.put("10-bridge.conflist", BRIDGE);
    let fill = disk.join("fill");
    // Up to the last page: there is no room for another file.
    while let Ok(old) = fs::read(&fill).or_else(|_| Ok::<_, ()>(Vec::new())) {
        if fs::write(&fill, [old.clone(), vec![0; 4096]].concat()).is_err() {
            break;
        }
    }
    let program_only = node.installer.pass().unwrap_err();
    assert!(program_only.to_string().contains("disk is full"), "{program_only}");
    assert!(program_only.to_string().contains("bin/lateen-cni"), "{program_only}");
    assert_eq!(node.text("10-bridge.conflist"), BRIDGE);
    assert_eq!(fs::read_dir(&node.installer.programs).unwrap().count(), 2);
    assert_eq!(node.names(), ["10-bridge.conflist"]);
    fs::remove_file(&fill).unwrap();
    node.installer.pass().unwrap();
    mount("remount,ro");
    node.installer.pass().unwrap();
    mount("remount,rw");
    node.put("10-bridge.conflist", BRIDGE);
    mount("remount,ro");
    let locked = node.installer.pass().unwrap_err().to_string();
    assert!(locked.contains("10-bridge.conflist") && locked.contains("cniConfDir"), "{locked}");
    mount("remount,rw");
    let umount = Command::new("umount").arg(&disk).status().unwrap();
    assert!(umount.success());
    drop(node.folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_who_write_are_answered_within_a_second() {
    let node = Node::new();
    let stop = CancellationToken::new();
    let said = Arc::new(Mutex::new(Vec::new()));
    let report = {
        let said = Arc::clone(&said);
        move |result: &Result<_, InstallError>| {
            said.lock().unwrap().push(result.as_ref().map(drop).map_err(ToString::to_string));
        }
    };
    let task = tokio::spawn(follow::follow(node.installer.clone(), report, stop.clone()));
    // Sooner than the next look that nobody asked for.
    let within_a_second = async |what: &str, holds: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(4), "{what}: {:?}", node.names());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    };
    within_a_second("says what it waits for", &|| {
        said.lock().unwrap().first().is_some_and(|s| matches!(s, Err(e) if e.contains("waiting")))
    })
    .await;
    let first =
        |name: &'static str| move |node: &Node| node.path(name).exists() && node.has_entry(name);
    node.put("10-bridge.conflist", BRIDGE);
    within_a_second("joins", &|| first("10-bridge.conflist")(&node)).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        node.put("10-bridge.conflist", BRIDGE);
        took.push(within_a_second("joins again", &|| first("10-bridge.conflist")(&node)).await);
    }
    took.sort();
    assert!(took[2] < Duration::from_secs(1), "half of them took longer: {took:?}");
    node.put("05-cilium.conflist", BRIDGE);
    within_a_second("moves", &|| {
        first("05-cilium.conflist")(&node) && node.text("10-bridge.conflist") == BRIDGE
    })
    .await;
    fs::remove_file(node.path("05-cilium.conflist")).unwrap();
    within_a_second("moves back", &|| first("10-bridge.conflist")(&node)).await;
    let program = node.installer.programs.join("lateen-cni");
    fs::remove_file(&program).unwrap();
    within_a_second("brings the program back", &|| program.exists()).await;
    stop.cancel();
    task.await.unwrap();
}

#[test]
fn whoever_reads_never_sees_half_a_file() {
    let node = Node::new();
    node.put("10-bridge.conflist", BRIDGE);
    let with = insert(BRIDGE, &entry()).unwrap();
    let path = node.path("10-bridge.conflist");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [0; 2];
            while !over.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&path).unwrap();
                assert!(text == BRIDGE || text == with, "half a file: {text:?}");
                seen[usize::from(text == with)] += 1;
            }
            seen
        });
        for _ in 0..100 {
            node.installer.pass().unwrap();
            node.installer.remove_configuration().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        let seen = reader.join().unwrap();
        assert!(seen.iter().all(|times| *times > 10), "read too seldom: {seen:?}");
    });
}

/// JSON of any shape, for what others put into their lists.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        proptest::strategy::Just(Value::Null),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_list_takes_the_entry_once_and_gives_it_back(
        others in proptest::collection::vec(anything(), 1..4),
        more in anything(), pretty in any::<bool>(), key in any::<String>(),
    ) {
        let plugins: Vec<Value> =
            others.into_iter().map(|other| json!({"type": "other", "x": other})).collect();
        let mut list = json!({"cniVersion": "1.0.0", "name": "n"});
        list[&key] = more;
        list["cniVersion"] = json!("1.0.0");
        list["name"] = json!("n");
        list["plugins"] = json!(plugins);
        list["cniVersions"] = json!(["1.0.0"]);
        let text = if pretty { format!("{list:#}\n") } else { list.to_string() };
        let with = insert(&text, &entry()).unwrap();
        assert_eq!(insert(&with, &entry()).unwrap(), with);
        let mut wanted = list.clone();
        wanted["plugins"].as_array_mut().unwrap().push(Value::Object(entry()));
        assert_eq!(serde_json::from_str::<Value>(&with).unwrap(), wanted);
        assert_eq!(remove(&with).unwrap(), Removed::List(text));
    }

    #[test]
    fn any_text_is_taken_whole_or_refused(text in any::<String>(), cut in any::<proptest::sample::Index>()) {
        let half = &BRIDGE[..BRIDGE.floor_char_boundary(cut.index(BRIDGE.len() - 2))];
        assert!(insert(half, &entry()).is_err());
        for text in [text.as_str(), half] {
            drop(remove(text));
            drop(convert(text, "a.conf", &entry()));
            if let Ok(with) = insert(text, &entry()) {
                check(&with, Form::List).unwrap();
            }
        }
    }
}
