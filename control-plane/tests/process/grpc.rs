//! gRPC libraries without a proxy follow what `lateend` says, as callers and as servers.
//!
//! The peer is Google's own library in C, by its wheel for Python: `make test` names where it is and
//! runs these.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Held, certificate, secure};
use crate::daemon::{Daemon, Home, PATIENCE};
use crate::meshes;
use crate::peer::Peer;

const TARGET: &str = "xds:///cart.shop.svc.cluster.local:7070";

/// A port that is free on these addresses.
fn free_port(addresses: &[&str]) -> u16 {
    loop {
        let port = TcpListener::bind((addresses[0], 0)).unwrap().local_addr().unwrap().port();
        if addresses.iter().all(|address| TcpListener::bind((*address, port)).is_ok()) {
            return port;
        }
    }
}

fn object(api_version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

fn networking(kind: &str, spec: &Value) -> Value {
    object("networking.istio.io/v1", kind, "cart", spec)
}

/// A service with a pod of each version, at an address of this machine.
fn cart(port: u16, pods: &[(&str, &str)]) -> Vec<Value> {
    let selector = json!({"app": "cart"});
    let ports = json!([{"name": "grpc", "port": 7070, "targetPort": port}]);
    let spec = json!({"clusterIP": "10.96.0.1", "selector": selector, "ports": ports});
    let addresses: Vec<Value> =
        pods.iter().map(|(_, address)| json!({"addresses": [address]})).collect();
    let mut all = vec![
        object("v1", "Service", "cart", &spec),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "cart", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "cart"}},
            "ports": [{"name": "grpc", "port": port}], "endpoints": addresses}),
    ];
    all.extend(pods.iter().map(|(version, address)| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("cart-{version}"), "namespace": "shop",
                "labels": {"app": "cart", "version": version}},
            "spec": {"serviceAccountName": "cart", "containers": [{"name": "cart"}]},
            "status": {"podIP": address}})
    }));
    all
}

fn put(home: &Home, name: &str, items: &[Value]) {
    home.put(name, &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
}

fn subsets() -> Value {
    let subset = |name: &str| json!({"name": name, "labels": {"version": name}});
    networking("DestinationRule", &json!({"host": "cart", "subsets": [subset("v1"), subset("v2")]}))
}

/// A rule that shares calls between the versions, of which one may have a fault.
fn split(v1: u32, v2: u32, fault: &Value) -> Vec<Value> {
    let to = |subset: &str, weight: u32| json!({"destination": {"host": "cart", "subset": subset}, "weight": weight});
    let route = json!({"route": [to("v1", v1), to("v2", v2)], "fault": fault});
    vec![subsets(), networking("VirtualService", &json!({"hosts": ["cart"], "http": [route]}))]
}

/// What a library is told of itself (`POD.NAMESPACE`) and its control plane; certificates from files
/// where it has them.
fn bootstrap(home: &Home, daemon: &Daemon, pod: &str, held: Option<&Path>) -> PathBuf {
    let providers = held.map(|folder| {
        let file = |name: &str| folder.join(name).display().to_string();
        json!({"default": {"plugin_name": "file_watcher", "config": {
            "certificate_file": file("cert.pem"), "private_key_file": file("key.pem"),
            "ca_certificate_file": file("roots.pem"), "refresh_interval": "600s"}}})
    });
    let text = json!({
        "xds_servers": [{"server_uri": daemon.plaintext.to_string(),
            "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
        "node": {"id": format!("sidecar~127.0.0.9~{pod}~cluster.local"),
            "metadata": {"GENERATOR": "grpc"}},
        "certificate_providers": providers.unwrap_or_else(|| json!({})),
        "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
    });
    let path = home.path(&format!("{pod}.json"));
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs grpcio: run make test"]
async fn grpc_callers_follow_the_rules_without_a_failed_call() {
    let home = Home::new();
    let port = free_port(&["127.0.0.2", "127.0.0.3"]);
    let pods = [("v1", "127.0.0.2"), ("v2", "127.0.0.3")];
    put(&home, "cart.json", &cart(port, &pods));
    let daemon = home.start().await;
    let bootstrap = bootstrap(&home, &daemon, "web-1.shop", None);
    let serve =
        |(name, ip): (&str, &str)| Peer::serve("serve", name, &format!("{ip}:{port}"), &bootstrap);
    let _servers = pods.map(serve);

    let mut caller = Peer::call("call", TARGET, &bootstrap);
    caller.until_served_by(&["v1", "v2"]).await;
    for (v1, v2, servers) in [(0, 100, ["v2"]), (100, 0, ["v1"]), (0, 100, ["v2"])] {
        put(&home, "rules.json", &split(v1, v2, &Value::Null));
        caller.until_served_by(&servers).await;
    }
    put(&home, "rules.json", &split(20, 80, &Value::Null));
    caller.until_served_by(&["v1", "v2"]).await;
    let calls = caller.calls(1000).await;
    assert_eq!(calls.len(), 2, "{calls:?}");
    let share = f64::from(calls["v1"]) / f64::from(calls.values().sum::<u32>());
    assert!(
        (0.14..=0.26).contains(&share),
        "four standard deviations and more from a fifth: {calls:?}"
    );

    put(&home, "rules.json", &[]);
    put(&home, "cart.json", &cart(port, &pods[..1]));
    caller.until_served_by(&["v1"]).await;
    put(&home, "cart.json", &cart(port, &pods));
    caller.until_served_by(&["v1", "v2"]).await;

    let mut short = Peer::call("call", "xds:///cart:7070", &bootstrap);
    short.until_served_by(&["v1", "v2"]).await;
    let fault = json!({"abort": {"grpcStatus": "DATA_LOSS", "percentage": {"value": 100}}});
    put(&home, "rules.json", &split(50, 50, &fault));
    caller.until_all("DATA_LOSS").await;
    let page = daemon.page("/metrics").await;
    assert!(!page.contains("pilot_total_xds_rejects{"), "something was refused:\n{page}");
}

/// A certificate of the account `shop/cart`, in files as a library reads them.
async fn certificate_files(home: &Home, daemon: &Daemon) -> PathBuf {
    let channel = secure(daemon.secure, &home.roots(), None).await;
    let token = home.token(&Home::claims());
    let Held { chain, key } = certificate(channel, Some(&token), None).await.unwrap();
    let folder = home.path("held");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("cert.pem"), chain.concat()).unwrap();
    std::fs::write(folder.join("key.pem"), key.to_pem()).unwrap();
    std::fs::write(folder.join("roots.pem"), home.roots()).unwrap();
    folder
}

fn security(kind: &str, spec: &Value) -> Value {
    object("security.istio.io/v1", kind, "cart", spec)
}

fn allowed(principal: &str) -> Value {
    let from = json!([{"source": {"principals": [principal]}}]);
    let to = json!([{"operation": {"paths": ["/shop.Cart/*"]}}]);
    security("AuthorizationPolicy", &json!({"rules": [{"from": from, "to": to}]}))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs grpcio: run make test"]
async fn grpc_servers_demand_who_may_call_them() {
    let home = Home::new();
    let address = "127.0.0.1";
    let port = free_port(&[address]);
    let strict = security("PeerAuthentication", &json!({"mtls": {"mode": "STRICT"}}));
    let tls = json!({"host": "cart", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}});
    let mutual = networking("DestinationRule", &tls);
    put(&home, "cart.json", &cart(port, &[("v1", address)]));
    put(&home, "rules.json", &[strict.clone(), mutual.clone()]);
    let daemon = home.start().await;
    let held = certificate_files(&home, &daemon).await;
    let own = bootstrap(&home, &daemon, "cart-v1.shop", Some(&held));
    let _server = Peer::serve("serve-xds", "v1", &format!("{address}:{port}"), &own);

    let web = bootstrap(&home, &daemon, "web-1.shop", Some(&held));
    let mut caller = Peer::call("call-xds", TARGET, &web);
    caller.until_served_by(&["v1"]).await;
    let mut stranger = Peer::call("call", &format!("{address}:{port}"), &web);
    stranger.until_all("UNAVAILABLE").await;

    let rules = |policy: Value| [strict.clone(), mutual.clone(), policy];
    put(&home, "rules.json", &rules(allowed("cluster.local/ns/shop/sa/other")));
    caller.until_all("PERMISSION_DENIED").await;
    put(&home, "rules.json", &rules(allowed("cluster.local/ns/shop/sa/cart")));
    caller.until_all("v1").await;
    put(&home, "rules.json", &rules(security("AuthorizationPolicy", &json!({}))));
    caller.until_all("PERMISSION_DENIED").await;
    let wrong = json!({"host": "cart", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL",
        "subjectAltNames": ["spiffe://cluster.local/ns/shop/sa/other"]}}});
    put(&home, "rules.json", &[strict.clone(), networking("DestinationRule", &wrong)]);
    caller.until_all("UNAVAILABLE").await;
    put(&home, "rules.json", &[strict, mutual]);
    caller.until_all("v1").await;
    let page = daemon.page("/metrics").await;
    assert!(!page.contains("pilot_total_xds_rejects{"), "something was refused:\n{page}");
}

/// A variant of the bookshop with its pods at addresses of this machine, and a port of its own for
/// the workload that is served.
fn bookshop(variant: &str, port: u16) -> String {
    let mut objects = meshes::objects(variant);
    let ports = json!([{"name": "grpc", "port": 7071, "targetPort": port}]);
    let spec = json!({"clusterIP": "10.96.0.99", "selector": {"app": "web"}, "ports": ports});
    let mut own = object("v1", "Service", "own", &spec);
    own["metadata"]["namespace"] = json!("default");
    objects["items"].as_array_mut().unwrap().push(own);
    // Where a rule asks for TLS that libraries cannot make there is no cluster to be followed.
    objects.to_string().replace("10.0.", "127.0.").replace("\"SIMPLE\"", "\"DISABLE\"")
}

/// Waits until a library has everything of a snapshot after `before`, on a stream for each of so many
/// targets: the number of that snapshot.
async fn followed(daemon: &Daemon, library: &str, targets: usize, before: u64) -> u64 {
    let begun = Instant::now();
    loop {
        let page: Value = serde_json::from_str(&daemon.page("/debug/syncz").await).unwrap();
        let streams = page.as_array().unwrap().iter().filter(|it| it["proxy"] == library);
        let streams: Vec<&Value> = streams.collect();
        let snapshot = streams.iter().filter_map(|it| it["snapshot"].as_u64()).min();
        let snapshot = snapshot.unwrap_or_default();
        let whole = streams.len() == targets && streams.iter().all(|it| is_settled(it));
        if whole && snapshot > before {
            return snapshot;
        }
        assert!(begun.elapsed() < PATIENCE, "{page:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether a stream has brought a listener, its table, and clusters with their endpoints.
fn is_settled(stream: &Value) -> bool {
    let types = &stream["types"];
    let held = |kind: &str| types[kind]["resources"].as_u64().unwrap_or_default();
    let answered = |kind: &str| types[kind]["unanswered"] == 0;
    let one = held("lds") == 1 && held("rds") == 1;
    one && held("cds") > 0
        && held("cds") == held("eds")
        && ["cds", "eds", "lds", "rds"].into_iter().all(answered)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs grpcio: run make test"]
async fn grpc_libraries_refuse_nothing() {
    let home = Home::new();
    let port = free_port(&["127.0.0.1"]);
    home.put("shop.json", &bookshop(meshes::VARIANTS[0], port));
    let daemon = home.start().await;
    let held = certificate_files(&home, &daemon).await;
    let own = bootstrap(&home, &daemon, "web-1.default", Some(&held));
    let _server = Peer::serve("serve-xds", "web", &format!("127.0.0.1:{port}"), &own);
    let services = [
        ("productpage", 9080),
        ("reviews", 9080),
        ("ratings", 9080),
        ("grpc", 7070),
        ("any", 8000),
        ("mongo", 27017),
        ("cassandra", 9042),
        ("dual", 5432),
    ];
    let target =
        |(name, port): &(&str, u16)| format!("xds:///{name}.default.svc.cluster.local:{port}");
    let targets: Vec<String> = services.iter().map(target).collect();
    let caller = bootstrap(&home, &daemon, "caller-1.default", Some(&held));
    let _caller = Peer::watch(&targets, &caller);
    let mut snapshot = followed(&daemon, "caller-1.default", targets.len(), 0).await;
    for variant in &meshes::VARIANTS[1..] {
        home.put("shop.json", &bookshop(variant, port));
        snapshot = followed(&daemon, "caller-1.default", targets.len(), snapshot).await;
    }
    let log = daemon.log();
    assert!(!log.contains("configuration refused"), "{log}");
    let page: Value = serde_json::from_str(&daemon.page("/debug/syncz").await).unwrap();
    let server = page.as_array().unwrap().iter().find(|it| it["proxy"] == "web-1.default").unwrap();
    assert_eq!(server["types"]["lds"]["resources"], 1, "{server:#}");
    assert_eq!(
        (&server["types"]["lds"]["unanswered"], &server["snapshot"]),
        (&json!(0), &json!(snapshot))
    );
}
