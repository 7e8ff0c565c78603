//! The whole mesh, over the shipped binaries: the demo, Istio's bookinfo as it is published, and
//! what happens to input that is wrong. `make test-mesh` runs these with `LATEEN_BIN` naming the
//! folder of the release binaries; they make their own namespaces and leave nothing behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/shop");

fn binaries() -> PathBuf {
    let folder = std::env::var_os("LATEEN_BIN").expect("LATEEN_BIN names the release binaries");
    PathBuf::from(folder)
}

fn lateen(arguments: &[&str]) -> Output {
    let mut command = Command::new(binaries().join("lateen"));
    command.args(arguments).stdin(Stdio::null()).output().expect("lateen can be started")
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Processes of ours that run now.
fn processes() -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let zombie = std::fs::read_to_string(entry.path().join("stat"))
            .is_ok_and(|stat| stat.contains(") Z "));
        if name.starts_with("lateen") && !zombie {
            found.push(format!("{} {}", entry.file_name().to_string_lossy(), name.trim()));
        }
    }
    found
}

/// State folders of labs that exist now.
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

fn nothing_is_left() {
    assert_eq!(processes(), Vec::<String>::new(), "processes are left");
    assert_eq!(folders(), Vec::<PathBuf>::new(), "state folders are left");
}

/// A lab that is taken down whatever happens to the test.
struct Lab(String);

impl Lab {
    fn up(name: &str, arguments: &[&str]) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let lab = Self(name.clone());
        let output = lateen(&[&["lab", "up", "--detach", "--name", &name], arguments].concat());
        assert!(output.status.success(), "{}", text(&output));
        lab
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> Output {
        lateen(&[&["lab", verb, "--name", &self.0], arguments].concat())
    }

    fn pods(&self) -> Vec<Value> {
        let output = self.run("ls", &["-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    fn pod(&self, deployment: &str) -> String {
        let pods = self.pods();
        let names = pods.iter().filter_map(|pod| pod["name"].as_str());
        let mut found = names.filter(|name| name.starts_with(&format!("{deployment}-")));
        found.next().unwrap_or_else(|| panic!("no pod of {deployment} in {pods:?}")).to_owned()
    }

    /// The summary of `lateen-echo get` in a pod.
    fn get(&self, pod: &str, arguments: &[&str]) -> Value {
        let command = [&[pod, "--", "lateen-echo", "get"], arguments].concat();
        let output = self.run("exec", &command);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    fn apply(&self, file: &Path) -> Output {
        self.run("apply", &["-f", &file.to_string_lossy()])
    }

    fn apply_text(&self, manifests: &str) -> Output {
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

fn demo(report: &Path) -> Command {
    let mut command = Command::new(binaries().join("lateen"));
    command.arg("demo").arg("--report").arg(report).stdin(Stdio::null());
    command
}

fn every_claim_holds(output: &Output, report: &Path) {
    assert!(output.status.success(), "{}", text(output));
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let claims = report["claims"].as_array().unwrap();
    assert!(claims.len() >= 14, "{report}");
    assert!(claims.iter().all(|claim| claim["ok"] == true), "{report}");
    let seconds = report["seconds"].as_f64().unwrap();
    println!("demo: {} claims hold in {seconds:.1} s", claims.len());
}

#[test]
#[ignore = "needs the lab, the control plane and the proxy: make test-mesh"]
fn the_demo_holds_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let output = demo(&report).output().unwrap();
    every_claim_holds(&output, &report);
    nothing_is_left();
}

#[test]
#[ignore = "needs the lab, the control plane and the proxy: make test-mesh"]
fn two_demos_run_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let reports = [folder.path().join("a.json"), folder.path().join("b.json")];
    let start = |report: &PathBuf| {
        demo(report).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running = reports.each_ref().map(start);
    for (child, report) in running.into_iter().zip(&reports) {
        every_claim_holds(&child.wait_with_output().unwrap(), report);
    }
    nothing_is_left();
}

fn samples() -> PathBuf {
    let given = std::env::var_os("LATEEN_CONFORMANCE").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let folder = given.unwrap_or(beside).join("samples");
    assert!(
        folder.is_dir(),
        "Istio's sample manifests are not at {}; name their folder in LATEEN_CONFORMANCE",
        folder.display()
    );
    folder
}

#[test]
#[ignore = "needs the lab, the control plane and the proxy: make test-mesh"]
fn bookinfo_is_a_mesh_as_it_is_published() {
    let bookinfo = samples().join("bookinfo");
    let labelled = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(
        labelled.path(),
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels: {istio-injection: enabled}\n",
    )
    .unwrap();
    let app = bookinfo.join("platform/kube/bookinfo.yaml");
    let rules = bookinfo.join("networking/destination-rule-all.yaml");
    let all_v1 = bookinfo.join("networking/virtual-service-all-v1.yaml");
    let files = [labelled.path(), &app, &rules, &all_v1].map(|f| f.to_string_lossy().into_owned());
    let arguments: Vec<&str> = files.iter().flat_map(|file| ["-f", file]).collect();
    let lab = Lab::up("bookinfo", &arguments);
    let pods = lab.pods();
    assert_eq!(pods.len(), 6, "{pods:?}");
    for pod in &pods {
        let containers = pod["containers"].as_array().unwrap();
        assert!(containers.contains(&Value::from("istio-proxy")), "{pod}");
        assert_eq!(containers.len(), 2, "{pod}");
    }
    let page = lab.pod("productpage-v1");
    let reviews = "http://reviews:9080/reviews/0";
    let summary = lab.get(&page, &[reviews, "-n", "60"]);
    assert_eq!(summary["versions"]["v1"], 60, "{summary}");
    let body: Value = serde_json::from_str(summary["last_body"].as_str().unwrap()).unwrap();
    let client = body["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
    let identity = "URI=spiffe://cluster.local/ns/default/sa/bookinfo-productpage";
    assert!(client.contains(identity), "{body}");

    let by_header = bookinfo.join("networking/virtual-service-reviews-test-v2.yaml");
    let output = lab.apply(&by_header);
    assert!(output.status.success(), "{}", text(&output));
    let jason = [reviews, "-n", "30", "-H", "end-user: jason"];
    let arrived = (0..50).any(|_| lab.get(&page, &jason)["versions"]["v2"] == 30);
    assert!(arrived, "jason is not sent to v2");
    assert_eq!(lab.get(&page, &[reviews, "-n", "30"])["versions"]["v1"], 30);
}

const BROKEN: [(&str, &str); 5] = [
    ("kind: Service\n  bad indent: [", "YAML"),
    (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {name: odd, namespace: shop}\nspec: {mtls: {mode: SOMETIMES}}\n",
        "spec.mtls.mode",
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {name: odd, namespace: shop}\nspec: {hosts: [a], htpp: []}\n",
        "htpp",
    ),
    (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: twin, namespace: shop}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: twin, namespace: shop}\n",
        "twin",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: greedy, namespace: shop}\n\
         spec:\n  containers: [{name: a, image: b}]\n  volumes: [{name: v, nfs: {server: x, path: /}}]\n",
        "spec.volumes[0]",
    ),
];

#[test]
#[ignore = "needs the lab, the control plane and the proxy: make test-mesh"]
fn wrong_input_is_named_and_what_worked_goes_on() {
    let lab = Lab::up("wrong", &["-f", SHOP]);
    let front = lab.pod("front");
    let ask = ["http://catalog/items", "-n", "5"];
    assert_eq!(lab.get(&front, &ask)["status"]["200"], 5);
    for (manifests, named) in BROKEN {
        let output = lab.apply_text(manifests);
        assert!(!output.status.success(), "accepted: {manifests}");
        assert!(text(&output).contains(named), "{named} is not named in: {}", text(&output));
        assert_eq!(lab.get(&front, &ask)["status"]["200"], 5, "after {manifests}");
    }
    let alone = "apiVersion: v1\nkind: Service\nmetadata: {name: empty, namespace: shop}\n\
                 spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}\n";
    assert!(lab.apply_text(alone).status.success());
    let answered = (0..50).any(|_| {
        let summary = lab.get(&front, &["http://empty/"]);
        summary["last_status"] == 503 && summary["last_body"] == "no healthy upstream"
    });
    assert!(answered, "a service without endpoints is not answered with 503");
}
