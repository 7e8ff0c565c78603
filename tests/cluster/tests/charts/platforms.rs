//! What `platform` makes of the chart cni: the folders of each distribution.

use serde_json::{Value, json};

use crate::helm::{release, render};

/// Folders of the node, by what they are for.
fn folder<'a>(daemonset: &'a Value, name: &str) -> &'a str {
    let volumes = daemonset["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == name).unwrap();
    volume["hostPath"]["path"].as_str().unwrap()
}

fn has(daemonset: &Value, flag: &str) -> bool {
    let container = &daemonset["spec"]["template"]["spec"]["containers"][0];
    container["args"].as_array().unwrap().contains(&json!(flag))
}

async fn chart(words: &[&str]) -> (Value, bool) {
    let objects = render("cni", release("cni"), words).await.unwrap();
    let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).cloned();
    (of("DaemonSet").unwrap(), of("ResourceQuota").is_some())
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn each_platform_has_its_folders() {
    const BIN: &str = "/opt/cni/bin";
    const CONF: &str = "/etc/cni/net.d";
    const NETNS: &str = "/var/run/netns";
    const RANCHER: &str = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
    for (platform, bin, conf, netns) in [
        ("", BIN, CONF, NETNS),
        ("gke", "/home/kubernetes/bin", CONF, NETNS),
        ("k3s", "/var/lib/rancher/k3s/data/cni", RANCHER, NETNS),
        ("k3d", "/bin", RANCHER, NETNS),
        (
            "microk8s",
            "/var/snap/microk8s/current/opt/cni/bin",
            "/var/snap/microk8s/current/args/cni-network",
            NETNS,
        ),
        ("minikube", BIN, CONF, "/var/run/docker/netns"),
        ("openshift", "/var/lib/cni/bin", "/etc/cni/multus/net.d", NETNS),
    ] {
        for key in ["platform", "global.platform"] {
            let (daemonset, quota) = chart(&["--set", &format!("{key}={platform}")]).await;
            assert_eq!(folder(&daemonset, "cni-bin-dir"), bin, "{platform}");
            assert_eq!(folder(&daemonset, "cni-conf-dir"), conf, "{platform}");
            assert_eq!(folder(&daemonset, "netns-dir"), netns, "{platform}");
            assert!(has(&daemonset, &format!("--netns-dir={netns}")), "{platform}");
            let alone = platform == "openshift";
            assert!(has(&daemonset, &format!("--chained={}", !alone)), "{platform}");
            let name = if alone { "istio-cni.conf" } else { "" };
            assert!(has(&daemonset, &format!("--cni-conf-name={name}")), "{platform}");
            assert_eq!(quota, platform == "gke", "{platform}");
        }
        let (daemonset, _) = chart(&[
            "--set",
            &format!("platform={platform},cniBinDir=/b,cniConfDir=/c,cniNetnsDir=/n,chained=true"),
        ])
        .await;
        let names = ["cni-bin-dir", "cni-conf-dir", "netns-dir"];
        assert_eq!(names.map(|name| folder(&daemonset, name)), ["/b", "/c", "/n"], "{platform}");
        assert!(has(&daemonset, "--chained=true"), "{platform}");
    }
    let (daemonset, _) = chart(&["--kube-version", "v1.33.4-gke.1036000"]).await;
    assert_eq!(folder(&daemonset, "cni-bin-dir"), "/home/kubernetes/bin");
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn taints_and_a_list_of_our_own_are_asked_for() {
    let (daemonset, _) = chart(&[]).await;
    assert!(!has(&daemonset, "--taint=true"));
    let args = daemonset["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(!args.contains("--own-list"), "{args}");
    let (daemonset, _) =
        chart(&["--set", "taint.enabled=true", "--set", "istioOwnedCNIConfig=true"]).await;
    assert!(has(&daemonset, "--taint=true"));
    assert!(has(&daemonset, "--own-list=02-istio-cni.conflist"));
    let named = "istioOwnedCNIConfig=true,istioOwnedCNIConfigFileName=01-x.conflist";
    let (daemonset, _) = chart(&["--set", named]).await;
    assert!(has(&daemonset, "--own-list=01-x.conflist"));
}
