//! What stays in force when an API server says this and that.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::topics::{Topic, secret as secret_topic, topics};
use super::super::trim::trim;
use super::{Change, Store};

fn all() -> Vec<Topic> {
    topics("istio-system", &["istio".to_owned()])
}

fn place(kind: &str) -> usize {
    all().iter().position(|topic| topic.kind == kind).unwrap()
}

fn applied(kind: &str, value: Value) -> Change {
    Change::Applied(Box::new(trim(&all()[place(kind)], "v1", value).unwrap()))
}

fn service(name: &str, port: u16) -> Change {
    let value = json!({
        "metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": [{"port": port}]}
    });
    applied("Service", value)
}

fn rule(host: &str, mode: &str) -> Change {
    let value = json!({
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"host": host, "trafficPolicy": {"tls": {"mode": mode}}},
    });
    applied("DestinationRule", value)
}

fn name(name: &str) -> (String, String) {
    ("shop".to_owned(), name.to_owned())
}

fn store() -> Store {
    Store::new(all().len())
}

fn ports(store: &Store) -> Vec<(String, u16)> {
    let load = store.load();
    let all = load.objects.services.iter();
    all.map(|it| (it.object.metadata.name.clone(), it.object.spec.ports[0].port)).collect()
}

#[test]
fn a_list_replaces_what_was_known_and_only_when_it_has_ended() {
    let mut store = store();
    let place = place("Service");
    for change in [Change::Listing, service("a", 1), service("b", 2), Change::Listed] {
        store.apply(place, change);
    }
    assert_eq!(ports(&store), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    // The connection breaks while everything is listed anew.
    store.apply(place, Change::Listing);
    assert!(!store.apply(place, service("b", 2)), "the same");
    assert_eq!(ports(&store).len(), 2);
    for change in [Change::Listing, service("c", 3), service("b", 4)] {
        assert!(store.apply(place, change) || ports(&store).len() == 2);
    }
    assert!(store.apply(place, Change::Listed));
    assert_eq!(ports(&store), [("b".to_owned(), 4), ("c".to_owned(), 3)]);
    assert!(store.apply(place, Change::Deleted(name("c"))));
    assert!(!store.apply(place, Change::Deleted(name("c"))));
}

#[test]
fn what_comes_while_listing_stays() {
    let mut store = store();
    let place = place("Service");
    for change in [Change::Listing, service("a", 1), Change::Listed] {
        store.apply(place, change);
    }
    for change in [Change::Listing, service("a", 1), Change::Deleted(name("a")), Change::Listed] {
        store.apply(place, change);
    }
    assert!(ports(&store).is_empty());
}

#[test]
fn it_is_complete_when_everything_was_listed_or_is_not_served() {
    let mut store = store();
    for (place, topic) in all().iter().enumerate() {
        assert!(!store.is_complete());
        store.apply(place, Change::Listing);
        assert!(!store.is_listed(place));
        let end = if topic.optional { Change::Gone } else { Change::Listed };
        assert!(store.apply(place, end), "the first end is news");
        assert!(store.is_listed(place));
    }
    assert!(store.is_complete());
    assert!(!store.apply(place("Sidecar"), Change::Gone), "nothing new");
}

#[test]
fn what_was_opened_later_is_not_waited_for_and_ends_when_it_is_closed() {
    let mut store = store();
    for place in 0..all().len() {
        store.apply(place, Change::Gone);
    }
    let place = store.open();
    assert!(store.is_complete());
    let secret = secret_topic("shop", "key");
    let value = json!({"metadata": {"name": "key", "namespace": "shop"}, "data": {"a": "eA=="}});
    let applied = || Change::Applied(Box::new(trim(&secret, "v1", value.clone()).unwrap()));
    assert!(store.apply(place, applied()));
    assert_eq!(store.load().objects.secrets[0].object.data["a"], "eA==");
    assert!(store.close(place));
    assert!(!store.apply(place, applied()), "a late report");
    assert!(store.load().objects.secrets.is_empty());
}

#[test]
fn a_refused_object_leaves_the_former_one_in_force() {
    let mut store = store();
    let place = place("DestinationRule");
    store.apply(place, rule("cart", "DISABLE"));
    assert!(store.load().findings.is_empty());
    assert!(store.apply(place, rule("other", "SOMETIMES")));
    let load = store.load();
    assert_eq!(load.objects.destination_rules[0].spec.host, "cart");
    let shown = load.findings[0].to_string();
    let start = "cluster: DestinationRule shop/cart: spec.trafficPolicy.tls.mode: ";
    assert!(shown.starts_with(start), "{shown}");
    assert!(store.apply(place, rule("also", "NEVER")));
    assert_eq!(store.load().objects.destination_rules[0].spec.host, "cart");
    assert!(store.apply(place, rule("third", "SIMPLE")));
    let load = store.load();
    assert_eq!(load.objects.destination_rules[0].spec.host, "third");
    assert!(load.findings.is_empty());
    assert!(store.apply(place, Change::Deleted(name("cart"))));
    assert!(store.load().objects.destination_rules.is_empty());
}

#[test]
fn a_kind_that_is_no_longer_served_has_no_objects() {
    let mut store = store();
    let place = place("DestinationRule");
    for change in [Change::Listing, rule("cart", "DISABLE"), Change::Listed] {
        store.apply(place, change);
    }
    assert!(store.apply(place, Change::Gone));
    assert!(store.load().objects.destination_rules.is_empty());
}

#[test]
fn kinds_without_effect_are_remarked_upon() {
    let mut store = store();
    let value = json!({"metadata": {"name": "a", "namespace": "shop"}});
    assert!(store.apply(place("Sidecar"), applied("Sidecar", value)));
    let findings = store.load().findings;
    assert!(findings[0].to_string().contains("Sidecar shop/a"), "{}", findings[0]);
    assert!(!findings[0].is_error());
}

proptest! {
    /// Whatever came before, after a list what is in force is what was listed.
    #[test]
    fn a_list_has_the_last_word(
        before in proptest::collection::vec((0..4usize, 1..5u16, any::<bool>()), 0..20),
        listed in proptest::collection::btree_map(0..4usize, 1..5u16, 0..4),
    ) {
        let names = ["a", "b", "c", "d"];
        let (mut store, place) = (store(), place("Service"));
        for (which, port, there) in before {
            let gone = Change::Deleted(name(names[which]));
            store.apply(place, if there { service(names[which], port) } else { gone });
        }
        store.apply(place, Change::Listing);
        for (which, port) in &listed {
            store.apply(place, service(names[*which], *port));
        }
        store.apply(place, Change::Listed);
        let expected: Vec<(String, u16)> =
            listed.iter().map(|(which, port)| (names[*which].to_owned(), *port)).collect();
        prop_assert_eq!(ports(&store), expected);
    }
}
