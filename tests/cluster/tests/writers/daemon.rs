//! The API server of a test, replicas of `lateend` beside it, and what is asked of both.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_cluster::api_server::ApiServer;
use lateen_cluster::binaries::{self, Version};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take that has no promise of its own, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Namespace of the control plane.
pub(crate) const SYSTEM: &str = "istio-system";

/// An API server and a folder for logs.
pub(crate) struct Bench {
    pub(crate) server: ApiServer,
    folder: TempDir,
}

/// A replica; ended with the test.
pub(crate) struct Lateend {
    child: Child,
    log: PathBuf,
    pub(crate) monitoring: SocketAddr,
    pub(crate) webhook: SocketAddr,
}

impl Drop for Lateend {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Bench {
    /// An API server with the namespace of the control plane and nothing else.
    pub(crate) async fn start() -> Self {
        let server = ApiServer::start(Version::V1_36).await.unwrap();
        let bench = Self { server, folder: tempfile::tempdir().unwrap() };
        bench.kubectl("create namespace istio-system").await;
        bench
    }

    /// Runs kubectl with words; what it prints.
    pub(crate) async fn kubectl(&self, words: &str) -> String {
        self.server.kubectl().run(words.split_whitespace()).await.unwrap()
    }

    /// An object.
    pub(crate) async fn object(&self, words: &str) -> Option<Value> {
        let mut all = vec!["get", "--ignore-not-found"];
        all.extend(words.split_whitespace());
        all.extend(["-o", "json"]);
        let text = self.server.kubectl().run(all).await.unwrap();
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).unwrap())
    }

    pub(crate) async fn apply(&self, manifests: &str) {
        self.server.kubectl().apply(manifests).await.unwrap();
    }

    /// Waits until an object is as wanted; how long that took.
    pub(crate) async fn until(&self, words: &str, wanted: impl Fn(&Value) -> bool) -> Duration {
        let begun = Instant::now();
        loop {
            let object = self.object(words).await;
            if object.as_ref().is_some_and(&wanted) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "{words}: {object:#?}");
        }
    }

    /// Starts a replica with all rights.
    pub(crate) fn lateend(&self, name: &str, more: &[&str]) -> Lateend {
        self.lateend_as(name, self.server.kubeconfig(), more)
    }

    /// Starts a replica that reaches the API server as `kubeconfig` says.
    pub(crate) fn lateend_as(&self, name: &str, kubeconfig: &Path, more: &[&str]) -> Lateend {
        let program = binaries::lateen("lateend").unwrap();
        let log = self.folder.path().join(name);
        let [grpc, secure, monitoring, webhook] = free_ports();
        let child = Command::new(program)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--address", "127.0.0.1", "--namespace", SYSTEM, "--pod-name", name])
            .args(["--grpc-port", &grpc.port().to_string()])
            .args(["--secure-port", &secure.port().to_string()])
            .args(["--monitoring-port", &monitoring.port().to_string()])
            .args(["--webhook-port", &webhook.port().to_string()])
            .args(more)
            .stdout(Stdio::null())
            .stderr(std::fs::File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        Lateend { child, log, monitoring, webhook }
    }

    /// A kubeconfig of a service account of the control plane's namespace.
    pub(crate) async fn account(&self, name: &str) -> PathBuf {
        self.kubectl(&format!("create serviceaccount {name} -n {SYSTEM}")).await;
        let token = self.kubectl(&format!("create token {name} -n {SYSTEM}")).await;
        let text = self.kubectl("config view --raw --flatten -o json").await;
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

impl Lateend {
    /// Status and text of its readiness; nothing while it does not answer.
    pub(crate) async fn ready(&self) -> (u16, String) {
        let text = get(self.monitoring, "/ready").await.unwrap_or_default();
        let status = text.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status, body.unwrap_or_default())
    }

    /// Waits until its readiness is as wanted; the text.
    pub(crate) async fn until(&self, wanted: impl Fn(u16, &str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let (status, text) = self.ready().await;
            if wanted(status, &text) {
                return text;
            }
            assert!(begun.elapsed() < PATIENCE, "{status} {text}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_ready(&self) {
        self.until(|status, _| status == 200).await;
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until its log holds a text.
    pub(crate) async fn logged(&self, text: &str) {
        let begun = Instant::now();
        while !self.log().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "`{text}` is not in:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tells it to end and waits until it has.
    pub(crate) async fn end(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "it does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it as a machine that is switched off does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// Addresses that nobody has at this moment.
fn free_ports() -> [SocketAddr; 4] {
    let bind = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // Held together, so that they differ.
    let held = [bind(), bind(), bind(), bind()];
    held.each_ref().map(|listener| listener.local_addr().unwrap())
}

/// The value of a key of a Secret.
pub(crate) fn decoded(secret: &Value, key: &str) -> String {
    let text = secret["data"][key].as_str().unwrap_or_default();
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

/// The bundles of all hooks of a webhook configuration.
pub(crate) fn bundles(configuration: &Value) -> Vec<String> {
    let hooks = configuration["webhooks"].as_array().unwrap().iter();
    let text = |hook: &Value| {
        let text = hook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
        String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
    };
    hooks.map(text).collect()
}
