//! The objects of the cluster, and what applying a batch makes of them.
//!
//! Pure: a batch is taken as a whole or not at all; the time comes in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_api::core::{Pod, Service};
use lateen_api::{Finding, Object, ObjectRef, kind};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::checks;
use super::manifest::Batch;
use super::{names, services};

/// What an object is to the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the kinds of Kubernetes")]
pub enum Role {
    Namespace,
    Node,
    ServiceAccount,
    Pod,
    Deployment,
    Service,
    EndpointSlice,
    ConfigMap,
    Secret,
    /// One of Istio's kinds.
    Istio,
    /// Kept, not acted upon.
    Unknown,
}

/// Kinds that belong to no namespace and have no role.
const CLUSTER_WIDE: [&str; 14] = [
    "APIService",
    "CSIDriver",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "GatewayClass",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingWebhookConfiguration",
];

impl Role {
    /// The role of an object.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        match (object.group(), object.kind.as_str()) {
            ("", "Namespace") => Self::Namespace,
            ("", "Node") => Self::Node,
            ("", "ServiceAccount") => Self::ServiceAccount,
            ("", "Pod") => Self::Pod,
            ("apps", "Deployment") => Self::Deployment,
            ("", "Service") => Self::Service,
            ("discovery.k8s.io", "EndpointSlice") => Self::EndpointSlice,
            ("", "ConfigMap") => Self::ConfigMap,
            ("", "Secret") => Self::Secret,
            _ if kind::of(object).is_some() => Self::Istio,
            _ => Self::Unknown,
        }
    }
}

/// Whether such an object belongs to a namespace.
#[must_use]
pub fn is_namespaced(object: &Object) -> bool {
    match Role::of(object) {
        Role::Namespace | Role::Node => false,
        Role::Unknown => !CLUSTER_WIDE.contains(&object.kind.as_str()),
        _ => true,
    }
}

/// What may exist once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What it is to the lab.
    pub role: Role,
    /// API group.
    pub group: String,
    /// Kind, namespace and name.
    pub object: ObjectRef,
}

impl Key {
    /// The key of an object.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        Self {
            role: Role::of(object),
            group: object.group().to_owned(),
            object: object.reference(),
        }
    }

    /// The key of an object of the core group.
    #[must_use]
    pub fn core(role: Role, kind: &str, namespace: &str, name: &str) -> Self {
        Self { role, group: String::new(), object: ObjectRef::new(kind, namespace, name) }
    }
}

/// All objects that were applied or belong to the cluster.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    objects: BTreeMap<Key, Arc<Value>>,
}

/// A batch that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The objects afterwards.
    pub objects: Objects,
    /// What was created or changed, in order.
    pub changes: Vec<Change>,
    /// What is taken, but not as the author may think.
    pub warnings: Vec<Finding>,
}

/// What happened to one object of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which object.
    pub key: Key,
    /// `created`, `configured` or `unchanged`, as kubectl says it.
    pub verb: &'static str,
    /// File and line it was read from.
    pub place: String,
}

impl Objects {
    /// The objects with `batch` applied at time `now`.
    ///
    /// # Errors
    /// Everything that speaks against it; nothing is taken then.
    pub fn with(&self, batch: &Batch, now: &str) -> Result<Taken, Vec<Finding>> {
        let mut taken =
            Taken { objects: self.clone(), changes: Vec::new(), warnings: batch.warnings.clone() };
        let mut errors = Vec::new();
        // Namespaces first, whatever the order of the files: they hold the others.
        let (namespaces, others): (Vec<_>, Vec<_>) =
            batch.objects.iter().partition(|object| Role::of(object) == Role::Namespace);
        for object in namespaces.into_iter().chain(others) {
            if let Err(finding) = taken.take(object, now) {
                errors.push(finding.about(object));
            }
        }
        if errors.is_empty() { Ok(taken) } else { Err(errors) }
    }

    /// The object of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key).map(Arc::as_ref)
    }

    /// All objects of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter().filter(move |(key, _)| key.role == role)
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Typed objects of a role. What is kept was decoded before it was taken.
    pub fn typed<T: DeserializeOwned>(&self, role: Role) -> impl Iterator<Item = T> {
        self.of(role).filter_map(|(_, value)| T::deserialize(value.as_ref()).ok())
    }

    /// Whether a namespace exists.
    #[must_use]
    pub fn has_namespace(&self, name: &str) -> bool {
        self.objects.contains_key(&Key::core(Role::Namespace, "Namespace", "", name))
    }

    /// Labels of a namespace, if it exists.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let value = self.get(&Key::core(Role::Namespace, "Namespace", "", name))?;
        BTreeMap::deserialize(&value["metadata"]["labels"]).ok()
    }

    /// Whether a service account exists.
    #[must_use]
    pub fn has_service_account(&self, namespace: &str, name: &str) -> bool {
        let key = Key::core(Role::ServiceAccount, "ServiceAccount", namespace, name);
        self.objects.contains_key(&key)
    }

    /// Which Service has which cluster address.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<IpAddr, String> {
        let mut used = BTreeMap::new();
        for service in self.typed::<Service>(Role::Service) {
            for address in service.spec.addresses() {
                if let Ok(address) = address.parse() {
                    used.insert(address, services::owner(&service));
                }
            }
        }
        used
    }

    /// Puts an object there as it is.
    pub(super) fn put(&mut self, key: Key, value: Value) {
        self.objects.insert(key, Arc::new(value));
    }
}

impl Taken {
    fn take(&mut self, object: &Object, now: &str) -> Result<(), Finding> {
        let role = Role::of(object);
        if let Some(namespace) = &object.metadata.namespace
            && !self.objects.has_namespace(namespace)
        {
            let message = format!(
                "there is no namespace `{namespace}`: add an object of kind Namespace with that name"
            );
            return Err(Finding::error("metadata.namespace", message));
        }
        let mut value = object.value.clone();
        let mut key = Key::of(object);
        if key.object.name.is_empty() {
            let prefix = object.metadata.generate_name.as_deref().unwrap_or_default();
            key.object.name = names::generated(prefix);
            value["metadata"]["name"] = json!(key.object.name);
        }
        let before = self.objects.get(&key).cloned();
        match role {
            Role::Service => {
                let typed: Service = object.decode()?;
                let used = self.objects.addresses();
                services::complete(&mut value, &typed, before.as_ref(), &used)?;
            }
            Role::Namespace => complete_namespace(&mut value, &key.object.name),
            Role::Secret => complete_secret(&mut value),
            _ => {}
        }
        checks::check(object, before.as_ref())?;
        stamp(&mut value, before.as_ref(), now);
        let verb = match &before {
            None => "created",
            Some(before) if *before == value => "unchanged",
            Some(_) => "configured",
        };
        if role == Role::Namespace && before.is_none() {
            self.objects.put_service_account(&key.object.name, now);
        }
        let place = format!("{}:{}", object.origin.file, object.origin.line);
        self.objects.put(key.clone(), value);
        self.changes.push(Change { key, verb, place });
        Ok(())
    }
}

impl Objects {
    /// The service account `default` that every namespace has.
    pub(super) fn put_service_account(&mut self, namespace: &str, now: &str) {
        let key = Key::core(Role::ServiceAccount, "ServiceAccount", namespace, "default");
        if self.objects.contains_key(&key) {
            return;
        }
        let mut value = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace},
        });
        stamp(&mut value, None, now);
        self.put(key, value);
    }
}

/// Unique id and time of creation, kept when the object is changed.
pub(super) fn stamp(value: &mut Value, before: Option<&Value>, now: &str) {
    let kept = |field: &str| before.map(|it| it["metadata"][field].clone());
    let uid = kept("uid").unwrap_or_else(|| json!(names::uid()));
    let time = kept("creationTimestamp").unwrap_or_else(|| json!(now));
    let metadata = &mut value["metadata"];
    metadata["uid"] = uid;
    metadata["creationTimestamp"] = time;
}

pub(super) fn complete_namespace(value: &mut Value, name: &str) {
    let labels = &mut value["metadata"]["labels"];
    if labels.is_null() {
        *labels = json!({});
    }
    labels[lateen_api::names::label::NAMESPACE_NAME] = json!(name);
}

/// `stringData` is written over `data`, as the API server does.
fn complete_secret(value: &mut Value) {
    use base64::Engine as _;
    let Some(members) = value.as_object_mut() else { return };
    let Some(Value::Object(texts)) = members.remove("stringData") else { return };
    let data = members.entry("data").or_insert_with(|| json!({}));
    for (name, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data[name] = json!(base64::engine::general_purpose::STANDARD.encode(text));
    }
}

/// The pod objects that were applied as such.
pub(super) fn bare_pods(objects: &Objects) -> Vec<(Key, Pod)> {
    let typed = |(key, value): (&Key, &Arc<Value>)| {
        Some((key.clone(), Pod::deserialize(value.as_ref()).ok()?))
    };
    objects.of(Role::Pod).filter_map(typed).collect()
}

#[cfg(test)]
mod tests {
    use super::{Key, Objects, Role};
    use crate::api_server::builtin;
    use crate::api_server::manifest::{ManifestText, read};
    use proptest::prelude::{Just, prop_oneof, proptest};

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn apply(objects: &Objects, text: &str) -> Result<super::Taken, String> {
        let text = ManifestText { name: "t.yaml".to_owned(), text: text.to_owned() };
        let said = |findings: Vec<lateen_api::Finding>| {
            findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let batch = read(&[text]).map_err(said)?;
        objects.with(&batch, NOW).map_err(said)
    }

    fn cluster() -> Objects {
        builtin::objects(&["10.244.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], NOW)
    }

    const SHOP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n---\n\
                        apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

    #[test]
    fn namespaces_come_first_and_have_an_account() {
        let taken = apply(&cluster(), SHOP).unwrap();
        assert!(taken.objects.has_service_account("shop", "default"));
        let labels = taken.objects.namespace_labels("shop").unwrap();
        assert_eq!(labels["kubernetes.io/metadata.name"], "shop");
        let verbs: Vec<&str> = taken.changes.iter().map(|change| change.verb).collect();
        assert_eq!(verbs, ["created", "created"]);
        let again = apply(&taken.objects, SHOP).unwrap();
        assert!(again.changes.iter().all(|change| change.verb == "unchanged"));
    }

    #[test]
    fn a_namespace_that_is_not_there_is_named() {
        let said = apply(&cluster(), SHOP.split("---").next().unwrap()).err().unwrap();
        assert!(said.contains("t.yaml:1: ConfigMap shop/a: metadata.namespace"), "{said}");
    }

    #[test]
    fn a_changed_service_keeps_its_addresses() {
        let service = |port: u16| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\n\
                 spec: {{selector: {{app: a}}, ports: [{{port: {port}}}]}}\n"
            )
        };
        let first = apply(&cluster(), &service(80)).unwrap().objects;
        let second = apply(&first, &service(81)).unwrap();
        assert_eq!(second.changes[0].verb, "configured");
        let key = Key::core(Role::Service, "Service", "default", "a");
        let (before, after) = (first.get(&key).unwrap(), second.objects.get(&key).unwrap());
        assert_eq!(before["spec"]["clusterIPs"], after["spec"]["clusterIPs"]);
        assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    }

    #[test]
    fn secrets_are_kept_as_bytes() {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n";
        let taken = apply(&cluster(), secret).unwrap();
        let key = Key::core(Role::Secret, "Secret", "default", "s");
        assert_eq!(taken.objects.get(&key).unwrap()["data"]["a"], "Yg==");
    }

    const GOOD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\n";
    const BAD: [&str; 4] = [
        "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: []}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, namespace: nowhere}\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: NAME}\nspec: {template: {}}\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME}\nspec: {containers: []}\n",
    ];

    proptest! {
        #[test]
        fn one_bad_object_refuses_the_whole_call(
            texts in proptest::collection::vec(
                prop_oneof![
                    3 => Just(GOOD),
                    1 => Just(BAD[0]), 1 => Just(BAD[1]), 1 => Just(BAD[2]), 1 => Just(BAD[3]),
                ],
                1..8,
            ),
        ) {
            let named = texts.iter().enumerate();
            let text: Vec<String> =
                named.map(|(index, text)| text.replace("NAME", &format!("o{index}"))).collect();
            let before = cluster();
            let result = apply(&before, &text.join("---\n"));
            let bad = texts.iter().any(|text| BAD.contains(text));
            assert_eq!(result.is_err(), bad);
            if let Ok(taken) = result {
                assert_eq!(taken.objects.all().count(), before.all().count() + texts.len());
            }
        }
    }
}
