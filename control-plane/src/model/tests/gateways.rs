//! What gateways are sent: merged servers, routes by host, TLS, and Secrets.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, Secret,
};
use prost::Message;

use super::{CART, model, rule, seen};
use crate::model::Model;
use crate::serve::generation::Mesh;
use crate::translate::view::{ProxyView, Role};
use crate::translate::{Resources, Traits, edge};

const INGRESS: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: front}
spec:
  clusterIP: 10.96.0.9
  selector: {istio: ingress}
  ports:
    - {name: http2, port: 80, targetPort: 8080}
    - {name: https, port: 443, targetPort: 8443}
---
apiVersion: v1
kind: Pod
metadata: {name: ingress-1, namespace: front, labels: {istio: ingress}}
spec: {serviceAccountName: ingress, containers: [{name: istio-proxy}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: front, labels: {app: web}}
spec: {serviceAccountName: web, containers: [{name: web}]}
";

/// A Gateway for the ingress, in `shop`, with the servers given as YAML.
fn gateway(name: &str, servers: &str) -> String {
    rule(
        "Gateway",
        name,
        "shop",
        &format!("{{selector: {{istio: ingress}}, servers: [{servers}]}}"),
    )
}

fn server(port: u16, protocol: &str, name: &str, rest: &str) -> String {
    format!("{{port: {{number: {port}, protocol: {protocol}, name: {name}}}, {rest}}}")
}

fn virtual_service(name: &str, namespace: &str, hosts: &str, rest: &str) -> String {
    rule(
        "VirtualService",
        name,
        namespace,
        &format!("{{hosts: [{hosts}], gateways: [shop/g], {rest}}}"),
    )
}

fn to(host: &str) -> String {
    format!("http: [{{route: [{{destination: {{host: {host}.shop.svc.cluster.local}}}}]}}]")
}

fn ingress(proven: bool) -> ProxyView {
    ProxyView {
        role: Role::Router,
        proven,
        namespace: "front".to_owned(),
        name: "ingress-1".to_owned(),
        labels: [("istio".to_owned(), "ingress".to_owned())].into(),
        service_account: Some("ingress".to_owned()),
        addresses: vec!["10.0.0.9".parse().unwrap()],
        ..ProxyView::default()
    }
}

fn made_for(model: &Model, view: &ProxyView) -> Resources {
    let reach = seen(model, &view.namespace);
    edge(&model.edge(view), &reach, model.settings(), Traits::of(view))
}

fn made(text: &str) -> (Model, Resources) {
    let model = model(&format!("{CART}{INGRESS}{text}"));
    let made = made_for(&model, &ingress(true));
    (model, made)
}

fn listener(made: &Resources, name: &str) -> Listener {
    let names: Vec<_> = made.listeners.keys().collect();
    let found = made.listeners.get(name).unwrap_or_else(|| panic!("{name} of {names:?}"));
    Listener::decode(found.body.clone()).unwrap()
}

/// Hosts of a route table with the names of the clusters that their routes lead to.
fn table(made: &Resources, name: &str) -> BTreeMap<String, Vec<String>> {
    let names: Vec<_> = made.routes.keys().collect();
    let found = made.routes.get(name).unwrap_or_else(|| panic!("{name} of {names:?}"));
    let table = RouteConfiguration::decode(found.body.clone()).unwrap();
    let hosts = table.virtual_hosts.into_iter().map(|host| {
        let targets = host.routes.into_iter().map(|route| match route.action.unwrap() {
            Action::Route(to) => match to.cluster_specifier.unwrap() {
                ClusterSpecifier::Cluster(name) => name,
                other => panic!("{other:?}"),
            },
            Action::Redirect(_) => "redirect".to_owned(),
            other => panic!("{other:?}"),
        });
        (host.domains.join(","), targets.collect())
    });
    hosts.collect()
}

/// Where a chain hands bytes on to.
fn handed_to(chain: &FilterChain) -> String {
    use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
    let Some(ConfigType::TypedConfig(any)) = &chain.filters.last().unwrap().config_type else {
        panic!()
    };
    match TcpProxy::decode(any.value.as_slice()).unwrap().cluster_specifier {
        Some(tcp_proxy::ClusterSpecifier::Cluster(name)) => name,
        other => panic!("{other:?}"),
    }
}

fn tls_of(chain: &FilterChain) -> DownstreamTlsContext {
    let Some(ConfigType::TypedConfig(any)) = chain.transport_socket.clone().unwrap().config_type
    else {
        panic!()
    };
    DownstreamTlsContext::decode(any.value.as_slice()).unwrap()
}

fn names_of(chain: &FilterChain) -> Vec<String> {
    chain.filter_chain_match.clone().unwrap_or_default().server_names
}

const CART_80: &str = "outbound|80||cart.shop.svc.cluster.local";

#[test]
fn http_servers_of_a_port_share_a_table_at_the_target_port() {
    let (model, made) = made(
        &[
            gateway("g", &server(80, "HTTP", "http", "hosts: [a.example.com, '*.b.example.com']")),
            gateway("h", &server(80, "GRPC", "grpc", "hosts: [c.example.com]")),
            virtual_service("one", "shop", "a.example.com, elsewhere.com", &to("cart")),
            virtual_service("two", "shop", "x.b.example.com", &to("cart")),
            rule(
                "VirtualService",
                "three",
                "shop",
                &format!("{{hosts: ['*'], gateways: [h], {}}}", to("cart")),
            ),
        ]
        .concat(),
    );
    assert_eq!(made.listeners.len(), 1);
    let listener = listener(&made, "0.0.0.0_8080");
    assert!(listener.bind_to_port.is_none() && listener.listener_filters.is_empty());
    let hosts = table(&made, "http.8080");
    let domains: Vec<&str> = hosts.keys().map(String::as_str).collect();
    assert_eq!(domains, ["a.example.com", "c.example.com", "x.b.example.com"]);
    assert_eq!(hosts["a.example.com"], [CART_80]);
    assert!(model.findings().is_empty(), "{:?}", model.findings());
}

#[test]
fn rules_of_one_host_follow_each_other_and_the_rest_comes_last() {
    let first = "http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: first.x}}]}]";
    let all = "http: [{route: [{destination: {host: all.x}}]}]";
    let (_, made) = made(
        &[
            gateway("g", &server(80, "HTTP", "http", "hosts: [a.example.com]")),
            virtual_service("a-all", "shop", "a.example.com", all),
            virtual_service("b-first", "shop", "a.example.com", first),
        ]
        .concat(),
    );
    let wanted = ["outbound|80||first.x", "outbound|80||all.x"];
    assert_eq!(table(&made, "http.8080")["a.example.com"], wanted);
}

#[test]
fn only_the_namespaces_that_a_host_names_may_serve_it() {
    let (_, made) = made(
        &[
            gateway(
                "g",
                &server(80, "HTTP", "http", "hosts: ['./own.example.com', bank/b.example.com]"),
            ),
            virtual_service("own", "shop", "own.example.com", &to("cart")),
            virtual_service("thief", "bank", "own.example.com", &to("other")),
            virtual_service("bank", "bank", "b.example.com", &to("cart")),
            virtual_service(
                "hidden",
                "bank",
                "b.example.com",
                &format!("exportTo: [.], {}", to("no")),
            ),
        ]
        .concat(),
    );
    let hosts = table(&made, "http.8080");
    assert_eq!(hosts["own.example.com"], [CART_80]);
    assert_eq!(hosts["b.example.com"], [CART_80]);
}

#[test]
fn hosts_without_a_rule_are_not_found_and_redirects_need_none() {
    let (_, plain) = made(&gateway("g", &server(80, "HTTP", "http", "hosts: [a.example.com]")));
    assert_eq!(table(&plain, "http.8080"), [("*".to_owned(), Vec::new())].into());
    let redirect = "hosts: [a.example.com], tls: {httpsRedirect: true}";
    let (_, made) = made(&gateway("g", &server(80, "HTTP", "http", redirect)));
    assert_eq!(table(&made, "http.8080")["a.example.com"], ["redirect"]);
}

#[test]
fn what_is_sent_away_is_served_by_no_rule() {
    let rule = virtual_service("a", "shop", "a.example.com", &to("cart"));
    let away = "tls: {httpsRedirect: true}";
    for hosts in ["a.example.com", "'*.example.com'", "'*'"] {
        let server = server(80, "HTTP", "http", &format!("hosts: [{hosts}], {away}"));
        let (_, made) = made(&[gateway("g", &server), rule.clone()].concat());
        let table = table(&made, "http.8080");
        assert!(table.values().all(|routes| *routes == ["redirect"]), "{hosts}: {table:?}");
        assert!(table.contains_key("a.example.com"), "{hosts}: {table:?}");
    }
}

#[test]
fn tls_is_told_apart_by_server_name() {
    let simple = "hosts: [a.example.com], tls: {mode: SIMPLE, credentialName: a}";
    let mutual = "hosts: [b.example.com], tls: {mode: MUTUAL, credentialName: b}";
    let through = "hosts: ['*.t.example.com'], tls: {mode: PASSTHROUGH}";
    let files =
        "hosts: [f.example.com], tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}";
    let servers = [
        server(443, "HTTPS", "a", simple),
        server(443, "HTTPS", "b", mutual),
        server(443, "TLS", "t", through),
        server(443, "HTTPS", "f", files),
    ];
    let sni = |host: &str| {
        format!(
            "tls: [{{match: [{{sniHosts: [{host}]}}], route: [{{destination: {{host: cart.shop.svc.cluster.local, port: {{number: 80}}}}}}]}}]"
        )
    };
    let (_, made) = made(
        &[
            gateway("g", &servers.join(", ")),
            virtual_service("a", "shop", "a.example.com", &to("cart")),
            virtual_service("t", "shop", "x.t.example.com", &sni("x.t.example.com")),
            virtual_service("u", "shop", "'*.t.example.com'", &sni("x.t.example.com")),
        ]
        .concat(),
    );
    let listener = listener(&made, "0.0.0.0_8443");
    assert_eq!(listener.listener_filters.len(), 1, "the server name is looked at");
    let chains = &listener.filter_chains;
    let names: Vec<Vec<String>> = chains.iter().map(names_of).collect();
    assert_eq!(
        names,
        [["a.example.com"], ["b.example.com"], ["x.t.example.com"], ["f.example.com"]]
    );
    assert_eq!(table(&made, "https.443.a.g.shop")["a.example.com"].len(), 1);
    assert!(made.routes.contains_key("https.443.b.g.shop"));
    let simple = tls_of(&chains[0]);
    assert!(!simple.require_client_certificate.unwrap().value);
    let common = simple.common_tls_context.unwrap();
    assert_eq!(common.tls_certificate_sds_secret_configs[0].name, "kubernetes://a");
    assert_eq!(common.alpn_protocols, ["h2", "http/1.1"]);
    let mutual = tls_of(&chains[1]);
    assert!(mutual.require_client_certificate.unwrap().value);
    let Some(ValidationContextType::CombinedValidationContext(judged)) =
        mutual.common_tls_context.unwrap().validation_context_type
    else {
        panic!()
    };
    let authorities = judged.validation_context_sds_secret_config.unwrap();
    assert_eq!(authorities.name, "kubernetes://b-cacert");
    assert!(chains[2].transport_socket.is_none(), "handed on as it came");
    assert_eq!(handed_to(&chains[2]), CART_80);
    assert_eq!(tls_of(&chains[3]).common_tls_context.unwrap().tls_certificates.len(), 1);
}

#[test]
fn tcp_needs_a_rule() {
    let tcp = server(9000, "TCP", "tcp", "hosts: ['*']");
    let (_, nowhere) = made(&gateway("g", &tcp));
    assert!(nowhere.listeners.is_empty());
    let other = "tcp: [{match: [{port: 9001}], route: [{destination: {host: other.x}}]}, {route: [{destination: {host: cart.shop.svc.cluster.local, port: {number: 80}}}]}]";
    let (_, made) =
        made(&[gateway("g", &tcp), virtual_service("t", "shop", "'*'", other)].concat());
    assert_eq!(handed_to(&listener(&made, "0.0.0.0_9000").filter_chains[0]), CART_80);
}

#[test]
fn the_older_gateway_keeps_what_both_want() {
    let tls = "tls: {mode: SIMPLE, credentialName: a}";
    let (model, made) = made(
        &[
            gateway("g", &server(80, "HTTP", "http", "hosts: [a.example.com]")),
            gateway("h", &server(80, "TCP", "tcp", "hosts: ['*']")),
            gateway("i", &server(443, "HTTPS", "i", &format!("hosts: [a.example.com], {tls}"))),
            gateway(
                "j",
                &server(
                    443,
                    "HTTPS",
                    "j",
                    &format!("hosts: [b.example.com, a.example.com], {tls}"),
                ),
            ),
        ]
        .concat(),
    );
    assert_eq!(made.listeners.len(), 2);
    assert_eq!(listener(&made, "0.0.0.0_8443").filter_chains.len(), 1);
    let said: Vec<String> = model.findings().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("port 80 is HTTP of the older Gateway shop/g"), "{said:?}");
    assert!(said[1].contains("TLS for `a.example.com` on port 443"), "{said:?}");
}

#[test]
fn a_rule_for_a_gateway_that_is_not_there_is_named() {
    let text = virtual_service("v", "shop", "a.example.com", &to("cart"));
    let model = model(&format!("{CART}{text}"));
    let said: Vec<String> = model.findings().iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|it| it.contains("no Gateway `shop/g` is known")), "{said:?}");
}

/// A Secret with its entries as plain text.
fn secret(namespace: &str, name: &str, entries: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData: {{{entries}}}\n"
    )
}

#[test]
fn secrets_go_to_proven_gateways_of_their_namespace_that_name_them() {
    let servers = [
        server(443, "HTTPS", "a", "hosts: [a.x], tls: {mode: SIMPLE, credentialName: a}"),
        server(443, "HTTPS", "b", "hosts: [b.x], tls: {mode: MUTUAL, credentialName: b}"),
        server(443, "HTTPS", "c", "hosts: [c.x], tls: {mode: MUTUAL, credentialName: c}"),
    ];
    let (model, made) = made(
        &[
            gateway("g", &servers.join(", ")),
            secret("front", "a", "tls.crt: CHAIN, tls.key: KEY, ca.crt: CA"),
            secret("front", "b", "cert: CHAIN-B, key: KEY-B, cacert: NOT-THIS"),
            secret("front", "b-cacert", "cacert: CA-B"),
            secret("front", "unnamed", "tls.crt: X, tls.key: X"),
            secret("shop", "c", "tls.crt: X, tls.key: X"),
        ]
        .concat(),
    );
    let held = |made: &Resources| -> BTreeMap<String, Vec<u8>> {
        let secrets = made.secrets.values().map(|it| Secret::decode(it.body.clone()).unwrap());
        let first = |secret: Secret| {
            let source = match secret.r#type.unwrap() {
                Type::TlsCertificate(it) => it.private_key,
                Type::ValidationContext(it) => it.trusted_ca,
                other => panic!("{other:?}"),
            };
            use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
            let Some(Specifier::InlineBytes(bytes)) = source.unwrap().specifier else { panic!() };
            (secret.name, bytes)
        };
        secrets.map(first).collect()
    };
    let wanted: BTreeMap<String, Vec<u8>> = [
        ("kubernetes://a", "KEY"),
        ("kubernetes://a-cacert", "CA"),
        ("kubernetes://b", "KEY-B"),
        ("kubernetes://b-cacert", "CA-B"),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes.as_bytes().to_vec()))
    .into();
    assert_eq!(held(&made), wanted);
    assert!(made_for(&model, &ingress(false)).secrets.is_empty(), "who it is has not been proved");
    let elsewhere = ProxyView { namespace: "bank".to_owned(), ..ingress(true) };
    assert!(made_for(&model, &elsewhere).secrets.is_empty());
    let account = |name: &str| Some(name.to_owned());
    let other = ProxyView { service_account: account("web"), ..ingress(true) };
    assert!(made_for(&model, &other).secrets.is_empty(), "another's pod");
    let unknown = ProxyView { name: "ingress-9".to_owned(), ..ingress(true) };
    assert!(made_for(&model, &unknown).secrets.is_empty(), "nobody knows this pod");
    let web =
        ProxyView { name: "web-1".to_owned(), service_account: account("web"), ..ingress(true) };
    let nothing = made_for(&model, &web);
    assert!(nothing.secrets.is_empty() && nothing.listeners.is_empty(), "labels are the pod's");
    let shown = format!("{:?}", model.edge(&ingress(true)));
    assert!(!shown.contains("KEY"), "{shown}");
}

#[test]
fn gateways_reach_headless_services_by_their_endpoints() {
    let text = format!("{CART}{}", super::SLICE).replace("clusterIP: 10.96.0.1", "clusterIP: None");
    let text = text.replace("clusterIPs: [10.96.0.1, 'fd00::1']", "clusterIPs: [None]");
    let model = model(&text);
    let view = ingress(true);
    let reach = seen(&model, "front").by_endpoints();
    let made = crate::translate::outbound(&reach, model.settings(), Traits::of(&view));
    assert!(made.endpoints.contains_key(CART_80));
    assert!(made.listeners.is_empty() && made.routes.is_empty() && made.names.is_empty());
    assert!(!made.clusters.contains_key("PassthroughCluster"));
}
