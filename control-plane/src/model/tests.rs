//! Small meshes in YAML, and what proxies see of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use lateen_api::mesh::MeshConfig;
use lateen_api::security::MutualTlsMode;
use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};
use prost::Message;

use super::Model;
use crate::serve::generation::{Generation, Mesh, Scope};
use crate::serve::stream::TYPES;
use crate::settings::Settings;
use crate::source::{Files, Load, State};
use crate::translate::input::{Outbound, Resolution};
use crate::translate::view::ProxyView;

fn model_with(text: &str, mesh: &str) -> Model {
    let files: Files = [("mesh.yaml".to_owned(), Ok(text.into()))].into();
    let load = Load::next(&State::default(), &files);
    assert!(load.findings.iter().all(|it| !it.is_error()), "{:?}", load.findings);
    let settings = Settings::parse_from(["lateend", "--config-dir", "."]);
    Model::new(&load.objects, &MeshConfig::parse("mesh", mesh).unwrap(), &settings)
}

fn model(text: &str) -> Model {
    model_with(text, "")
}

fn seen(model: &Model, namespace: &str) -> Outbound {
    model.outbound(&Scope { namespace: namespace.to_owned(), ..Scope::default() })
}

fn view(namespace: &str, name: &str) -> ProxyView {
    ProxyView { namespace: namespace.into(), name: name.into(), ..ProxyView::default() }
}

const CART: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, 'fd00::1']
  selector: {app: cart}
  ports:
    - {name: http, port: 80, targetPort: web}
    - {name: dns, port: 53, protocol: UDP}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart-abc-1
  generateName: cart-abc-
  namespace: shop
  labels: {app: cart, version: v1, pod-template-hash: abc, security.istio.io/tlsMode: istio}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: cart-abc, uid: u, controller: true}]
spec:
  serviceAccountName: cart
  nodeName: n1
  containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
";

const SLICE: &str = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-x, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: [10.0.0.1], conditions: {ready: true}}
  - {addresses: [10.0.0.2], conditions: {ready: false}}
  - {addresses: [10.0.0.3]}
";

#[test]
fn a_service_knows_who_answers_for_it() {
    let outbound = seen(&model(&format!("{CART}{SLICE}")), "bank");
    let service = &outbound.services[0];
    assert_eq!(service.host, "cart.shop.svc.cluster.local");
    assert_eq!(service.addresses.len(), 2);
    let endpoints = &service.ports[0].endpoints;
    let addresses: Vec<&str> = endpoints.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.3"], "those that are not ready are left out");
    let known = &endpoints[0];
    assert_eq!(known.port, 8080);
    assert_eq!(known.identity, "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(known.workload, "cart;shop;cart;v1;Kubernetes");
    assert_eq!(known.locality, "r/z");
    assert!(known.mutual_tls);
    assert!(!endpoints[1].mutual_tls, "nothing is known of it");
    assert!(service.ports[1].endpoints.is_empty(), "UDP is not proxied");
}

#[test]
fn without_slices_the_selector_picks_ready_pods() {
    let outbound = seen(&model(CART), "shop");
    let endpoints = &outbound.services[0].ports[0].endpoints;
    assert_eq!((endpoints.len(), endpoints[0].port), (1, 8080));
    let starting = CART.replace("status: 'True'", "status: 'False'");
    assert!(seen(&model(&starting), "shop").services[0].ports[0].endpoints.is_empty());
    // Its proxy must listen before the pod is ready.
    let inbound = model(&starting).inbound(&view("shop", "cart-abc-1"));
    assert_eq!(inbound.ports.len(), 1);
    let port = &inbound.ports[0];
    assert_eq!((port.port, port.service_port, port.service_name.as_str()), (8080, 80, "cart"));
}

#[test]
fn kinds_of_kubernetes_services() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: a}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: out, namespace: a}
spec: {type: ExternalName, externalName: api.example.com, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: mine, namespace: a, annotations: {networking.istio.io/exportTo: '.'}}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
";
    let model = model(text);
    let outbound = seen(&model, "a");
    let of = |name: &str| outbound.services.iter().find(|it| it.name == name).unwrap();
    assert!(of("db").is_headless());
    assert_eq!(of("out").resolution, Resolution::Dns);
    assert_eq!(of("out").ports[0].endpoints[0].address, "api.example.com");
    assert!(of("mine").ports[0].endpoints.is_empty());
    assert_eq!(seen(&model, "b").services.len(), 2, "what is not exported is not seen");
}

const TWICE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: first, namespace: a}
spec: {hosts: [x.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: second, namespace: a}
spec:
  hosts: [x.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: TCP}, {number: 443, name: tls, protocol: TLS}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other, namespace: b}
spec: {hosts: [x.example.com], resolution: NONE, ports: [{number: 8080, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: squatter, namespace: shop}
spec: {hosts: [cart.shop.svc.cluster.local], resolution: NONE, ports: [{number: 9, name: tcp, protocol: TCP}]}
---
";

#[test]
fn of_definitions_of_one_host_one_holds() {
    let model = model(&format!("{TWICE}{CART}"));
    let ports = |namespace: &str, host: &str| {
        let seen = seen(&model, namespace);
        let service = seen.services.iter().find(|it| it.host == host).unwrap();
        service.ports.iter().map(|port| port.number).collect::<Vec<_>>()
    };
    assert_eq!(ports("a", "x.example.com"), [80, 443], "ports of the second are added");
    assert_eq!(ports("b", "x.example.com"), [8080], "a namespace's own comes first");
    assert_eq!(ports("c", "x.example.com"), [80, 443], "else the oldest");
    assert_eq!(ports("shop", "cart.shop.svc.cluster.local"), [80, 53], "Kubernetes wins");
    let said: Vec<String> = model.findings().iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|it| it.contains("squatter") && it.contains("wins")), "{said:?}");
    assert!(said.iter().any(|it| it.contains("a/second") && it.contains("443")), "{said:?}");
}

#[test]
fn entries_select_pods_and_workload_entries() {
    let text = format!(
        "{CART}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: vm-1, namespace: shop}}
spec:
  address: 192.0.2.7
  labels: {{app: cart, security.istio.io/tlsMode: istio}}
  serviceAccount: vm
  ports: {{web: 9000}}
  weight: 3
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: both, namespace: shop}}
spec:
  hosts: [both.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: web, protocol: HTTP, targetPort: 8080}}]
  workloadSelector: {{labels: {{app: cart}}}}
"
    );
    let outbound = seen(&model(&text), "shop");
    let service = outbound.services.iter().find(|it| it.host == "both.example.com").unwrap();
    let ends: Vec<(&str, u16, u32, bool)> = service.ports[0]
        .endpoints
        .iter()
        .map(|it| (it.address.as_str(), it.port, it.weight, it.mutual_tls))
        .collect();
    assert_eq!(ends, [("192.0.2.7", 9000, 3, true), ("10.0.0.1", 8080, 1, true)]);
    assert_eq!(service.ports[0].endpoints[0].identity, "spiffe://cluster.local/ns/shop/sa/vm");
}

#[test]
fn a_port_without_mutual_tls_is_known_to_clients() {
    let text = format!(
        "{CART}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: cart, namespace: shop}}
spec: {{selector: {{matchLabels: {{app: cart}}}}, portLevelMtls: {{8080: {{mode: DISABLE}}}}}}
"
    );
    let model = model(&text);
    let service = &seen(&model, "shop").services[0];
    assert!(!service.ports[0].endpoints[0].mutual_tls);
    let inbound = model.inbound(&view("shop", "cart-abc-1"));
    assert_eq!(inbound.mode_of(8080), MutualTlsMode::Disable);
    assert_eq!(inbound.mode_of(1), MutualTlsMode::Permissive);
}

fn rule(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    let group = if kind.starts_with("Auth") || kind.starts_with("Peer") {
        "security"
    } else {
        "networking"
    };
    format!(
        "---\napiVersion: {group}.istio.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn virtual_services_come_in_the_order_in_which_they_win() {
    let to = "http: [{route: [{destination: {host: cart}}]}]";
    let text = [
        CART.to_owned(),
        rule("VirtualService", "public", "shop", &format!("{{hosts: [cart], {to}}}")),
        rule(
            "VirtualService",
            "some",
            "shop",
            &format!("{{hosts: [cart], exportTo: [bank, .], {to}}}"),
        ),
        rule("VirtualService", "own", "shop", &format!("{{hosts: [cart], exportTo: [.], {to}}}")),
        rule("VirtualService", "gate", "shop", &format!("{{hosts: [cart], gateways: [g], {to}}}")),
    ]
    .concat();
    let model = model(&text);
    let names = |namespace: &str| {
        let rules = seen(&model, namespace).virtual_services;
        rules.iter().map(|it| it.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("shop"), ["own", "some", "public"]);
    assert_eq!(names("bank"), ["some", "public"]);
    assert_eq!(names("else"), ["public"]);
    assert!(model.findings().iter().any(|it| it.message.contains("is ruled by")));
}

#[test]
fn destination_rules_are_looked_for_near_the_caller() {
    let subset =
        |name: &str| format!("{{host: cart.shop.svc.cluster.local, subsets: [{{name: {name}}}]}}");
    let text = [
        CART.to_owned(),
        rule("DestinationRule", "root", "istio-system", &subset("root")),
        rule("DestinationRule", "one", "shop", &subset("one")),
        rule("DestinationRule", "two", "shop", &subset("two")),
        rule("DestinationRule", "bank", "bank", &subset("bank")),
        rule(
            "DestinationRule",
            "wide",
            "bank",
            "{host: '*.shop.svc.cluster.local', subsets: [{name: wide}]}",
        ),
    ]
    .concat();
    let subsets = |model: &Model, namespace: &str| {
        let seen = seen(model, namespace);
        let rule = &seen.destination_rules["cart.shop.svc.cluster.local"];
        rule.spec.subsets.iter().map(|it| it.name.clone()).collect::<Vec<_>>()
    };
    let all = model(&text);
    assert_eq!(subsets(&all, "bank"), ["bank"], "the exact host before the wildcard");
    assert_eq!(subsets(&all, "shop"), ["one", "two"], "of one namespace they are joined");
    assert_eq!(subsets(&all, "else"), ["one", "two"]);
    let closed = model_with(&text, "defaultDestinationRuleExportTo: ['.']");
    assert!(seen(&closed, "else").destination_rules.is_empty());
}

#[test]
fn labels_of_callers_matter_only_where_a_rule_asks_for_them() {
    let caller =
        ProxyView { labels: [("app".to_owned(), "x".to_owned())].into(), ..view("shop", "p") };
    assert!(model(CART).scope(&caller).labels.is_empty());
    let asks = rule(
        "VirtualService",
        "v",
        "shop",
        "{hosts: [cart], http: [{match: [{sourceLabels: {app: x}}], route: [{destination: {host: cart}}]}]}",
    );
    let scope = model(&format!("{CART}{asks}")).scope(&caller);
    assert_eq!(scope.labels.len(), 1);
}

#[test]
fn the_narrowest_peer_authentication_wins() {
    let mode = |mode: &str| format!("{{mtls: {{mode: {mode}}}}}");
    let text = [
        rule("PeerAuthentication", "default", "istio-system", &mode("STRICT")),
        rule("PeerAuthentication", "default", "shop", &mode("DISABLE")),
        rule("PeerAuthentication", "later", "shop", &mode("STRICT")),
        rule(
            "PeerAuthentication",
            "cart",
            "shop",
            "{selector: {matchLabels: {app: cart}}, mtls: {mode: UNSET}, \
             portLevelMtls: {1: {mode: STRICT}, 2: {mode: UNSET}}}",
        ),
    ]
    .concat();
    let model = model(&text);
    let labels: BTreeMap<String, String> = [("app".to_owned(), "cart".to_owned())].into();
    assert_eq!(model.mutual_tls("bank", &labels).mode, MutualTlsMode::Strict);
    let cart = model.mutual_tls("shop", &labels);
    assert_eq!(cart.mode, MutualTlsMode::Disable);
    assert_eq!(cart.ports[&1], MutualTlsMode::Strict);
    assert_eq!(cart.ports[&2], MutualTlsMode::Disable);
    assert_eq!(cart.policies.len(), 3);
}

#[test]
fn policies_of_namespace_and_mesh_select_a_workload() {
    let text = [
        CART.to_owned(),
        rule("AuthorizationPolicy", "all", "istio-system", "{}"),
        rule("AuthorizationPolicy", "cart", "shop", "{selector: {matchLabels: {app: cart}}}"),
        rule("AuthorizationPolicy", "none", "shop", "{selector: {matchLabels: {app: x}}}"),
        rule("AuthorizationPolicy", "bank", "bank", "{}"),
    ]
    .concat();
    let inbound = model(&text).inbound(&view("shop", "cart-abc-1"));
    let names: Vec<&str> = inbound.policies.iter().map(|it| it.name()).collect();
    assert_eq!(names, ["all", "cart"]);
}

#[test]
fn destinations_that_are_nobody_are_named() {
    let text = [
        CART.to_owned(),
        rule(
            "VirtualService",
            "v",
            "shop",
            "{hosts: [cart], http: [{route: [{destination: {host: crat}, weight: 1}, \
             {destination: {host: cart, subset: v9}, weight: 1}]}]}",
        ),
    ]
    .concat();
    let said: Vec<String> = model(&text).findings().iter().map(ToString::to_string).collect();
    assert!(said[0].contains("spec.http[0].route[0].destination") && said[0].contains("crat"));
    assert!(said[1].contains("spec.http[0].route[1].destination") && said[1].contains("v9"));
}

/// What a proxy of a namespace gets.
fn made(model: &Model, namespace: &str) -> crate::translate::Resources {
    let addresses = vec!["10.0.0.9".parse().unwrap()];
    let traits = crate::translate::Traits::of(&ProxyView { addresses, ..view(namespace, "p") });
    crate::translate::outbound(&seen(model, namespace), model.settings(), traits)
}

fn table(made: &crate::translate::Resources, name: &str) -> RouteConfiguration {
    RouteConfiguration::decode(made.routes[name].body.clone()).unwrap()
}

#[test]
fn a_rule_of_which_nothing_holds_for_the_caller_is_none() {
    let rule = rule(
        "VirtualService",
        "v",
        "shop",
        "{hosts: [cart], http: [{match: [{sourceNamespace: bank}], route: [{destination: {host: cart}}], timeout: 3s}]}",
    );
    let model = model(&format!("{CART}{rule}"));
    let route = |namespace: &str| {
        let hosts = table(&made(&model, namespace), "80").virtual_hosts;
        let host = hosts.into_iter().find(|it| it.name.starts_with("cart.")).unwrap();
        host.routes[0].name.clone()
    };
    assert_eq!(route("shop"), "default", "the service is still there");
    assert_eq!(route("bank"), "");
}

#[test]
fn pods_of_headless_services_have_names() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: a}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 80}]}
";
    let host = &table(&made(&model(text), "a"), "80").virtual_hosts[0];
    for name in ["db", "*.db", "*.db.a", "*.db.a.svc", "*.db.a.svc.cluster.local"] {
        assert!(host.domains.iter().any(|it| it == name), "{name}: {:?}", host.domains);
    }
}

#[test]
fn hosts_that_are_no_services_are_known_on_port_80_only() {
    let other = CART.replace("name: http, port: 80", "name: http, port: 8000");
    let other = other.replace("name: cart,", "name: till,").replace("10.96.0.1", "10.96.0.2");
    let nowhere = rule(
        "VirtualService",
        "v",
        "shop",
        "{hosts: [nowhere.example.com], http: [{route: [{destination: {host: cart}}]}]}",
    );
    let first = CART.split("---").next().unwrap();
    let second = other.split("---").next().unwrap();
    let made = made(&model(&format!("{first}---{second}{nowhere}")), "shop");
    let knows = |port: &str| {
        let hosts = table(&made, port).virtual_hosts;
        hosts.iter().any(|it| it.domains.contains(&"nowhere.example.com".to_owned()))
    };
    assert!(knows("80") && !knows("8000"));
}

#[test]
fn one_server_name_has_one_chain() {
    let text = [
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: a}
spec:
  hosts: [one.example.com, two.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
"
        .to_owned(),
        rule(
            "VirtualService",
            "v",
            "a",
            "{hosts: [one.example.com, two.example.com], tls: [\
             {match: [{sniHosts: [one.example.com, two.example.com]}], route: [{destination: {host: one.example.com}}]}, \
             {match: [{sniHosts: [two.example.com]}], route: [{destination: {host: two.example.com}}]}]}",
        ),
    ]
    .concat();
    let made = made(&model(&text), "a");
    let listener = Listener::decode(made.listeners["0.0.0.0_443"].body.clone()).unwrap();
    let chains = listener.filter_chains.iter();
    let names = chains.flat_map(|it| it.filter_chain_match.clone().unwrap().server_names);
    assert_eq!(names.collect::<Vec<_>>(), ["one.example.com", "two.example.com"]);
}

#[test]
fn the_host_of_a_request_is_no_name_between_sidecars() {
    let options = |tls: &str| {
        let spec = format!("{{host: cart, trafficPolicy: {{tls: {tls}}}}}");
        let text = format!("{CART}{}", rule("DestinationRule", "d", "shop", &spec));
        let made = made(&model(&text), "shop");
        let body = made.clusters["outbound|80||cart.shop.svc.cluster.local"].body.clone();
        let options = Cluster::decode(body).unwrap().typed_extension_protocol_options;
        let options = options.into_values().next().unwrap();
        let options = HttpProtocolOptions::decode(options.value.as_slice()).unwrap();
        options.upstream_http_protocol_options.map(|it| (it.auto_sni, it.auto_san_validation))
    };
    assert_eq!(options("{mode: ISTIO_MUTUAL}"), None);
    assert_eq!(options("{mode: DISABLE}"), None);
    assert_eq!(options("{mode: SIMPLE}"), Some((true, true)));
    assert_eq!(options("{mode: SIMPLE, subjectAltNames: [a]}"), Some((true, false)));
    assert_eq!(options("{mode: SIMPLE, insecureSkipVerify: true}"), Some((true, false)));
    assert_eq!(options("{mode: SIMPLE, sni: a}"), None);
}

#[test]
fn labels_that_no_rule_asks_for_make_no_scope() {
    let asks = rule(
        "VirtualService",
        "v",
        "shop",
        "{hosts: [cart], http: [{match: [{sourceLabels: {app: cart}}], route: [{destination: {host: cart}}]}]}",
    );
    let model = model(&format!("{CART}{asks}"));
    let lying = ProxyView {
        labels: [("app".to_owned(), "admin".to_owned()), ("pod".to_owned(), "1".to_owned())].into(),
        ..view("shop", "cart-abc-1")
    };
    let expected: BTreeMap<String, String> = [("app".to_owned(), "cart".to_owned())].into();
    assert_eq!(model.scope(&lying).labels, expected, "the API server's, and only what is asked");
}

#[test]
fn what_has_no_effect_is_said() {
    let mode = "{mtls: {mode: STRICT}}";
    let text = [
        CART.to_owned(),
        rule("PeerAuthentication", "a", "shop", mode),
        rule("PeerAuthentication", "b", "shop", mode),
        rule(
            "PeerAuthentication",
            "c",
            "istio-system",
            "{selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}}",
        ),
        rule(
            "VirtualService",
            "v",
            "shop",
            "{hosts: [cart], tcp: [{match: [{destinationSubnets: [10.0.0.0/8]}], route: [{destination: {host: cart}}]}]}",
        ),
    ]
    .concat();
    let said: Vec<String> = model(&text).findings().iter().map(ToString::to_string).collect();
    for (object, path) in [
        ("PeerAuthentication shop/b", ": spec: "),
        ("PeerAuthentication istio-system/c", ": spec.selector: "),
        ("VirtualService shop/v", ": spec.tcp[0].match[0].destinationSubnets: "),
    ] {
        let named = said.iter().any(|it| it.contains(object) && it.contains(path));
        assert!(named, "{object}: {said:?}");
    }
    assert_eq!(said.len(), 3, "{said:?}");
}

/// A mesh of random services, endpoints, rules and policies, as files.
fn random_files(shape: &[(u8, u8, u8)]) -> Files {
    let mut files = Files::new();
    for (what, which, content) in shape {
        let (name, text) = match what {
            0 => {
                let kind =
                    if content % 4 == 3 { "None".to_owned() } else { format!("10.96.0.{which}") };
                let text = format!(
                    "apiVersion: v1\nkind: Service\nmetadata: {{name: s{which}, namespace: shop}}\n\
                     spec: {{clusterIP: {kind}, selector: {{app: s{which}}}, \
                     ports: [{{name: http, port: {}}}, {{name: tcp, port: 9000}}]}}\n",
                    80 + content % 2
                );
                (format!("service-{which}.yaml"), text)
            }
            1 => {
                let ends: Vec<String> = (0..content % 4)
                    .map(|it| format!("{{addresses: [10.{which}.0.{it}]}}"))
                    .collect();
                let text = format!(
                    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: x{which}, \
                     namespace: shop, labels: {{kubernetes.io/service-name: s{which}}}}}\n\
                     addressType: IPv4\nports: [{{name: http, port: 8080}}, {{name: tcp, port: 9000}}]\n\
                     endpoints: [{}]\n",
                    ends.join(", ")
                );
                (format!("slice-{which}.yaml"), text)
            }
            2 => {
                let text = format!(
                    "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{which}, namespace: shop, \
                     labels: {{app: s{which}, v: 'v{}', security.istio.io/tlsMode: istio}}}}\n\
                     spec: {{serviceAccountName: a{}, containers: [{{name: c}}]}}\n\
                     status: {{podIP: 10.{which}.0.0, podIPs: [{{ip: 10.{which}.0.0}}], \
                     conditions: [{{type: Ready, status: 'True'}}]}}\n",
                    content % 2,
                    content % 3
                );
                (format!("pod-{which}.yaml"), text)
            }
            _ => random_rule(*what, *which, *content),
        };
        // Contents from ten on take the file away.
        if *content < 10 {
            files.insert(name, Ok(text.into()));
        } else {
            files.remove(&name);
        }
    }
    files
}

fn random_rule(what: u8, which: u8, content: u8) -> (String, String) {
    match what {
        3 => {
            let spec = format!(
                "{{host: s{which}, subsets: [{{name: v0, labels: {{v: 'v0'}}}}], trafficPolicy: \
                     {{loadBalancer: {{simple: {}}}}}}}",
                ["RANDOM", "PASSTHROUGH", "ROUND_ROBIN"][usize::from(content % 3)]
            );
            (
                format!("rule-{which}.yaml"),
                rule("DestinationRule", &format!("d{which}"), "shop", &spec),
            )
        }
        _ => {
            let mode = ["STRICT", "DISABLE", "PERMISSIVE"][usize::from(content % 3)];
            let spec =
                format!("{{selector: {{matchLabels: {{app: s{which}}}}}, mtls: {{mode: {mode}}}}}");
            let name = format!("m{which}");
            (format!("mode-{which}.yaml"), rule("PeerAuthentication", &name, "shop", &spec))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever changes, in whatever order: what is made from the generation before is what would be
    /// made from nothing.
    #[test]
    fn an_increment_equals_a_fresh_start(
        changes in proptest::collection::vec((0..5_u8, 1..4_u8, 0..13_u8), 4..40),
    ) {
        let settings = Settings::parse_from(["lateend", "--config-dir", "."]);
        let mesh = MeshConfig::default();
        let views = [view("shop", "p1"), view("shop", "p2"), view("bank", "p")].map(|it| {
            ProxyView { addresses: vec!["10.1.0.0".parse().unwrap()], ..it }
        });
        let mut state = State::default();
        let mut before: Option<(Arc<Model>, Generation)> = None;
        for end in 1..=changes.len() {
            let files = random_files(&changes[..end]);
            let load = Load::next(&state, &files);
            let fresh = Load::next(&State::default(), &files);
            prop_assert_eq!(&load.objects, &fresh.objects);
            prop_assert_eq!(&load.findings, &fresh.findings);
            let scratch = Model::new(&fresh.objects, &mesh, &settings);
            let scratch = Generation::new(1, Arc::new(scratch), Instant::now());
            let mut model = Model::new(&load.objects, &mesh, &settings);
            if let Some((before, _)) = &before {
                model.reuse(before);
            }
            let model = Arc::new(model);
            let state_of_mesh = Arc::clone(&model) as Arc<dyn Mesh>;
            let next = match &before {
                None => Generation::new(1, state_of_mesh, Instant::now()),
                Some((_, before)) => Generation::after(before, state_of_mesh, Instant::now()),
            };
            for view in &views {
                let (made, wanted) = (next.resources(view), scratch.resources(view));
                for type_url in TYPES {
                    prop_assert_eq!(made.of(type_url), wanted.of(type_url), "{}", type_url);
                }
            }
            state = load.state;
            before = Some((model, next));
        }
    }
}

#[test]
fn endpoints_that_change_make_nothing_else_again() {
    let settings = Settings::parse_from(["lateend", "--config-dir", "."]);
    let mesh = MeshConfig::default();
    let of = |text: String, state: &State| {
        let files: Files =
            [("mesh.yaml".to_owned(), Ok(CART.into())), ("slice.yaml".to_owned(), Ok(text.into()))]
                .into();
        let load = Load::next(state, &files);
        (Model::new(&load.objects, &mesh, &settings), load.state)
    };
    let (first, state) = of(SLICE.to_owned(), &State::default());
    let (mut second, _) = of(SLICE.replace("10.0.0.3", "10.0.0.4"), &state);
    second.reuse(&first);
    let proxy = ProxyView { addresses: vec!["10.0.0.9".parse().unwrap()], ..view("shop", "p") };
    let before = Generation::new(1, Arc::new(first), Instant::now());
    let old = before.resources(&proxy);
    let after = Generation::after(&before, Arc::new(second), Instant::now());
    let new = after.resources(&proxy);
    let changed: Vec<String> =
        new.since.as_ref().unwrap().changed.iter().map(ToString::to_string).collect();
    assert_eq!(changed, ["outbound|80||cart.shop.svc.cluster.local"]);
    assert_eq!(after.number, 2);
    for type_url in TYPES {
        let same = Arc::ptr_eq(old.of(type_url).unwrap(), new.of(type_url).unwrap());
        assert_eq!(same, type_url != lateen_xds::type_url::ENDPOINTS, "{type_url}");
    }
}
