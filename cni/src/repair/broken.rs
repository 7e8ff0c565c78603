//! Which pods may have started uncaptured. Pure.

use std::net::IpAddr;

use serde_json::Value;

use crate::cluster::trim::VALIDATION;
use crate::decision::{Decision, decide};
use lateen_interception::Settings;

/// Exit status of `istio-validation` when there are no rules.
const NOT_REDIRECTED: i64 = 126;

/// A pod that must be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The rules it must have.
    pub settings: Box<Settings>,
}

/// What is to be done about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing, now or later: it is not redirected.
    Never,
    /// Nothing yet: it has no sandbox, or is ending.
    NotNow,
    /// Its rules are to be looked at.
    At(Captured),
}

/// Judges a pod.
#[must_use]
pub fn judge(pod: &Value, excluded: &[String]) -> Look {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    if pod["spec"]["hostNetwork"] == true || excluded.iter().any(|name| name == namespace) {
        return Look::Never;
    }
    let settings = match decide(pod) {
        Ok(Decision::Redirect { settings, .. }) => settings,
        // ADD refused it, with the reason: it has no sandbox.
        Ok(Decision::Skip(_)) | Err(_) => return Look::Never,
    };
    let ended = ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
    let addresses = addresses(pod);
    if ended || addresses.is_empty() || !pod["metadata"]["deletionTimestamp"].is_null() {
        return Look::NotNow;
    }
    Look::At(Captured { addresses, settings })
}

fn addresses(pod: &Value) -> Vec<IpAddr> {
    let all = pod["status"]["podIPs"].as_array().into_iter().flatten();
    all.filter_map(|one| one["ip"].as_str()?.parse().ok()).collect()
}

/// Whether the validation container found no rules the last time it ran, and does not run well now.
#[must_use]
pub fn validation_failed(pod: &Value) -> bool {
    let all = pod["status"]["initContainerStatuses"].as_array().into_iter().flatten();
    all.filter(|status| status["name"] == VALIDATION).any(|status| {
        let code = |state: &str| status[state]["terminated"]["exitCode"].as_i64();
        code("state").or_else(|| code("lastState")) == Some(NOT_REDIRECTED)
    })
}

#[cfg(test)]
mod tests {
    use super::{Look, judge, validation_failed};
    use serde_json::{Value, json};

    fn pod() -> Value {
        json!({"metadata": {"namespace": "shop", "annotations": {"sidecar.istio.io/status": "{}"}},
            "spec": {"initContainers": [{"name": "istio-proxy", "args": ["proxy", "sidecar"]}]},
            "status": {"phase": "Pending", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}})
    }

    #[test]
    fn only_pods_that_must_be_captured_are_looked_at() {
        assert!(matches!(judge(&pod(), &[]), Look::At(it) if it.addresses.len() == 2));
        assert_eq!(judge(&pod(), &["shop".to_owned()]), Look::Never);
        for (pointer, value, wanted) in [
            ("/status/podIPs", json!([]), Look::NotNow),
            ("/status/phase", json!("Failed"), Look::NotNow),
            ("/metadata/annotations", json!({}), Look::Never),
            ("/spec", json!({"containers": []}), Look::Never),
        ] {
            let mut pod = pod();
            *pod.pointer_mut(pointer).unwrap() = value;
            assert_eq!(judge(&pod, &[]), wanted, "{pointer}");
        }
        let mut host = pod();
        host["spec"]["hostNetwork"] = json!(true);
        assert_eq!(judge(&host, &[]), Look::Never);
    }

    #[test]
    fn the_status_of_the_validation_container_tells() {
        let with = |status: Value| {
            let mut pod = pod();
            pod["status"]["initContainerStatuses"] = json!([status]);
            validation_failed(&pod)
        };
        let ended = |code: i64| json!({"terminated": {"exitCode": code}});
        let name = "istio-validation";
        assert!(with(json!({"name": name, "state": ended(126)})));
        assert!(with(json!({"name": name, "state": {"waiting": {}}, "lastState": ended(126)})));
        assert!(!with(json!({"name": name, "state": ended(0), "lastState": ended(126)})));
        assert!(!with(json!({"name": name, "state": ended(1)})));
        assert!(!with(json!({"name": "other", "state": ended(126)})));
        assert!(!validation_failed(&pod()));
    }
}
