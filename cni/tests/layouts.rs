//! The installer on folders as the distributions have them, with the values that `docs/cni.md` names
//! for each.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lateen_cni::install::{Entry, InstallError, Installer, Place};
use serde_json::{Value, json};

/// A distribution: where its folders are, and what is in them.
struct Layout {
    name: &'static str,
    programs: &'static str,
    configurations: &'static str,
    /// Programs of the network; links, as in distributions whose plugins are one program.
    plugins: &'static [&'static str],
    /// Files of the folder; the first is the one that the runtime takes.
    files: &'static [(&'static str, &'static str)],
    /// A file of our own, for Multus.
    alone: bool,
}

const BIN: &str = "opt/cni/bin";
const CONF: &str = "etc/cni/net.d";
const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"#;
const CALICO: &str = r#"{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico","ipam":{"type":"calico-ipam"},"kubernetes":{"kubeconfig":"/etc/cni/net.d/calico-kubeconfig"}},{"type":"portmap","snat":true},{"type":"bandwidth"}]}"#;
const AWS: &str = "{\n  \"cniVersion\": \"0.4.0\",\n  \"name\": \"aws-cni\",\n  \"disableCheck\": true,\n  \"plugins\": [\n    {\n      \"name\": \"aws-cni\",\n      \"type\": \"aws-cni\"\n    },\n    {\n      \"name\": \"egress-cni\",\n      \"type\": \"egress-cni\"\n    },\n    {\n      \"type\": \"portmap\"\n    }\n  ]\n}";
const AZURE: &str = r#"{"cniVersion":"0.3.0","name":"azure","plugins":[{"type":"azure-vnet","mode":"transparent"},{"type":"portmap","snat":true}]}"#;
const CILIUM: &str = "\n{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"cilium\",\n  \"plugins\": [\n    {\n       \"type\": \"cilium-cni\",\n       \"enable-debug\": false\n    }\n  ]\n}\n";
const GKE: &str = r#"{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"ptp","mtu":1460},{"type":"portmap"}]}"#;
const K3S: &str = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"flannel"},{"type":"portmap"},{"type":"bandwidth"}]}"#;
const MINIKUBE: &str =
    r#"{"cniVersion":"0.3.1","name":"bridge","type":"bridge","bridge":"bridge"}"#;
const MULTUS: &str = r#"{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus-shim"}"#;

const LAYOUTS: [Layout; 12] = [
    plain("kubeadm, flannel", &["flannel", "portmap"], &[("10-flannel.conflist", FLANNEL)]),
    plain(
        "kubeadm, calico",
        &["calico", "portmap"],
        &[("10-calico.conflist", CALICO), ("calico-kubeconfig", "apiVersion: v1\n")],
    ),
    Layout {
        programs: "var/lib/rancher/k3s/data/cni",
        configurations: "var/lib/rancher/k3s/agent/etc/cni/net.d",
        ..plain("k3s", &["flannel", "portmap"], &[("10-flannel.conflist", K3S)])
    },
    Layout {
        programs: "home/kubernetes/bin",
        ..plain("GKE", &["ptp", "portmap"], &[("10-containerd-net.conflist", GKE)])
    },
    Layout {
        programs: "home/kubernetes/bin",
        ..plain(
            "GKE, dataplane V2",
            &["cilium-cni"],
            &[("05-cilium.conflist", CILIUM), ("10-containerd-net.conflist", GKE)],
        )
    },
    plain("EKS", &["aws-cni", "egress-cni"], &[("10-aws.conflist", AWS)]),
    plain(
        "AKS",
        &["azure-vnet"],
        &[("10-azure.conflist", AZURE), ("15-azure-swift-overlay.conflist", AZURE)],
    ),
    plain("Talos", &["flannel", "portmap"], &[("10-flannel.conflist", FLANNEL)]),
    plain("Bottlerocket", &["aws-cni"], &[("10-aws.conflist", AWS)]),
    Layout {
        programs: "var/snap/microk8s/current/opt/cni/bin",
        configurations: "var/snap/microk8s/current/args/cni-network",
        ..plain(
            "microk8s",
            &["calico"],
            &[("10-calico.conflist", CALICO), ("cni.yaml", "kind: List\n")],
        )
    },
    plain(
        "minikube",
        &["bridge"],
        &[("1-k8s.conf", MINIKUBE), ("87-podman.conflist.mk_disabled", "{}")],
    ),
    Layout {
        programs: "var/lib/cni/bin",
        configurations: "etc/cni/multus/net.d",
        alone: true,
        ..plain("OpenShift", &[], &[("00-multus.conf", MULTUS)])
    },
];

const fn plain(
    name: &'static str,
    plugins: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
) -> Layout {
    Layout { name, programs: BIN, configurations: CONF, plugins, files, alone: false }
}

/// All files below a folder, with links as where they lead.
fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(tree(&path));
        } else if kind.is_symlink() {
            found.insert(path.clone(), fs::read_link(&path).unwrap().display().to_string());
        } else {
            found.insert(path.clone(), fs::read_to_string(&path).unwrap());
        }
    }
    found
}

struct Node {
    root: tempfile::TempDir,
    installer: Installer,
}

fn node(layout: &Layout) -> Node {
    let root = tempfile::tempdir().unwrap();
    let path = |below: &str| root.path().join(below);
    for folder in [layout.programs, layout.configurations, BIN, CONF, "image"] {
        fs::create_dir_all(path(folder)).unwrap();
    }
    for plugin in layout.plugins {
        symlink("/nowhere/cni", path(layout.programs).join(plugin)).unwrap();
    }
    for (name, text) in layout.files {
        fs::write(path(layout.configurations).join(name), text).unwrap();
    }
    fs::write(path("image/lateen-cni"), "program").unwrap();
    let entry = Entry {
        run_dir: PathBuf::from("/var/run/istio-cni"),
        exclude_namespaces: Vec::new(),
        pod_namespace: "istio-system".to_owned(),
        log_level: "info".to_owned(),
        agent_wait: 5000,
    };
    let place =
        if layout.alone { Place::Alone("istio-cni.conf".into()) } else { Place::Joined(None) };
    let installer = Installer {
        program: path("image/lateen-cni"),
        programs: path(layout.programs),
        configurations: path(layout.configurations),
        place,
        entry: entry.json(),
    };
    Node { root, installer }
}

#[test]
fn the_entry_joins_what_the_runtime_takes_and_leaves_everything_as_it_was() {
    for layout in &LAYOUTS {
        let node = node(layout);
        let before = tree(node.root.path());
        let done = node.installer.pass().unwrap_or_else(|e| panic!("{}: {e}", layout.name));
        let after = tree(node.root.path());
        assert_eq!(after[&node.installer.programs.join("lateen-cni")], "program");
        let conf: Value = serde_json::from_str(&after[&done.file]).unwrap();
        let name = done.file.file_name().unwrap().to_str().unwrap();
        if layout.alone {
            assert_eq!((name, &conf["type"]), ("istio-cni.conf", &json!("lateen-cni")));
        } else {
            let (first, text) = layout.files[0];
            assert_eq!(Path::new(name).file_stem(), Path::new(first).file_stem());
            let last = conf["plugins"].as_array().unwrap().last().unwrap();
            assert_eq!(last["type"], "lateen-cni", "{}", layout.name);
            let theirs: Value = serde_json::from_str(text).unwrap();
            assert_eq!(conf["name"], theirs["name"], "{}", layout.name);
            assert_eq!(conf["cniVersion"], theirs["cniVersion"], "{}", layout.name);
        }
        let others = layout.files.iter().skip(usize::from(!layout.alone));
        for (other, text) in others {
            assert_eq!(after[&node.installer.configurations.join(other)], *text);
        }
        node.installer.remove_configuration().unwrap();
        node.installer.remove_program().unwrap();
        let mut left = tree(node.root.path());
        for text in left.values_mut().filter(|text| text.trim_end() == MINIKUBE) {
            // What comes back from a list ends with a line feed.
            text.truncate(MINIKUBE.len());
        }
        assert_eq!(left, before, "{}", layout.name);
    }
}

#[test]
fn the_folders_of_another_distribution_are_refused_by_name_and_left_alone() {
    for layout in LAYOUTS.iter().filter(|layout| layout.programs != BIN && !layout.alone) {
        let mut node = node(layout);
        let before = tree(node.root.path());
        // Where kubeadm would have plugins there are none, as in the folder that the runtime makes
        // for a mount of a path that is not there.
        node.installer.programs = node.root.path().join(BIN);
        let problem = node.installer.pass().unwrap_err();
        assert!(matches!(problem, InstallError::Elsewhere { .. }), "{}: {problem}", layout.name);
        for part in [BIN, layout.files[0].0, layout.plugins[0], "cniBinDir"] {
            assert!(problem.to_string().contains(part), "{}: {part}: {problem}", layout.name);
        }
        node.installer.remove_program().unwrap();
        assert_eq!(tree(node.root.path()), before, "{}", layout.name);
        if layout.configurations != CONF {
            node.installer.configurations = node.root.path().join(CONF);
            let problem = node.installer.pass().unwrap_err().to_string();
            assert!(problem.contains(CONF) && problem.contains("no network configuration"));
            assert!(problem.contains("cniConfDir"), "{}: {problem}", layout.name);
        }
    }
}
