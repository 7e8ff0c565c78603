//! Which hooks of a MutatingWebhookConfiguration an API request fires.
//!
//! The API server's side of registration: rules, namespace selector and object selector, as
//! `admissionregistration.k8s.io/v1` defines them. Pure; what is not evaluated here (match
//! conditions of others) is refused, never ignored.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::conditions;
use crate::policy::Reason;

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
    unmet(selector, labels).map(|unmet| unmet.is_none())
}

/// The first requirement of a label selector that `labels` do not meet, in words; `None` when they
/// match.
///
/// # Errors
/// As [`matches`]; of any requirement, also of one behind the first that is not met.
pub fn unmet(selector: &Value, labels: &Labels) -> Result<Option<String>, SelectorError> {
    let object = match selector {
        Value::Null => return Ok(None),
        Value::Object(object) => object,
        _ => return Err(SelectorError::new("selector", "expected a map")),
    };
    let mut first = None;
    for (key, value) in object {
        let unmet = match key.as_str() {
            "matchLabels" => match_labels(value, labels)?,
            "matchExpressions" => match_expressions(value, labels)?,
            _ => return Err(SelectorError::new(key.as_str(), "unknown field of a label selector")),
        };
        first = first.or(unmet);
    }
    Ok(first)
}

fn match_labels(wanted: &Value, labels: &Labels) -> Result<Option<String>, SelectorError> {
    let wanted = match wanted {
        Value::Null => return Ok(None),
        Value::Object(wanted) => wanted,
        _ => return Err(SelectorError::new("matchLabels", "expected a map")),
    };
    let mut first = None;
    for (key, value) in wanted {
        let value = value
            .as_str()
            .ok_or_else(|| SelectorError::new(format!("matchLabels.{key}"), "expected a string"))?;
        if labels.get(key).is_none_or(|label| label != value) {
            first = first.or_else(|| Some(format!("{}, not {value}", present(key, labels))));
        }
    }
    Ok(first)
}

fn match_expressions(
    expressions: &Value,
    labels: &Labels,
) -> Result<Option<String>, SelectorError> {
    let expressions = match expressions {
        Value::Null => return Ok(None),
        Value::Array(expressions) => expressions,
        _ => return Err(SelectorError::new("matchExpressions", "expected a list")),
    };
    let mut first = None;
    for (index, expression) in expressions.iter().enumerate() {
        let unmet = match_expression(expression, labels)
            .map_err(|error| error.below(&format!("matchExpressions[{index}]")))?;
        first = first.or(unmet);
    }
    Ok(first)
}

fn match_expression(expression: &Value, labels: &Labels) -> Result<Option<String>, SelectorError> {
    let key =
        expression["key"].as_str().ok_or_else(|| SelectorError::new("key", "expected a string"))?;
    let label = labels.get(key);
    let values = || {
        let values = expression["values"].as_array().filter(|values| !values.is_empty());
        values.ok_or_else(|| SelectorError::new("values", "expected a list that is not empty"))
    };
    let among = |values: &[Value]| {
        label.is_some_and(|label| values.iter().any(|value| value == label.as_str()))
    };
    let (met, wanted) = match expression["operator"].as_str().unwrap_or_default() {
        "In" => {
            let values = values()?;
            let names: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            (among(values), format!(", not {}", names.join(" or ")))
        }
        "NotIn" => (!among(values()?), String::new()),
        "Exists" => (label.is_some(), String::new()),
        "DoesNotExist" => (label.is_none(), String::new()),
        other => {
            return Err(SelectorError::new(
                "operator",
                format!("{other:?} is not In, NotIn, Exists or DoesNotExist"),
            ));
        }
    };
    Ok((!met).then(|| format!("{}{wanted}", present(key, labels))))
}

/// What labels say under a key.
fn present(key: &str, labels: &Labels) -> String {
    match labels.get(key) {
        None => format!("{key} is not set"),
        Some(value) => format!("{key} is {value:?}"),
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
    /// Namespace of the object.
    pub namespace: &'a str,
    /// The object.
    pub object: &'a Value,
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
        let verdict = verdict(hook, request).map_err(|error| error.below(&path))?;
        if verdict == Verdict::Fires {
            fired.push(decode_hook(hook).map_err(|error| error.below(&path))?);
        }
    }
    Ok(fired)
}

/// What a hook makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is called.
    Fires,
    /// Its rules are about other requests.
    OtherRequests,
    /// Its selector of namespaces does not match, and why.
    OtherNamespaces(String),
    /// Its selector of objects does not match, and why.
    OtherObjects(String),
    /// One of its match conditions is not met: name, and why the pod gets no sidecar.
    LeftOut(String, Reason),
}

/// Whether a hook is called for a request, and why not.
///
/// # Errors
/// A hook that cannot be evaluated.
pub fn verdict(hook: &Value, request: &AdmittedRequest<'_>) -> Result<Verdict, SelectorError> {
    let unmet_condition = unmet_condition(&hook["matchConditions"], request)?;
    let rules = hook["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !rules.iter().any(|rule| rule_matches(rule, request)) {
        return Ok(Verdict::OtherRequests);
    }
    let namespace = unmet(&hook["namespaceSelector"], request.namespace_labels)
        .map_err(|error| error.below("namespaceSelector"))?;
    let object = unmet(&hook["objectSelector"], request.object_labels)
        .map_err(|error| error.below("objectSelector"))?;
    Ok(match (namespace, object, unmet_condition) {
        (Some(why), _, _) => Verdict::OtherNamespaces(why),
        (None, Some(why), _) => Verdict::OtherObjects(why),
        (None, None, Some((name, reason))) => Verdict::LeftOut(name, reason),
        (None, None, None) => Verdict::Fires,
    })
}

/// The first match condition that is not met. Only those of [`conditions`] are evaluated.
fn unmet_condition(
    declared: &Value,
    request: &AdmittedRequest<'_>,
) -> Result<Option<(String, Reason)>, SelectorError> {
    let declared = declared.as_array().map(Vec::as_slice).unwrap_or_default();
    if declared.is_empty() {
        return Ok(None);
    }
    let known = conditions::all();
    let mut first = None;
    for (index, condition) in declared.iter().enumerate() {
        let expression = condition["expression"].as_str().unwrap_or_default();
        let Some(known) = known.iter().find(|it| it.expression == expression) else {
            let reason = format!(
                "{:?} is not one of Lateen's own conditions, and others are not evaluated",
                condition["name"].as_str().unwrap_or_default()
            );
            return Err(SelectorError::new(format!("matchConditions[{index}]"), reason));
        };
        if !known.holds(request.object, request.namespace) {
            first = first.or_else(|| Some((known.name.to_owned(), known.otherwise)));
        }
    }
    Ok(first)
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

/// Name, place and trust of a hook.
///
/// # Errors
/// A field that is not what it must be.
pub fn decode_hook(hook: &Value) -> Result<Hook, SelectorError> {
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
    use super::{AdmittedRequest, HookTarget, Labels, hooks_for, matches, unmet};
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
            namespace: "shop",
            object: &Value::Null,
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
    fn conditions_of_others_are_refused() {
        let none = Labels::new();
        let with =
            configuration(&json!({"matchConditions": [{"name": "n", "expression": "true"}]}));
        let error = hooks_for(&with, &request("CREATE", &none)).unwrap_err().to_string();
        assert!(error.starts_with("webhooks[0].matchConditions[0]"), "{error}");
    }

    #[test]
    fn our_conditions_are_evaluated() {
        let none = Labels::new();
        let declared: Vec<Value> =
            crate::conditions::all().iter().map(crate::conditions::Condition::declared).collect();
        let configuration = configuration(&json!({"matchConditions": declared}));
        for (host, fires) in [(false, 1), (true, 0)] {
            let pod = json!({"spec": {"hostNetwork": host}});
            let request = AdmittedRequest { object: &pod, ..request("CREATE", &none) };
            assert_eq!(hooks_for(&configuration, &request).unwrap().len(), fires);
        }
    }

    #[test]
    fn what_does_not_match_is_said() {
        let selector = json!({"matchExpressions": [
            {"key": "a", "operator": "In", "values": ["x", "y"]},
            {"key": "b", "operator": "DoesNotExist"},
        ]});
        for (text, expected) in [
            ("a=x", None),
            ("", Some("a is not set, not x or y")),
            ("a=z", Some("a is \"z\", not x or y")),
            ("a=x,b=1", Some("b is \"1\"")),
        ] {
            assert_eq!(unmet(&selector, &labels(text)).unwrap().as_deref(), expected);
        }
    }
}
