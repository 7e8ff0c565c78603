//! One HTTP/1.1 hop: a client whose traffic is redirected into an outbound sidecar, and a server
//! without one, each in a network namespace. Envoy and Lateen get the same configuration from
//! the same control plane, one after the other, on one worker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::envoy;
use crate::figure::{Figure, percentile};
use crate::process::{Process, output, until};

const CLIENT: &str = "10.1.0.1";
const SERVER: &str = "10.1.0.2";
const VIP: &str = "10.96.0.1";
const NODE: &str = "sidecar~10.1.0.1~client.default~default.svc.cluster.local";
/// How often each proxy is measured; the middle one counts.
const ROUNDS: usize = 3;

/// CPU a request, resident memory and start of the proxy; the ratio to Envoy where there is one.
pub(crate) fn measure(
    bin: &Path,
    envoy: Option<&Path>,
    requests: u64,
) -> anyhow::Result<Vec<Figure>> {
    let stage = Stage::set(bin)?;
    let mut figures = Vec::new();
    let mut ours = Vec::new();
    let mut peer = Vec::new();
    for round in 0..ROUNDS {
        let (proxy, ready) = stage.lateen()?;
        if round == 0 {
            let idle = proxy.resident_mib()?;
            let millis = ready.as_secs_f64() * 1000.0;
            figures.push(Figure::at_most("sidecar: process start to ready", millis, 100.0, "ms"));
            figures.push(Figure::at_most("sidecar: idle resident memory", idle, 10.0, "MiB"));
        }
        ours.push(stage.load(&proxy, requests)?);
        drop(proxy);
        if let Some(envoy) = envoy {
            let proxy = stage.envoy(envoy)?;
            peer.push(stage.load(&proxy, requests)?);
        }
    }
    let ours = percentile(&mut ours, 50);
    if peer.is_empty() {
        anyhow::bail!("http: no Envoy to compare with; ours took {ours:.1} us CPU a request");
    }
    let peer = percentile(&mut peer, 50);
    let name = format!("http: CPU of an HTTP/1.1 hop ({ours:.1} us) to Envoy's ({peer:.1} us)");
    figures.push(Figure::at_most(&name, ours / peer, 0.3, "x"));
    Ok(figures)
}

/// Namespaces, rules, control plane and server.
struct Stage {
    bin: PathBuf,
    folder: TempDir,
    _server: Process,
    _control_plane: Process,
}

impl Stage {
    fn set(bin: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = |name: &str| folder.path().join(name);
        let mut command = Command::new("unshare");
        command.args(["--net", "--"]).arg(bin.join("lateen-echo"));
        let server = Process::start(
            command.args(["serve", "--port", "8080", "--app", "server"]),
            &log("server.log"),
        )?;
        wire(server.id()).context("laying the network (needs iproute2)")?;
        let rules = ["-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*"];
        let rules = [&rules[..], &["-b", "*", "-d", "15090,15021,15020"]].concat();
        output(Command::new(bin.join("lateen-init")).args(rules))?;
        let config = log("config");
        write_objects(&config)?;
        let mut command = Command::new(bin.join("lateend"));
        command.arg("--config-dir").arg(&config).arg("--ca-dir").arg(log("ca"));
        command.arg("--publish-dir").arg(log("published"));
        let control_plane = Process::start(&mut command, &log("lateend.log"))?;
        let ready = || http_ok("127.0.0.1:15014", "/ready");
        until("the control plane being ready", Duration::from_secs(10), ready)
            .with_context(|| fs::read_to_string(log("lateend.log")).unwrap_or_default())?;
        Ok(Self { bin: bin.to_owned(), folder, _server: server, _control_plane: control_plane })
    }

    fn lateen(&self) -> anyhow::Result<(Process, Duration)> {
        let config = json!({
            "discoveryAddress": "127.0.0.1:15010",
            "controlPlaneAuthPolicy": "NONE",
            "concurrency": 1
        });
        let mut command = as_proxy(&self.bin.join("lateen-proxy"));
        command.args(["proxy", "sidecar", "--domain", "default.svc.cluster.local"]);
        command.env_clear().envs([
            ("POD_NAME", "client"),
            ("POD_NAMESPACE", "default"),
            ("INSTANCE_IP", CLIENT),
            ("PROXY_CONFIG", &config.to_string()),
        ]);
        let log = self.folder.path().join("lateen-proxy.log");
        let proxy = Process::start(&mut command, &log)?;
        let ready = until("lateen-proxy being ready", Duration::from_secs(10), || {
            http_ok("127.0.0.1:15021", "/healthz/ready")
        })
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok((proxy, ready))
    }

    fn envoy(&self, envoy: &Path) -> anyhow::Result<Process> {
        let bootstrap = self.folder.path().join("envoy.json");
        fs::write(&bootstrap, envoy::bootstrap(NODE).to_string())?;
        let mut command = as_proxy(envoy);
        command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning", "-c"]);
        let log = self.folder.path().join("envoy.log");
        let proxy = Process::start(command.arg(&bootstrap), &log)?;
        let url = format!("http://{VIP}/");
        until("Envoy routing a request", Duration::from_secs(20), || {
            self.get(&url, 1, 1).is_ok_and(|summary| summary["status"]["200"] == 1)
        })
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(proxy)
    }

    fn get(&self, url: &str, count: u64, concurrency: u64) -> anyhow::Result<Value> {
        let mut command = Command::new(self.bin.join("lateen-echo"));
        command.args(["get", url, "-H", "host: server.default.svc.cluster.local"]);
        command.args(["-n", &count.to_string(), "-c", &concurrency.to_string()]);
        Ok(serde_json::from_str(&output(&mut command)?)?)
    }

    /// CPU time of `proxy` a request, in microseconds.
    fn load(&self, proxy: &Process, requests: u64) -> anyhow::Result<f64> {
        let url = format!("http://{VIP}/");
        self.get(&url, requests / 10, 16)?;
        let before = proxy.cpu_us()?;
        let summary = self.get(&url, requests, 16)?;
        let after = proxy.cpu_us()?;
        ensure!(summary["status"]["200"] == requests, "not every request was answered: {summary}");
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let each = (after - before) / requests as f64;
        Ok(each)
    }
}

/// `program` as the user whose traffic the rules leave alone.
fn as_proxy(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "1337", "--regid", "1337", "--clear-groups", "--"]).arg(program);
    command
}

/// A veth pair between this namespace and the server's.
fn wire(server: u32) -> anyhow::Result<()> {
    let pid = server.to_string();
    let peer_address = format!("{SERVER}/24");
    let own_address = format!("{CLIENT}/24");
    let own: [&[&str]; 6] = [
        &["link", "set", "lo", "up"],
        &["link", "add", "bench0", "type", "veth", "peer", "name", "bench1"],
        &["link", "set", "bench1", "netns", &pid],
        &["addr", "add", &own_address, "dev", "bench0"],
        &["link", "set", "bench0", "up"],
        &["route", "add", "default", "via", SERVER],
    ];
    let theirs: [&[&str]; 3] = [
        &["link", "set", "lo", "up"],
        &["addr", "add", &peer_address, "dev", "bench1"],
        &["link", "set", "bench1", "up"],
    ];
    let (first, last) = own.split_at(5);
    for arguments in first {
        output(Command::new("ip").args(*arguments))?;
    }
    for arguments in theirs {
        let enter = ["--net", "--target", &pid, "--", "ip"];
        output(Command::new("nsenter").args(enter).args(arguments))?;
    }
    for arguments in last {
        output(Command::new("ip").args(*arguments))?;
    }
    Ok(())
}

fn write_objects(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let pod = |name: &str, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 8080}]}]},
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}]
            }
        })
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "server", "namespace": "default"},
        "spec": {
            "clusterIP": VIP, "clusterIPs": [VIP], "selector": {"app": "server"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]
        }
    });
    let objects = [("client", pod("client", CLIENT)), ("server", pod("server", SERVER))];
    for (name, object) in objects.into_iter().chain([("service", service)]) {
        fs::write(folder.join(format!("{name}.json")), object.to_string())?;
    }
    Ok(())
}

/// Whether GET `path` is answered with 200.
fn http_ok(address: &str, path: &str) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
