//! AdmissionReview, in and out.
//!
//! Every body gets an answer: a review that cannot be read or is not about the creation of a pod
//! is refused with a message, never let through unseen. Pure; the server around it moves bytes.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::conditions::asks;
use crate::inject::{AdmissionContext, Injection, inject};
use crate::policy::Reason;
use crate::settings::InjectionSettings;
use crate::stats::{Controller, Decided};

/// Version of reviews.
pub(crate) const V1: &str = "admission.k8s.io/v1";
const V1BETA1: &str = "admission.k8s.io/v1beta1";
/// Longest message, bytes: the API server shows it to the user in one line.
pub(crate) const MESSAGE_LIMIT: usize = 1024;
/// Longest text of all warnings together; the API server cuts what is longer.
const WARNINGS_LIMIT: usize = 4096;

/// What injection knows of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceMetadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Everything reviews are answered from; replaced as a whole when something changes.
#[derive(Debug)]
pub struct Injector {
    /// Settings in force.
    pub settings: InjectionSettings,
    /// Namespaces of the cluster by name, as far as they are known.
    pub namespaces: BTreeMap<String, NamespaceMetadata>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    kind: GroupVersionKind,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(skip)]
    object: Value,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewResponse {
    /// Version of the review that is answered.
    pub api_version: &'static str,
    /// Always `AdmissionReview`.
    pub kind: &'static str,
    /// The decision.
    pub response: Response,
}

/// The decision.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Id of the request.
    pub uid: String,
    /// Whether the pod may be created.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// JSON patch, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// `JSONPatch` when there is a patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<&'static str>,
    /// Shown to the client.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// For the audit log of the API server: the reason code under `reason`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audit_annotations: BTreeMap<&'static str, String>,
}

/// `metav1.Status`, as far as it is set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// `Failure`.
    pub status: &'static str,
    /// For people.
    pub message: String,
    /// HTTP code the client sees.
    pub code: u16,
    /// Stable reason code.
    pub reason: &'static str,
}

/// An answered review.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What goes back.
    pub review: ReviewResponse,
    /// What happened and why.
    pub reason: Reason,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod, or the prefix of one to come.
    pub name: String,
    /// Who creates the pod, if somebody does.
    pub controller: Option<Controller>,
    /// Whether the pod asks for a sidecar itself.
    pub asked: bool,
    /// Whether nothing will be created.
    pub dry_run: bool,
}

impl Answer {
    /// What the pod's owner should be told beyond the answer: that the pod is denied, or gets no
    /// sidecar though it asks for one. Of a pod that nobody creates there is nothing to tell.
    #[must_use]
    pub fn to_tell(&self) -> Option<Decided> {
        let Self { reason, .. } = self;
        let denied = reason.denies() && *reason != Reason::DeniedReview;
        let skipped = self.asked && !reason.denies() && !reason.injects();
        (!self.dry_run && (denied || skipped)).then(|| Decided {
            reason: *reason,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            controller: self.controller.clone(),
            message: match &self.review.response.status {
                Some(status) => format!("{} ({reason})", status.message),
                None => unserved(*reason),
            },
        })
    }
}

/// What the owner of a pod reads that gets no sidecar.
fn unserved(reason: Reason) -> String {
    format!("no sidecar: {} ({reason})", reason.explanation())
}

/// Answers a review.
#[must_use]
pub fn answer(body: &[u8], injector: &Injector, environment: &BTreeMap<String, String>) -> Answer {
    let review = match crate::json::map::<Review>(body) {
        Ok(review) => review,
        Err(reason) => return refused("", V1, format!("AdmissionReview cannot be read: {reason}")),
    };
    let uid = review.request.as_ref().and_then(|request| request.get("uid")?.as_str());
    let uid = uid.unwrap_or_default().to_owned();
    let version = match review.api_version.as_str() {
        V1 => V1,
        V1BETA1 => V1BETA1,
        other => {
            return refused(&uid, V1, format!("apiVersion {other:?} is not {V1}"));
        }
    };
    let Some(request) = review.request else {
        return refused("", version, "AdmissionReview has no request".to_owned());
    };
    let request = match Request::read(request) {
        Ok(request) => request,
        Err(error) => {
            let message = format!("AdmissionReview cannot be read: request: {error}");
            return refused(&uid, version, message);
        }
    };
    if review.kind != "AdmissionReview" {
        let message = format!("kind {:?} is not AdmissionReview", review.kind);
        return refused(&request.uid, version, message);
    }
    if let Err(message) = is_pod_creation(&request) {
        return refused(&request.uid, version, message);
    }
    decide(request, version, injector, environment)
}

impl Request {
    /// The object is taken over as it is, since it may be large.
    fn read(mut fields: Map<String, Value>) -> Result<Self, serde_json::Error> {
        let object = fields.remove("object").unwrap_or_default();
        let request: Self = serde_json::from_value(Value::Object(fields))?;
        Ok(Self { object, ..request })
    }
}

fn is_pod_creation(request: &Request) -> Result<(), String> {
    let GroupVersionKind { group, version, kind } = &request.kind;
    if !(group.is_empty() && version == "v1" && kind == "Pod") {
        return Err(format!("request is about {group}/{version} {kind}, not about a v1 Pod"));
    }
    if request.operation != "CREATE" {
        return Err(format!("operation {:?} is not CREATE", request.operation));
    }
    Ok(())
}

fn decide(
    request: Request,
    version: &'static str,
    injector: &Injector,
    environment: &BTreeMap<String, String>,
) -> Answer {
    let metadata = &request.object["metadata"];
    let text = |field: &str| metadata[field].as_str().filter(|text| !text.is_empty());
    let name = text("name").or_else(|| text("generateName")).unwrap_or_default().to_owned();
    let namespace = if request.namespace.is_empty() {
        text("namespace").unwrap_or_default().to_owned()
    } else {
        request.namespace
    };
    let asked = asks(&request.object);
    let controller = controller(metadata);
    let known = injector.namespaces.get(&namespace).cloned().unwrap_or_default();
    let context = AdmissionContext {
        namespace,
        namespace_labels: known.labels,
        namespace_annotations: known.annotations,
        environment: environment.clone(),
        workload: None,
    };
    let (reason, response) = match inject(&request.object, &injector.settings, &context) {
        Err(error) => {
            let reason = error.reason();
            (reason, denial(&request.uid, reason, format!("sidecar injection: {error}")))
        }
        Ok(injection) => {
            (injection.reason, allowed(request.uid, &request.object, injection, asked))
        }
    };
    Answer {
        review: ReviewResponse { api_version: version, kind: "AdmissionReview", response },
        reason,
        namespace: context.namespace,
        name,
        controller,
        asked,
        dry_run: request.dry_run.unwrap_or_default(),
    }
}

/// The answer to a pod that may be created; `given` is what it was.
fn allowed(uid: String, given: &Value, injection: Injection, asked: bool) -> Response {
    let patch = injection.patch(given);
    let text = serde_json::to_vec(&patch).unwrap_or_default();
    let patch = (!patch.is_empty()).then(|| base64::engine::general_purpose::STANDARD.encode(text));
    let mut warnings = injection.warnings;
    // Who did not ask is not told at each pod; audit log and metrics know.
    if asked && !injection.reason.injects() {
        warnings.push(unserved(injection.reason));
    }
    Response {
        uid,
        allowed: true,
        warnings: bounded(warnings),
        audit_annotations: [("reason", injection.reason.code().to_owned())].into(),
        patch_type: patch.is_some().then_some("JSONPatch"),
        patch,
        ..Response::default()
    }
}

fn refused(uid: &str, version: &'static str, message: String) -> Answer {
    let reason = Reason::DeniedReview;
    Answer {
        review: ReviewResponse {
            api_version: version,
            kind: "AdmissionReview",
            response: denial(uid, reason, message),
        },
        reason,
        namespace: String::new(),
        name: String::new(),
        controller: None,
        asked: false,
        dry_run: false,
    }
}

/// The controller of a pod with this metadata.
fn controller(metadata: &Value) -> Option<Controller> {
    let owners = metadata["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let text = |field: &str| Some(owner[field].as_str()?.to_owned());
    Some(Controller {
        api_version: text("apiVersion")?,
        kind: text("kind")?,
        name: text("name")?,
        uid: text("uid").unwrap_or_default(),
    })
}

fn denial(uid: &str, reason: Reason, message: String) -> Response {
    let status = Status {
        status: "Failure",
        message: cut(message, MESSAGE_LIMIT),
        code: 400,
        reason: reason.code(),
    };
    Response { uid: uid.to_owned(), allowed: false, status: Some(status), ..Response::default() }
}

/// As many warnings as clients show.
pub(crate) fn bounded(warnings: Vec<String>) -> Vec<String> {
    let mut left = WARNINGS_LIMIT;
    warnings
        .into_iter()
        .map(|warning| cut(warning.replace(['\n', '\r'], " "), MESSAGE_LIMIT))
        .take_while(|warning| {
            let fits = warning.len() <= left;
            left = left.saturating_sub(warning.len());
            fits
        })
        .collect()
}

/// The beginning of a text, whole characters.
pub(crate) fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "literals are passed as they stand")]

    use std::collections::BTreeMap;

    use super::{Injector, answer};
    use crate::settings::{InjectionSettings, Options};
    use proptest::prelude::{any, proptest};
    use serde_json::{Value, json};

    fn injector() -> Injector {
        let settings = InjectionSettings::from_sources(None, None, Options::default()).unwrap();
        Injector { settings, namespaces: BTreeMap::new() }
    }

    fn review(object: Value) -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "operation": "CREATE", "namespace": "shop", "dryRun": true, "object": object,
            },
        })
    }

    fn pod() -> Value {
        json!({"metadata": {"generateName": "a-"}, "spec": {"containers": [{"name": "a", "image": "i"}]}})
    }

    fn answered(review: &Value) -> super::Answer {
        answer(review.to_string().as_bytes(), &injector(), &BTreeMap::new())
    }

    #[test]
    fn a_pod_is_patched_under_its_uid() {
        let answer = answered(&review(pod()));
        let response = answer.review.response;
        assert!(response.allowed && response.patch.is_some());
        assert_eq!((response.uid.as_str(), response.patch_type), ("u-1", Some("JSONPatch")));
        assert_eq!(response.audit_annotations["reason"], "injected.default-policy");
        assert_eq!((answer.name.as_str(), answer.namespace.as_str()), ("a-", "shop"));
        assert!(answer.dry_run);
    }

    #[test]
    fn who_asked_and_is_skipped_is_told_why() {
        let mut pod = pod();
        pod["spec"]["hostNetwork"] = json!(true);
        let silent = answered(&review(pod.clone()));
        assert!(silent.review.response.allowed && silent.review.response.patch.is_none());
        assert!(silent.review.response.warnings.is_empty());
        assert_eq!(silent.review.response.audit_annotations["reason"], "skipped.host-network");
        for map in ["labels", "annotations"] {
            let mut asking = pod.clone();
            asking["metadata"][map] = json!({"sidecar.istio.io/inject": "true"});
            let warnings = answered(&review(asking)).review.response.warnings;
            assert!(warnings[0].contains("skipped.host-network"), "{warnings:?}");
        }
    }

    #[test]
    fn the_owner_is_told_of_what_was_asked_for_in_earnest() {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "u",
            "controller": true}]);
        let told = |change: Value, dry_run: bool| {
            let mut pod = pod();
            pod["metadata"]["ownerReferences"] = owner.clone();
            for (path, value) in change.as_object().unwrap() {
                let (map, key) = path.split_once(' ').unwrap();
                if map == "spec" {
                    pod["spec"][key] = value.clone();
                } else {
                    pod["metadata"][map] = json!({key: value});
                }
            }
            let mut review = review(pod);
            review["request"]["dryRun"] = json!(dry_run);
            answered(&review).to_tell()
        };
        let denied = json!({"annotations sidecar.istio.io/proxyCPU": "x"});
        let asked = json!({"labels sidecar.istio.io/inject": "true", "spec hostNetwork": true});
        let said = told(denied.clone(), false).unwrap();
        assert_eq!(said.controller.unwrap().name, "a");
        assert!(said.message.contains("proxyCPU") && said.message.ends_with("(denied.annotation)"));
        assert!(told(asked.clone(), false).unwrap().message.contains("skipped.host-network"));
        assert_eq!(told(denied, true), None, "nothing comes of a dry run");
        assert_eq!(told(asked, true), None);
        assert_eq!(told(json!({"spec hostNetwork": true}), false), None, "nobody asked");
        assert_eq!(told(json!({}), false), None, "all is well");
    }

    #[test]
    fn a_bad_annotation_denies_and_is_named() {
        let mut pod = pod();
        pod["metadata"]["annotations"] = json!({"sidecar.istio.io/proxyCPU": "x"});
        let response = answered(&review(pod)).review.response;
        let status = response.status.unwrap();
        assert!(!response.allowed);
        assert!(status.message.contains("sidecar.istio.io/proxyCPU"), "{}", status.message);
        assert_eq!((status.code, status.reason), (400, "denied.annotation"));
    }

    #[test]
    fn broken_reviews_are_refused() {
        let with = |path: &str, value: Value| {
            let mut review = review(pod());
            *review.pointer_mut(path).unwrap() = value;
            review
        };
        for (review, needle) in [
            (json!([]), "cannot be read"),
            (json!({}), "apiVersion"),
            (with("/apiVersion", json!("admission.k8s.io/v2")), "apiVersion"),
            (with("/kind", json!("Pod")), "kind"),
            (with("/request", Value::Null), "no request"),
            (with("/request/uid", json!(1)), "cannot be read"),
            (with("/request/operation", json!("DELETE")), "operation"),
            (with("/request/kind/kind", json!("Service")), "Service"),
            (with("/request/object", Value::Null), "(root)"),
            (
                with("/request/object", json!({"metadata": {}, "spec": {"containers": 1}})),
                "spec.containers",
            ),
            (with("/request/object/metadata", json!({"labels": {"a": 1}})), "metadata.labels"),
        ] {
            let response = answered(&review).review.response;
            let message = response.status.unwrap().message;
            assert!(!response.allowed && message.contains(needle), "{review}: {message}");
        }
    }

    #[test]
    fn the_old_version_is_answered_in_kind() {
        let mut old = review(pod());
        old["apiVersion"] = json!("admission.k8s.io/v1beta1");
        assert_eq!(answered(&old).review.api_version, "admission.k8s.io/v1beta1");
    }

    proptest! {
        #[test]
        fn any_body_gets_an_answer(body in any::<Vec<u8>>()) {
            let answer = answer(&body, &injector(), &BTreeMap::new());
            assert!(!answer.review.response.allowed);
        }

        #[test]
        fn a_damaged_review_gets_an_answer(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut body = review(pod()).to_string().into_bytes();
            let at = at.index(body.len());
            body[at] = byte;
            let answer = answer(&body, &injector(), &BTreeMap::new());
            assert!(answer.review.response.allowed || answer.review.response.status.is_some());
        }
    }
}
