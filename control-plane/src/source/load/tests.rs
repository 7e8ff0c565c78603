//! What stays in force when something is refused.

use std::sync::Arc;

use super::super::files::{Files, ReadFailure};
use super::{Load, State};

fn files(texts: &[(&str, &str)]) -> Files {
    texts.iter().map(|(path, text)| ((*path).to_owned(), Ok(Arc::from(*text)))).collect()
}

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn rule(host: &str, mode: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: cart, namespace: shop}}\n\
         spec: {{host: {host}, trafficPolicy: {{tls: {{mode: {mode}}}}}}}\n"
    )
}

fn services(load: &Load) -> Vec<(String, u16)> {
    let all = load.objects.services.iter();
    all.map(|it| (it.object.metadata.name.clone(), it.object.spec.ports[0].port)).collect()
}

fn pair(name: &str, port: u16) -> (String, u16) {
    (name.to_owned(), port)
}

#[test]
fn objects_are_ordered_by_path_and_position() {
    let two = format!("{}---\n{}", service("c", "3"), service("b", "2"));
    let load =
        Load::next(&State::default(), &files(&[("2.yaml", &service("a", "1")), ("1.yaml", &two)]));
    assert_eq!(services(&load), [pair("c", 3), pair("b", 2), pair("a", 1)]);
    assert!(load.findings.is_empty(), "{:?}", load.findings);
}

#[test]
fn a_refused_object_leaves_the_former_one_in_force() {
    let good = Load::next(&State::default(), &files(&[("r.yaml", &rule("cart", "DISABLE"))]));
    assert_eq!(good.objects.destination_rules[0].spec.host, "cart");
    let bad = Load::next(&good.state, &files(&[("r.yaml", &rule("other", "SOMETIMES"))]));
    assert_eq!(bad.objects.destination_rules[0].spec.host, "cart");
    let shown = bad.findings[0].to_string();
    assert!(
        shown.starts_with("r.yaml:1: DestinationRule shop/cart: spec.trafficPolicy.tls.mode: "),
        "{shown}"
    );
    let again = Load::next(&bad.state, &files(&[("r.yaml", &rule("third", "SIMPLE"))]));
    assert_eq!(again.objects.destination_rules[0].spec.host, "third");
    assert!(again.findings.is_empty());
}

#[test]
fn a_new_object_that_is_refused_is_not_there() {
    let load = Load::next(&State::default(), &files(&[("r.yaml", &rule("cart", "SOMETIMES"))]));
    assert!(load.objects.destination_rules.is_empty());
    assert_eq!(load.findings.len(), 1);
}

#[test]
fn a_broken_document_leaves_its_file_as_it_was() {
    let two = format!("{}---\n{}", service("a", "1"), service("b", "2"));
    let good =
        Load::next(&State::default(), &files(&[("s.yaml", &two), ("t.yaml", &service("c", "3"))]));
    let broken = format!("{}---\nkind: [\n", service("a", "9"));
    let load =
        Load::next(&good.state, &files(&[("s.yaml", &broken), ("t.yaml", &service("c", "3"))]));
    assert_eq!(services(&load), [pair("a", 9), pair("b", 2), pair("c", 3)]);
    assert!(load.findings[0].is_error());
    assert_eq!(load.findings[0].file.as_deref(), Some("s.yaml"));
    let healed = Load::next(&load.state, &files(&[("s.yaml", &service("a", "9"))]));
    assert_eq!(services(&healed), [pair("a", 9)]);
}

#[test]
fn a_file_that_cannot_be_read_is_kept_and_a_missing_one_is_not() {
    let good = Load::next(&State::default(), &files(&[("s.yaml", &service("a", "1"))]));
    let failing: Files =
        [("s.yaml".to_owned(), Err(ReadFailure("permission denied".to_owned())))].into();
    let load = Load::next(&good.state, &failing);
    assert_eq!(services(&load), [pair("a", 1)]);
    assert!(load.findings[0].to_string().contains("permission denied"));
    assert!(services(&Load::next(&load.state, &Files::new())).is_empty());
}

#[test]
fn of_two_objects_of_one_name_the_later_is_refused() {
    let load = Load::next(
        &State::default(),
        &files(&[("b.yaml", &service("a", "2")), ("a.yaml", &service("a", "1"))]),
    );
    assert_eq!(services(&load), [pair("a", 1)]);
    let shown = load.findings[0].to_string();
    assert!(
        shown.starts_with("b.yaml:1: Service shop/a: ") && shown.contains("a.yaml:1"),
        "{shown}"
    );
    assert!(load.findings[0].is_error());
}

#[test]
fn kinds_of_others_are_left_alone_and_shapes_are_checked() {
    let text = "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: a}\nspec: [1]\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: many}]}\n";
    let load = Load::next(&State::default(), &files(&[("a.yaml", text)]));
    assert_eq!(load.findings.len(), 1);
    let shown = load.findings[0].to_string();
    assert!(shown.contains("Service default/a: spec.ports[0].port"), "{shown}");
}

#[test]
fn what_could_be_no_part_of_a_host_is_no_name() {
    let text = |name: &str, namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{{name}namespace: {namespace}}}\n\
             spec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    for (name, namespace, field) in [
        ("", "shop", "metadata.name"),
        ("name: 'a b', ", "shop", "metadata.name"),
        ("name: a..b, ", "shop", "metadata.name"),
        ("name: a, ", "'*'", "metadata.namespace"),
    ] {
        let text = text(name, namespace);
        let load = Load::next(&State::default(), &files(&[("a.yaml", &text)]));
        assert!(services(&load).is_empty(), "{text}");
        assert_eq!(load.findings[0].path, field, "{text}");
    }
    let long = service(&"a".repeat(253), "80");
    assert_eq!(services(&Load::next(&State::default(), &files(&[("a.yaml", &long)]))).len(), 1);
    // What the mesh does not read may be called as it likes.
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: 'a:b'}\n";
    assert!(Load::next(&State::default(), &files(&[("a.yaml", role)])).findings.is_empty());
}
