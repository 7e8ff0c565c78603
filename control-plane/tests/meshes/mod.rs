//! Meshes for tests that cross the wire: services made here, rules read from YAML.
//!
//! Which variant is in force is read from a ConfigMap in the configuration directory, so that a
//! change takes the same way as a user's.

use std::sync::Arc;

use lateen_api::Finding;
use lateen_api::mesh::MeshConfig;
use lateen_api::meta::ObjectMeta;
use lateen_api::object::{Origin, Resource};
use lateen_api::port::Protocol;
use lateen_api::security::MutualTlsMode;
use lateen_control_plane::app::MeshBuilder;
use lateen_control_plane::serve::generation::{Mesh, Scope};
use lateen_control_plane::settings::Settings;
use lateen_control_plane::source::Load;
use lateen_control_plane::translate::AccessLogSettings;
use lateen_control_plane::translate::input::{
    Endpoint, Inbound, InboundPort, MeshSettings, Outbound, Resolution, Service, ServicePort,
};
use lateen_control_plane::translate::view::ProxyView;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The variants, in the order in which a test goes through them.
pub const VARIANTS: [&str; 4] = ["rules", "strict", "registry-only", "plain"];

/// The ConfigMap that puts a variant in force.
pub fn named(variant: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: variant, namespace: default}}\n\
         data: {{name: {variant}}}\n"
    )
}

/// Makes the variant that the directory names; `plain` without one.
pub fn builder() -> MeshBuilder {
    MeshBuilder::new(|load: &Load, _: &MeshConfig, _: &Settings| {
        let found = load.objects.config_text("default", "variant", "name");
        Arc::new(Bookshop::new(found.map_or("plain", |(name, _)| name)))
    })
}

#[derive(Debug)]
struct Bookshop {
    settings: MeshSettings,
    outbound: Outbound,
    inbound: Inbound,
}

impl Mesh for Bookshop {
    fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    fn scope(&self, view: &ProxyView) -> Scope {
        Scope { namespace: view.namespace.clone(), ..Scope::default() }
    }

    fn outbound(&self, _: &Scope) -> Outbound {
        self.outbound.clone()
    }

    fn inbound(&self, _: &ProxyView) -> Inbound {
        self.inbound.clone()
    }

    fn registry(&self) -> Value {
        json!([])
    }

    fn findings(&self) -> &[Finding] {
        &[]
    }
}

impl Bookshop {
    fn new(variant: &str) -> Self {
        let rules = variant == "rules" || variant == "registry-only";
        let settings = MeshSettings {
            allow_any_outbound: variant != "registry-only",
            access_log: AccessLogSettings {
                file: "/dev/null".to_owned(),
                json: variant == "strict",
                ..AccessLogSettings::default()
            },
            ..MeshSettings::default()
        };
        let mode =
            if variant == "strict" { MutualTlsMode::Strict } else { MutualTlsMode::Permissive };
        let mut outbound = Outbound { namespace: "default".to_owned(), ..Outbound::default() };
        outbound.services = services(variant).into_iter().map(Arc::new).collect();
        let mut inbound = Inbound { ports: ports(), mode, ..Inbound::default() };
        inbound.port_modes = [(7000, MutualTlsMode::Disable), (9080, mode)].into();
        if rules {
            outbound.virtual_services = virtual_services();
            let host = |name: &str| format!("{name}.default.svc.cluster.local");
            outbound.destination_rules =
                destination_rules().map(|(name, rule)| (host(name), rule)).into();
            inbound.policies = policies();
        }
        Self { settings, outbound, inbound }
    }
}

fn resource<S: DeserializeOwned>(name: &str, spec: Value) -> Arc<Resource<S>> {
    Arc::new(Resource {
        meta: ObjectMeta {
            name: name.to_owned(),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        origin: Origin { file: "test.yaml".into(), document: 1, line: 1 },
        spec: serde_json::from_value(spec).unwrap(),
    })
}

fn endpoint(address: &str, version: &str) -> Endpoint {
    Endpoint {
        address: address.to_owned(),
        port: 9080,
        labels: [("version".to_owned(), version.to_owned())].into(),
        identity: "spiffe://cluster.local/ns/default/sa/bookinfo".to_owned(),
        mutual_tls: version != "v3",
        healthy: true,
        locality: "r/z".to_owned(),
        weight: 1,
        workload: format!("reviews;default;reviews;{version};Kubernetes"),
    }
}

fn service(name: &str, index: u8, number: u16, protocol: Protocol) -> Service {
    let endpoints = ["v1", "v2", "v3"]
        .map(|version| endpoint(&format!("10.0.{index}.{}", &version[1..]), version));
    Service {
        host: format!("{name}.default.svc.cluster.local"),
        name: name.to_owned(),
        namespace: "default".to_owned(),
        kubernetes: true,
        external: false,
        addresses: vec![format!("10.96.0.{index}/32").parse().unwrap()],
        resolution: Resolution::Endpoints,
        ports: vec![ServicePort {
            number,
            name: "p".to_owned(),
            protocol,
            endpoints: Arc::from(endpoints),
        }],
        subject_alt_names: Vec::new(),
    }
}

fn outside(host: &str, number: u16, protocol: Protocol, resolution: Resolution) -> Service {
    let mut service = service("x", 1, number, protocol);
    service.host = host.to_owned();
    service.kubernetes = false;
    service.external = true;
    service.addresses.clear();
    service.resolution = resolution;
    let endpoint = Endpoint {
        address: host.to_owned(),
        port: number,
        mutual_tls: false,
        identity: String::new(),
        ..endpoint(host, "v1")
    };
    service.ports[0].endpoints = Arc::from([endpoint]);
    service
}

fn services(variant: &str) -> Vec<Service> {
    let mut headless = service("cassandra", 9, 9042, Protocol::Tcp);
    headless.addresses.clear();
    headless.resolution = Resolution::Passthrough;
    let mut dual = service("dual", 10, 5432, Protocol::Tcp);
    dual.addresses.push("fd00::10/128".parse().unwrap());
    let mut range = outside("range.example.com", 6379, Protocol::Tcp, Resolution::Passthrough);
    range.addresses = vec!["192.0.2.0/24".parse().unwrap()];
    let mut all = vec![
        service("productpage", 1, 9080, Protocol::Http),
        service("reviews", 2, 9080, Protocol::Http),
        service("ratings", 3, 9080, Protocol::Http2),
        service("grpc", 5, 7070, Protocol::Grpc),
        service("any", 6, 8000, Protocol::Auto),
        service("mongo", 7, 27017, Protocol::Tcp),
        headless,
        dual,
        range,
        outside("api.example.com", 443, Protocol::Https, Resolution::Dns),
        outside("www.example.com", 80, Protocol::Http, Resolution::DnsRoundRobin),
        outside("*.wild.example.com", 443, Protocol::Tls, Resolution::Passthrough),
    ];
    if variant != "strict" {
        all.push(service("details", 4, 9080, Protocol::Http));
    }
    all
}

fn ports() -> Vec<InboundPort> {
    let port = |number: u16, protocol: Protocol| InboundPort {
        port: number,
        protocol,
        host: "web.default.svc.cluster.local".to_owned(),
        service_name: "web".to_owned(),
        service_namespace: "default".to_owned(),
        service_port: number,
    };
    vec![
        port(9080, Protocol::Http),
        port(9090, Protocol::Grpc),
        port(5000, Protocol::Tcp),
        port(6000, Protocol::Auto),
    ]
}

fn virtual_services() -> Vec<Arc<Resource<lateen_api::networking::VirtualService>>> {
    vec![
        resource(
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
        resource(
            "mongo",
            json!({"hosts": ["mongo"], "tcp": [{"route": [
            {"destination": {"host": "mongo", "subset": "v1"}, "weight": 1},
            {"destination": {"host": "mongo", "subset": "v2"}, "weight": 3}]}]}),
        ),
        resource(
            "api",
            json!({"hosts": ["api.example.com"], "tls": [
            {"match": [{"sniHosts": ["api.example.com"], "port": 443}],
             "route": [{"destination": {"host": "api.example.com"}}]}]}),
        ),
        resource(
            "nowhere",
            json!({"hosts": ["nowhere.example.com"], "http": [
            {"route": [{"destination": {"host": "missing"}}]}]}),
        ),
    ]
}

fn destination_rules() -> [(&'static str, Arc<Resource<lateen_api::networking::DestinationRule>>); 5]
{
    let subsets = json!([
        {"name": "v1", "labels": {"version": "v1"}},
        {"name": "v2", "labels": {"version": "v2"},
         "trafficPolicy": {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}}},
        {"name": "v3", "labels": {"version": "v3"}, "trafficPolicy": {"tls": {"mode": "DISABLE"}}},
    ]);
    [
        (
            "reviews",
            resource(
                "reviews",
                json!({"host": "reviews", "subsets": subsets,
            "trafficPolicy": {
                "loadBalancer": {"consistentHash": {"httpCookie": {"name": "c", "ttl": "0s"}}},
                "connectionPool": {"tcp": {"maxConnections": 10, "connectTimeout": "1s",
                        "tcpKeepalive": {"time": "60s", "interval": "5s", "probes": 3}},
                    "http": {"http1MaxPendingRequests": 5, "maxRequestsPerConnection": 10,
                        "idleTimeout": "30s"}},
                "outlierDetection": {"consecutive5xxErrors": 5, "interval": "10s",
                    "baseEjectionTime": "30s", "maxEjectionPercent": 50}}}),
            ),
        ),
        (
            "mongo",
            resource(
                "mongo",
                json!({"host": "mongo", "subsets": subsets,
            "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}),
            ),
        ),
        (
            "ratings",
            resource(
                "ratings",
                json!({"host": "ratings",
            "trafficPolicy": {"loadBalancer": {"consistentHash": {"maglev": {"tableSize": 65537},
                "useSourceIp": true}}, "tls": {"mode": "SIMPLE"}}}),
            ),
        ),
        (
            "grpc",
            resource(
                "grpc",
                json!({"host": "grpc",
            "trafficPolicy": {"loadBalancer": {"simple": "PASSTHROUGH"}}}),
            ),
        ),
        (
            "productpage",
            resource(
                "productpage",
                json!({"host": "productpage",
            "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"},
                "connectionPool": {"http": {"h2UpgradePolicy": "UPGRADE"}}}}),
            ),
        ),
    ]
}

fn policies() -> Vec<Arc<Resource<lateen_api::security::AuthorizationPolicy>>> {
    vec![
        resource(
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
        resource("nothing", json!({})),
        resource(
            "deny",
            json!({"action": "DENY", "rules": [
            {"from": [{"source": {"requestPrincipals": ["*"]}}],
             "to": [{"operation": {"paths": ["/admin"]}}]}]}),
        ),
    ]
}
