//! A stock Envoy takes everything that the control plane sends, and takes changes.
//!
//! Envoy is the judge of the form of resources; what they mean is tested elsewhere. The path of
//! the program comes from `LATEEN_ENVOY` (`make test` gets one and runs this).
#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test that panics has failed, and its literals are passed as they stand"
)]

mod meshes;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use lateen_control_plane::app::App;
use lateen_control_plane::settings::Settings;
use serde_json::{Value, json};

/// How long Envoy may take to come to a state.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends Envoy with the test.
struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Both variants of discovery.
const DELTA: &str = "DELTA_GRPC";
const WORLD: &str = "GRPC";

fn bootstrap(api_type: &str, node: &str, discovery: SocketAddr, admin: u16) -> Value {
    let socket =
        |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    json!({
        "node": {"id": node, "cluster": "web"},
        "admin": {"address": socket(admin)},
        "dynamic_resources": {
            "cds_config": ads, "lds_config": ads,
            "ads_config": {"api_type": api_type, "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]},
        },
        "static_resources": {"clusters": [{
            "name": "xds-grpc", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": socket(discovery.port())}}]}]},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}}},
        }]},
    })
}

/// A control plane that reads a folder, and an Envoy that follows it.
struct Stage {
    app: App,
    folder: tempfile::TempDir,
    admin: u16,
    _envoy: Envoy,
}

impl Stage {
    async fn start(api_type: &str, node: &str) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the setting of these tests")]
        let binary = std::env::var("LATEEN_ENVOY").expect("LATEEN_ENVOY names a stock Envoy");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("config")).unwrap();
        let app = App::start(&settings(folder.path())).await.unwrap();
        let admin = free_port();
        let discovery = app.addresses().plaintext.unwrap();
        let bootstrap = bootstrap(api_type, node, discovery, admin).to_string();
        let envoy = start_envoy(&binary, folder.path(), &bootstrap);
        let stage = Self { app, folder, admin, _envoy: envoy };
        for kind in ["cluster_manager.cds", "listener_manager.lds"] {
            stage.reach(&format!("{kind}.update_success"), 1).await;
        }
        stage
    }

    /// Puts objects in force.
    fn put(&self, objects: &Value) {
        let unfinished = self.folder.path().join("variant.new");
        std::fs::write(&unfinished, objects.to_string()).unwrap();
        std::fs::rename(unfinished, self.folder.path().join("config/variant.json")).unwrap();
    }

    async fn reach(&self, name: &str, at_least: u64) -> u64 {
        reach(self.admin, self.folder.path(), name, at_least).await
    }

    /// Ends everything; panics when Envoy has refused something.
    async fn end(self) {
        let admin = self.admin;
        let stats = tokio::task::spawn_blocking(move || get(admin, "/stats?filter=rejected")).await;
        let stats = stats.unwrap().unwrap();
        let refused: Vec<&str> = stats
            .lines()
            .filter(|line| line.contains("update_rejected") && !line.ends_with(": 0"))
            .collect();
        let log = std::fs::read_to_string(self.folder.path().join("envoy.log")).unwrap();
        assert!(refused.is_empty(), "{refused:?}\n{log}");
        assert!(stats.contains("cluster_manager.cds.update_rejected: 0"), "{stats}");
        assert!(stats.contains("listener_manager.lds.update_rejected: 0"), "{stats}");
        self.app.shutdown().await;
    }
}

fn settings(folder: &Path) -> Settings {
    let any_port = "0";
    Settings::parse_from([
        "lateend".as_ref(),
        "--config-dir".as_ref(),
        folder.join("config").as_os_str(),
        "--ca-dir".as_ref(),
        folder.join("ca").as_os_str(),
        "--address".as_ref(),
        "127.0.0.1".as_ref(),
        "--grpc-port".as_ref(),
        any_port.as_ref(),
        "--secure-port".as_ref(),
        any_port.as_ref(),
        "--monitoring-port".as_ref(),
        any_port.as_ref(),
        "--webhook-port".as_ref(),
        any_port.as_ref(),
    ])
}

fn start_envoy(binary: &str, folder: &Path, bootstrap: &str) -> Envoy {
    let file = folder.join("envoy.json");
    std::fs::write(&file, bootstrap).unwrap();
    let log = std::fs::File::create(folder.join("envoy.log")).unwrap();
    let child = Command::new(binary)
        .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "-c"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    Envoy(child)
}

fn get(port: u16, path: &str) -> Option<String> {
    get_from("x", port, path)
}

fn get_from(host: &str, port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn stat(port: u16, name: &str) -> Option<u64> {
    let text = get(port, "/stats?usedonly")?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(1)?.trim().parse().ok()
}

/// Waits until a statistic has reached a value; panics with Envoy's log when it does not.
async fn reach(admin: u16, folder: &Path, name: &str, at_least: u64) -> u64 {
    let begun = Instant::now();
    loop {
        let owned = name.to_owned();
        let value = tokio::task::spawn_blocking(move || stat(admin, &owned)).await.unwrap();
        if let Some(value) = value.filter(|value| *value >= at_least) {
            return value;
        }
        let log = std::fs::read_to_string(folder.join("envoy.log")).unwrap_or_default();
        assert!(begun.elapsed() < PATIENCE, "{name} is {value:?}, not {at_least}\n{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a stock Envoy: run make test"]
async fn a_stock_envoy_refuses_nothing() {
    follow(DELTA).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a stock Envoy: run make test"]
async fn a_stock_envoy_may_ask_for_the_state_of_the_world() {
    follow(WORLD).await;
}

/// Takes automatic mutual TLS away: nobody gives this Envoy a certificate, and it would wait for
/// ever, because the state of the world cannot say of a secret that there is none.
fn without_mutual_tls(mut objects: Value) -> Value {
    let items = objects["items"].as_array_mut().unwrap();
    let mesh = items.iter_mut().find(|it| it["metadata"]["name"] == "istio").unwrap();
    let mesh = &mut mesh["data"]["mesh"];
    let mut settings: Value = serde_json::from_str(mesh.as_str().unwrap()).unwrap();
    settings["enableAutoMtls"] = json!(false);
    *mesh = json!(settings.to_string());
    objects
}

async fn follow(api_type: &str) {
    let node = "sidecar~10.0.0.9~web-1.default~default.svc.cluster.local";
    let stage = Stage::start(api_type, node).await;
    for variant in meshes::VARIANTS {
        let before = stage.reach("cluster_manager.cds.update_success", 1).await;
        let objects = meshes::objects(variant);
        stage.put(&if api_type == WORLD { without_mutual_tls(objects) } else { objects });
        stage.reach("cluster_manager.cds.update_success", before + 1).await;
    }
    // In force, not only taken: warm, with their routes. Two for everything; ports 80, 443, 6379,
    // 7070, 9080 and 9090 on every address; three pods of cassandra; any, mongo, dual, and two
    // ports of web.
    let listeners = "listener_manager.total_listeners_active";
    assert_eq!(stage.reach(listeners, 16).await, 16);
    // Thirteen services of one port and one of four, four inbound ports, three for everything, and
    // discovery itself; those of subsets are gone again.
    assert_eq!(stage.reach("cluster_manager.active_clusters", 25).await, 25);
    stage.reach("http.outbound_0.0.0.0_9080;.rds.9080.update_success", 1).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a stock Envoy: run make test"]
async fn a_stock_envoy_carries_gateways() {
    let node = "router~10.0.0.9~edge-1.default~default.svc.cluster.local";
    let stage = Stage::start(DELTA, node).await;
    let (http, tls, tcp) = (free_port(), free_port(), free_port());
    let mut objects = meshes::objects("rules");
    objects["items"].as_array_mut().unwrap().extend(meshes::gateway(http, tls, tcp));
    stage.put(&objects);
    let listeners = "listener_manager.total_listeners_active";
    assert_eq!(stage.reach(listeners, 3).await, 3);
    let table = format!("http.outbound_0.0.0.0_{http};.rds.http.{http}.127.0.0.1.update_success");
    stage.reach(&table, 1).await;
    let answer = |host: &'static str| async move {
        let asked = tokio::task::spawn_blocking(move || get_from(host, http, "/a?b=c")).await;
        asked.unwrap().unwrap()
    };
    let denied = answer("shop.example.com").await;
    assert!(denied.starts_with("HTTP/1.1 403"), "its namespace has policies: {denied}");
    let items = objects["items"].as_array_mut().unwrap();
    items.retain(|it| it["kind"] != "AuthorizationPolicy");
    stage.put(&objects);
    let begun = Instant::now();
    let mut redirected = denied;
    while redirected.starts_with("HTTP/1.1 403") {
        assert!(begun.elapsed() < PATIENCE, "{redirected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        redirected = answer("secure.example.com").await;
    }
    assert!(redirected.starts_with("HTTP/1.1 301"), "{redirected}");
    assert!(redirected.contains("location: https://secure.example.com/a?b=c"), "{redirected}");
    let answered = answer("shop.example.com").await;
    assert!(answered.starts_with("HTTP/1.1 418"), "{answered}");
    let unknown = answer("elsewhere.example.com").await;
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
    stage.end().await;
}
