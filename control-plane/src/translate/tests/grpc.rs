//! What gRPC libraries get without a proxy: what they ask for, and nothing they would refuse.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbPolicy,
};
use envoy_types::pb::envoy::config::core::v3::transport_socket;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action as RbacAction;
use envoy_types::pb::envoy::config::rbac::v3::{Policy, Rbac as Rules};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_filter,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, DownstreamTlsContext, UpstreamTlsContext,
};
use lateen_api::port::Protocol;
use lateen_api::security::MutualTlsMode;
use prost::Message;
use serde_json::{Value, json};

use super::{CART, endpoint, get, resource, seen, service, workload};
use crate::translate::filters::FAULT;
use crate::translate::input::{Inbound, MeshSettings, Outbound, Resolution};
use crate::translate::view::ProxyView;
use crate::translate::{Resources, Traits, inbound, outbound};

fn library() -> Traits {
    let addresses = vec!["10.0.0.9".parse().unwrap()];
    Traits::of(&ProxyView { addresses, grpc: true, ..ProxyView::default() })
}

fn made(seen: &Outbound) -> Resources {
    outbound(seen, &MeshSettings::default(), library())
}

fn ruled(rule: Value) -> Outbound {
    let mut seen = seen(vec![service("cart", 80, Protocol::Grpc)]);
    seen.destination_rules.insert(CART.to_owned(), resource("cart", "shop", rule));
    seen
}

fn cluster(seen: &Outbound, subset: &str) -> Cluster {
    get(&made(seen).clusters, &format!("outbound|80|{subset}|{CART}"))
}

fn filters(manager: &HttpConnectionManager) -> Vec<&str> {
    manager.http_filters.iter().map(|it| it.name.as_str()).collect()
}

#[test]
fn a_service_is_found_by_all_its_names() {
    let mut other = service("till", 81, Protocol::Grpc);
    other.namespace = "bank".to_owned();
    other.host = "till.bank.svc.cluster.local".to_owned();
    let made = made(&seen(vec![service("cart", 80, Protocol::Grpc), other]));
    let names: Vec<&str> = made.listeners.keys().map(|name| &**name).collect();
    let cart = ["cart.shop.svc.cluster.local:80", "cart.shop.svc:80", "cart.shop:80", "cart:80"];
    let till = ["till.bank.svc.cluster.local:81", "till.bank.svc:81", "till.bank:81"];
    assert_eq!(names, [&cart[..], &till[..]].concat());
    for name in cart {
        let listener: Listener = get(&made.listeners, name);
        assert!(listener.address.is_none() && listener.filter_chains.is_empty());
        let api = listener.api_listener.unwrap().api_listener.unwrap();
        let manager = HttpConnectionManager::decode(api.value.as_slice()).unwrap();
        assert_eq!(filters(&manager), [FAULT, "envoy.filters.http.router"]);
        let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!() };
        assert_eq!(rds.route_config_name, format!("outbound|80||{CART}"));
        assert!(made.routes.contains_key(rds.route_config_name.as_str()));
    }
    assert_eq!((made.clusters.len(), made.names.len()), (2, 0), "nothing for proxies");
}

#[test]
fn a_host_does_not_take_over_the_short_name_of_a_service_before_it() {
    let mut outside = service("outside", 80, Protocol::Grpc);
    outside.kubernetes = false;
    outside.namespace = "bank".to_owned();
    outside.host = "cart.shop".to_owned();
    let made = made(&seen(vec![service("cart", 80, Protocol::Grpc), outside]));
    let listener: Listener = get(&made.listeners, "cart.shop:80");
    let api = listener.api_listener.unwrap().api_listener.unwrap();
    let manager = HttpConnectionManager::decode(api.value.as_slice()).unwrap();
    let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!() };
    assert_eq!(rds.route_config_name, format!("outbound|80||{CART}"));
}

#[test]
fn routes_are_those_of_the_rule_as_far_as_they_are_understood() {
    let mut seen = seen(vec![service("cart", 80, Protocol::Grpc)]);
    seen.virtual_services.push(resource(
        "cart",
        "shop",
        json!({"hosts": ["cart"], "http": [
            {"match": [{"uri": {"prefix": "/shop.Cart/"}}], "timeout": "3s",
             "fault": {"abort": {"grpcStatus": "NOT_FOUND", "percentage": {"value": 5}}},
             "corsPolicy": {"allowOrigins": [{"exact": "https://a"}]},
             "route": [{"destination": {"host": "cart", "subset": "v1"}, "weight": 90},
                       {"destination": {"host": "cart", "subset": "v2"}, "weight": 10}]},
            {"route": [{"destination": {"host": "cart"}}]}]}),
    ));
    let table: RouteConfiguration = get(&made(&seen).routes, &format!("outbound|80||{CART}"));
    let [host] = table.virtual_hosts.as_slice() else { panic!("{table:?}") };
    assert_eq!(host.domains, ["*"], "the target is known to be this service");
    let filters: Vec<&String> = host.routes[0].typed_per_filter_config.keys().collect();
    assert_eq!(filters, [FAULT], "a library refuses a table with filters it does not know");
    let Some(Action::Route(first)) = &host.routes[0].action else { panic!() };
    let Some(ClusterSpecifier::WeightedClusters(split)) = &first.cluster_specifier else {
        panic!()
    };
    let names: Vec<&str> = split.clusters.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, [format!("outbound|80|v1|{CART}"), format!("outbound|80|v2|{CART}")]);
    let longest = first.max_stream_duration.as_ref().unwrap().max_stream_duration.unwrap();
    assert_eq!(longest.seconds, 3);
    let Some(Action::Route(last)) = &host.routes[1].action else { panic!() };
    assert_eq!(
        last.cluster_specifier,
        Some(ClusterSpecifier::Cluster(format!("outbound|80||{CART}")))
    );
}

/// The routes of a rule with one route that has this match, by their names and numbers of headers;
/// with `rest` another route takes what is left.
fn matched(condition: &Value, rest: bool) -> Vec<(String, usize)> {
    let destination = json!([{"destination": {"host": "cart"}}]);
    let mut http = vec![json!({"name": "ruled", "match": [condition], "route": destination})];
    if rest {
        http.push(json!({"name": "rest", "route": destination}));
    }
    let mut seen = seen(vec![service("cart", 80, Protocol::Grpc)]);
    let rule = json!({"hosts": ["cart"], "http": http});
    seen.virtual_services.push(resource("cart", "shop", rule));
    let table: RouteConfiguration = get(&made(&seen).routes, &format!("outbound|80||{CART}"));
    let routes = table.virtual_hosts.into_iter().flat_map(|host| host.routes);
    let told = routes.map(|it| match it.action {
        Some(Action::NonForwardingAction(_)) => ("nowhere".to_owned(), 0),
        _ => (it.name, it.r#match.unwrap().headers.len()),
    });
    told.collect()
}

#[test]
fn conditions_that_libraries_cannot_judge_are_judged_for_them() {
    let both = |headers| vec![("ruled".to_owned(), headers), ("rest".to_owned(), 0)];
    let header = json!({"x-user": {"exact": "a"}});
    assert_eq!(matched(&json!({"headers": header}), true), both(1));
    assert_eq!(matched(&json!({"withoutHeaders": {"x-user": {}}}), true), both(1));
    for method in [json!({"exact": "POST"}), json!({"prefix": "PO"})] {
        assert_eq!(matched(&json!({"method": method}), true), both(0), "every call is a POST");
        assert_eq!(matched(&json!({"method": method, "headers": header}), true), both(1));
    }
    for condition in [
        json!({"method": {"exact": "GET"}}),
        json!({"method": {"regex": "P.*"}}),
        json!({"authority": {"exact": "cart"}}),
        json!({"scheme": {"exact": "http"}}),
        json!({"withoutHeaders": {"x-user": {"exact": "a"}}}),
    ] {
        assert_eq!(matched(&condition, true), [("rest".to_owned(), 0)], "{condition}");
        assert_eq!(matched(&condition, false), [("nowhere".to_owned(), 0)], "{condition}");
    }
}

#[test]
fn clusters_ask_only_for_what_libraries_have() {
    let subsets = json!([{"name": "v1", "labels": {"version": "v1"}}]);
    let seen = ruled(json!({"host": "cart", "subsets": subsets, "trafficPolicy": {
        "loadBalancer": {"simple": "LEAST_REQUEST"},
        "connectionPool": {"http": {"http2MaxRequests": 7}}}}));
    let whole = cluster(&seen, "");
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
    assert_eq!(whole.cluster_discovery_type, Some(eds));
    assert_eq!(whole.lb_policy, LbPolicy::RoundRobin as i32);
    let limits = whole.circuit_breakers.unwrap();
    assert_eq!(limits.thresholds[0].max_requests.unwrap().value, 7);
    assert!(whole.transport_socket.is_none() && whole.transport_socket_matches.is_empty());
    let endpoints = |name: &str| {
        let all: ClusterLoadAssignment = get(&made(&seen).endpoints, name);
        all.endpoints.iter().map(|it| it.lb_endpoints.len()).sum::<usize>()
    };
    assert_eq!(endpoints(&format!("outbound|80||{CART}")), 2);
    assert_eq!(endpoints(&format!("outbound|80|v1|{CART}")), 1);
}

#[test]
fn tls_that_libraries_cannot_make_is_no_plaintext() {
    for mode in ["SIMPLE", "MUTUAL"] {
        let subsets = json!([
            {"name": "plain", "labels": {}, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}]);
        let tls = json!({"tls": {"mode": mode}});
        let seen = ruled(json!({"host": "cart", "subsets": subsets, "trafficPolicy": tls}));
        let had = made(&seen);
        let plain = format!("outbound|80|plain|{CART}");
        for names in [&had.clusters, &had.endpoints] {
            assert!(names.keys().map(|name| &**name).eq([plain.as_str()]), "{mode}: {names:?}");
        }
        let mut now = seen.clone();
        let mut changed = service("cart", 80, Protocol::Grpc);
        changed.ports[0].endpoints = Arc::from([endpoint("10.0.0.3", "v1")]);
        now.services = vec![Arc::new(changed)];
        let mesh = MeshSettings::default();
        let next = crate::translate::outbound_after((&seen, &had), &now, &mesh, library()).unwrap();
        assert_eq!((next.clusters.len(), next.endpoints.len()), (1, 1), "{mode}");
    }
}

#[test]
fn every_hash_is_one_on_a_ring() {
    let by = |hash: Value| {
        let rule = json!({"host": "cart", "trafficPolicy": {"loadBalancer": {
            "consistentHash": hash}}});
        cluster(&ruled(rule), "")
    };
    let header = by(json!({"httpHeaderName": "x-user"}));
    assert_eq!(header.lb_policy, LbPolicy::RingHash as i32);
    let maglev = by(json!({"httpHeaderName": "x-user", "maglev": {"tableSize": 101}}));
    assert_eq!((maglev.lb_policy, maglev.lb_config), (header.lb_policy, header.lb_config));
}

#[test]
fn mutual_tls_is_made_where_a_rule_asks_for_it_by_name() {
    let tls = |policy: Value| {
        let rule = json!({"host": "cart", "trafficPolicy": {"tls": policy}});
        let socket = cluster(&ruled(rule), "").transport_socket?;
        let Some(transport_socket::ConfigType::TypedConfig(config)) = socket.config_type else {
            panic!()
        };
        Some(UpstreamTlsContext::decode(config.value.as_slice()).unwrap())
    };
    assert_eq!(tls(json!({"mode": "DISABLE"})), None);
    let context = tls(json!({"mode": "ISTIO_MUTUAL"})).unwrap().common_tls_context.unwrap();
    let own = context.tls_certificate_provider_instance.unwrap();
    assert_eq!((own.instance_name.as_str(), own.certificate_name.as_str()), ("default", "default"));
    let Some(ValidationContextType::ValidationContext(validation)) =
        context.validation_context_type
    else {
        panic!()
    };
    assert_eq!(names(&validation), 2, "the identities of both endpoints");
    let roots = validation.ca_certificate_provider_instance.unwrap();
    assert_eq!(roots.certificate_name, "ROOTCA");
    assert!(context.tls_params.is_none(), "libraries refuse it");
}

#[expect(deprecated, reason = "gRPC libraries read no other field of these names")]
fn names(validation: &CertificateValidationContext) -> usize {
    validation.match_subject_alt_names.len()
}

#[test]
fn addresses_come_from_endpoints_or_from_one_name() {
    let mut outside = service("outside", 443, Protocol::Grpc);
    outside.resolution = Resolution::Dns;
    let mut headless = service("headless", 80, Protocol::Grpc);
    headless.resolution = Resolution::Passthrough;
    headless.addresses = Vec::new();
    let mut nobody = headless.clone();
    nobody.host = "nobody.shop.svc.cluster.local".to_owned();
    nobody.ports[0].endpoints = Arc::from([]);
    let mut nameless = outside.clone();
    nameless.host = "nameless.shop.svc.cluster.local".to_owned();
    nameless.ports[0].endpoints = Arc::from([]);
    let made = made(&seen(vec![outside, headless, nobody, nameless]).by_endpoints());
    let outside: Cluster = get(&made.clusters, "outbound|443||outside.shop.svc.cluster.local");
    let dns = ClusterDiscoveryType::Type(DiscoveryType::LogicalDns as i32);
    assert_eq!(outside.cluster_discovery_type, Some(dns));
    let answers = &outside.load_assignment.unwrap().endpoints;
    assert_eq!((answers.len(), answers[0].lb_endpoints.len()), (1, 1));
    assert!(made.endpoints.contains_key("outbound|80||headless.shop.svc.cluster.local"));
    assert!(!made.listeners.keys().any(|name| name.starts_with("nobody")));
    assert!(!made.clusters.keys().any(|name| name.contains("nameless")), "libraries refuse it");
}

fn served(workload: &Inbound, name: &str) -> (Listener, HttpConnectionManager) {
    let made = inbound(workload, &MeshSettings::default(), library());
    assert!(made.clusters.is_empty());
    let listener: Listener = get(&made.listeners, name);
    let chain = &listener.filter_chains[0];
    let Some(filter::ConfigType::TypedConfig(config)) = &chain.filters[0].config_type else {
        panic!()
    };
    let manager = HttpConnectionManager::decode(config.value.as_slice()).unwrap();
    (listener, manager)
}

const ANYWHERE: &str = "xds.istio.io/grpc/lds/inbound/[::]:8080";

#[test]
fn a_server_asks_by_the_address_it_listens_on() {
    let mut workload = workload(MutualTlsMode::Disable, Protocol::Grpc);
    workload.addresses = vec!["10.0.0.9".parse().unwrap()];
    for (host, ip) in [("[::]", "::"), ("0.0.0.0", "0.0.0.0"), ("10.0.0.9", "10.0.0.9")] {
        let name = format!("xds.istio.io/grpc/lds/inbound/{host}:8080");
        let (listener, manager) = served(&workload, &name);
        assert!(format!("{:?}", listener.address).contains(&format!("\"{ip}\"")));
        assert!(listener.listener_filters.is_empty() && listener.use_original_dst.is_none());
        assert_eq!(filters(&manager), ["envoy.filters.http.router"]);
        let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!() };
        let action = &routes.virtual_hosts[0].routes[0].action;
        assert!(matches!(action, Some(Action::NonForwardingAction(_))));
    }
}

#[test]
fn a_server_demands_mutual_tls_where_its_clients_will_make_it() {
    let demands = |mode, labelled_mutual_tls| {
        let workload = Inbound { labelled_mutual_tls, ..workload(mode, Protocol::Grpc) };
        let socket = served(&workload, ANYWHERE).0.filter_chains[0].transport_socket.clone()?;
        let Some(transport_socket::ConfigType::TypedConfig(config)) = socket.config_type else {
            panic!()
        };
        DownstreamTlsContext::decode(config.value.as_slice()).unwrap().require_client_certificate
    };
    assert!(demands(MutualTlsMode::Strict, false).is_some_and(|it| it.value));
    assert!(demands(MutualTlsMode::Permissive, true).is_some_and(|it| it.value));
    assert_eq!(demands(MutualTlsMode::Permissive, false), None);
    assert_eq!(demands(MutualTlsMode::Disable, true), None);
}

#[test]
fn a_server_gets_policies_that_it_can_read() {
    let mut workload = workload(MutualTlsMode::Disable, Protocol::Grpc);
    let rules = |paths: Value| json!([{"to": [{"operation": {"paths": paths}}]}]);
    workload.policies = vec![
        resource("deny", "shop", json!({"action": "DENY", "rules": rules(json!(["/a/{*}"]))})),
        resource("allow", "shop", json!({"rules": rules(json!(["/shop.Cart/*", "/b/{**}"]))})),
        resource("other", "shop", json!({"rules": rules(json!(["/shop.Cart/*"]))})),
    ];
    let (_, manager) = served(&workload, ANYWHERE);
    let deny = "envoy.filters.http.rbac.DENY";
    let router = "envoy.filters.http.router";
    assert_eq!(filters(&manager), [deny, "envoy.filters.http.rbac", router], "no name twice");
    assert_eq!(rules_at(&manager, 0).action, RbacAction::Deny as i32);
    let denied = format!("{:?}", rules_at(&manager, 0));
    assert!(!denied.contains("UriTemplate") && denied.contains("Any(true)"), "{denied}");
    let allowed: Vec<String> = rules_at(&manager, 1).policies.into_keys().collect();
    assert_eq!(allowed, ["ns[shop]-policy[other]-rule[0]"], "less is allowed, never more");
}

fn rules_at(manager: &HttpConnectionManager, place: usize) -> Rules {
    match &manager.http_filters[place].config_type {
        Some(http_filter::ConfigType::TypedConfig(config)) => {
            Rbac::decode(config.value.as_slice()).unwrap().rules.unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// What a server gets of one rule: as one that denies, and as one that allows.
fn denied_and_allowed(rule: &Value) -> (Rules, Rules) {
    let mut workload = workload(MutualTlsMode::Disable, Protocol::Grpc);
    workload.policies = vec![
        resource("deny", "shop", json!({"action": "DENY", "rules": [rule]})),
        resource("allow", "shop", json!({"rules": [rule]})),
    ];
    let (_, manager) = served(&workload, ANYWHERE);
    (rules_at(&manager, 0), rules_at(&manager, 1))
}

/// The policy of a rule without conditions.
fn unconditional() -> Policy {
    let (denied, _) = denied_and_allowed(&json!({}));
    denied.policies.into_values().next().unwrap()
}

#[test]
fn what_a_server_cannot_judge_widens_a_denial_and_voids_a_permission() {
    let key = |key: &str, values: Value| json!({"when": [{"key": key, "values": values}]});
    for rule in [
        key("connection.sni", json!(["a.example"])),
        json!({"when": [{"key": "connection.sni", "notValues": ["a.example"]}]}),
        key("remote.ip", json!(["10.0.0.0/8"])),
        json!({"from": [{"source": {"remoteIpBlocks": ["10.0.0.0/8"]}}]}),
        json!({"from": [{"source": {"notRemoteIpBlocks": ["10.0.0.0/8"]}}]}),
    ] {
        let (denied, allowed) = denied_and_allowed(&rule);
        let of: Vec<Policy> = denied.policies.into_values().collect();
        assert_eq!(of, [unconditional()], "{rule}");
        assert!(allowed.policies.is_empty(), "{rule}");
    }
    let (_, allowed) = denied_and_allowed(&key("source.ip", json!(["10.0.0.0/8"])));
    assert_eq!(allowed.policies.len(), 1, "the address at the other end is known");
}

#[test]
fn a_server_is_asked_for_the_headers_that_it_shows_by_the_names_it_has() {
    let rule = |name: &str| json!({"when": [{"key": format!("request.headers[{name}]"), "values": ["a"]}]});
    for name in ["te", "TE", "x-trace-bin", "X-Trace-Bin", "Grpc-Timeout", ":scheme"] {
        let (denied, allowed) = denied_and_allowed(&rule(name));
        let of: Vec<Policy> = denied.policies.into_values().collect();
        assert_eq!(of, [unconditional()], "{name}");
        assert!(allowed.policies.is_empty(), "{name}");
    }
    let (denied, allowed) = denied_and_allowed(&rule("X-User"));
    for rules in [denied, allowed] {
        let said = format!("{rules:?}");
        assert!(said.contains("\"x-user\"") && !said.contains("X-User"), "{said}");
    }
}

#[test]
fn endpoints_that_change_lead_to_the_same_as_a_fresh_start() {
    let before = seen(vec![service("cart", 80, Protocol::Grpc)]);
    let mut changed = service("cart", 80, Protocol::Grpc);
    changed.ports[0].endpoints = Arc::from([endpoint("10.0.0.3", "v1")]);
    let now = seen(vec![changed]);
    let (had, mesh) = (made(&before), MeshSettings::default());
    let next = crate::translate::outbound_after((&before, &had), &now, &mesh, library()).unwrap();
    let fresh = made(&now);
    assert_eq!((&next.clusters, &next.endpoints), (&fresh.clusters, &fresh.endpoints));
    assert_eq!(next.since.unwrap().changed.len(), 1);
}
