//! CNI ADD: the plugin as a process, the node agent behind it, fresh network namespaces; one after the
//! other and all at once, and what the plugin holds meanwhile.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::figure::{Figure, percentile};
use crate::process::{Process, peak_mib, until};

/// Sandboxes that are set up, one after the other, and as many at once.
const ADDS: usize = 200;
/// Socket of the node agent in its folder.
const SOCKET: &str = "pluginevent.sock";
/// A namespace, to the plugin that is only looked at.
const SOME_NAMESPACE: &str = "/proc/self/ns/net";

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
    until("the node agent listening", Duration::from_secs(5), || run.join(SOCKET).exists())
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    let mut millis = Vec::with_capacity(ADDS);
    for _ in 0..ADDS {
        let sandbox = Sandbox::start(folder.path())?;
        millis.push(plugin(bin, &run, &sandbox.namespace).time()?);
    }
    let (median, tail) = (percentile(&mut millis, 50), percentile(&mut millis, 99));
    let mut crowd = at_once(folder.path(), |namespace| plugin(bin, &run, namespace))?;
    let mut nothing = at_once(folder.path(), |_| Plugin::doing_nothing())?;
    let (crowd, nothing) = (percentile(&mut crowd, 99), percentile(&mut nothing, 99));
    // Two hundred processes share the cores: what the last one waits for is the machine.
    let beside = format!("cni: 200 ADDs at once, p99, beside 200 of `true` ({nothing:.0} ms)");
    Ok(vec![
        Figure::at_most("cni: ADD p50", median, 5.0, "ms"),
        Figure::at_most("cni: ADD p99", tail, 25.0, "ms"),
        Figure::at_most(&beside, crowd, 25.0, "ms"),
        Figure::at_most(
            "cni: resident memory of the plugin",
            held(bin, folder.path())?,
            8.0,
            "MiB",
        ),
    ])
}

/// A network namespace that ends with this value.
struct Sandbox {
    namespace: String,
    _sleep: Process,
}

impl Sandbox {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut sleep = Command::new("unshare");
        sleep.args(["--net", "--", "sleep", "600"]);
        let process = Process::start(&mut sleep, &folder.join("sandbox.log"))?;
        let namespace = format!("/proc/{}/ns/net", process.id());
        let own = fs::read_link("/proc/self/ns/net")?;
        until("the sandbox", Duration::from_secs(5), || {
            fs::read_link(&namespace).is_ok_and(|theirs| theirs != own)
        })?;
        Ok(Self { namespace, _sleep: process })
    }
}

/// Milliseconds of each of as many commands as there are ADDs, all started at the same time, each for
/// a sandbox of its own. None may fail.
fn at_once(folder: &Path, plugin: impl Fn(&str) -> Plugin + Sync) -> anyhow::Result<Vec<f64>> {
    let sandboxes: Vec<_> =
        (0..ADDS).map(|_| Sandbox::start(folder)).collect::<anyhow::Result<_>>()?;
    let start = Barrier::new(ADDS);
    thread::scope(|scope| {
        let calls: Vec<_> = sandboxes
            .iter()
            .map(|sandbox| {
                scope.spawn(|| {
                    let plugin = plugin(&sandbox.namespace);
                    start.wait();
                    plugin.time()
                })
            })
            .collect();
        calls
            .into_iter()
            .map(|call| call.join().map_err(|_| anyhow::anyhow!("a call ended early"))?)
            .collect()
    })
}

/// The plugin as the container runtime starts it, and what it is given.
struct Plugin {
    command: Command,
    input: String,
}

fn plugin(bin: &Path, run: &Path, namespace: &str) -> Plugin {
    let interface = json!({"name": "eth0", "sandbox": namespace});
    let input = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "lateen-cni", "cni_agent_run_dir": run,
        "prevResult": {"cniVersion": "1.0.0", "interfaces": [interface], "ips": []}
    });
    let mut command = Command::new(bin.join("lateen-cni"));
    command.env_clear().envs([
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "bench"),
        ("CNI_NETNS", namespace),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;K8S_POD_UID=1"),
    ]);
    Plugin { command, input: input.to_string() }
}

impl Plugin {
    /// A process that costs what any process costs.
    fn doing_nothing() -> Self {
        Self { command: Command::new("true"), input: String::new() }
    }

    fn start(mut self) -> anyhow::Result<Child> {
        let pipes = self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.stderr(Stdio::null()).spawn()?;
        child.stdin.take().context("no stdin")?.write_all(self.input.as_bytes())?;
        Ok(child)
    }

    /// Milliseconds from its start to its exit.
    fn time(self) -> anyhow::Result<f64> {
        let started = Instant::now();
        let done = self.start()?.wait_with_output()?;
        let took = started.elapsed().as_secs_f64() * 1000.0;
        ensure!(done.status.success(), "ADD failed: {}", String::from_utf8_lossy(&done.stdout));
        Ok(took)
    }
}

/// MiB that the plugin holds while it waits for an answer: all that it read and asked is there then.
fn held(bin: &Path, folder: &Path) -> anyhow::Result<f64> {
    let run = folder.join("silent");
    fs::create_dir_all(&run)?;
    let agent = UnixListener::bind(run.join(SOCKET))?;
    let mut child = plugin(bin, &run, SOME_NAMESPACE).start()?;
    let asked = agent.accept().context("the plugin did not ask")?;
    let peak = peak_mib(child.id());
    drop(asked);
    child.kill()?;
    child.wait()?;
    peak
}
