//! What proxies get for small meshes: decoded resources against what they must say.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action as RbacAction;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_filter,
};
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use lateen_api::meta::ObjectMeta;
use lateen_api::object::{Origin, Resource};
use lateen_api::port::Protocol;
use lateen_api::security::MutualTlsMode;
use lateen_xds::istio::NameTable;
use lateen_xds::server::ResourceMap;
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::input::{
    Endpoint, Inbound, InboundPort, MeshSettings, Outbound, Resolution, Service, ServicePort,
};
use super::view::ProxyView;
use super::{Resources, Traits, inbound, outbound};

mod grpc;

fn resource<S: DeserializeOwned>(name: &str, namespace: &str, spec: Value) -> Arc<Resource<S>> {
    Arc::new(Resource {
        meta: ObjectMeta {
            name: name.to_owned(),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        origin: Origin { file: "test.yaml".into(), document: 1, line: 1 },
        spec: serde_json::from_value(spec).unwrap(),
    })
}

fn endpoint(address: &str, version: &str) -> Endpoint {
    Endpoint {
        address: address.to_owned(),
        port: 8080,
        labels: [("version".to_owned(), version.to_owned())].into(),
        identity: format!("spiffe://cluster.local/ns/shop/sa/{version}"),
        mutual_tls: true,
        healthy: true,
        locality: String::new(),
        weight: 1,
        workload: "cart;shop;cart;v1;Kubernetes".to_owned(),
    }
}

fn service(name: &str, number: u16, protocol: Protocol) -> Service {
    Service {
        host: format!("{name}.shop.svc.cluster.local"),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        kubernetes: true,
        external: false,
        addresses: vec!["10.1.0.1/32".parse().unwrap(), "fd00::1/128".parse().unwrap()],
        resolution: Resolution::Endpoints,
        ports: vec![ServicePort {
            number,
            name: "p".to_owned(),
            protocol,
            endpoints: Arc::from([endpoint("10.0.0.1", "v1"), endpoint("10.0.0.2", "v2")]),
        }],
        subject_alt_names: Vec::new(),
    }
}

fn seen(services: Vec<Service>) -> Outbound {
    Outbound {
        namespace: "shop".to_owned(),
        services: services.into_iter().map(Arc::new).collect(),
        ..Outbound::default()
    }
}

fn traits() -> Traits {
    let addresses = vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
    Traits::of(&ProxyView { addresses, istio_filters: true, ..ProxyView::default() })
}

fn made(seen: &Outbound) -> Resources {
    outbound(seen, &MeshSettings::default(), traits())
}

fn get<M: Message + Default>(map: &ResourceMap, name: &str) -> M {
    let names: Vec<&Arc<str>> = map.keys().collect();
    let resource = map.get(name).unwrap_or_else(|| panic!("{name} is not in {names:?}"));
    M::decode(resource.body.clone()).unwrap()
}

const CART: &str = "cart.shop.svc.cluster.local";

#[test]
fn an_http_service_has_cluster_endpoints_listener_and_route() {
    let made = made(&seen(vec![service("cart", 80, Protocol::Http)]));
    let name = format!("outbound|80||{CART}");
    let cluster: Cluster = get(&made.clusters, &name);
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
    assert_eq!(cluster.cluster_discovery_type, Some(eds));
    assert_eq!(cluster.transport_socket_matches.len(), 2);
    let socket = cluster.transport_socket_matches[0].transport_socket.clone().unwrap();
    let Some(envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig(
        tls,
    )) = socket.config_type
    else {
        panic!()
    };
    let tls = UpstreamTlsContext::decode(tls.value.as_slice()).unwrap();
    assert_eq!(tls.sni, format!("outbound_.80_._.{CART}"));
    let assigned: ClusterLoadAssignment = get(&made.endpoints, &name);
    let first = &assigned.endpoints[0].lb_endpoints[0];
    let metadata = &first.metadata.as_ref().unwrap().filter_metadata;
    assert!(
        metadata.contains_key("envoy.transport_socket_match") && metadata.contains_key("istio")
    );
    let listener: Listener = get(&made.listeners, "0.0.0.0_80");
    assert!(!listener.bind_to_port.unwrap().value);
    assert_eq!(listener.additional_addresses.len(), 1, "IPv6 too");
    assert_eq!(listener.default_filter_chain.unwrap().name, "PassthroughFilterChain");
    let table: RouteConfiguration = get(&made.routes, "80");
    let host = &table.virtual_hosts[0];
    let domains = [CART, "cart", "cart.shop", "cart.shop.svc", "10.1.0.1", "[fd00::1]"];
    assert_eq!(host.domains, domains);
    assert_eq!(table.virtual_hosts[1].name, "allow_any");
    assert!(table.ignore_port_in_host_matching);
}

#[test]
fn a_rule_splits_between_subsets() {
    let mut seen = seen(vec![service("cart", 80, Protocol::Http)]);
    let rule = json!({"host": "cart", "subsets": [
        {"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]});
    seen.destination_rules.insert(CART.to_owned(), resource("cart", "shop", rule));
    let routes = json!({"hosts": ["cart"], "http": [
        {"match": [{"headers": {"x-v": {"exact": "2"}}}],
         "route": [{"destination": {"host": "cart", "subset": "v2"}}]},
        {"route": [{"destination": {"host": "cart", "subset": "v1"}, "weight": 80},
                   {"destination": {"host": "cart", "subset": "v2"}, "weight": 20}]},
        {"route": [{"destination": {"host": "never"}}]}]});
    seen.virtual_services = vec![resource("cart", "shop", routes)];
    let made = made(&seen);
    let subset: ClusterLoadAssignment = get(&made.endpoints, &format!("outbound|80|v2|{CART}"));
    assert_eq!(subset.endpoints[0].lb_endpoints.len(), 1);
    let table: RouteConfiguration = get(&made.routes, "80");
    let routes = &table.virtual_hosts[0].routes;
    assert_eq!(routes.len(), 2, "nothing after a route that takes everything");
    assert_eq!(routes[0].r#match.as_ref().unwrap().headers.len(), 1);
    let Some(Action::Route(split)) = &routes[1].action else { panic!() };
    let Some(ClusterSpecifier::WeightedClusters(split)) = &split.cluster_specifier else {
        panic!()
    };
    assert_eq!(split.clusters[0].name, format!("outbound|80|v1|{CART}"));
    assert_eq!(split.clusters[1].weight.unwrap().value, 20);
}

#[test]
fn tcp_has_a_listener_for_its_addresses() {
    let made = made(&seen(vec![service("db", 5432, Protocol::Tcp)]));
    let listener: Listener = get(&made.listeners, "10.1.0.1_5432");
    assert_eq!(listener.additional_addresses.len(), 1);
    assert!(listener.listener_filters.is_empty(), "a server may speak first");
    assert_eq!(listener.filter_chains.len(), 1);
    assert!(made.routes.is_empty());
}

#[test]
fn an_unknown_protocol_is_looked_at() {
    let made = made(&seen(vec![service("any", 9000, Protocol::Auto)]));
    let listener: Listener = get(&made.listeners, "10.1.0.1_9000");
    assert_eq!(listener.listener_filters.len(), 2);
    assert!(listener.default_filter_chain.is_some());
    let table: RouteConfiguration = get(&made.routes, "any.shop.svc.cluster.local:9000");
    assert_eq!(table.virtual_hosts[0].domains, ["*"]);
}

#[test]
fn headless_services_are_reached_at_their_pods() {
    let mut headless = service("db", 9042, Protocol::Tcp);
    headless.addresses.clear();
    headless.resolution = Resolution::Passthrough;
    let made = made(&seen(vec![headless]));
    assert!(made.listeners.contains_key("10.0.0.1_8080"));
    assert!(made.listeners.contains_key("10.0.0.2_8080"));
    let cluster: Cluster = get(&made.clusters, "outbound|9042||db.shop.svc.cluster.local");
    assert!(cluster.transport_socket.is_some(), "every pod takes mutual TLS");
    let names: NameTable = get(&made.names, "nametable");
    assert_eq!(names.table["db.shop.svc.cluster.local"].ips, ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn servers_outside_get_plain_connections_unless_told() {
    let mut outside = service("x", 443, Protocol::Tls);
    outside.host = "api.example.com".to_owned();
    outside.kubernetes = false;
    outside.external = true;
    outside.addresses.clear();
    outside.resolution = Resolution::Dns;
    let made = made(&seen(vec![outside]));
    let cluster: Cluster = get(&made.clusters, "outbound|443||api.example.com");
    assert!(cluster.transport_socket.is_none() && cluster.transport_socket_matches.is_empty());
    assert!(cluster.load_assignment.is_some());
    assert!(!made.endpoints.contains_key("outbound|443||api.example.com"));
    let listener: Listener = get(&made.listeners, "0.0.0.0_443");
    let matched = listener.filter_chains[0].filter_chain_match.clone().unwrap();
    assert_eq!(matched.server_names, ["api.example.com"]);
    assert!(listener.default_filter_chain.is_some());
}

#[test]
fn unknown_hosts_are_refused_when_only_the_registry_counts() {
    let mesh = MeshSettings { allow_any_outbound: false, ..MeshSettings::default() };
    let made = outbound(&seen(vec![service("cart", 80, Protocol::Http)]), &mesh, traits());
    let table: RouteConfiguration = get(&made.routes, "80");
    assert_eq!(table.virtual_hosts[1].name, "block_all");
    let Some(Action::DirectResponse(refused)) = &table.virtual_hosts[1].routes[0].action else {
        panic!()
    };
    assert_eq!(refused.status, 502);
    let listener: Listener = get(&made.listeners, "virtualOutbound");
    assert_eq!(listener.filter_chains.len(), 2);
}

fn workload(mode: MutualTlsMode, protocol: Protocol) -> Inbound {
    let port = InboundPort {
        port: 8080,
        protocol,
        host: CART.to_owned(),
        service_name: "cart".to_owned(),
        service_namespace: "shop".to_owned(),
        service_port: 80,
    };
    Inbound { ports: vec![port], mode, ..Inbound::default() }
}

fn into(workload: &Inbound) -> Listener {
    let made = inbound(workload, &MeshSettings::default(), traits());
    assert!(made.clusters.contains_key("inbound|8080||"));
    get(&made.listeners, "virtualInbound")
}

fn at(listener: &Listener, port: u32) -> Vec<&FilterChain> {
    let of = |chain: &&FilterChain| {
        let matched = chain.filter_chain_match.as_ref().unwrap();
        matched.destination_port.is_some_and(|it| it.value == port)
    };
    listener.filter_chains.iter().filter(of).collect()
}

fn rbac(chain: &FilterChain) -> Vec<HttpRbac> {
    let Some(filter::ConfigType::TypedConfig(config)) = &chain.filters[0].config_type else {
        panic!()
    };
    let manager = HttpConnectionManager::decode(config.value.as_slice()).unwrap();
    let filters = manager.http_filters.iter().filter(|it| it.name == "envoy.filters.http.rbac");
    filters
        .map(|it| match &it.config_type {
            Some(http_filter::ConfigType::TypedConfig(config)) => {
                HttpRbac::decode(config.value.as_slice()).unwrap()
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn strict_ports_have_no_plain_chain() {
    let listener = into(&workload(MutualTlsMode::Strict, Protocol::Http));
    let chains = at(&listener, 8080);
    assert_eq!(chains.len(), 1);
    assert!(chains[0].transport_socket.is_some());
    let open = into(&workload(MutualTlsMode::Permissive, Protocol::Http));
    assert_eq!(at(&open, 8080).len(), 2);
}

#[test]
fn a_port_may_have_a_mode_of_its_own() {
    let mut workload = workload(MutualTlsMode::Strict, Protocol::Http);
    workload.port_modes =
        BTreeMap::from([(8080, MutualTlsMode::Disable), (9, MutualTlsMode::Permissive)]);
    let listener = into(&workload);
    assert!(at(&listener, 8080).iter().all(|chain| chain.transport_socket.is_none()));
    assert_eq!(at(&listener, 9).len(), 5, "a port without service has its mode too");
}

#[test]
fn denials_come_before_permissions() {
    let mut workload = workload(MutualTlsMode::Strict, Protocol::Http);
    workload.policies = vec![
        resource(
            "allow",
            "shop",
            json!({"rules": [{"from": [{"source":
            {"principals": ["cluster.local/ns/shop/sa/web"]}}]}]}),
        ),
        resource(
            "deny",
            "shop",
            json!({"action": "DENY", "rules": [{"to": [{"operation":
            {"paths": ["/admin*"], "methods": ["GET"]}}]}]}),
        ),
        resource("audit", "shop", json!({"action": "AUDIT", "rules": [{}]})),
    ];
    let listener = into(&workload);
    let filters = rbac(at(&listener, 8080)[0]);
    assert_eq!(filters.len(), 2);
    let rules = |index: usize| filters[index].rules.clone().unwrap();
    assert_eq!(rules(0).action, RbacAction::Deny as i32);
    assert!(rules(0).policies.contains_key("ns[shop]-policy[deny]-rule[0]"));
    assert_eq!(rules(1).action, RbacAction::Allow as i32);
    assert!(rules(1).policies.contains_key("ns[shop]-policy[allow]-rule[0]"));
}

#[test]
fn rules_about_requests_never_widen_on_tcp() {
    let mut workload = workload(MutualTlsMode::Strict, Protocol::Tcp);
    workload.policies = vec![
        resource(
            "allow",
            "shop",
            json!({"rules": [
            {"to": [{"operation": {"methods": ["GET"]}}]},
            {"from": [{"source": {"namespaces": ["shop"]}}]}]}),
        ),
        resource(
            "deny",
            "shop",
            json!({"action": "DENY", "rules": [
            {"to": [{"operation": {"methods": ["GET"], "ports": ["8080"]}}]}]}),
        ),
    ];
    let listener = into(&workload);
    let chain = at(&listener, 8080)[0].clone();
    let decoded: Vec<NetworkRbac> = chain
        .filters
        .iter()
        .filter(|it| it.name == "envoy.filters.network.rbac")
        .map(|it| match &it.config_type {
            Some(filter::ConfigType::TypedConfig(config)) => {
                NetworkRbac::decode(config.value.as_slice()).unwrap()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let deny = decoded[0].rules.clone().unwrap();
    assert_eq!(deny.policies.len(), 1, "denies on the port, whatever the method");
    let allow = decoded[1].rules.clone().unwrap();
    let names: Vec<&String> = allow.policies.keys().collect();
    assert_eq!(names, ["ns[shop]-policy[allow]-rule[1]"], "the rule about methods allows nothing");
}

#[test]
fn a_policy_on_trial_is_not_enforced() {
    let mut workload = workload(MutualTlsMode::Strict, Protocol::Http);
    let mut policy = (*resource("try", "shop", json!({"rules": [{}]}))).clone();
    policy.meta.annotations.insert("istio.io/dry-run".to_owned(), "true".to_owned());
    workload.policies = vec![Arc::new(policy)];
    assert!(rbac(at(&into(&workload), 8080)[0]).is_empty());
    let findings = super::authorization_findings(&workload.policies, &[]);
    assert_eq!(findings.len(), 1);
}

#[test]
fn what_cannot_be_asked_is_said() {
    let policies = vec![resource(
        "jwt",
        "shop",
        json!({"action": "DENY", "rules": [
        {"from": [{"source": {"requestPrincipals": ["*"]}}]}]}),
    )];
    let findings = super::authorization_findings(&policies, &[]);
    assert_eq!(findings[0].path, "spec.rules[0].from[0].source.requestPrincipals");
    assert!(findings[0].message.contains("denies"), "{}", findings[0]);
}

#[test]
fn the_same_input_gives_the_same_versions() {
    let seen = seen(vec![service("cart", 80, Protocol::Http), service("db", 1, Protocol::Tcp)]);
    let first = made(&seen);
    for _ in 0..10 {
        assert_eq!(made(&seen), first);
    }
}

#[test]
fn stock_proxies_get_no_filters_of_istio() {
    let addresses = vec!["10.0.0.9".parse().unwrap()];
    let stock = Traits::of(&ProxyView { addresses, ..ProxyView::default() });
    let made =
        outbound(&seen(vec![service("cart", 80, Protocol::Http)]), &MeshSettings::default(), stock);
    for resource in made.listeners.values() {
        let text = String::from_utf8_lossy(&resource.body).into_owned();
        assert!(!text.contains("istio.stats") && !text.contains("istio.alpn"));
    }
}
