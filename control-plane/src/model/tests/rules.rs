//! Which rules hold for whom.

use std::collections::BTreeMap;

use lateen_api::security::MutualTlsMode;

use super::{CART, model, model_with, rule, seen, view};
use crate::model::Model;
use crate::serve::generation::Mesh;
use crate::translate::view::ProxyView;

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
