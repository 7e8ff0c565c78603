//! Helm, and what it renders as objects.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use lateen_cluster::binaries;
use serde_json::Value;
use tokio::process::Command;

/// The charts, in the order in which they are installed.
pub(crate) const CHARTS: [&str; 4] = ["base", "lateend", "cni", "gateway"];

/// Folder of a chart.
pub(crate) fn chart(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts").join(name)
}

/// Text of a file of a chart.
pub(crate) fn file(name: &str, path: &str) -> String {
    std::fs::read_to_string(chart(name).join(path)).unwrap()
}

/// A YAML file of a chart.
pub(crate) fn yaml(name: &str, path: &str) -> Value {
    serde_saphyr::from_str(&file(name, path)).unwrap()
}

/// Path below the folder of the files of others.
pub(crate) fn conformance(path: &str) -> PathBuf {
    let folder =
        std::env::var_os("LATEEN_CONFORMANCE").expect("LATEEN_CONFORMANCE names the files");
    Path::new(&folder).join(path)
}

/// Runs Helm with words; what it prints, or what it says when it fails. `kubeconfig` is for those
/// that ask a cluster.
pub(crate) async fn helm(words: &[&str], kubeconfig: Option<&Path>) -> Result<String, String> {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(binaries::helm().await.unwrap());
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    for (variable, folder) in
        [("HELM_CACHE_HOME", "c"), ("HELM_CONFIG_HOME", "f"), ("HELM_DATA_HOME", "d")]
    {
        command.env(variable, home.path().join(folder));
    }
    command.env("KUBECONFIG", kubeconfig.unwrap_or_else(|| Path::new("/nowhere")));
    let output = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What a chart renders as release `release` in `namespace`, with further words for Helm.
pub(crate) async fn render(
    chart_name: &str,
    (release, namespace): (&str, &str),
    words: &[&str],
) -> Result<Vec<Value>, String> {
    let folder = chart(chart_name).display().to_string();
    let mut all = vec!["template", release, &folder, "--namespace", namespace];
    all.extend(words);
    let text = helm(&all, None).await?;
    let documents: Vec<Option<Value>> = serde_saphyr::from_multiple(&text).unwrap();
    Ok(documents.into_iter().flatten().collect())
}

/// Names under which people install the charts.
pub(crate) fn release(chart_name: &str) -> (&'static str, &'static str) {
    match chart_name {
        "base" => ("istio-base", "istio-system"),
        "lateend" => ("istiod", "istio-system"),
        "cni" => ("istio-cni", "istio-system"),
        _ => ("istio-ingress", "istio-ingress"),
    }
}

/// The object of a kind and name.
pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} is rendered"))
}
