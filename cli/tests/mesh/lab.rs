//! A lab for a test: brought up, asked and taken down by the command line, and a look at what is left.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub(crate) const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/shop");

pub(crate) fn binaries() -> PathBuf {
    let folder = std::env::var_os("LATEEN_BIN").expect("LATEEN_BIN names the release binaries");
    PathBuf::from(folder)
}

pub(crate) fn lateen(arguments: &[&str]) -> Output {
    let mut command = Command::new(binaries().join("lateen"));
    command.args(arguments).stdin(Stdio::null()).output().expect("lateen can be started")
}

pub(crate) fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// What of ours is on the machine.
#[derive(Debug, PartialEq)]
pub(crate) struct Remains {
    /// Process ids and names.
    pub(crate) processes: Vec<String>,
    /// State folders of labs.
    pub(crate) folders: Vec<PathBuf>,
}

impl Remains {
    pub(crate) fn now() -> Self {
        Self { processes: processes(), folders: folders() }
    }

    /// What has come since.
    pub(crate) fn since(&self) -> Self {
        let mut now = Self::now();
        now.processes.retain(|it| !self.processes.contains(it));
        now.folders.retain(|it| !self.folders.contains(it));
        now
    }

    pub(crate) fn nothing_came(&self) {
        let nothing = Self { processes: Vec::new(), folders: Vec::new() };
        assert_eq!(self.since(), nothing, "something is left");
    }
}

fn processes() -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let zombie = std::fs::read_to_string(entry.path().join("stat"))
            .is_ok_and(|stat| stat.contains(") Z "));
        if name.starts_with("lateen") && !zombie && !is_from_elsewhere(&entry.path()) {
            found.push(format!("{} {}", entry.file_name().to_string_lossy(), name.trim()));
        }
    }
    found
}

/// Whether a process was started from another folder of programs, as by somebody who works beside.
fn is_from_elsewhere(process: &Path) -> bool {
    let link = process.join("exe");
    let Ok(path) = std::fs::read_link(&link) else { return false };
    let file = |path: &Path| std::fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    // In a pod the path means another file, or none: that says nothing.
    let is_here = file(&path).is_some_and(|it| Some(it) == file(&link));
    is_here && !path.starts_with(binaries().canonicalize().unwrap())
}

fn folders() -> Vec<PathBuf> {
    let roots = std::fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.path());
    roots
        .filter(|path| {
            path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("lateen-lab-"))
        })
        .filter_map(|root| std::fs::read_dir(root).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .collect()
}

/// A lab that is taken down whatever happens to the test.
pub(crate) struct Lab(pub(crate) String);

impl Lab {
    pub(crate) fn up(name: &str, arguments: &[&str]) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let lab = Self(name.clone());
        let output = lateen(&[&["lab", "up", "--detach", "--name", &name], arguments].concat());
        assert!(output.status.success(), "{}", text(&output));
        lab
    }

    /// The process that everything of the lab hangs on.
    pub(crate) fn daemon(&self) -> i32 {
        let mut all = std::fs::read_dir("/proc").unwrap().flatten();
        let is_it = |entry: &std::fs::DirEntry| {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            line.contains("\0daemon\0")
                && line.trim_end_matches('\0').ends_with(&format!("/{}", self.0))
        };
        let found = all.find(is_it).expect("a lab that is up has a daemon");
        found.file_name().to_string_lossy().parse().unwrap()
    }

    pub(crate) fn run(&self, verb: &str, arguments: &[&str]) -> Output {
        lateen(&[&["lab", verb, "--name", &self.0], arguments].concat())
    }

    pub(crate) fn pods(&self) -> Vec<Value> {
        let output = self.run("ls", &["-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    pub(crate) fn pod(&self, deployment: &str) -> String {
        let pods = self.pods();
        let names = pods.iter().filter_map(|pod| pod["name"].as_str());
        let mut found = names.filter(|name| name.starts_with(&format!("{deployment}-")));
        found.next().unwrap_or_else(|| panic!("no pod of {deployment} in {pods:?}")).to_owned()
    }

    /// The summary of `lateen-echo get` in a pod.
    pub(crate) fn get(&self, pod: &str, arguments: &[&str]) -> Value {
        self.get_by(&[pod], arguments)
    }

    /// The same in a pod of another namespace.
    pub(crate) fn get_in(&self, namespace: &str, pod: &str, arguments: &[&str]) -> Value {
        self.get_by(&["-n", namespace, pod], arguments)
    }

    /// What the mesh knows of services.
    pub(crate) fn registry(&self) -> Vec<Value> {
        let output = lateen(&["registry", "--lab", &self.0, "-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    fn get_by(&self, pod: &[&str], arguments: &[&str]) -> Value {
        let command = [pod, &["--", "lateen-echo", "get"], arguments].concat();
        let output = self.run("exec", &command);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    pub(crate) fn apply(&self, file: &Path) -> Output {
        self.run("apply", &["-f", &file.to_string_lossy()])
    }

    pub(crate) fn apply_text(&self, manifests: &str) -> Output {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), manifests).unwrap();
        self.apply(file.path())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = self.run("down", &[]);
        if !output.status.success() {
            eprintln!("lab {} did not go down: {}", self.0, text(&output));
        }
    }
}
