//! The environment of a container.
//!
//! Pure, but for the objects it asks for.

use lateen_api::core::{Container, EnvVar};
use serde_json::Value;

use super::ApiServer;
use super::expand::expand;
use super::facts::Facts;

/// Variables in the order they are set; a later one of the same name replaces an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Environment(Vec<(String, String)>);

impl Environment {
    /// All variables.
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// A value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets a variable.
    pub(super) fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some(found) => found.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// A text with its references expanded.
    pub(super) fn expand(&self, text: &str) -> String {
        expand(text, |name| self.get(name))
    }
}

/// Makes the environment of `container` upon what every container has.
pub(super) fn environment(
    mut environment: Environment,
    container: &Container,
    facts: &Facts,
    api: &dyn ApiServer,
) -> Result<Environment, String> {
    for (index, source) in container.env_from.iter().enumerate() {
        let found =
            from_object(source, facts, api).map_err(|e| format!("envFrom[{index}]: {e}"))?;
        for (name, value) in found {
            environment.set(&name, value);
        }
    }
    for variable in &container.env {
        let value = match (&variable.value_from, &variable.value) {
            (Some(source), _) => from(source, container, facts, api)
                .map_err(|e| format!("env {}: {e}", variable.name))?,
            (None, value) => Some(environment.expand(value.as_deref().unwrap_or_default())),
        };
        if let (EnvVar { name, .. }, Some(value)) = (variable, value) {
            environment.set(name, value);
        }
    }
    Ok(environment)
}

/// A value from elsewhere; `None` where an optional one is missing.
fn from(
    source: &Value,
    container: &Container,
    facts: &Facts,
    api: &dyn ApiServer,
) -> Result<Option<String>, String> {
    let namespace = &facts.key.namespace;
    let of = |kind: &str| source.get(kind).filter(|it| !it.is_null());
    if let Some(field) = of("fieldRef") {
        return facts.field(field["fieldPath"].as_str().unwrap_or_default()).map(Some);
    }
    if let Some(resource) = of("resourceFieldRef") {
        return facts.resource(resource, container).map(Some);
    }
    let (kind, reference, found) = if let Some(reference) = of("configMapKeyRef") {
        let name = text(reference, "name");
        let found =
            api.config_map(namespace, name).map(|mut map| map.remove(text(reference, "key")));
        ("ConfigMap", reference, found)
    } else if let Some(reference) = of("secretKeyRef") {
        let name = text(reference, "name");
        let found = api.secret(namespace, name).map(|mut map| {
            let bytes = map.remove(text(reference, "key"))?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        });
        ("Secret", reference, found)
    } else {
        return Err("valueFrom names no source that is known".to_owned());
    };
    match found.flatten() {
        Some(value) => Ok(Some(value)),
        None if reference["optional"] == true => Ok(None),
        None => Err(format!(
            "there is no {kind} {namespace}/{} with key {:?}",
            text(reference, "name"),
            text(reference, "key")
        )),
    }
}

fn from_object(
    source: &Value,
    facts: &Facts,
    api: &dyn ApiServer,
) -> Result<Vec<(String, String)>, String> {
    let namespace = &facts.key.namespace;
    let prefix = text(source, "prefix");
    let of = |kind: &str| source.get(kind).filter(|it| !it.is_null());
    let (kind, reference, found) = if let Some(reference) = of("configMapRef") {
        let found = api.config_map(namespace, text(reference, "name"));
        ("ConfigMap", reference, found.map(|map| map.into_iter().collect::<Vec<_>>()))
    } else if let Some(reference) = of("secretRef") {
        let found = api.secret(namespace, text(reference, "name"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let found = found.map(|map| map.into_iter().map(|(key, it)| (key, text(it))).collect());
        ("Secret", reference, found)
    } else {
        return Err("it names no source that is known".to_owned());
    };
    match found {
        Some(pairs) => Ok(pairs.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)).collect()),
        None if reference["optional"] == true => Ok(Vec::new()),
        None => Err(format!("there is no {kind} {namespace}/{}", text(reference, "name"))),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Environment, environment};
    use crate::kubelet::facts::tests::facts;
    use crate::kubelet::fake::Fake;
    use serde_json::json;

    #[test]
    fn variables_come_from_everywhere_in_order() {
        let facts = facts(&json!({"containers": [{"name": "a",
            "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "C_"},
                {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "URL", "value": "http://$(POD).$(C_zone)/$(LATER)$$(POD)"},
                {"name": "LATER", "value": "x"},
                {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
                {"name": "GONE", "valueFrom":
                    {"configMapKeyRef": {"name": "c", "key": "no", "optional": true}}},
                {"name": "CPU", "valueFrom":
                    {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}},
                {"name": "HOSTNAME", "value": "mine"}]}]}));
        let fake = Fake::default();
        fake.config_maps.lock().insert("c".into(), [("zone".into(), "z".into())].into());
        fake.secrets.lock().insert("s".into(), [("p".into(), b"pw".to_vec())].into());
        let mut base = Environment::default();
        base.set("HOSTNAME", "cart-1".into());
        let got = environment(base, &facts.pod.spec.containers[0], &facts, &fake).unwrap();
        let wanted = [
            ("HOSTNAME", "mine"),
            ("C_zone", "z"),
            ("POD", "cart-1"),
            ("URL", "http://cart-1.z/$(LATER)$(POD)"),
            ("LATER", "x"),
            ("PASS", "pw"),
            ("CPU", "0"),
        ];
        assert_eq!(got.0, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_missing_is_named() {
        let facts = facts(&json!({"containers": [
            {"name": "a", "env": [{"name": "P", "valueFrom":
                {"secretKeyRef": {"name": "s", "key": "p"}}}]},
            {"name": "b", "envFrom": [{"configMapRef": {"name": "c"}}]}]}));
        let fake = Fake::default();
        let error = |index: usize| {
            let container = &facts.pod.spec.containers[index];
            environment(Environment::default(), container, &facts, &fake).unwrap_err()
        };
        assert_eq!(error(0), "env P: there is no Secret shop/s with key \"p\"");
        assert_eq!(error(1), "envFrom[0]: there is no ConfigMap shop/c");
    }
}
