//! A `lateend` of a test: its directories, its addresses, its log, and its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take that has no promise of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Issuer of good tokens.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The directories of a control plane, which outlive it.
pub(crate) struct Home {
    folder: TempDir,
    key: EncodingKey,
}

/// A running control plane; ended with the test.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    /// Plaintext discovery.
    pub(crate) plaintext: SocketAddr,
    /// Discovery and certificates over TLS.
    pub(crate) secure: SocketAddr,
    /// Pages.
    pub(crate) monitoring: SocketAddr,
    /// The injection webhook.
    pub(crate) webhook: SocketAddr,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("config")).unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        let keys = json!(JwkSet { keys: vec![jwk] }).to_string();
        std::fs::write(folder.path().join("keys.json"), keys).unwrap();
        Self { folder, key }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file into the configuration directory, whole.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let unfinished = self.path("unfinished");
        std::fs::write(&unfinished, text).unwrap();
        std::fs::rename(unfinished, self.path("config").join(name)).unwrap();
    }

    /// A published document.
    pub(crate) fn published(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.path("published").join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn roots(&self) -> String {
        let document = self.published("istio-ca-root-cert.json");
        document["data"]["root-cert.pem"].as_str().unwrap().to_owned()
    }

    /// Claims of a token that is believed.
    pub(crate) fn claims() -> Value {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        json!({"iss": ISSUER, "aud": ["istio-ca"], "exp": now + 600,
            "sub": "system:serviceaccount:shop:cart"})
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        encode(&Header::new(Algorithm::ES256), claims, &self.key).unwrap()
    }

    /// Starts a control plane and waits until it serves.
    pub(crate) async fn start(&self) -> Daemon {
        let log = self.path("log");
        let child = Command::new(env!("CARGO_BIN_EXE_lateend"))
            .arg("--config-dir")
            .arg(self.path("config"))
            .arg("--ca-dir")
            .arg(self.path("ca"))
            .arg("--publish-dir")
            .arg(self.path("published"))
            .arg("--token-jwks")
            .arg(self.path("keys.json"))
            .args(["--address", "127.0.0.1", "--grpc-port", "0", "--secure-port", "0"])
            .args(["--monitoring-port", "0", "--webhook-port", "0"])
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (plaintext, secure, monitoring, webhook) = (nowhere, nowhere, nowhere, nowhere);
        let mut daemon = Daemon { child, log, plaintext, secure, monitoring, webhook };
        let line = daemon.logged("lateend serves").await;
        let of = |name: &str| {
            let rest = line.split(&format!("{name}: Some(")).nth(1).unwrap();
            rest.split(')').next().unwrap().parse().unwrap()
        };
        daemon.plaintext = of("plaintext");
        daemon.secure = of("secure");
        daemon.monitoring = of("monitoring");
        daemon.webhook = of("webhook");
        daemon
    }
}

impl Daemon {
    /// Waits for a line of the log.
    pub(crate) async fn logged(&mut self, wanted: &str) -> String {
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(line) = text.lines().find(|line| line.contains(wanted)) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            let waited = begun.elapsed() < PATIENCE && ended.is_none();
            assert!(waited, "no `{wanted}` in the log (ended: {ended:?}):\n{text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// A page.
    pub(crate) async fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.monitoring).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Waits until a page says something.
    pub(crate) async fn page_with(&self, path: &str, wanted: &str) -> String {
        let begun = Instant::now();
        loop {
            let page = self.page(path).await;
            if page.contains(wanted) {
                return page;
            }
            assert!(begun.elapsed() < PATIENCE, "no `{wanted}` in {path}:\n{page}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Resident memory in MiB.
    pub(crate) fn memory(&self) -> u64 {
        let path = Path::new("/proc").join(self.child.id().to_string()).join("status");
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    pub(crate) fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
    }

    /// Waits for the end: how it ended and how long it took.
    pub(crate) async fn ended(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, begun.elapsed());
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
