//! `lateen check-inject` and `lateen explain injection` on files.
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
spec: {template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: cart, image: cart}]}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: shop}
spec: {template: {metadata: {labels: {app: agent}}, spec: {hostNetwork: true, containers: [{name: a, image: a}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec: {containers: [{name: a, image: a}]}
";

fn run(command: &[&str], flags: &[&str]) -> Output {
    run_with("", command, flags)
}

/// With more documents.
fn run_with(more: &str, command: &[&str], flags: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.yaml");
    std::fs::write(&file, format!("{SHOP}{more}")).unwrap();
    let mut lateen = Command::new(env!("CARGO_BIN_EXE_lateen"));
    lateen.args(command).arg("-f").arg(&file).args(flags).output().unwrap()
}

fn out(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_pod_of_files_has_its_verdict_and_reason() {
    let text = out(&run(&["check-inject"], &["-o", "json"]));
    let rows: Value = serde_json::from_str(&text).unwrap();
    let told: Vec<String> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            format!("{}/{} {} {}", row["namespace"], row["name"], row["injected"], row["reason"])
        })
        .collect();
    assert_eq!(
        told,
        [
            r#""shop"/"cart" true "injected.namespace-label""#,
            r#""shop"/"agent" false "skipped.host-network""#,
            r#""default"/"bare" false "skipped.not-selected""#,
        ]
    );
    assert_eq!(rows[2]["hasSidecar"], false);
    let advice = rows[2]["advice"].as_str().unwrap();
    assert!(
        advice.starts_with("kubectl label namespace default istio-injection=enabled"),
        "{advice}"
    );
}

#[test]
fn one_is_told_in_full_with_what_changes() {
    let text = out(&run(&["explain", "injection"], &["deploy/cart", "--diff"]));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for needle in [
        "yes, by revision default",
        "injected.namespace-label",
        "istio-sidecar-injector",
        "both selectors match",
        "added initContainers istio-proxy",
    ] {
        assert!(text.contains(needle), "{needle} is missing in:\n{text}");
    }
    let other = out(&run(&["check-inject"], &["deploy/cart", "--revision", "canary"]));
    assert!(other.contains("skipped.unknown-revision"), "{other}");
    assert!(other.contains("there are canary"), "{other}");
}

#[test]
fn what_the_injectors_config_map_says_counts_and_what_is_wrong_with_it_is_said() {
    let map = |config: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio-sidecar-injector, \
             namespace: istio-system}}\ndata:\n  values: '{{}}'\n  config: |\n    {config}\n"
        )
    };
    let said = |config: &str| {
        let output = run_with(&map(config), &["check-inject"], &["deploy/cart", "-o", "json"]);
        let rows: Value = serde_json::from_str(&out(&output)).unwrap();
        (rows[0]["reason"].as_str().unwrap().to_owned(), rows[0]["explanation"].to_string())
    };
    assert_eq!(said("policy: enabled").0, "injected.namespace-label");
    assert_eq!(said("policy: disabled").0, "skipped.default-policy");
    let output = run_with(
        &map("policy: disabled"),
        &["check-inject"],
        &["deploy/cart", "-o", "json", "--values", "/dev/null"],
    );
    assert!(out(&output).contains("injected.namespace-label"), "a file stands for the whole map");
    let output =
        run_with(&map("templates: {mine: '{{ x }}'}"), &["check-inject"], &["deploy/cart"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("template \"mine\""), "{error}");
}

#[test]
fn wrong_words_are_answered_with_what_is_right() {
    for (flags, needle) in [
        (["service/cart"], "kinds are pod, deployment"),
        (["deployment/none"], "no pod of deployment/none"),
    ] {
        let output = run(&["check-inject"], &flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(needle), "{said}");
    }
}
