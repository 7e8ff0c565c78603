//! A node for a test: the test runs itself again as first process of the node's namespaces, with
//! a fake API server. As root and as ordinary user.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_api::core::PodStatus;
use lateen_lab::kubelet::{ApiServer, Exec, Kubelet, PodKey, TokenRequest};
use lateen_lab::node::{self, Images, Launch, Node, NodeContext};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the kubelet told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) statuses: BTreeMap<PodKey, PodStatus>,
    pub(crate) events: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) told: watch::Sender<Told>,
    pub(crate) config_maps: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    pub(crate) tokens: Mutex<u32>,
}

impl ApiServer for Fake {
    fn config_map(&self, _: &str, name: &str) -> Option<BTreeMap<String, String>> {
        self.config_maps.lock().get(name).cloned()
    }

    fn secret(&self, _: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        (name == "secret").then(|| [("password".to_owned(), b"hunter2".to_vec())].into())
    }

    fn token(&self, request: &TokenRequest) -> Result<String, String> {
        *self.tokens.lock() += 1;
        Ok(format!("{}|{:?}|{}", request.service_account, request.audience, self.tokens.lock()))
    }

    fn pod_status(&self, key: &PodKey, status: PodStatus) {
        self.told.send_modify(|told| {
            told.statuses.insert(key.clone(), status);
        });
    }

    fn event(&self, _: &PodKey, reason: &str, message: &str) {
        eprintln!("event {reason}: {message}");
        let event = (reason.to_owned(), message.to_owned());
        self.told.send_modify(|told| told.events.push(event));
    }
}

/// The node, from inside.
pub(crate) struct Stage {
    pub(crate) context: NodeContext,
    pub(crate) node: Node,
    pub(crate) api: Arc<Fake>,
    pub(crate) kubelet: Kubelet,
}

pub(crate) fn key(name: &str) -> PodKey {
    PodKey { namespace: "shop".into(), name: name.into(), uid: format!("uid-{name}") }
}

/// A pod of this specification. Images `sh` run `/bin/sh -c` with the container's arguments.
pub(crate) fn pod(name: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"),
        "labels": {"app": name}, "annotations": {"note": "two\nlines"}}, "spec": spec})
}

impl Stage {
    pub(crate) async fn start(state: &Path) -> Self {
        let context = NodeContext {
            state: state.to_owned(),
            binaries: state.join("bin"),
            images: Images(vec![("sh".into(), vec!["/bin/sh".into(), "-c".into()])]),
            gateway: ["10.244.0.1".parse().unwrap(), "fd00:10:244::1".parse().unwrap()],
            hosts: vec![("10.244.0.1".parse().unwrap(), "istiod.istio-system.svc".into())],
            cluster_domain: "cluster.local".into(),
            node_name: "lab".into(),
        };
        let node = Node::start(&context).await.unwrap();
        // The mesh's plugin is another crate's: here the bridge stands alone.
        let file = context.network_file();
        let mut list: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(list["plugins"][1]["type"], "lateen-cni");
        list["plugins"].as_array_mut().unwrap().pop();
        std::fs::write(&file, list.to_string()).unwrap();
        let api = Arc::new(Fake {
            told: watch::Sender::new(Told::default()),
            config_maps: Mutex::default(),
            tokens: Mutex::default(),
        });
        let kubelet = Kubelet::new(&context, Arc::clone(&api) as Arc<dyn ApiServer>);
        Self { context, node, api, kubelet }
    }

    pub(crate) async fn wait(&self, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
        let mut told = self.api.told.subscribe();
        let found = tokio::time::timeout(PATIENCE, told.wait_for(wanted)).await;
        if let Ok(Ok(told)) = found {
            return told.clone();
        }
        panic!("not within {PATIENCE:?}: {what}; told: {:#?}", self.api.told.borrow());
    }

    pub(crate) async fn ready(&self, name: &str) -> PodStatus {
        let key = key(name);
        let is = |told: &Told| {
            let status = told.statuses.get(&key);
            status.is_some_and(|it| {
                it.conditions.iter().any(|it| it.kind == "Ready" && it.status == "True")
            })
        };
        self.wait(&format!("{name} is ready"), is).await.statuses[&key].clone()
    }

    /// Runs a shell script in a container; gives its exit status and output.
    pub(crate) async fn exec(
        &self,
        name: &str,
        container: Option<&str>,
        script: &str,
    ) -> (i32, String) {
        self.exec_with(name, container, script, false).await
    }

    pub(crate) async fn exec_root(&self, name: &str, script: &str) -> (i32, String) {
        self.exec_with(name, None, script, true).await
    }

    async fn exec_with(
        &self,
        name: &str,
        container: Option<&str>,
        script: &str,
        root: bool,
    ) -> (i32, String) {
        let output = tempfile::tempfile().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let stdio =
            [null.into(), output.try_clone().unwrap().into(), output.try_clone().unwrap().into()];
        let exec = Exec {
            namespace: "shop".into(),
            pod: name.into(),
            container: container.map(str::to_owned),
            root,
            command: ["sh", "-c", script].map(str::to_owned).into(),
        };
        let code = self.kubelet.exec(exec, stdio).await.unwrap();
        use std::io::{Read, Seek};
        let (mut text, mut output) = (String::new(), output);
        output.rewind().unwrap();
        output.read_to_string(&mut text).unwrap();
        (code, text.trim().to_owned())
    }

    pub(crate) async fn ok(&self, name: &str, script: &str) -> String {
        let (code, text) = self.exec(name, None, script).await;
        assert_eq!(code, 0, "{script}: {text}");
        text
    }

    pub(crate) fn log(&self, name: &str, container: &str) -> String {
        std::fs::read_to_string(self.kubelet.log(&key(name), container)).unwrap_or_default()
    }

    /// Ends everything and checks that nothing is left but this process.
    pub(crate) async fn end(self) {
        self.kubelet.shutdown().await;
        assert_eq!(others(), Vec::<String>::new(), "processes are left");
        let inner = self.context.inner();
        for folder in ["pods", "netns", "ipam"] {
            let left = std::fs::read_dir(inner.join(folder)).into_iter().flatten().flatten();
            let left: Vec<_> = left
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| !name.starts_with("last."))
                .collect();
            assert_eq!(left, Vec::<String>::new(), "left in {folder}");
        }
        self.node.stop().await;
    }
}

/// Living processes of this pid namespace but the first.
fn others() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != 1 && alive(*pid))
        .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default())
        .collect()
}

pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A state folder with the programs a node needs, and what was started in it.
pub(crate) struct Outside {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) entered: node::Entered,
}

impl Outside {
    pub(crate) fn enter(test: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("lab-").tempdir_in("/tmp").unwrap();
        let binaries = folder.path().join("bin");
        std::fs::create_dir(&binaries).unwrap();
        for (name, path) in [
            ("lateen-lab-launch", env!("CARGO_BIN_EXE_lateen-lab-launch")),
            ("lateen-lab-bridge", env!("CARGO_BIN_EXE_lateen-lab-bridge")),
            ("lateen-echo", env!("CARGO_BIN_EXE_lateen-echo")),
        ] {
            symlink(path, binaries.join(name)).unwrap();
        }
        let state = folder.path().to_string_lossy().into_owned();
        // A second name selects no other test: it is how the state folder gets inside.
        let arguments = ["--exact", "--nocapture", "--test-threads=1", test, &state];
        let launch = Launch {
            program: std::env::current_exe().unwrap(),
            arguments: arguments.map(Into::into).into(),
            log: folder.path().join("test.log"),
            state: folder.path().to_owned(),
            binaries,
        };
        let entered = node::enter(&launch).unwrap_or_else(|e| panic!("{e}"));
        Self { folder, entered }
    }

    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.entered.pid).unwrap()
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("test.log")).unwrap()
    }

    pub(crate) fn wait(&self, what: &str, until: impl Fn() -> bool) {
        let deadline = Instant::now() + 3 * PATIENCE;
        while !until() {
            assert!(Instant::now() < deadline, "{what}: {}", self.output());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Runs `body` in a node of its own; `test` is the name of the test that calls this.
pub(crate) fn on_node<F: Future<Output = ()>>(test: &str, body: impl FnOnce(PathBuf) -> F) {
    if std::process::id() == 1 {
        let state = PathBuf::from(std::env::args().next_back().unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body(state));
        return;
    }
    let outside = Outside::enter(test);
    outside.wait("the test does not end", || !alive(outside.pid()));
    let text = outside.output();
    assert!(text.contains("test result: ok. 1 passed"), "{}:\n{text}", outside.entered.mode);
    node::remove_state(outside.folder.path()).unwrap();
}
