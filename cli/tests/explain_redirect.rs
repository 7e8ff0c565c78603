//! `lateen explain redirect` on files and flags.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::process::{Command, Output};

use serde_json::Value;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  template:
    metadata:
      labels: {app: cart}
      annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: '8443,9000'}
    spec:
      securityContext: {runAsGroup: 7}
      containers: [{name: cart, image: cart, securityContext: {runAsUser: 1000}}]
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, 'fd96::9']}
---
apiVersion: v1
kind: Pod
metadata:
  name: by-init
  namespace: shop
  annotations: {sidecar.istio.io/status: '{}'}
spec:
  initContainers:
  - {name: istio-init, image: i, args: [istio-iptables, -b, '*', -m, TPROXY, -i, '10.0.0.0/8']}
  containers:
  - {name: cart, image: cart}
  - {name: istio-proxy, image: p}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: other}
spec: {containers: [{name: a, image: a}]}
---
apiVersion: v1
kind: Pod
metadata: {name: grpc, namespace: shop, annotations: {inject.istio.io/templates: grpc-agent}}
spec: {containers: [{name: a, image: a}]}
";

fn run(flags: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.yaml");
    std::fs::write(&file, SHOP).unwrap();
    let mut lateen = Command::new(env!("CARGO_BIN_EXE_lateen"));
    lateen.args(["explain", "redirect"]);
    if !flags.contains(&"--") {
        lateen.arg("-f").arg(&file);
    }
    lateen.args(flags).output().unwrap()
}

fn out(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(flags: &[&str]) -> Value {
    serde_json::from_str(&out(&run(&[&["-o", "json"], flags].concat()))).unwrap()
}

#[test]
fn the_annotation_behind_a_verdict_is_named() {
    let told = json(&["--pod", "deployment/cart", "--to", "1.2.3.4:8443"]);
    let answer = &told[0];
    assert_eq!(answer["verdict"], "untouched");
    assert_eq!(answer["packet"]["uid"], 1000);
    assert_eq!(answer["packet"]["gid"], 7);
    assert_eq!(answer["rule"]["chain"], "nat-output");
    assert_eq!(answer["rule"]["flag"], "--istio-local-outbound-ports-exclude");
    let annotation = "annotation traffic.sidecar.istio.io/excludeOutboundPorts";
    assert_eq!(answer["rule"]["saidBy"], annotation);
    assert_eq!(answer["rule"]["value"], "8443,9000");
    let text = out(&run(&["--pod", "deployment/cart", "--to", "1.2.3.4:8443"]));
    for words in ["untouched", "th dport { 8443, 9000 } return", annotation, "\"8443,9000\""] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
}

#[test]
fn a_service_is_asked_about_by_name_in_each_family() {
    let told = json(&["--pod", "deployment/cart", "--to", "catalog:80"]);
    let told = told.as_array().unwrap();
    let to: Vec<&Value> = told.iter().map(|answer| &answer["packet"]["to"]).collect();
    assert_eq!(to, ["10.96.0.9:80", "[fd96::9]:80"]);
    assert!(told.iter().all(|answer| answer["port"] == 15001), "{told:?}");
}

#[test]
fn inbound_and_the_proxy_have_their_own_ways() {
    let pod = ["--pod", "deployment/cart"];
    let ask = |flags: &[&str]| json(&[&pod, flags].concat())[0].clone();
    let inbound = ask(&["--inbound", "--to", "8080"]);
    assert_eq!(inbound["listener"], "the proxy's inbound listener");
    let status = ask(&["--inbound", "--to", "15021"]);
    assert_eq!(status["verdict"], "untouched");
    let proxy = ask(&["--uid", "1337", "--to", "1.2.3.4:80"]);
    assert_eq!(
        (&proxy["verdict"], &proxy["rule"]["flag"]),
        (&"untouched".into(), &"--proxy-uid".into())
    );
    let udp = ask(&["--proto", "udp", "--to", "1.2.3.4:123"]);
    assert_eq!((&udp["verdict"], &udp["rule"]), (&"untouched".into(), &Value::Null));
}

#[test]
fn an_init_container_decides_by_its_arguments() {
    let pod = ["--pod", "by-init", "-n", "shop"];
    let told = json(&[&pod[..], &["--inbound", "--to", "80"]].concat());
    assert_eq!((&told[0]["verdict"], &told[0]["port"]), (&"tproxy".into(), &15006.into()));
    assert_eq!(told[0]["settings"], "arguments of container istio-init");
    let told = json(&[&pod[..], &["--to", "11.0.0.1:80"]].concat());
    assert_eq!(told[0]["verdict"], "untouched");
}

#[test]
fn flags_stand_for_a_pod() {
    let told = json(&["--to", "[fd05::1]:80", "--", "-i", "fd05::/32", "--redirect-dns"]);
    assert_eq!(told[0]["port"], 15001);
    let dns = run(&["--to", "9.9.9.9:53", "--", "--redirect-dns"]);
    assert!(out(&dns).contains("port 15053, the proxy's DNS"));
    assert!(String::from_utf8_lossy(&dns.stderr).contains("name servers are not known here"));
}

#[test]
fn a_pod_without_sidecar_has_no_rules_and_what_is_wrong_is_said() {
    let text = out(&run(&["--pod", "bare", "--to", "1.2.3.4:80"]));
    assert!(text.contains("no rules: the pod has no container istio-proxy"), "{text}");
    let text = out(&run(&["--pod", "grpc", "--to", "1.2.3.4:80"]));
    assert!(text.contains("no rules: container istio-proxy is an agent"), "{text}");
    for (flags, words) in [
        (["--pod", "bare", "--to", "80"].as_slice(), "an address is missing"),
        (&["--pod", "bare", "--to", "nowhere:80"], "there is no Service other/nowhere"),
        (&["--to", "1.2.3.4:80"], "the files have 4 pods"),
        (&["--to", "1.2.3.4:80", "--", "-i", "1.2.3"], "--istio-service-cidr"),
        (&["--pod", "bare", "--to", "1.2.3.4:80", "--from", "::6"], "two families"),
    ] {
        let done = run(flags);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && error.contains(words), "{flags:?}: {error}");
    }
}
