//! Reading what is to be applied: texts in, objects out, each with a namespace and a name of its
//! own, checked as far as an object can be checked alone.
//!
//! All or nothing: one bad object refuses the whole call. Pure; used by the command before it asks
//! the lab, and by the lab.

use std::collections::BTreeMap;

use lateen_api::object::strip_nulls;
use lateen_api::stream::{self, MAX_TEXT};
use lateen_api::{Finding, Object, Origin, validate};
use serde::{Deserialize, Serialize};

use super::names;
use super::objects::{Key, Role, is_namespaced};

/// Most texts in one call.
const MAX_TEXTS: usize = 10_000;

/// A text with objects, and what to call it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestText {
    /// File name, for messages.
    pub name: String,
    /// YAML or JSON.
    pub text: String,
}

/// Objects that may be applied together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// The objects, in order.
    pub objects: Vec<Object>,
    /// What is taken, but not as the author may think.
    pub warnings: Vec<Finding>,
}

/// Reads texts.
///
/// # Errors
/// Everything that is wrong with them, each with file, object and field.
pub fn read(texts: &[ManifestText]) -> Result<Batch, Vec<Finding>> {
    let mut batch = Batch::default();
    let mut errors = Vec::new();
    let size = texts.iter().map(|text| text.text.len()).fold(0_usize, usize::saturating_add);
    if size > MAX_TEXT || texts.len() > MAX_TEXTS {
        let message = format!(
            "{} files of {size} bytes are too much for one call: {MAX_TEXTS} files of {MAX_TEXT} \
             bytes together may be applied; use several calls",
            texts.len()
        );
        return Err(vec![Finding::error("", message)]);
    }
    let mut seen: BTreeMap<Key, Origin> = BTreeMap::new();
    for text in texts {
        let parsed = stream::parse(&text.name, &text.text);
        errors.extend(parsed.findings);
        for mut object in parsed.objects {
            strip_nulls(&mut object.value);
            place(&mut object);
            let (bad, remarks): (Vec<_>, Vec<_>) =
                check(&object).into_iter().partition(Finding::is_error);
            errors.extend(bad);
            batch.warnings.extend(remarks);
            if object.metadata.name.is_empty() {
                batch.objects.push(object);
                continue;
            }
            match seen.get(&Key::of(&object)) {
                Some(first) => errors.push(twice(&object, first)),
                None => {
                    seen.insert(Key::of(&object), object.origin.clone());
                    batch.objects.push(object);
                }
            }
        }
    }
    if errors.is_empty() { Ok(batch) } else { Err(errors) }
}

/// Gives a namespaced object its namespace, and takes it from one that has none.
fn place(object: &mut Object) {
    let namespace = match is_namespaced(object) {
        true => Some(match object.metadata.namespace_or_empty() {
            "" => "default".to_owned(),
            given => given.to_owned(),
        }),
        false => None,
    };
    if let Some(metadata) = object.value.get_mut("metadata").and_then(|it| it.as_object_mut()) {
        match &namespace {
            Some(name) => {
                metadata.insert("namespace".to_owned(), name.as_str().into());
            }
            None => {
                metadata.remove("namespace");
            }
        }
    }
    object.metadata.namespace = namespace;
}

fn twice(object: &Object, first: &Origin) -> Finding {
    let message = format!(
        "there is another {} in this call, at {}:{}: remove or rename one of them",
        object.reference(),
        first.file,
        first.line
    );
    Finding::error("metadata.name", message).about(object)
}

fn check(object: &Object) -> Vec<Finding> {
    let role = Role::of(object);
    let mut findings = validate::check(object).findings;
    let name = &object.metadata.name;
    let generated = object.metadata.generate_name.as_deref().unwrap_or_default();
    let is_name = match role {
        Role::Namespace | Role::Service => names::is_label(name),
        Role::Unknown => !name.is_empty() && !name.contains('/'),
        _ => names::is_subdomain(name),
    };
    if name.is_empty() && role == Role::Pod && !generated.is_empty() {
        if !names::is_label(&format!("{}x", generated.trim_end_matches(['-', '.']))) {
            let message = format!("`{generated}` cannot begin a name");
            findings.push(Finding::error("metadata.generateName", message).about(object));
        }
    } else if name.is_empty() {
        if !findings.iter().any(|finding| finding.path == "metadata.name") {
            findings.push(Finding::error("metadata.name", "a name is needed").about(object));
        }
    } else if !is_name {
        let message = format!(
            "`{name}` is not a name: lower case letters, digits and `-` are, beginning and ending \
             with a letter or digit"
        );
        findings.push(Finding::error("metadata.name", message).about(object));
    }
    if role == Role::Unknown {
        let message = match object.kind.as_str() {
            "ReplicaSet"
            | "StatefulSet"
            | "DaemonSet"
            | "Job"
            | "CronJob"
            | "ReplicationController" => {
                "kept, but the lab makes no pods of this kind: use a Deployment or a Pod"
            }
            _ => "kept, but nothing in the lab acts upon this kind",
        };
        findings.push(Finding::warning("", message).about(object));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{Batch, ManifestText, read};
    use proptest::prelude::{any, proptest};

    fn texts(texts: &[&str]) -> Vec<ManifestText> {
        let names = ["a.yaml", "b.yaml"].into_iter();
        names
            .zip(texts)
            .map(|(name, text)| ManifestText { name: name.to_owned(), text: (*text).to_owned() })
            .collect()
    }

    fn errors(given: &[&str]) -> String {
        let findings = read(&texts(given)).unwrap_err();
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn objects_get_their_place() {
        let given = "kind: Namespace\napiVersion: v1\nmetadata: {name: shop, namespace: odd}\n---\n\
                     kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\n";
        let Batch { objects, warnings } = read(&texts(&[given])).unwrap();
        assert_eq!(objects[0].reference().to_string(), "Namespace shop");
        assert_eq!(objects[1].value["metadata"]["namespace"], "default");
        assert!(warnings.is_empty());
    }

    #[test]
    fn two_of_one_name_are_refused_and_both_places_named() {
        let one = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: twin, namespace: shop}\n";
        let said = errors(&[one, one]);
        assert!(said.contains("b.yaml:1: ConfigMap shop/twin"), "{said}");
        assert!(said.contains("a.yaml:1"), "{said}");
    }

    #[test]
    fn what_is_wrong_is_named_by_file_object_and_field() {
        for (given, wanted) in [
            ("kind: Service\n  bad indent: [", "a.yaml:2: not valid YAML"),
            (
                "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                 metadata: {name: odd}\nspec: {mtls: {mode: SOMETIMES}}",
                "PeerAuthentication default/odd: spec.mtls.mode",
            ),
            ("kind: ConfigMap\napiVersion: v1\nmetadata: {}", "metadata.name: a name is needed"),
            (
                "kind: ConfigMap\napiVersion: v1\nmetadata: {name: ../../etc}",
                "metadata.name: `../../etc` is not a name",
            ),
            ("kind: Service\napiVersion: v1\nmetadata: {name: a.b}", "metadata.name"),
            (
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {}",
                "metadata.name",
            ),
        ] {
            let said = errors(&[given]);
            assert!(said.contains(wanted), "{given}: {said}");
        }
    }

    #[test]
    fn unknown_kinds_are_taken_with_a_warning() {
        let given = "kind: StatefulSet\napiVersion: apps/v1\nmetadata: {name: a}";
        let batch = read(&texts(&[given])).unwrap();
        assert_eq!(batch.objects.len(), 1);
        assert!(batch.warnings[0].message.contains("use a Deployment"));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            drop(read(&texts(&[&text])));
        }
    }
}
