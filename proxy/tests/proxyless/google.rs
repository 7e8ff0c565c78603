//! Google's gRPC library as the application, `lateend` as the control plane, the agent between them.
//!
//! The library is `peer.py` of the control plane's tests; `make test` names where grpcio is. `lateend` is
//! the program beside this one's: a test of the whole workspace builds it.

use crate::running::{ask, free, loopback, until_ready};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lateen_proxy::settings::{Environment, ProxyArgs, Settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tempfile::TempDir;

const TARGET: &str = "xds:///cart.shop.svc.cluster.local:7070";
/// Longest wait for what has no promise of its own.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds that a certificate is good for.
const LIFETIME: u64 = 8;
/// Fewest calls on which something is judged.
const ENOUGH: u32 = 20;

/// Ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The folder of everything: configuration, authority, what the pod has.
struct Home(TempDir);

impl Home {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, items: &[Value]) {
        let text = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        std::fs::write(self.path("unfinished"), text).unwrap();
        std::fs::rename(self.path("unfinished"), self.path("config/shop.json")).unwrap();
    }

    /// Writes a token of `shop/cart`, and the keys by which it is believed.
    fn put_token(&self) {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = pair.public_key().as_ref();
        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256",
            "x": encode(&point[1..33]), "y": encode(&point[33..])});
        std::fs::write(self.path("keys.json"), json!({"keys": [key]}).to_string()).unwrap();
        let claims = json!({"iss": "https://kubernetes.default.svc.cluster.local",
            "aud": ["istio-ca"], "exp": UNIX_EPOCH.elapsed().unwrap().as_secs() + 600,
            "sub": "system:serviceaccount:shop:cart"});
        let part = |value: Value| encode(value.to_string().as_bytes());
        let text = format!("{}.{}", part(json!({"alg": "ES256"})), part(claims));
        let signed = pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        let token = format!("{text}.{}", encode(signed.as_ref()));
        std::fs::write(self.path("token"), token).unwrap();
    }

    /// A control plane at this port of TLS.
    async fn control_plane(&self, secure: u16) -> Program {
        let program = Path::new(env!("CARGO_BIN_EXE_lateen-proxy")).with_file_name("lateend");
        assert!(program.exists(), "{} is missing: cargo build --bin lateend", program.display());
        let child = Command::new(program)
            .args(["--config-dir".into(), self.path("config")])
            .args(["--ca-dir".into(), self.path("ca")])
            .args(["--publish-dir".into(), self.path("published")])
            .args(["--token-jwks".into(), self.path("keys.json")])
            .args(["--address", "127.0.0.1", "--grpc-port", "0", "--monitoring-port", "0"])
            .args(["--webhook-port", "0", "--secure-port", &secure.to_string()])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.path("lateend.log")).unwrap())
            .spawn()
            .unwrap();
        let (child, begun) = (Program(child), Instant::now());
        loop {
            let log = std::fs::read_to_string(self.path("lateend.log")).unwrap();
            if log.contains("lateend serves") {
                return child;
            }
            assert!(begun.elapsed() < PATIENCE, "lateend does not serve:\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Settings of an agent whose volumes are here.
    fn agent(&self, secure: u16, status: u16) -> Settings {
        let document = std::fs::read_to_string(self.path("published/istio-ca-root-cert.json"));
        let document: Value = serde_json::from_str(&document.unwrap()).unwrap();
        let roots = document["data"]["root-cert.pem"].as_str().unwrap();
        std::fs::write(self.path("roots.pem"), roots).unwrap();
        std::fs::create_dir(self.path("data")).unwrap();
        let config = json!({
            "discoveryAddress": format!("127.0.0.1:{secure}"), "statusPort": status,
            "proxyAdminPort": free().port(),
        });
        let env = Environment::from([
            ("DISABLE_ENVOY", "true"),
            ("OUTPUT_CERTS", self.path("data").to_str().unwrap()),
            ("GRPC_XDS_BOOTSTRAP", self.path("proxy/bootstrap.json").to_str().unwrap()),
            ("SECRET_TTL", &format!("{LIFETIME}s")),
            ("ISTIOD_SAN", "istiod.istio-system.svc"),
            ("POD_NAME", "cart-1"),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "cart"),
            ("INSTANCE_IP", "127.0.0.1"),
            ("PROXY_CONFIG", &config.to_string()),
            ("ENVOY_STATUS_PORT", &free().port().to_string()),
            ("ENVOY_PROMETHEUS_PORT", &free().port().to_string()),
        ]);
        let mut settings = Settings::new(&ProxyArgs::default(), &env, 1).unwrap();
        settings.control_plane.roots = self.path("roots.pem");
        settings.control_plane.token = self.path("token");
        settings
    }

    /// The library, which has of us what the bootstrap file says.
    fn library(&self, arguments: &[&str]) -> Library {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../control-plane/tests/process/peer.py");
        let log = self.path(&format!("{}.log", arguments[0]));
        let mut child = Command::new("python3")
            .arg(script)
            .args(arguments)
            .env("GRPC_XDS_BOOTSTRAP", self.path("proxy/bootstrap.json"))
            .env("GRPC_VERBOSITY", "ERROR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("python3 runs: apt-get install python3");
        let output = BufReader::new(child.stdout.take().unwrap());
        Library { child: Program(child), output, log }
    }
}

/// A running `peer.py`.
struct Library {
    child: Program,
    output: BufReader<std::process::ChildStdout>,
    log: PathBuf,
}

impl Library {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(&self.log).unwrap();
        let hint = "PYTHONPATH=\"$(tests/python.sh)\" names where grpcio is";
        assert!(!line.is_empty(), "the library ended; {hint}\n{}", log());
        line
    }

    /// How enough calls ended, from now on.
    async fn calls(&mut self) -> BTreeMap<String, u32> {
        let mut all = BTreeMap::new();
        let begun = Instant::now();
        while all.values().sum::<u32>() < ENOUGH {
            tokio::time::sleep(Duration::from_millis(50)).await;
            writeln!(self.child.0.stdin.as_mut().unwrap(), "tally").unwrap();
            let counts: BTreeMap<String, u32> = serde_json::from_str(&self.line()).unwrap();
            for (outcome, count) in counts {
                *all.entry(outcome).or_default() += count;
            }
            assert!(begun.elapsed() < PATIENCE, "only {all:?}");
        }
        all
    }

    /// Calls until all of them end so.
    async fn until_all(&mut self, outcome: &str) {
        let begun = Instant::now();
        loop {
            let calls = self.calls().await;
            if calls.keys().all(|it| it.starts_with(outcome)) {
                return;
            }
            let log = std::fs::read_to_string(&self.log).unwrap();
            assert!(begun.elapsed() < PATIENCE, "{calls:?}, not `{outcome}`\n{log}");
        }
    }
}

/// A service of one pod, here, that demands mutual TLS.
fn shop(port: u16) -> Vec<Value> {
    let object = |version: &str, kind: &str, spec: Value| {
        json!({"apiVersion": version, "kind": kind,
            "metadata": {"name": "cart", "namespace": "shop"}, "spec": spec})
    };
    let ports = json!([{"name": "grpc", "port": 7070, "targetPort": port}]);
    let service = json!({"clusterIP": "10.96.0.1", "selector": {"app": "cart"}, "ports": ports});
    let strict = json!({"mtls": {"mode": "STRICT"}});
    let mutual = json!({"host": "cart", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}});
    vec![
        object("v1", "Service", service),
        object("security.istio.io/v1", "PeerAuthentication", strict),
        object("networking.istio.io/v1", "DestinationRule", mutual),
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "cart-1", "namespace": "shop", "labels": {"app": "cart"}},
            "spec": {"serviceAccountName": "cart", "containers": [{"name": "cart"}]},
            "status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True"}]}}),
    ]
}

/// Who may call: `shop/NAME`.
fn allowed(name: &str) -> Value {
    let principal = format!("cluster.local/ns/shop/sa/{name}");
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"rules": [{"from": [{"source": {"principals": [principal]}}]}]}})
}

#[tokio::test(flavor = "current_thread")]
#[ignore = "needs grpcio and lateend: run make test"]
async fn grpc_has_certificates_and_rules_by_the_agent() {
    let home = Home(tempfile::tempdir().unwrap());
    std::fs::create_dir(home.path("config")).unwrap();
    home.put_token();
    let (port, secure, status) = (free().port(), free().port(), free().port());
    home.put(&shop(port));
    let control_plane = home.control_plane(secure).await;
    let settings = home.agent(secure, status);
    let agent = std::thread::spawn(move || lateen_proxy::app::run(settings));
    until_ready(status).await;
    let first_ends = Instant::now() + Duration::from_secs(LIFETIME);

    let at = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let mut server = home.library(&["serve-xds", "v1", &at]);
    assert_eq!(server.line(), "serving\n");
    let mut caller = home.library(&["call-xds", TARGET]);
    caller.until_all("v1").await;
    let mut stranger = home.library(&["call", &at]);
    stranger.until_all("UNAVAILABLE").await;

    let with = |policy: Value| [shop(port), vec![policy]].concat();
    home.put(&with(allowed("other")));
    caller.until_all("PERMISSION_DENIED").await;
    home.put(&with(allowed("cart")));
    caller.until_all("v1").await;

    // The library goes on while the control plane is away, and finds the new one by itself.
    drop(control_plane);
    let calls = caller.calls().await;
    assert!(calls.keys().eq(["v1"]), "{calls:?}");
    home.put(&with(allowed("other")));
    let _control_plane = home.control_plane(secure).await;
    caller.until_all("PERMISSION_DENIED").await;

    // Who shakes hands now does it with certificates that were renewed under the library.
    home.put(&shop(port));
    caller.until_all("v1").await;
    tokio::time::sleep(first_ends.saturating_duration_since(Instant::now())).await;
    home.library(&["call-xds", TARGET]).until_all("v1").await;

    let quit = ask(loopback(status), "POST", "/quitquitquit").await.unwrap();
    assert!(quit.starts_with("HTTP/1.1 200"), "{quit}");
    agent.join().unwrap().unwrap();
}
