//! The store as pure state, and the whole loop against a discovery server over plaintext gRPC.

mod reconnection;
mod resources;
mod server;

use super::*;
use crate::agent::materials::Materials;
use crate::upstream::tls::TlsMaterials;
use lateen_xds::envoy::route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use lateen_xds::envoy::route::{route, route_action, route_match};
use lateen_xds::pb::google::protobuf::Any;
use lateen_xds::{any, type_url};
use resources::*;
use std::sync::Arc;

#[test]
fn a_cluster_is_in_force_once_its_endpoints_are_known() {
    let mut store = Store::default();
    assert!(store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 1))], &[])).is_empty());
    assert!(store.snapshot().clusters.is_empty());
    assert_eq!(&*store.summary().warming[0], "a");
    assert_eq!(store.needed_endpoints().len(), 1);
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    let snapshot = store.snapshot();
    assert_eq!(snapshot.clusters.len(), 1);
    assert_eq!(snapshot.endpoints["a"].endpoints.len(), 1);
    store.apply(&update(type_url::CLUSTER, &[("b", eds_cluster("b", 1))], &["a"]));
    store.apply(&update(type_url::ENDPOINTS, &[], &["b"]));
    let snapshot = store.snapshot();
    assert!(snapshot.clusters.contains_key("b") && !snapshot.clusters.contains_key("a"));
    assert!(snapshot.endpoints.is_empty(), "there are none, and none are awaited");
}

#[test]
fn a_removed_cluster_stays_while_something_in_force_names_it() {
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", static_cluster("a"))], &[]));
    store.apply(&update(type_url::LISTENER, &[("l", tcp_listener("l", "a"))], &[]));
    store.apply(&update(type_url::CLUSTER, &[("b", static_cluster("b"))], &["a"]));
    let names = |store: &mut Store| {
        let mut names: Vec<_> = store.snapshot().clusters.into_keys().collect();
        names.sort();
        names
    };
    assert_eq!(names(&mut store), ["a".into(), "b".into()]);
    assert!(store.is_whole());
    store.apply(&update(type_url::LISTENER, &[("l", tcp_listener("l", "b"))], &[]));
    assert_eq!(names(&mut store), ["b".into()]);
}

#[test]
fn changed_routes_wait_for_the_clusters_they_name() {
    let routes = |cluster: &str| {
        let action = RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
            ..RouteAction::default()
        };
        let matches = RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        };
        let route = Route {
            r#match: Some(matches),
            action: Some(route::Action::Route(action)),
            ..Route::default()
        };
        let host = VirtualHost {
            name: "v".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        };
        any::pack(&RouteConfiguration {
            name: "80".to_owned(),
            virtual_hosts: vec![host],
            ..RouteConfiguration::default()
        })
    };
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", static_cluster("a"))], &[]));
    store.apply(&update(type_url::LISTENER, &[("l", http_listener("l", "80"))], &[]));
    store.apply(&update(type_url::ROUTES, &[("80", routes("a"))], &[]));
    let named = |store: &mut Store| {
        let snapshot = store.snapshot();
        snapshot.routes["80"].cluster_names().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(named(&mut store), ["a"]);
    store.apply(&update(type_url::CLUSTER, &[("b", eds_cluster("b", 1))], &[]));
    store.apply(&update(type_url::ROUTES, &[("80", routes("b"))], &[]));
    assert_eq!(named(&mut store), ["a"], "b has no endpoints yet");
    store.apply(&update(type_url::ENDPOINTS, &[("b", endpoints("b", "10.0.0.1"))], &[]));
    assert_eq!(named(&mut store), ["b"]);
    store.apply(&update(type_url::ROUTES, &[], &["80"]));
    assert_eq!(named(&mut store), ["b"], "the listener still needs them");
}

#[test]
fn a_listener_waits_for_its_secrets_and_a_broken_one_changes_nothing() {
    const NAME: &str = "kubernetes://shop";
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", static_cluster("a"))], &[]));
    store.apply(&update(type_url::LISTENER, &[("l", tls_listener("l", NAME))], &[]));
    assert!(store.snapshot().listeners.is_empty() && !store.is_whole());
    assert_eq!(store.needed_secrets(), [NAME.into()].into());
    // That there is none is an answer: chains with other secrets must not wait for ever.
    store.apply(&update(type_url::SECRET, &[], &[NAME]));
    assert!(store.is_whole());
    assert!(store.snapshot().listeners.contains_key("l") && store.snapshot().secrets.is_empty());

    let materials = Materials::default();
    let leaf = |materials: &Materials| {
        materials.certificate(NAME).map(|key| key.cert[0].as_ref().to_vec())
    };
    let ((chain, key), (other_chain, other_key)) = (key_pair("a.test"), key_pair("b.test"));
    let mut put = |chain: &str, key: &str| {
        let rejected =
            store.apply(&update(type_url::SECRET, &[(NAME, tls_secret(NAME, chain, key))], &[]));
        materials.set_secrets(&store.snapshot().secrets);
        (rejected, leaf(&materials), materials.generation())
    };
    let (_, first, generation) = put(&chain, &key);
    assert!(first.is_some() && generation == 1);
    assert_eq!(put(&chain, &key).2, generation, "equal secrets are the same");
    for (chain, key) in [(&*other_chain, "junk"), ("junk", &*other_key), (&*other_chain, &*key)] {
        let (rejected, kept, _) = put(chain, key);
        assert_eq!((rejected.len(), &kept), (1, &first), "{rejected:?}");
        assert!(!rejected[0].reason.contains("BEGIN"), "{rejected:?}");
    }
    let (rejected, second, _) = put(&other_chain, &other_key);
    assert!(rejected.is_empty() && second.is_some() && second != first);

    store.apply(&update(type_url::LISTENER, &[], &["l"]));
    assert!(store.snapshot().secrets.is_empty(), "nobody needs it any more");
}

#[test]
fn equal_resources_keep_their_identity() {
    let mut store = Store::default();
    let all = [("a", eds_cluster("a", 1))];
    store.apply(&update(type_url::CLUSTER, &all, &[]));
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    let before = store.snapshot();
    store.apply(&update(type_url::CLUSTER, &all, &[]));
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    let after = store.snapshot();
    assert!(Arc::ptr_eq(&before.clusters["a"], &after.clusters["a"]));
    assert!(Arc::ptr_eq(&before.endpoints["a"], &after.endpoints["a"]));
    store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 2))], &[]));
    assert!(!Arc::ptr_eq(&before.clusters["a"], &store.snapshot().clusters["a"]));
}

#[test]
fn a_refused_resource_leaves_the_last_good_one_and_its_neighbours() {
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 1))], &[]));
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    let good = store.snapshot().clusters["a"].connect_timeout;
    let broken = Any { type_url: type_url::CLUSTER.to_owned(), value: vec![0xff] };
    let mixed = [("a", broken), ("b", eds_cluster("b", 1)), ("c", eds_cluster("x", 1))];
    let rejections = store.apply(&update(type_url::CLUSTER, &mixed, &[]));
    let names: Vec<_> = rejections.iter().map(|r| &*r.name).collect();
    assert_eq!(names, ["a", "c"]);
    assert!(rejections[1].reason.contains("calls itself `x`"), "{:?}", rejections[1]);
    assert_eq!(store.snapshot().clusters["a"].connect_timeout, good);
    assert!(store.needed_endpoints().iter().any(|name| &**name == "b"));
    assert_eq!(store.summary().refused.len(), 2);
    store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 3))], &["c"]));
    assert!(store.summary().refused.is_empty());
}

#[test]
fn the_first_configuration_is_whole_when_nothing_is_awaited() {
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 1))], &[]));
    store.apply(&update(type_url::LISTENER, &[], &[]));
    assert!(!store.is_whole());
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    assert!(store.is_whole());
}
