//! A bookshop in four variants, as objects that a user would write: every kind that is translated,
//! every protocol, and hosts outside the mesh.
//!
//! A variant is a Kubernetes list; writing it into the configuration directory puts it in force.

use serde_json::{Value, json};

/// The variants, in the order in which a test goes through them.
pub(crate) const VARIANTS: [&str; 4] = ["rules", "strict", "registry-only", "plain"];

/// The objects of a variant.
pub(crate) fn objects(variant: &str) -> Value {
    let rules = variant == "rules" || variant == "registry-only";
    let mut items = vec![mesh(variant), web_pod(), web_service(), mutual_tls(variant)];
    items.extend(services(variant));
    items.extend(outside());
    if rules {
        items.extend(virtual_services());
        items.extend(destination_rules());
        items.extend(policies());
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn networking(kind: &str, name: &str, spec: Value) -> Value {
    object("networking.istio.io/v1", kind, name, spec)
}

/// Mesh configuration, where Istio's chart puts it.
fn mesh(variant: &str) -> Value {
    let mode = if variant == "registry-only" { "REGISTRY_ONLY" } else { "ALLOW_ANY" };
    let encoding = if variant == "strict" { "JSON" } else { "TEXT" };
    let mesh = json!({"outboundTrafficPolicy": {"mode": mode}, "accessLogFile": "/dev/null",
        "accessLogEncoding": encoding});
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": mesh.to_string()}})
}

/// The workload whose proxy is configured.
fn web_pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web",
            "ports": [{"name": "bytes", "containerPort": 5000}]}]}})
}

fn web_service() -> Value {
    let port = |name: &str, port: u16, target: Value| json!({"name": name, "port": port, "targetPort": target});
    object(
        "v1",
        "Service",
        "web",
        json!({"clusterIP": "10.96.0.100", "selector": {"app": "web"},
        "ports": [port("http", 9080, json!(9080)), port("grpc", 9090, json!(9090)),
            port("tcp", 5001, json!("bytes")), port("any", 6000, json!(6000))]}),
    )
}

fn mutual_tls(variant: &str) -> Value {
    let mode = if variant == "strict" { "STRICT" } else { "PERMISSIVE" };
    object(
        "security.istio.io/v1",
        "PeerAuthentication",
        "web",
        json!({
        "selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": mode},
        "portLevelMtls": {"7000": {"mode": "DISABLE"}, "9080": {"mode": mode}}}),
    )
}

/// A service with three versions behind it, of which the third has no sidecar.
fn service(name: &str, index: u8, port: &Value, addresses: &[&str]) -> Vec<Value> {
    let endpoints = ["1", "2", "3"].map(|it| json!({"addresses": [format!("10.0.{index}.{it}")]}));
    let mut made = vec![
        object(
            "v1",
            "Service",
            name,
            json!({"clusterIP": addresses[0], "clusterIPs": addresses,
            "selector": {"app": name}, "ports": [port]}),
        ),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "default",
                "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": port["name"], "port": 9080}],
            "endpoints": endpoints}),
    ];
    made.extend(["1", "2", "3"].map(|version| {
        let mode = if version == "3" { "disabled" } else { "istio" };
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{name}-{version}"), "namespace": "default",
                "labels": {"app": name, "version": format!("v{version}"),
                    "security.istio.io/tlsMode": mode}},
            "spec": {"serviceAccountName": name, "containers": [{"name": name}]},
            "status": {"podIP": format!("10.0.{index}.{version}")}})
    }));
    made
}

fn services(variant: &str) -> Vec<Value> {
    let mut ports = vec![
        ("productpage", 1, "http", 9080),
        ("reviews", 2, "http", 9080),
        ("ratings", 3, "http2", 9080),
        ("grpc", 5, "grpc", 7070),
        ("any", 6, "p", 8000),
        ("mongo", 7, "mongo", 27017),
    ];
    if variant != "strict" {
        ports.push(("details", 4, "http", 9080));
    }
    let mut all: Vec<Value> = ports
        .into_iter()
        .flat_map(|(name, index, prefix, number)| {
            let port = json!({"name": prefix, "port": number});
            service(name, index, &port, &[&format!("10.96.0.{index}")])
        })
        .collect();
    all.extend(service(
        "cassandra",
        9,
        &json!({"name": "tcp", "port": 9042, "targetPort": 9042}),
        &["None"],
    ));
    let dual = ["10.96.0.10", "fd00::10"];
    all.extend(service("dual", 10, &json!({"name": "tcp", "port": 5432}), &dual));
    all
}

fn outside() -> Vec<Value> {
    let entry = |name: &str, host: &str, port: Value, resolution: &str| {
        networking(
            "ServiceEntry",
            name,
            json!({"hosts": [host], "ports": [port],
            "location": "MESH_EXTERNAL", "resolution": resolution}),
        )
    };
    let port =
        |number: u16, protocol: &str| json!({"number": number, "name": "p", "protocol": protocol});
    let mut range = entry("range", "range.example.com", port(6379, "TCP"), "NONE");
    range["spec"]["addresses"] = json!(["192.0.2.0/24"]);
    vec![
        range,
        entry("api", "api.example.com", port(443, "HTTPS"), "DNS"),
        entry("www", "www.example.com", port(80, "HTTP"), "DNS_ROUND_ROBIN"),
        entry("wild", "*.wild.example.com", port(443, "TLS"), "NONE"),
    ]
}

fn virtual_services() -> Vec<Value> {
    vec![
        networking(
            "VirtualService",
            "reviews",
            json!({"hosts": ["reviews"], "http": [
                {"name": "jason", "match": [
                    {"headers": {"end-user": {"exact": "jason"}}, "uri": {"regex": "/a.*"}},
                    {"withoutHeaders": {"x": {"exact": "1"}}, "queryParams": {"q": {"exact": "1"}},
                     "method": {"exact": "GET"}, "ignoreUriCase": true}],
                 "fault": {"delay": {"fixedDelay": "7s", "percentage": {"value": 50}},
                           "abort": {"httpStatus": 500, "percentage": {"value": 0.1}}},
                 "corsPolicy": {"allowOrigins": [{"exact": "https://a"}, {"regex": "https://.*"}],
                                "allowMethods": ["GET"], "maxAge": "24h"},
                 "route": [{"destination": {"host": "reviews", "subset": "v2"}}]},
                {"match": [{"uri": {"prefix": "/old"}}], "redirect": {"uri": "/new", "authority": "b"}},
                {"match": [{"uri": {"exact": "/teapot"}}],
                 "directResponse": {"status": 418, "body": {"string": "short and stout"}}},
                {"match": [{"uri": {"prefix": "/v1"}}], "rewrite": {"uri": "/", "authority": "other"},
                 "mirror": {"host": "ratings"}, "mirrorPercentage": {"value": 10},
                 "headers": {"request": {"set": {"x-a": "1"}, "remove": ["x-b"]}},
                 "timeout": "2s", "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx,429"},
                 "route": [{"destination": {"host": "reviews", "subset": "v1"}}]},
                {"route": [
                    {"destination": {"host": "reviews", "subset": "v1"}, "weight": 80,
                     "headers": {"response": {"add": {"x-to": "v1"}}}},
                    {"destination": {"host": "reviews", "subset": "v3"}, "weight": 20}]},
            ]}),
        ),
        networking(
            "VirtualService",
            "mongo",
            json!({"hosts": ["mongo"], "tcp": [{"route": [
            {"destination": {"host": "mongo", "subset": "v1"}, "weight": 1},
            {"destination": {"host": "mongo", "subset": "v2"}, "weight": 3}]}]}),
        ),
        networking(
            "VirtualService",
            "api",
            json!({"hosts": ["api.example.com"], "tls": [
            {"match": [{"sniHosts": ["api.example.com"], "port": 443}],
             "route": [{"destination": {"host": "api.example.com"}}]}]}),
        ),
        networking(
            "VirtualService",
            "nowhere",
            json!({"hosts": ["nowhere.example.com"], "http": [
            {"route": [{"destination": {"host": "missing"}}]}]}),
        ),
    ]
}

fn destination_rules() -> Vec<Value> {
    let subsets = json!([
        {"name": "v1", "labels": {"version": "v1"}},
        {"name": "v2", "labels": {"version": "v2"},
         "trafficPolicy": {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}}},
        {"name": "v3", "labels": {"version": "v3"}, "trafficPolicy": {"tls": {"mode": "DISABLE"}}},
    ]);
    let reviews = json!({
        "loadBalancer": {"consistentHash": {"httpCookie": {"name": "c", "ttl": "0s"}}},
        "connectionPool": {
            "tcp": {"maxConnections": 10, "connectTimeout": "1s",
                "tcpKeepalive": {"time": "60s", "interval": "5s", "probes": 3}},
            "http": {"http1MaxPendingRequests": 5, "maxRequestsPerConnection": 10,
                "idleTimeout": "30s"}},
        "outlierDetection": {"consecutive5xxErrors": 5, "interval": "10s",
            "baseEjectionTime": "30s", "maxEjectionPercent": 50}});
    let maglev = json!({
        "loadBalancer": {
            "consistentHash": {"maglev": {"tableSize": 65537}, "useSourceIp": true}},
        "tls": {"mode": "SIMPLE"}});
    let upgrade = json!({"loadBalancer": {"simple": "ROUND_ROBIN"},
        "connectionPool": {"http": {"h2UpgradePolicy": "UPGRADE"}}});
    let mutual = json!({"tls": {"mode": "ISTIO_MUTUAL"}});
    let passthrough = json!({"loadBalancer": {"simple": "PASSTHROUGH"}});
    let rules = [
        ("reviews", reviews, Some(&subsets)),
        ("mongo", mutual, Some(&subsets)),
        ("ratings", maglev, None),
        ("grpc", passthrough, None),
        ("productpage", upgrade, None),
    ];
    let rules = rules.into_iter().map(|(name, policy, subsets)| {
        let subsets = subsets.cloned().unwrap_or_else(|| json!([]));
        let spec = json!({"host": name, "subsets": subsets, "trafficPolicy": policy});
        networking("DestinationRule", name, spec)
    });
    rules.collect()
}

fn policies() -> Vec<Value> {
    vec![
        object(
            "security.istio.io/v1",
            "AuthorizationPolicy",
            "allow",
            json!({"rules": [
            {"from": [{"source": {"principals": ["cluster.local/ns/default/sa/*", "*/sa/x"],
                "namespaces": ["a*"], "ipBlocks": ["10.0.0.0/8"], "notIpBlocks": ["fd00::/8"]}}],
             "to": [{"operation": {"methods": ["GET"], "paths": ["/a*", "/t/{*}/x", "*/z"],
                "hosts": ["*.example.com"], "ports": ["9080"], "notPaths": ["/b"]}}],
             "when": [{"key": "request.headers[x-a]", "values": ["1"]},
                {"key": "destination.port", "values": ["9080"]},
                {"key": "connection.sni", "values": ["a"]},
                {"key": "source.namespace", "notValues": ["b"]}]}]}),
        ),
        object("security.istio.io/v1", "AuthorizationPolicy", "nothing", json!({})),
        object(
            "security.istio.io/v1",
            "AuthorizationPolicy",
            "deny",
            json!({"action": "DENY", "rules": [
            {"from": [{"source": {"requestPrincipals": ["*"]}}],
             "to": [{"operation": {"paths": ["/admin"]}}]}]}),
        ),
    ]
}

/// A gateway on loopback with its rules: HTTP, TLS that is handed on and TLS that is ended, and TCP.
pub(crate) fn gateway(http: u16, tls: u16, tcp: u16) -> Vec<Value> {
    let server = |number: u16, protocol: &str, name: &str, host: &str, tls: Value| {
        json!({"port": {"number": number, "protocol": protocol, "name": name},
            "bind": "127.0.0.1", "hosts": [host], "tls": tls})
    };
    let servers = [
        server(http, "HTTP", "http", "shop.example.com", Value::Null),
        server(http, "HTTP", "away", "secure.example.com", json!({"httpsRedirect": true})),
        server(tls, "TLS", "through", "through.example.com", json!({"mode": "PASSTHROUGH"})),
        server(tls, "HTTPS", "mesh", "mesh.example.com", json!({"mode": "ISTIO_MUTUAL"})),
        server(tcp, "TCP", "tcp", "*", Value::Null),
    ];
    let rule = |name: &str, host: &str, routes: Value| {
        let mut spec = json!({"hosts": [host], "gateways": ["edge"]});
        spec.as_object_mut().unwrap().extend(routes.as_object().unwrap().clone());
        networking("VirtualService", name, spec)
    };
    let to = json!([{"destination": {"host": "web", "port": {"number": 9080}}}]);
    vec![
        networking("Gateway", "edge", json!({"servers": servers})),
        rule(
            "edge-http",
            "shop.example.com",
            json!({"http": [{"directResponse": {"status": 418}}]}),
        ),
        rule("edge-mesh", "mesh.example.com", json!({"http": [{"route": to}]})),
        rule(
            "edge-through",
            "through.example.com",
            json!({"tls": [{"match": [{"sniHosts": ["through.example.com"]}], "route": to}]}),
        ),
        rule("edge-tcp", "*", json!({"tcp": [{"route": to}]})),
    ]
}
