//! The stream parser against kubectl's habits, broken input and arbitrary text.

use proptest::prelude::{prop_assert, proptest};
use serde_json::json;

use super::{Stream, parse};

fn names(stream: &Stream) -> Vec<&str> {
    stream.objects.iter().map(|object| object.metadata.name.as_str()).collect()
}

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ";

#[test]
fn documents_are_numbered_and_empty_ones_skipped() {
    let text = format!("# head\n---\n\n{CONFIG_MAP}a\n---\n# nothing\n---\n{CONFIG_MAP}b\n");
    let stream = parse("x.yaml", &text);
    assert_eq!(names(&stream), ["a", "b"]);
    assert_eq!(stream.objects[0].origin.line, 4);
    assert_eq!(stream.objects[1].origin.line, 11);
    assert_eq!(stream.objects[1].origin.document, 2);
    assert!(stream.findings.is_empty());
}

#[test]
fn a_broken_document_costs_only_itself() {
    let text = format!("{CONFIG_MAP}a\n---\nkind: [unclosed\n---\n{CONFIG_MAP}b\n");
    let stream = parse("x.yaml", &text);
    assert_eq!(names(&stream), ["a", "b"]);
    let finding = &stream.findings[0];
    assert!(finding.is_error());
    assert_eq!(finding.file.as_deref(), Some("x.yaml"));
    assert_eq!(finding.document, Some(2));
    assert!(finding.line >= Some(6) && finding.line <= Some(7), "{finding:?}");
    assert!(finding.to_string().starts_with("x.yaml:"), "{finding}");
}

#[test]
fn lists_are_expanded() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
        {"apiVersion": "v1", "kind": "ServiceList", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}]},
    ]});
    assert_eq!(names(&parse("x.json", &list.to_string())), ["p", "s"]);
}

#[test]
fn scalars_are_read_as_kubernetes_does() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {\"8080\": \"x\"}}\n\
                spec: {mode: 0644, port: 8080, on: yes, map: {80: a}, base: &b {k: 1}, use: {<<: *b}}";
    let stream = parse("x.yaml", text);
    assert!(stream.findings.is_empty(), "{:?}", stream.findings);
    let spec = &stream.objects[0].value["spec"];
    assert_eq!(spec["mode"], json!(420));
    assert_eq!(spec["port"], json!(8080));
    assert_eq!(spec["map"]["80"], json!("a"));
    assert_eq!(spec["use"]["k"], json!(1));
}

#[test]
fn what_is_no_object_says_so() {
    for (text, expected) in [
        ("- a\n- b\n", "a mapping is expected"),
        ("kind: Pod\n", "apiVersion is missing"),
        ("apiVersion: v1\n", "kind is missing"),
        ("apiVersion: 1\nkind: Pod\n", "apiVersion must be a string"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: [a]}\n", "metadata.name"),
        ("apiVersion: v1\nkind: List\nitems: 3\n", "must be a list"),
    ] {
        let stream = parse("x.yaml", text);
        assert!(stream.objects.is_empty());
        let shown = stream.findings[0].to_string();
        assert!(shown.contains(expected), "{text}: {shown}");
    }
}

#[test]
fn deep_and_huge_input_is_bounded() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse("x.yaml", &deep).findings[0].is_error());
    let huge = "#".repeat(super::MAX_TEXT + 1);
    assert!(parse("x.yaml", &huge).findings[0].message.contains("larger than"));
    let many = "---\na: b\n".repeat(super::MAX_DOCUMENTS + 5);
    let last = parse("x.yaml", &many).findings.pop().unwrap();
    assert!(last.message.contains("documents in one file"));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,400}") {
        let stream = parse("x.yaml", &text);
        prop_assert!(stream.findings.iter().all(|finding| finding.file.is_some()));
    }

    #[test]
    fn arbitrary_yaml_shapes_never_panic(text in "[a-c:\\-\\[\\]{}&*!|>'\"# \n0-9,]{0,200}") {
        let _stream = parse("x.yaml", &text);
    }

    #[test]
    fn every_document_is_found(count in 0_usize..20) {
        let text: String = (0..count).map(|index| format!("---\n{CONFIG_MAP}n{index}\n")).collect();
        prop_assert!(parse("x.yaml", &text).objects.len() == count);
    }
}

#[test]
fn addresses_in_lists_are_what_kubectl_takes_them_for() {
    let read = |text: &str| super::value(text).unwrap();
    let addresses = json!({"a": ["1.2.3.4", "2001:db8::"], "b": [["fe80::", "::"]]});
    assert_eq!(read("{a: [1.2.3.4, 2001:db8::], b: [[fe80::, '::']]}"), addresses);
    // Anything else stays what it is.
    let others = json!({"a": [{"b": null}, {"fe80": null}, {"fe80:": null, "c": 1}]});
    assert_eq!(read("{a: [{b: }, {fe80: }, {'fe80:': , c: 1}]}"), others);
}
