//! Which hooks of a MutatingWebhookConfiguration an API request fires.
//!
//! The API server's side of registration: rules, namespace selector and object selector, as
//! `admissionregistration.k8s.io/v1` defines them. Pure; what is not evaluated here (match
//! conditions) is refused, never ignored.

use std::collections::BTreeMap;

use serde_json::Value;

/// Labels of a namespace or a pod.
pub type Labels = BTreeMap<String, String>;

/// A configuration or selector that cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct SelectorError {
    /// Field, from the root of what was given.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl SelectorError {
    fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }

    fn below(self, parent: &str) -> Self {
        Self { path: format!("{parent}.{}", self.path), reason: self.reason }
    }
}

/// Whether `labels` match a label selector. An empty or absent selector matches everything.
///
/// # Errors
/// An unknown operator or a field of the wrong type.
pub fn matches(selector: &Value, labels: &Labels) -> Result<bool, SelectorError> {
    let object = match selector {
        Value::Null => return Ok(true),
        Value::Object(object) => object,
        _ => return Err(SelectorError::new("selector", "expected a map")),
    };
    let mut all = true;
    for (key, value) in object {
        match key.as_str() {
            "matchLabels" => all &= match_labels(value, labels)?,
            "matchExpressions" => all &= match_expressions(value, labels)?,
            _ => return Err(SelectorError::new(key.as_str(), "unknown field of a label selector")),
        }
    }
    Ok(all)
}

fn match_labels(wanted: &Value, labels: &Labels) -> Result<bool, SelectorError> {
    let wanted = match wanted {
        Value::Null => return Ok(true),
        Value::Object(wanted) => wanted,
        _ => return Err(SelectorError::new("matchLabels", "expected a map")),
    };
    let mut all = true;
    for (key, value) in wanted {
        let value = value
            .as_str()
            .ok_or_else(|| SelectorError::new(format!("matchLabels.{key}"), "expected a string"))?;
        all &= labels.get(key).is_some_and(|label| label == value);
    }
    Ok(all)
}

fn match_expressions(expressions: &Value, labels: &Labels) -> Result<bool, SelectorError> {
    let expressions = match expressions {
        Value::Null => return Ok(true),
        Value::Array(expressions) => expressions,
        _ => return Err(SelectorError::new("matchExpressions", "expected a list")),
    };
    let mut all = true;
    for (index, expression) in expressions.iter().enumerate() {
        all &= match_expression(expression, labels)
            .map_err(|error| error.below(&format!("matchExpressions[{index}]")))?;
    }
    Ok(all)
}

fn match_expression(expression: &Value, labels: &Labels) -> Result<bool, SelectorError> {
    let key =
        expression["key"].as_str().ok_or_else(|| SelectorError::new("key", "expected a string"))?;
    let label = labels.get(key);
    let values = || -> Result<bool, SelectorError> {
        let values = expression["values"]
            .as_array()
            .filter(|values| !values.is_empty())
            .ok_or_else(|| SelectorError::new("values", "expected a list that is not empty"))?;
        Ok(label.is_some_and(|label| values.iter().any(|value| value == label.as_str())))
    };
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => values(),
        "NotIn" => values().map(|found| !found),
        "Exists" => Ok(label.is_some()),
        "DoesNotExist" => Ok(label.is_none()),
        other => Err(SelectorError::new(
            "operator",
            format!("{other:?} is not In, NotIn, Exists or DoesNotExist"),
        )),
    }
}

/// The request that is to be admitted, as far as registration looks at it.
#[derive(Debug, Clone, Copy)]
pub struct AdmittedRequest<'a> {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'a str,
    /// API group of the resource, empty for the core group.
    pub group: &'a str,
    /// API version of the resource.
    pub version: &'a str,
    /// Plural name of the resource.
    pub resource: &'a str,
    /// Labels of the object's namespace, with `kubernetes.io/metadata.name`.
    pub namespace_labels: &'a Labels,
    /// Labels of the object.
    pub object_labels: &'a Labels,
}

/// A hook that is to be called.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// Name of the hook.
    pub name: String,
    /// Where it is.
    pub target: HookTarget,
    /// PEM roots its certificate must chain to; empty: the system's.
    pub ca_bundle: Vec<u8>,
    /// Seconds until the call counts as failed.
    pub timeout_seconds: u64,
    /// Whether a failed call fails the request.
    pub fail_closed: bool,
}

/// Where a hook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookTarget {
    /// A Service of the cluster; the certificate must name `NAME.NAMESPACE.svc`.
    Service {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Port of the Service.
        port: u16,
        /// Path with a leading `/`.
        path: String,
    },
    /// An `https` URL.
    Url(String),
}

/// The hooks of a configuration that a request fires, in their order.
///
/// # Errors
/// A hook that cannot be evaluated: the request must fail, as it does at an API server that
/// cannot tell whether a policy applies.
pub fn hooks_for(
    configuration: &Value,
    request: &AdmittedRequest<'_>,
) -> Result<Vec<Hook>, SelectorError> {
    let Some(hooks) = configuration["webhooks"].as_array() else { return Ok(Vec::new()) };
    let mut fired = Vec::new();
    for (index, hook) in hooks.iter().enumerate() {
        let path = format!("webhooks[{index}]");
        if fires(hook, request).map_err(|error| error.below(&path))? {
            fired.push(decode_hook(hook).map_err(|error| error.below(&path))?);
        }
    }
    Ok(fired)
}

fn fires(hook: &Value, request: &AdmittedRequest<'_>) -> Result<bool, SelectorError> {
    if hook["matchConditions"].as_array().is_some_and(|conditions| !conditions.is_empty()) {
        return Err(SelectorError::new(
            "matchConditions",
            "CEL conditions are not evaluated; remove them",
        ));
    }
    let rules = hook["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(rules.iter().any(|rule| rule_matches(rule, request))
        && matches(&hook["namespaceSelector"], request.namespace_labels)
            .map_err(|error| error.below("namespaceSelector"))?
        && matches(&hook["objectSelector"], request.object_labels)
            .map_err(|error| error.below("objectSelector"))?)
}

fn rule_matches(rule: &Value, request: &AdmittedRequest<'_>) -> bool {
    let has = |field: &str, wanted: &str| {
        let list = rule[field].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().any(|entry| entry == wanted || entry == "*")
    };
    has("operations", request.operation)
        && has("apiGroups", request.group)
        && has("apiVersions", request.version)
        && has("resources", request.resource)
}

fn decode_hook(hook: &Value) -> Result<Hook, SelectorError> {
    let client = &hook["clientConfig"];
    let ca_bundle = match client["caBundle"].as_str() {
        None => Vec::new(),
        Some(text) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| {
                SelectorError::new("clientConfig.caBundle", format!("not base64: {error}"))
            })?
        }
    };
    let text = |field: &str| client["service"][field].as_str().unwrap_or_default().to_owned();
    let target = match (client["url"].as_str(), client["service"].is_object()) {
        (Some(url), false) => HookTarget::Url(url.to_owned()),
        (None, true) => HookTarget::Service {
            namespace: text("namespace"),
            name: text("name"),
            port: client["service"]["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(443),
            path: Some(text("path")).filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into()),
        },
        _ => return Err(SelectorError::new("clientConfig", "exactly one of url and service")),
    };
    Ok(Hook {
        name: hook["name"].as_str().unwrap_or_default().to_owned(),
        target,
        ca_bundle,
        timeout_seconds: hook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30),
        fail_closed: hook["failurePolicy"] != "Ignore",
    })
}

#[cfg(test)]
mod tests {
    use super::{AdmittedRequest, HookTarget, Labels, hooks_for, matches};
    use serde_json::{Value, json};

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn operators() {
        let one = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
        let cases = [
            (one("In", json!(["x", "y"])), [false, true, false]),
            (one("NotIn", json!(["x"])), [true, false, true]),
            (one("Exists", Value::Null), [false, true, true]),
            (one("DoesNotExist", Value::Null), [true, false, false]),
            (json!({"matchLabels": {"a": "x"}}), [false, true, false]),
            (json!({}), [true, true, true]),
            (Value::Null, [true, true, true]),
        ];
        for (selector, expected) in cases {
            let got = ["", "a=x", "a=z"].map(|text| matches(&selector, &labels(text)).unwrap());
            assert_eq!(got, expected, "{selector}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for selector in [
            json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            json!({"matchExpressions": [{"operator": "Exists"}]}),
            json!({"matchLabels": {"a": 1}}),
            json!({"matchFields": []}),
            json!([]),
        ] {
            assert!(matches(&selector, &labels("a=1")).is_err(), "{selector}");
        }
    }

    fn request<'a>(operation: &'a str, none: &'a Labels) -> AdmittedRequest<'a> {
        AdmittedRequest {
            operation,
            group: "",
            version: "v1",
            resource: "pods",
            namespace_labels: none,
            object_labels: none,
        }
    }

    fn configuration(extra: &Value) -> Value {
        let mut hook = json!({
            "name": "h", "failurePolicy": "Ignore", "timeoutSeconds": 99,
            "clientConfig": {"service": {"namespace": "n", "name": "s"}, "caBundle": "YWI="},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                       "resources": ["pods"]}],
        });
        for (key, value) in extra.as_object().unwrap() {
            hook[key] = value.clone();
        }
        json!({"webhooks": [hook]})
    }

    #[test]
    fn rules_and_client_configuration() {
        let none = Labels::new();
        let hooks = hooks_for(&configuration(&json!({})), &request("CREATE", &none)).unwrap();
        assert_eq!(hooks[0].ca_bundle, b"ab");
        assert_eq!((hooks[0].timeout_seconds, hooks[0].fail_closed), (30, false));
        let HookTarget::Service { port, path, .. } = &hooks[0].target else { panic!("no service") };
        assert_eq!((*port, path.as_str()), (443, "/"));
        assert_eq!(
            hooks_for(&configuration(&json!({})), &request("UPDATE", &none)).unwrap(),
            Vec::new()
        );
    }

    #[test]
    fn match_conditions_are_refused() {
        let none = Labels::new();
        let with =
            configuration(&json!({"matchConditions": [{"name": "n", "expression": "true"}]}));
        let error = hooks_for(&with, &request("CREATE", &none)).unwrap_err().to_string();
        assert!(error.starts_with("webhooks[0].matchConditions"), "{error}");
    }
}
