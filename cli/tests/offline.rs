//! Commands that explain a directory without a running mesh: what they print, and what they say of
//! wrong input.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: cart, containers: [{name: c}]}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec: {hosts: [api.example.com], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: cart, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, portLevelMtls: {9000: {mode: DISABLE}}}
";

fn folder(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), text).unwrap();
    folder
}

fn lateen(topic: &[&str], folder: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    command.args(topic).arg("--config-dir").arg(folder).args(flags).output().unwrap()
}

fn out(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn error(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_registry_names_every_port_and_where_it_is_defined() {
    let shop = folder(SHOP);
    let text = out(&lateen(&["registry"], shop.path(), &[]));
    let lines: Vec<Vec<&str>> = text.lines().map(|it| it.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[0][..3], ["SERVICE", "PORT", "PROTOCOL"]);
    assert_eq!(lines[1][0], "api.example.com");
    assert!(text.contains("dns: api.example.com:443"), "{text}");
    assert_eq!(lines[2][..2], ["cart.shop.svc.cluster.local", "80"]);
    assert!(lines[2].contains(&"10.0.0.1:8080") && lines[2].contains(&"mTLS"), "{text}");
    assert_eq!(lines[2].last(), Some(&"shop.yaml:2"));
    assert_eq!(lines[3][0], "9000", "the name is said once");
    assert!(!lines[3].contains(&"mTLS"), "a policy forbids it on this port: {text}");

    let json = out(&lateen(&["registry"], shop.path(), &["--host", "cart", "-o", "json"]));
    let rows: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    let first = &rows[0];
    assert_eq!(first["endpoints"][0]["identity"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(first["endpoints"][0]["mutualTls"], true);
    assert_eq!(rows[1]["endpoints"][0]["mutualTls"], false);
    assert_eq!(first["definedBy"], "Service shop/cart");
    let domain = ["--cluster-domain", "mesh.test", "--host", "cart.shop.svc.mesh.test"];
    assert!(out(&lateen(&["registry"], shop.path(), &domain)).contains("cart.shop.svc.mesh.test"));
    assert!(out(&lateen(&["registry"], shop.path(), &["--host", "no"])).contains("no service"));
}

#[test]
fn mutual_tls_is_explained_by_the_policies_that_decide() {
    let shop = folder(SHOP);
    let explain = |flags: &[&str]| out(&lateen(&["explain", "mtls"], shop.path(), flags));
    let text = explain(&["-n", "shop", "-l", "app=cart"]);
    let words: Vec<&str> = text.split_whitespace().collect();
    let expected = "all ports STRICT port 9000 DISABLE decided by shop/all, shop/cart";
    assert_eq!(words.join(" "), expected);
    let json: Value = serde_json::from_str(&explain(&["-n", "shop", "-o", "json"])).unwrap();
    assert_eq!(json["mode"], "STRICT");
    assert_eq!(json["policies"], serde_json::json!(["shop/all"]));
    assert!(explain(&["-n", "bank"]).contains("PERMISSIVE is the default"));
}

#[test]
fn what_is_refused_is_told_beside_the_result() {
    let text = format!(
        "{SHOP}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                        metadata: {{name: cart, namespace: shop}}\nspec: {{host: ''}}\n"
    );
    let output = lateen(&["registry"], folder(&text).path(), &["-o", "json"]);
    assert!(serde_json::from_str::<Value>(&out(&output)).unwrap().is_array());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("error: shop.yaml:") && said.contains("spec.host"), "{said}");
}

#[test]
fn wrong_input_is_named() {
    let shop = folder(SHOP);
    let nowhere = error(&lateen(&["registry"], Path::new("/nowhere/at/all"), &[]));
    assert!(nowhere.contains("/nowhere/at/all"), "{nowhere}");
    let mesh = shop.path().join("mesh");
    std::fs::write(&mesh, "outboundTrafficPolicy: {mode: SOME}").unwrap();
    let flags = ["--mesh-config", mesh.to_str().unwrap()];
    let refused = error(&lateen(&["registry"], shop.path(), &flags));
    assert!(refused.contains("outboundTrafficPolicy.mode"), "{refused}");
    let both = error(&lateen(&["registry"], shop.path(), &["--lab", "demo"]));
    assert!(both.contains("--lab"), "{both}");
    let label = error(&lateen(&["explain", "mtls"], shop.path(), &["-n", "shop", "-l", "app"]));
    assert!(label.contains("KEY=VALUE"), "{label}");
    let unnamed = error(&lateen(&["explain", "mtls"], shop.path(), &[]));
    assert!(unnamed.contains("--namespace"), "{unnamed}");
    let neither = Command::new(env!("CARGO_BIN_EXE_lateen")).arg("registry").output().unwrap();
    assert!(error(&neither).contains("--config-dir"));
}
