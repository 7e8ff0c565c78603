//! Answers reviews of Istio's kinds: what would be refused when it is read is refused when it is
//! written, with the reason for whoever writes it.
//!
//! The checks are those of the API crate. A change that leaves `spec` as it was is let through: labels
//! and finalizers of an object that is no longer accepted must still come off. Pure.

use lateen_api::object::decode;
use lateen_api::{Finding, Object, ObjectMeta, Origin, validate};
use serde_json::{Map, Value};

use crate::admission::{MESSAGE_LIMIT, Response, ReviewResponse, Status, V1, bounded, cut};
use crate::json;

/// An answered review.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What goes back.
    pub review: ReviewResponse,
    /// Kind, namespace and name of the object, as far as they are known.
    pub object: String,
}

/// Answers a review. One that cannot be read is refused.
#[must_use]
pub fn answer(body: &[u8]) -> Verdict {
    let review: Map<String, Value> = match json::map(body) {
        Ok(review) => review,
        Err(error) => return unreadable("", &error),
    };
    let Some(request) = review.get("request").and_then(Value::as_object) else {
        return unreadable("", "it has no request");
    };
    let uid = request.get("uid").and_then(Value::as_str).unwrap_or_default();
    if review.get("apiVersion").and_then(Value::as_str) != Some(V1) {
        return unreadable(uid, "its apiVersion is not admission.k8s.io/v1");
    }
    if !request.get("object").is_some_and(Value::is_object) {
        return unreadable(uid, "it has no object");
    }
    let spec = |of: &str| request.get(of).and_then(|object| object.get("spec"));
    let is_update = request.get("operation").and_then(Value::as_str) == Some("UPDATE");
    if is_update && spec("object") == spec("oldObject") {
        return verdict(uid, String::new(), &[]);
    }
    match object(request) {
        Ok(object) => {
            let findings = validate::check(&object).findings;
            verdict(uid, object.reference().to_string(), &findings)
        }
        Err(finding) => verdict(uid, String::new(), &[finding]),
    }
}

/// The object of a request. One whose name the API server is yet to make has the beginning of it.
fn object(request: &Map<String, Value>) -> Result<Object, Finding> {
    let value = request.get("object").cloned().unwrap_or_default();
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let mut metadata: ObjectMeta = decode("metadata", value["metadata"].clone())?;
    if metadata.name.is_empty() {
        metadata.name = metadata.generate_name.clone().unwrap_or_default();
    }
    if metadata.namespace.is_none() {
        let namespace = request.get("namespace").and_then(Value::as_str);
        metadata.namespace = namespace.map(str::to_owned);
    }
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let origin = Origin { file: "request".into(), document: 0, line: 0 };
    Ok(Object { api_version, kind, metadata, value, origin })
}

fn verdict(uid: &str, object: String, findings: &[Finding]) -> Verdict {
    let say = |finding: &&Finding| match finding.path.as_str() {
        "" => finding.message.clone(),
        path => format!("{path}: {}", finding.message),
    };
    let (errors, remarks): (Vec<_>, Vec<_>) = findings.iter().partition(|it| it.is_error());
    let errors: Vec<String> = errors.iter().map(say).collect();
    let status = (!errors.is_empty()).then(|| refusal(&errors.join("; ")));
    let response = Response {
        uid: uid.to_owned(),
        allowed: status.is_none(),
        status,
        warnings: bounded(remarks.iter().map(say).collect()),
        ..Response::default()
    };
    Verdict {
        review: ReviewResponse { api_version: V1, kind: "AdmissionReview", response },
        object,
    }
}

fn unreadable(uid: &str, reason: &str) -> Verdict {
    let finding = Finding::error("", format!("AdmissionReview cannot be read: {reason}"));
    verdict(uid, String::new(), &[finding])
}

fn refusal(message: &str) -> Status {
    let message = cut(message.to_owned(), MESSAGE_LIMIT);
    Status { status: "Failure", message, code: 400, reason: "Invalid" }
}

#[cfg(test)]
mod tests {
    use super::answer;
    use crate::admission::Response;
    use lateen_api::kind::{KINDS, Kind, Support};
    use proptest::prelude::{any, proptest};
    use serde_json::{Value, json};

    fn rule_of(weight: i64) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"hosts": ["a"], "http": [{"route": [
                {"destination": {"host": "a"}, "weight": weight},
            ]}]},
        })
    }

    fn reviewed(operation: &str, object: &Value, old: &Value) -> Response {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u-1", "operation": operation, "namespace": "shop",
                "object": object, "oldObject": old,
            },
        });
        answer(review.to_string().as_bytes()).review.response
    }

    #[test]
    fn what_means_something_is_let_through() {
        let response = reviewed("CREATE", &rule_of(100), &Value::Null);
        assert!(response.allowed, "{response:?}");
        assert_eq!((response.uid.as_str(), response.patch), ("u-1", None));
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_field() {
        let response = reviewed("CREATE", &rule_of(-1), &Value::Null);
        let message = response.status.unwrap().message;
        assert!(!response.allowed);
        assert!(message.contains("weight"), "{message}");
    }

    #[test]
    fn a_name_may_be_yet_to_come() {
        let mut rule = rule_of(100);
        rule["metadata"] = json!({"generateName": "a-"});
        assert!(reviewed("CREATE", &rule, &Value::Null).allowed);
    }

    #[test]
    fn what_is_there_can_be_labelled_and_deleted_but_not_made_worse() {
        let old = rule_of(-1);
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!([]);
        assert!(reviewed("UPDATE", &new, &old).allowed);
        assert!(!reviewed("UPDATE", &rule_of(-2), &old).allowed);
    }

    /// A spec of each kind that is accepted, and one that is refused with the field.
    fn kinds() -> Vec<(Kind, Value, Value, &'static str)> {
        let (socket, wrong) = (json!({"port": 80}), json!({"port": 0}));
        let rule = |issuer: &str| json!({"jwtRules": [{"issuer": issuer}]});
        let port = |number: u32| {
            let port = json!({"number": number, "name": "http", "protocol": "HTTP"});
            json!({"servers": [{"port": port, "hosts": ["*"]}]})
        };
        let patch = |operation: &str| {
            json!({"configPatches": [{
            "applyTo": "CLUSTER", "patch": {"operation": operation}}]})
        };
        let group = |probe: Value| json!({"template": {}, "probe": {"tcpSocket": probe}});
        let hosts = |host: &str| json!({"egress": [{"hosts": [host]}]});
        let action = |action: &str| json!({"action": action, "rules": [{}]});
        let log =
            |expression: &str| json!({"accessLogging": [{"filter": {"expression": expression}}]});
        vec![
            (Kind::AuthorizationPolicy, action("DENY"), action("BAN"), "spec.action"),
            (Kind::DestinationRule, json!({"host": "a"}), json!({}), "spec.host"),
            (Kind::EnvoyFilter, patch("REMOVE"), patch("ADD"), "spec.configPatches[0].patch.value"),
            (Kind::Gateway, port(80), port(0), "spec.servers[0].port.number"),
            (
                Kind::PeerAuthentication,
                json!({}),
                json!({"mtls": {"mode": "ON"}}),
                "spec.mtls.mode",
            ),
            (Kind::ProxyConfig, json!({}), json!({"concurrency": -1}), "spec.concurrency"),
            (Kind::RequestAuthentication, rule("a"), rule(""), "spec.jwtRules[0].issuer"),
            (Kind::ServiceEntry, json!({"hosts": ["a.example"]}), json!({}), "spec.hosts"),
            (Kind::Sidecar, hosts("./*"), hosts("*"), "spec.egress[0].hosts[0]"),
            (Kind::Telemetry, log("true"), log(""), "spec.accessLogging[0].filter.expression"),
            (Kind::TrafficExtension, json!({"lua": {"inlineCode": "a"}}), json!({}), "spec"),
            (Kind::VirtualService, rule_of(100)["spec"].clone(), json!({}), "spec.hosts"),
            (Kind::WasmPlugin, json!({"url": "a"}), json!({}), "spec.url"),
            (Kind::WorkloadEntry, json!({"address": "1.2.3.4"}), json!({}), "spec.address"),
            (Kind::WorkloadGroup, group(socket), group(wrong), "spec.probe.tcpSocket.port"),
        ]
    }

    #[test]
    fn every_kind_with_a_definition_is_judged() {
        let judged: Vec<Kind> = kinds().iter().map(|row| row.0).collect();
        let defined = KINDS.iter().map(|info| info.kind).filter(|it| *it != Kind::IstioOperator);
        assert_eq!(judged, defined.collect::<Vec<_>>());
        for (kind, good, bad, path) in kinds() {
            let info = KINDS.iter().find(|info| info.kind == kind).unwrap();
            let create = |spec: Value| {
                let api_version = format!("{}/{}", info.group, info.versions[0]);
                let object = json!({"apiVersion": api_version, "kind": info.name,
                    "metadata": {"name": "a"}, "spec": spec});
                reviewed("CREATE", &object, &Value::Null)
            };
            let response = create(good);
            assert!(response.allowed, "{response:?}");
            let without_effect = format!("{} is recognised, but has no effect yet", info.name);
            let recognised = info.support == Support::Recognised;
            assert_eq!(response.warnings.contains(&without_effect), recognised, "{response:?}");
            let response = create(bad);
            let message = response.status.as_ref().unwrap().message.as_str();
            assert!(!response.allowed && message.starts_with(path), "{}: {message}", info.name);
        }
    }

    #[test]
    fn parts_without_effect_are_said() {
        let mut rule = rule_of(100);
        rule["spec"]["http"][0]["match"] = json!([{"statPrefix": "a"}]);
        let response = reviewed("CREATE", &rule, &Value::Null);
        assert!(response.allowed);
        let said = ["spec.http[0].match[0].statPrefix: statPrefix is not honoured yet"];
        assert_eq!(response.warnings, said);
    }

    #[test]
    fn kinds_of_others_pass() {
        let other = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        assert!(reviewed("CREATE", &other, &Value::Null).allowed);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let objectless = r#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u"}}"#;
        for body in ["", "[]", "{}", r#"{"request":{"object":{}}}"#, objectless] {
            let response = answer(body.as_bytes()).review.response;
            assert!(!response.allowed, "{body}");
        }
        let bad = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": 5});
        assert!(!reviewed("CREATE", &bad, &Value::Null).allowed);
    }

    proptest! {
        #[test]
        fn every_body_gets_an_answer(body in any::<Vec<u8>>()) {
            let _verdict = answer(&body);
        }
    }
}
