//! What proxies are sent for small meshes.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use prost::Message;

use super::{CART, model, rule, seen, view};
use crate::model::Model;
use crate::serve::generation::Mesh;
use crate::translate::view::ProxyView;

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
