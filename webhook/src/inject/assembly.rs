//! Puts the pieces of the templates into the pod.
//!
//! Order is the point of this module: which container stands where, what the user's own
//! containers and labels win over, and which names go into the status annotation. Must not know
//! what the pieces contain.

use std::collections::BTreeMap;

use lateen_api::names::{annotation, container, env};
use serde_json::{Map, Value};

use super::facts::Facts;
use super::proxy_config::Mode;
use super::templates::{self, Fragment, Template};
use super::{AdmissionContext, InjectError, custom, overlay, previous};
use crate::settings::InjectionSettings;
use crate::strategic_merge::merge;

/// Who made the proxy of a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ProxyOf {
    /// There is none.
    #[default]
    Nobody,
    /// A template of Lateen's.
    Lateen,
    /// A template of the user.
    User,
}

/// A pod under construction.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pub(super) metadata: Map<String, Value>,
    pub(super) labels: Map<String, Value>,
    pub(super) annotations: Map<String, Value>,
    pub(super) spec: Map<String, Value>,
    /// Names of injected things, by list of the spec.
    pub(super) injected_init: Vec<String>,
    pub(super) injected: Vec<String>,
    pub(super) volumes: Vec<String>,
    pub(super) pull_secrets: Vec<String>,
    /// The user's containers that have the name of an injected one.
    pub(super) users: Vec<Value>,
    /// Who made the proxy of the pod.
    pub(super) proxy: ProxyOf,
    /// Whether traffic is redirected to the proxy.
    pub(super) redirected: bool,
    /// Whether the proxy belongs among the init containers.
    pub(super) native: bool,
    /// What was decided about parts of the pod that are not injected ones: fields of the spec, volumes of
    /// the user, probes, metrics.
    pub(super) beyond: Vec<Value>,
    pub(super) warnings: Vec<String>,
}

/// A pod that was put together.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) pod: Value,
    /// What the settings made of it beside what the status names, as of no pod in particular.
    pub(super) beyond: Vec<Value>,
}

/// Injects a pod that has no earlier injection.
pub(super) fn assemble(
    mut pod: Value,
    settings: &InjectionSettings,
    context: &AdmissionContext,
    warnings: &mut Vec<String>,
) -> Result<Assembled, InjectError> {
    // Templates of the user see the pod as it is, with the user's own proxy.
    let whole = settings.templates.shared().map(|shared| (pod.clone(), shared));
    let users = match pod.get_mut("spec") {
        Some(Value::Object(spec)) => overlay::take(spec),
        _ => Vec::new(),
    };
    let facts = Facts::new(&pod, overlay::proxy(&users), settings, context)?;
    let templates = templates::of_pod(&facts.annotations, settings)?;
    let native = facts.native && templates.iter().any(|t| matches!(t, Template::Sidecar));
    let mut assembly = Assembly { users, native, ..Assembly::default() };
    if let Value::Object(fields) = &mut pod {
        assembly.metadata = taken(fields, "metadata");
        assembly.spec = taken(fields, "spec");
    }
    assembly.take_metadata();
    for template in &templates {
        match (template, template.fragment(&facts)?) {
            (Template::User(overlay), _) => assembly.lay(overlay),
            (Template::Rendered(name, text), _) => {
                let Some((pod, shared)) = &whole else { continue };
                assembly.lay(&custom::render((name, text), (pod, shared), &facts)?);
            }
            (_, Some(fragment)) => assembly.add(fragment),
            (_, None) => {}
        }
    }
    assembly.lay_users(&facts);
    assembly.finish(&facts)?;
    assembly.put_metadata();
    warnings.append(&mut assembly.warnings);
    pod["metadata"] = Value::Object(assembly.metadata);
    pod["spec"] = Value::Object(assembly.spec);
    check_redirection(&pod, warnings)?;
    if assembly.redirected {
        check_data_path(&pod)?;
    }
    Ok(Assembled { pod, beyond: assembly.beyond })
}

/// What a template of the user says of anything but containers: these are named in the status, also where
/// they are laid over the pod's own.
fn beyond_containers(overlay: &Value) -> Option<Value> {
    let mut rest = overlay.clone();
    let spec = rest.get_mut("spec").and_then(Value::as_object_mut);
    if let Some(spec) = spec {
        spec.retain(|field, _| !["containers", "initContainers"].contains(&field.as_str()));
        if spec.is_empty() {
            rest.as_object_mut()?.remove("spec");
        }
    }
    rest.as_object().is_some_and(|fields| !fields.is_empty()).then_some(rest)
}

fn taken(fields: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match fields.get_mut(name).map(Value::take) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Redirection reads annotations and the proxy's environment of the finished pod; what it would
/// refuse there must not be admitted.
fn check_redirection(pod: &Value, warnings: &mut Vec<String>) -> Result<(), InjectError> {
    use lateen_interception::settings::pod::{PodError, from_pod};
    match from_pod(pod) {
        Ok(settings) => {
            warnings.extend(settings.warnings);
            Ok(())
        }
        Err(PodError::Annotation { annotation, source }) => {
            Err(InjectError::annotation(annotation, source.to_string()))
        }
        Err(PodError::Mode(mode)) => Err(InjectError::annotation(
            annotation::INTERCEPTION_MODE,
            format!("{mode:?} is not REDIRECT, TPROXY or NONE"),
        )),
        Err(PodError::Id { field, value }) => Err(InjectError::pod(
            format!("container {}: securityContext.{field}", container::PROXY),
            format!("{value} is not an id"),
        )),
    }
}

/// What is redirected to an agent without data path reaches nobody, whoever made it one: metadata of the
/// proxy, a template or the pod's own container.
fn check_data_path(pod: &Value) -> Result<(), InjectError> {
    use lateen_interception::settings::pod::{is_disabled, proxy_container};
    if !proxy_container(pod).is_some_and(is_disabled) {
        return Ok(());
    }
    Err(InjectError::pod(
        format!("container {}: env {}", container::PROXY, env::DISABLE_ENVOY),
        "an agent without data path cannot take what is redirected to it; take the variable out of \
         proxyMetadata, template or container, or ask for template grpc-agent in annotation \
         inject.istio.io/templates",
    ))
}

impl Assembly {
    fn take_metadata(&mut self) {
        self.labels = taken(&mut self.metadata, "labels");
        self.annotations = taken(&mut self.metadata, "annotations");
    }

    /// Puts labels and annotations back where they were; a pod without any gets none.
    fn put_metadata(&mut self) {
        for (field, map) in [
            ("labels", std::mem::take(&mut self.labels)),
            ("annotations", std::mem::take(&mut self.annotations)),
        ] {
            if !map.is_empty() || self.metadata.contains_key(field) {
                self.metadata.insert(field.to_owned(), Value::Object(map));
            }
        }
    }

    /// Adds the pieces of one of Lateen's templates.
    fn add(&mut self, fragment: Fragment) {
        self.native |= fragment.proxy_is_native;
        if fragment.proxy.is_some() {
            self.proxy = ProxyOf::Lateen;
        }
        self.redirected |= fragment.proxy.is_some() && fragment.init.is_some();
        let list = if self.native { "initContainers" } else { "containers" };
        self.add_containers("initContainers", fragment.init.into_iter().collect());
        self.add_containers(list, fragment.proxy.into_iter().collect());
        self.add_containers("containers", fragment.apps);
        self.add_volumes(fragment.volumes);
        let secrets = fragment.image_pull_secrets.into_iter();
        self.add_pull_secrets(secrets.collect());
        let texts = |map: BTreeMap<String, String>| {
            map.into_iter().map(|(key, value)| (key, Value::from(value)))
        };
        self.labels.extend(texts(fragment.labels));
        self.annotations.extend(texts(fragment.annotations));
        if !fragment.spec.is_empty() {
            self.beyond.push(Value::Object(fragment.spec.clone()));
        }
        self.add_spec(fragment.spec);
    }

    /// Other fields of the spec; what the user set in them stays.
    fn add_spec(&mut self, fields: Map<String, Value>) {
        for (field, value) in fields {
            let Value::Object(mut ours) = value else { continue };
            if let Some(Value::Object(users)) = self.spec.get(&field) {
                if let (Some(Value::Array(ours)), Some(Value::Array(users))) =
                    (ours.get_mut("sysctls"), users.get("sysctls"))
                {
                    ours.retain(|sysctl| users.iter().all(|user| user["name"] != sysctl["name"]));
                    ours.extend(users.iter().cloned());
                }
                let users = users.iter().filter(|(key, _)| key.as_str() != "sysctls");
                ours.extend(users.map(|(key, value)| (key.clone(), value.clone())));
            }
            self.spec.insert(field, Value::Object(ours));
        }
    }

    /// Lays a template of the user over the pod.
    fn lay(&mut self, overlay: &Value) {
        self.beyond.extend(beyond_containers(overlay));
        if let Value::Object(metadata) = &overlay["metadata"] {
            self.put_metadata();
            merge(&mut self.metadata, metadata.clone());
            self.take_metadata();
        }
        let Value::Object(spec) = &overlay["spec"] else { return };
        self.note_proxy(&overlay["spec"]);
        let mut spec = spec.clone();
        if let Some(Value::Array(volumes)) = spec.remove("volumes") {
            self.lay_volumes(volumes);
        }
        self.note_pull_secrets(&spec);
        for list in ["initContainers", "containers"] {
            let Some(Value::Array(added)) = spec.remove(list) else { continue };
            let (here, elsewhere): (Vec<Value>, Vec<Value>) =
                added.into_iter().partition(|element| self.place(list, element) == list);
            self.add_containers(list, here);
            let other = if list == "containers" { "initContainers" } else { "containers" };
            self.add_containers(other, elsewhere);
        }
        merge(&mut self.spec, spec);
    }

    /// Where nothing else makes the proxy, it is what the template says, where it says.
    fn note_proxy(&mut self, spec: &Value) {
        let has = |list: &str, name: &str| {
            let elements = spec[list].as_array();
            elements.is_some_and(|all| all.iter().any(|element| element["name"] == name))
        };
        let native = has("initContainers", container::PROXY);
        if self.proxy == ProxyOf::Nobody && (native || has("containers", container::PROXY)) {
            self.proxy = ProxyOf::User;
            self.native |= native;
        }
        let init = [container::INIT, container::VALIDATION];
        self.redirected |=
            self.proxy != ProxyOf::Nobody && init.iter().any(|name| has("initContainers", name));
    }

    /// A template written for one place of the proxy also fits the other.
    fn place(&self, list: &'static str, element: &Value) -> &'static str {
        if element["name"] != container::PROXY {
            list
        } else if self.native {
            "initContainers"
        } else {
            "containers"
        }
    }

    /// Merges containers into a list of the spec, and notes which are injected and which of the
    /// user's they meet.
    fn add_containers(&mut self, list: &'static str, added: Vec<Value>) {
        for element in &added {
            let Some(name) = element["name"].as_str() else { continue };
            let existing = self.spec.get(list).and_then(Value::as_array);
            let existing = existing.and_then(|all| all.iter().find(|e| e["name"] == name));
            let known =
                if list == "containers" { &mut self.injected } else { &mut self.injected_init };
            if known.iter().any(|known| known == name) {
                continue;
            }
            self.users.extend(existing.cloned());
            if element["$patch"] != "delete" {
                known.push(name.to_owned());
            }
        }
        self.merge_list(list, added);
    }

    /// Adds volumes of ours; one of the user's with the same name gives way, since the proxy
    /// depends on what is in it.
    fn add_volumes(&mut self, added: Vec<Value>) {
        for volume in &added {
            let Some(name) = volume["name"].as_str() else { continue };
            if self.volumes.iter().any(|known| known == name) {
                continue;
            }
            self.volumes.push(name.to_owned());
            let Some(Value::Array(users)) = self.spec.get_mut("volumes") else { continue };
            let before = users.len();
            users.retain(|user| user["name"] != name);
            if users.len() < before {
                self.warnings.push(format!(
                    "volume {name}: the pod's own definition is replaced by the sidecar's"
                ));
            }
        }
        self.merge_list("volumes", added);
    }

    /// Lays volumes of a user's template over ours and the pod's; only new ones are injected.
    fn lay_volumes(&mut self, added: Vec<Value>) {
        for volume in &added {
            let Some(name) = volume["name"].as_str() else { continue };
            let existing = self.spec.get("volumes").and_then(Value::as_array);
            let exists = existing.is_some_and(|all| all.iter().any(|v| v["name"] == name));
            if !exists && volume["$patch"] != "delete" {
                self.volumes.push(name.to_owned());
            }
        }
        self.merge_list("volumes", added);
    }

    /// Pull secrets of a user's template are injected, except those that the pod has.
    fn note_pull_secrets(&mut self, spec: &Map<String, Value>) {
        let names = |spec: &Map<String, Value>| -> Vec<String> {
            let secrets = spec.get("imagePullSecrets").and_then(Value::as_array);
            let named = secrets.into_iter().flatten().filter_map(|secret| secret["name"].as_str());
            named.map(str::to_owned).collect()
        };
        let known = names(&self.spec);
        for name in names(spec) {
            if !known.contains(&name) && !self.pull_secrets.contains(&name) {
                self.pull_secrets.push(name);
            }
        }
    }

    fn merge_list(&mut self, list: &str, added: Vec<Value>) {
        if !added.is_empty() {
            let patch = Map::from_iter([(list.to_owned(), Value::Array(added))]);
            merge(&mut self.spec, patch);
        }
    }

    fn add_pull_secrets(&mut self, secrets: Vec<String>) {
        if secrets.is_empty() {
            return;
        }
        let users = match self.spec.remove("imagePullSecrets") {
            Some(Value::Array(users)) => users,
            _ => Vec::new(),
        };
        let mut list: Vec<Value> = Vec::new();
        for secret in secrets {
            if list.iter().any(|known| known["name"] == secret.as_str()) {
                continue;
            }
            if users.iter().all(|user| user["name"] != secret.as_str())
                && !self.pull_secrets.contains(&secret)
            {
                self.pull_secrets.push(secret.clone());
            }
            list.push(serde_json::json!({"name": secret}));
        }
        for user in users {
            if list.iter().all(|known| known["name"] != user["name"]) {
                list.push(user);
            }
        }
        self.spec.insert("imagePullSecrets".to_owned(), Value::Array(list));
    }

    /// Lays the user's containers over the injected ones of the same name, and notes them.
    fn lay_users(&mut self, facts: &Facts<'_>) {
        let (mut noted, mut noted_init) = (Vec::new(), Vec::new());
        let mut users = std::mem::take(&mut self.users);
        users.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        for user in users {
            let Value::Object(mut user) = user else { continue };
            let place = ["initContainers", "containers"].into_iter().find_map(|list| {
                let elements = self.spec.get(list)?.as_array()?;
                let same = |element: &Value| Some(&element["name"]) == user.get("name");
                elements.iter().position(same).map(|index| (list, index))
            });
            let Some((list, index)) = place else {
                self.put_back(user);
                continue;
            };
            let native = list == "initContainers";
            if user.get("name").and_then(Value::as_str).is_some_and(previous::is_ours) {
                overlay::normalise(&mut user, facts.ids.drops_user_ids);
            }
            let Some(Value::Array(elements)) = self.spec.get_mut(list) else { continue };
            if let Some(Value::Object(ours)) = elements.get(index).cloned() {
                elements[index] = overlay::over(&ours, &user);
            }
            let proxy = &mut elements[index];
            if proxy["name"] == container::PROXY {
                if self.redirected && facts.mode == Mode::Tproxy {
                    proxy["securityContext"]["runAsUser"] = Value::from(0);
                    proxy["securityContext"]["runAsNonRoot"] = Value::from(false);
                }
                if let (false, Some(fields)) = (native, proxy.as_object_mut()) {
                    fields.remove("restartPolicy");
                }
            }
            if native { noted_init.push(user) } else { noted.push(user) }
        }
        if !(noted.is_empty() && noted_init.is_empty()) {
            let text = overlay::annotation(&noted, &noted_init);
            self.annotations.insert(annotation::OVERRIDES.to_owned(), Value::from(text));
        }
    }

    /// A container of the user under one of our names that nothing was injected for.
    fn put_back(&mut self, user: Map<String, Value>) {
        let name = user.get("name").and_then(Value::as_str).unwrap_or_default();
        let list = if name == container::PROXY { "containers" } else { "initContainers" };
        if user.get("image").is_some_and(|image| image == "auto") {
            self.warnings.push(format!(
                "container {name}: image auto stands for an injected image, but no template of \
                 the pod injects this container"
            ));
        }
        if let Some(Value::Array(elements)) = self.spec.get_mut(list) {
            elements.push(Value::Object(user));
        } else {
            self.spec.insert(list.to_owned(), Value::Array(vec![Value::Object(user)]));
        }
    }
}
