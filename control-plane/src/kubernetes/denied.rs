//! A permission that is missing, named exactly: who may not do what, and which chart grants it.
//!
//! Pure over the API server's answer and what was tried.

use std::fmt;

use kube::core::Status;
use thiserror::Error;

/// The cause of a refusal that has nothing to do with permissions: the namespace is being deleted.
const TERMINATING: &str = "NamespaceTerminating";

/// What was asked of the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tried {
    /// Verb, such as `patch`.
    pub verb: &'static str,
    /// API group; empty for the core group.
    pub group: String,
    /// Resource, in plural.
    pub resource: String,
    /// Object, when one was meant.
    pub name: Option<String>,
    /// Namespace; `None` for all, or for what is in none.
    pub namespace: Option<String>,
}

impl Tried {
    /// Something tried on all objects of a resource in the core group.
    #[must_use]
    pub fn new(verb: &'static str, resource: &str) -> Self {
        let (group, resource) = (String::new(), resource.to_owned());
        Self { verb, group, resource, name: None, namespace: None }
    }

    /// In an API group.
    #[must_use]
    pub fn of(mut self, group: &str) -> Self {
        group.clone_into(&mut self.group);
        self
    }

    /// On one object.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// In one namespace.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(out, ".{}", self.group)?;
        }
        if let Some(name) = &self.name {
            write!(out, " `{name}`")?;
        }
        match &self.namespace {
            Some(namespace) => write!(out, " in namespace `{namespace}`"),
            None => Ok(()),
        }
    }
}

/// A permission that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{who} may not {tried}: the chart `lateend` grants it; install it or upgrade to its version, \
     or see what takes the permission away"
)]
pub struct Denied {
    /// Who asked, as the API server knows it.
    pub who: String,
    /// What was asked.
    pub tried: Tried,
}

/// Whether an answer says that a permission is missing, and which.
#[must_use]
pub fn denied(error: &kube::Error, tried: &Tried) -> Option<Denied> {
    match error {
        kube::Error::Api(status) => denied_by(status, tried),
        _ => None,
    }
}

/// As [`denied`], of the API server's own words.
#[must_use]
pub fn denied_by(status: &Status, tried: &Tried) -> Option<Denied> {
    if !status.is_forbidden() || is_terminating(status) {
        return None;
    }
    // Admission refuses with the same status, in other words.
    let rest = status.message.split_once("User \"")?.1;
    let (user, _) = rest.split_once("\" cannot ")?;
    Some(Denied { who: account(user), tried: tried.clone() })
}

/// Whether a write was refused because its namespace is being deleted.
#[must_use]
pub fn is_terminating(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == TERMINATING)
}

/// What there is to say of an answer: the permission that is missing, else what was tried and what
/// came of it.
#[must_use]
pub fn explain(error: &kube::Error, tried: &Tried) -> String {
    match (denied(error, tried), error) {
        (Some(denied), _) => denied.to_string(),
        (None, kube::Error::Api(status)) => format!("{tried}: {}", status.message),
        (None, error) => format!("{tried}: the API server does not answer: {}", causes(error)),
    }
}

/// An error and what it is from; the words of its source are often the only ones that help.
fn causes(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

fn account(user: &str) -> String {
    match user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, name)) => format!("ServiceAccount `{name}` of namespace `{namespace}`"),
        None => format!("user `{user}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Tried, denied, explain, is_terminating};
    use kube::core::Status;
    use serde_json::json;

    fn answer(value: serde_json::Value) -> kube::Error {
        kube::Error::Api(serde_json::from_value::<Status>(value).unwrap().boxed())
    }

    #[test]
    fn a_missing_permission_is_named() {
        let error = answer(json!({
            "status": "Failure", "reason": "Forbidden", "code": 403,
            "message": "configmaps \"istio-ca-root-cert\" is forbidden: User \
                \"system:serviceaccount:istio-system:istiod\" cannot patch resource \
                \"configmaps\" in API group \"\" in the namespace \"shop\"",
        }));
        let tried = Tried::new("patch", "configmaps").named("istio-ca-root-cert").within("shop");
        let text = denied(&error, &tried).unwrap().to_string();
        assert!(
            text.starts_with(
                "ServiceAccount `istiod` of namespace `istio-system` may not patch configmaps \
                 `istio-ca-root-cert` in namespace `shop`: the chart `lateend` grants it"
            ),
            "{text}"
        );
        let tried = Tried::new("list", "leases").of("coordination.k8s.io");
        assert!(explain(&error, &tried).contains("may not list leases.coordination.k8s.io:"));
    }

    #[test]
    fn other_refusals_are_no_missing_permission() {
        let error = answer(json!({
            "reason": "Forbidden", "code": 403,
            "message": "configmaps \"x\" is forbidden: unable to create new content in namespace \
                shop because it is being terminated",
            "details": {"causes": [{"reason": "NamespaceTerminating", "message": "m", "field": "f"}]},
        }));
        let tried = Tried::new("create", "configmaps");
        assert_eq!(denied(&error, &tried), None);
        assert!(matches!(&error, kube::Error::Api(status) if is_terminating(status)));
        assert!(explain(&error, &tried).contains("is being terminated"));
        let quota =
            answer(json!({"reason": "Forbidden", "code": 403, "message": "exceeded quota"}));
        assert_eq!(denied(&quota, &tried), None);
        assert_eq!(denied(&kube::Error::LinesCodecMaxLineLengthExceeded, &tried), None);
    }
}
