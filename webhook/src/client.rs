//! The API server's side of a webhook call.
//!
//! Builds the review of a pod's creation, posts it over TLS to an endpoint whose certificate must
//! chain to the hook's CA bundle and name the service, and applies the patch that comes back. Must
//! not know how the answer is made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Largest answer, bytes.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// Where a hook is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address of one endpoint of the service.
    pub address: SocketAddr,
    /// Name the certificate must have, `NAME.NAMESPACE.svc`.
    pub server_name: String,
    /// Path with a leading `/`.
    pub path: String,
}

/// An answered call.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Whether the object may be created.
    pub allowed: bool,
    /// Audit annotation `reason`, where the hook gives one.
    pub reason: Option<String>,
    /// Changes of the object.
    pub patch: Option<json_patch::Patch>,
    /// For the client.
    pub warnings: Vec<String>,
    /// Why it is not allowed.
    pub message: String,
    /// HTTP code for the client; 0 when the answer has none.
    pub code: u16,
}

/// A call that gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The CA bundle is empty or no PEM.
    #[error("caBundle: {0}")]
    Bundle(String),
    /// The name cannot be one of a certificate.
    #[error("{0:?} is not a DNS name")]
    Name(String),
    /// No connection, or it broke.
    #[error("{address}: {reason}")]
    Connection {
        /// Where to.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// Too slow.
    #[error("{address}: no answer within {seconds} s")]
    Timeout {
        /// Where to.
        address: SocketAddr,
        /// How long was waited.
        seconds: u64,
    },
    /// An answer that is not the one to the question.
    #[error("{address}: {reason}")]
    Answer {
        /// From where.
        address: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// A patch that does not fit the object.
    #[error("patch: {0}")]
    Patch(String),
}

/// The review of the creation of a pod.
#[must_use]
pub fn build_review(pod: &Value, namespace: &str, uid: &str, dry_run: bool) -> Value {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "name": name,
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {},
            "object": pod,
            "oldObject": null,
            "dryRun": dry_run,
        },
    })
}

/// Posts a review.
///
/// # Errors
/// No usable answer came; whether that fails the request is the hook's failure policy.
pub async fn call(
    endpoint: &Endpoint,
    ca_bundle_pem: &[u8],
    review: &Value,
    patience: Duration,
) -> Result<Outcome, CallError> {
    let config = tls(ca_bundle_pem)?;
    let name = ServerName::try_from(endpoint.server_name.clone())
        .map_err(|_| CallError::Name(endpoint.server_name.clone()))?;
    let exchange = exchange(endpoint, config, name, review);
    let body = tokio::time::timeout(patience, exchange).await.map_err(|_| {
        CallError::Timeout { address: endpoint.address, seconds: patience.as_secs() }
    })??;
    let uid = review["request"]["uid"].as_str().unwrap_or_default();
    read_answer(&body, uid)
        .map_err(|reason| CallError::Answer { address: endpoint.address, reason })
}

/// Applies the patch of an outcome.
///
/// # Errors
/// The patch does not fit; the object is unchanged.
pub fn apply(object: &mut Value, outcome: &Outcome) -> Result<(), CallError> {
    let Some(patch) = &outcome.patch else { return Ok(()) };
    json_patch::patch(object, patch).map_err(|error| CallError::Patch(error.to_string()))
}

fn tls(bundle: &[u8]) -> Result<Arc<ClientConfig>, CallError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate.map_err(|error| CallError::Bundle(error.to_string()))?;
        roots.add(certificate).map_err(|error| CallError::Bundle(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(CallError::Bundle("holds no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CallError::Bundle(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn exchange(
    endpoint: &Endpoint,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    review: &Value,
) -> Result<Bytes, CallError> {
    let broken = |step: &str, error: &dyn std::fmt::Display| CallError::Connection {
        address: endpoint.address,
        reason: format!("{step}: {error}"),
    };
    let stream =
        TcpStream::connect(endpoint.address).await.map_err(|error| broken("connect", &error))?;
    stream.set_nodelay(true).map_err(|error| broken("TCP_NODELAY", &error))?;
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| broken("TLS", &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken("HTTP", &error))?;
    let request = Request::post(&endpoint.path)
        .header(header::HOST, &endpoint.server_name)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(|error| broken("request", &error))?;
    let answered = async {
        let response =
            sender.send_request(request).await.map_err(|error| broken("HTTP", &error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| broken("body", &error))?
            .to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let text: String = String::from_utf8_lossy(&body).chars().take(256).collect();
        let reason = format!("HTTP {}: {text}", status.as_u16());
        Err(CallError::Answer { address: endpoint.address, reason })
    };
    tokio::pin!(answered);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(broken("HTTP", &error)),
        },
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewAnswer {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    allowed: bool,
    patch: Option<String>,
    patch_type: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    audit_annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
    code: u16,
}

fn read_answer(body: &[u8], uid: &str) -> Result<Outcome, String> {
    let answer: ReviewAnswer =
        serde_json::from_slice(body).map_err(|error| format!("not an AdmissionReview: {error}"))?;
    if answer.kind != "AdmissionReview" || answer.api_version != "admission.k8s.io/v1" {
        return Err(format!("{} {} is not an AdmissionReview v1", answer.api_version, answer.kind));
    }
    let response = answer.response.ok_or("AdmissionReview has no response")?;
    if response.uid != uid {
        return Err(format!("answer is for uid {:?}, not {uid:?}", response.uid));
    }
    let patch = match (response.patch, response.patch_type.as_deref()) {
        (None, _) => None,
        (Some(patch), Some("JSONPatch")) => {
            let text = base64::engine::general_purpose::STANDARD
                .decode(patch)
                .map_err(|error| format!("patch: {error}"))?;
            Some(serde_json::from_slice(&text).map_err(|error| format!("patch: {error}"))?)
        }
        (Some(_), other) => return Err(format!("patchType {other:?} is not JSONPatch")),
    };
    let status = response.status.unwrap_or_default();
    let mut annotations = response.audit_annotations;
    let reason = annotations.remove("reason").or(Some(status.reason));
    Ok(Outcome {
        allowed: response.allowed,
        reason: reason.filter(|reason| !reason.is_empty()),
        patch,
        warnings: response.warnings,
        message: status.message,
        code: status.code,
    })
}

#[cfg(test)]
mod tests {
    use super::{CallError, Outcome, apply, read_answer, tls};
    use serde_json::json;

    #[test]
    fn answers_are_checked() {
        let answer = |response: serde_json::Value| {
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
                .to_string()
        };
        let good = answer(json!({"uid": "1", "allowed": true}));
        assert!(read_answer(good.as_bytes(), "1").unwrap().allowed);
        let why = answer(json!({"uid": "1", "allowed": true, "auditAnnotations": {"reason": "x"}}));
        assert_eq!(read_answer(why.as_bytes(), "1").unwrap().reason.as_deref(), Some("x"));
        for (body, needle) in [
            ("{".to_owned(), "not an AdmissionReview"),
            (json!({"kind": "Pod"}).to_string(), "not an AdmissionReview"),
            (answer(json!(null)), "no response"),
            (answer(json!({"uid": "2", "allowed": true})), "uid"),
            (answer(json!({"uid": "1", "allowed": true, "patch": "W10="})), "patchType"),
            (
                answer(
                    json!({"uid": "1", "allowed": true, "patch": "!", "patchType": "JSONPatch"}),
                ),
                "patch",
            ),
        ] {
            let error = read_answer(body.as_bytes(), "1").unwrap_err();
            assert!(error.contains(needle), "{body}: {error}");
        }
    }

    #[test]
    fn a_patch_that_does_not_fit_changes_nothing() {
        let patch =
            json!([{"op": "add", "path": "/a", "value": 1}, {"op": "remove", "path": "/x/y"}]);
        let outcome = Outcome {
            allowed: true,
            reason: None,
            patch: Some(serde_json::from_value(patch).unwrap()),
            warnings: Vec::new(),
            message: String::new(),
            code: 0,
        };
        let mut object = json!({});
        assert!(matches!(apply(&mut object, &outcome), Err(CallError::Patch(_))));
        assert_eq!(object, json!({}));
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        assert!(matches!(tls(b""), Err(CallError::Bundle(_))));
        assert!(matches!(tls(b"-----BEGIN CERTIFICATE-----\nx"), Err(CallError::Bundle(_))));
    }
}
