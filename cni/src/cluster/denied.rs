//! Says what a refusal or silence of the API server means and what to do about it. Pure.

use std::error::Error;

use kube::runtime::watcher;

/// A request, as RBAC names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'a> {
    /// The verb of RBAC.
    pub verb: &'a str,
    /// Resource and group, as in `daemonsets.apps`.
    pub resource: &'a str,
    /// The namespace, when the request has one.
    pub namespace: Option<&'a str>,
}

/// Pods are asked for everywhere.
#[must_use]
pub fn pods(verb: &str) -> Access<'_> {
    Access { verb, resource: "pods", namespace: None }
}

/// The text for an error of a request.
#[must_use]
pub fn explain(access: Access<'_>, error: &kube::Error) -> String {
    let Access { verb, resource, namespace } = access;
    let place = namespace.map(|n| format!(" in namespace {n}")).unwrap_or_default();
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "the node agent may not {verb} {resource}{place}: its ServiceAccount lacks this \
             permission, which the chart cni gives ({})",
            status.message
        ),
        kube::Error::Api(status) if status.code == 401 => format!(
            "the API server does not know the node agent's token ({verb} {resource}{place}): \
             its ServiceAccount was deleted, or the clocks differ ({})",
            status.message
        ),
        kube::Error::Api(status) => {
            format!("the API server did not {verb} {resource}{place}: {}", status.message)
        }
        other => {
            format!("the API server cannot be reached ({verb} {resource}{place}): {}", chain(other))
        }
    }
}

/// The same for an error of a watch; the verb is found in it.
#[must_use]
pub fn explain_watch(resource: &str, namespace: Option<&str>, error: &watcher::Error) -> String {
    let access = |verb| Access { verb, resource, namespace };
    match error {
        watcher::Error::InitialListFailed(e) => explain(access("list"), e),
        watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e) => {
            explain(access("watch"), e)
        }
        watcher::Error::WatchError(status) => {
            format!("the API server ended the watch of {resource}: {}", status.message)
        }
        watcher::Error::NoResourceVersion => {
            format!("the API server cannot watch {resource}: {error}")
        }
    }
}

/// An error with its causes, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}
