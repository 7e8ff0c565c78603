//! CNI ADD: the plugin as a process, the node agent behind it, fresh network namespaces.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::figure::{Figure, percentile};
use crate::process::{Process, until};

/// Sandboxes that are set up, one after the other.
const ADDS: usize = 200;

/// Time of an ADD as the container runtime sees it: process start to exit.
pub(crate) fn measure(bin: &Path) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let (pods, run) = (folder.path().join("pods"), folder.path().join("run"));
    fs::create_dir_all(&pods)?;
    fs::create_dir_all(&run)?;
    let sidecar = json!({"name": "istio-proxy", "image": "proxyv2", "restartPolicy": "Always",
        "args": ["proxy", "sidecar"], "env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}]});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "1",
            "annotations": {"sidecar.istio.io/status": "{}"}},
        "spec": {"initContainers": [sidecar], "containers": [{"name": "a", "image": "a"}]}
    });
    fs::write(pods.join("default_p.json"), pod.to_string())?;
    let mut command = Command::new(bin.join("lateen-cni-node"));
    command.arg("--pods-dir").arg(&pods).arg("--run-dir").arg(&run);
    let log = folder.path().join("agent.log");
    let _agent = Process::start(&mut command, &log)?;
    until("the node agent listening", Duration::from_secs(5), || {
        run.join("pluginevent.sock").exists()
    })
    .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    let mut millis = Vec::with_capacity(ADDS);
    for _ in 0..ADDS {
        let mut sleep = Command::new("unshare");
        sleep.args(["--net", "--", "sleep", "60"]);
        let sandbox = Process::start(&mut sleep, &folder.path().join("sandbox.log"))?;
        millis.push(add(bin, &run, &sandbox)?);
    }
    let (median, tail) = (percentile(&mut millis, 50), percentile(&mut millis, 99));
    Ok(vec![
        Figure::at_most("cni: ADD p50", median, 5.0, "ms"),
        Figure::at_most("cni: ADD p99", tail, 25.0, "ms"),
    ])
}

fn add(bin: &Path, run: &Path, sandbox: &Process) -> anyhow::Result<f64> {
    let namespace = format!("/proc/{}/ns/net", sandbox.id());
    let own = fs::read_link("/proc/self/ns/net")?;
    until("the sandbox", Duration::from_secs(5), || {
        fs::read_link(&namespace).is_ok_and(|theirs| theirs != own)
    })?;
    let interface = json!({"name": "eth0", "sandbox": namespace});
    let input = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "lateen-cni", "cni_agent_run_dir": run,
        "prevResult": {"cniVersion": "1.0.0", "interfaces": [interface], "ips": []}
    });
    let started = Instant::now();
    let mut child = Command::new(bin.join("lateen-cni"))
        .env_clear()
        .envs([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "bench"),
            ("CNI_NETNS", &namespace),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;K8S_POD_UID=1"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(input.to_string().as_bytes())?;
    let done = child.wait_with_output()?;
    let took = started.elapsed().as_secs_f64() * 1000.0;
    ensure!(done.status.success(), "ADD failed: {}", String::from_utf8_lossy(&done.stdout));
    Ok(took)
}
