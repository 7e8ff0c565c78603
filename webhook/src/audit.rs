//! Whether a pod that exists has the sidecar that it would get today.
//!
//! Judged by what explains: the pod of its owner is taken out of the pod, injected again in thought,
//! and the digests are compared. Pure; must not know who asks or what is done about it.

use lateen_api::names::{annotation, container, label};
use serde::Serialize;
use serde_json::Value;

use crate::explain::{Surroundings, explain};
use crate::inject::{is_injected, original};
use crate::policy::Reason;

/// How a pod stands to what it would be today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has the sidecar that it would get.
    Current,
    /// It has none and would get none.
    Outside,
    /// It would get a sidecar and has none.
    Missing,
    /// Its sidecar was made by settings that no longer hold.
    Stale,
    /// It was injected by something that left no digest: Istio, `lateen inject` of before, the fallback.
    Undated,
    /// It has a sidecar and would get none.
    Unwanted,
    /// It has a sidecar and would be denied today.
    Denied,
    /// Nobody can tell.
    Unknown,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Current,
        Self::Outside,
        Self::Missing,
        Self::Stale,
        Self::Undated,
        Self::Unwanted,
        Self::Denied,
        Self::Unknown,
    ];

    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Outside => "outside",
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Undated => "undated",
            Self::Unwanted => "unwanted",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the pod would be another one if it were created again.
    #[must_use]
    pub fn differs(self) -> bool {
        matches!(self, Self::Missing | Self::Stale | Self::Undated | Self::Unwanted)
    }

    /// The state in words, with what mends it.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Current => "the pod has the sidecar that it would get today",
            Self::Outside => "the pod has no sidecar and would get none",
            Self::Missing => {
                "the pod has no sidecar and would get one if it were created again: it is older than \
                 what asks for it, or the webhook was away"
            }
            Self::Stale => "the pod's sidecar was made by settings that no longer hold",
            Self::Undated => {
                "the pod was not injected by lateend (but by Istio, or by the fallback), so its \
                 sidecar may be another one"
            }
            Self::Unwanted => "the pod has a sidecar and would get none today",
            Self::Denied => "the pod has a sidecar and would be denied today",
            Self::Unknown => "nobody can tell what the pod would get",
        }
    }
}

/// What is said of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// How it stands.
    pub state: State,
    /// Why it would be injected or not.
    pub reason: Reason,
    /// More about the reason.
    pub explanation: String,
    /// Revision that would decide.
    pub decides: Option<String>,
    /// Revision of the sidecar it has.
    pub revision: Option<String>,
    /// Image of the sidecar it has.
    pub image: Option<String>,
}

/// Judges a pod of a namespace.
#[must_use]
pub fn audit(pod: &Value, namespace: &str, around: &Surroundings) -> Audit {
    let injected = is_injected(pod);
    let explained = explain(&original(pod), namespace, around);
    let digest = |pod: &Value| {
        let text = pod["metadata"]["annotations"][annotation::DIGEST].as_str();
        text.map(str::to_owned)
    };
    let state = match (&explained.injection, injected) {
        (_, true) if explained.reason.denies() => State::Denied,
        (_, _) if explained.reason.denies() || explained.reason == Reason::Unknown => {
            State::Unknown
        }
        (None, true) => State::Unwanted,
        (None, false) => State::Outside,
        (Some(_), false) => State::Missing,
        (Some(injection), true) => match digest(pod) {
            None => State::Undated,
            found if found == digest(&injection.pod) => State::Current,
            Some(_) => State::Stale,
        },
    };
    let revision = pod["metadata"]["annotations"][label::REVISION].as_str();
    Audit {
        state,
        reason: explained.reason,
        explanation: explained.explanation,
        decides: explained.revision,
        revision: revision.filter(|_| injected).map(str::to_owned),
        image: injected.then(|| image(pod)).flatten(),
    }
}

/// Whether a pod is worth judging: one that has ended or is ending changes no more.
#[must_use]
pub fn lives(pod: &Value) -> bool {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    !ended && pod["metadata"].get("deletionTimestamp").is_none_or(Value::is_null)
}

fn image(pod: &Value) -> Option<String> {
    ["initContainers", "containers"].into_iter().find_map(|list| {
        let all = pod["spec"][list].as_array()?;
        let proxy = all.iter().find(|it| it["name"] == container::PROXY)?;
        proxy["image"].as_str().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::{State, audit, lives};
    use crate::admission::NamespaceMetadata;
    use crate::explain::{Surroundings, explain};
    use crate::hooks::webhook_configuration;
    use crate::settings::{InjectionSettings, Options};
    use serde_json::{Value, json};

    fn around(tag: &str, labels: &Value, path: &str) -> Surroundings {
        let values = json!({"global": {"tag": tag}});
        let settings =
            InjectionSettings::from_sources(Some(&values), None, Options::default()).unwrap();
        let mut configuration = webhook_configuration(&settings, b"PEM");
        for hook in configuration["webhooks"].as_array_mut().unwrap() {
            hook["clientConfig"]["service"]["path"] = json!(path);
        }
        let labels = serde_json::from_value(labels.clone()).unwrap();
        let metadata = NamespaceMetadata { labels, ..NamespaceMetadata::default() };
        Surroundings {
            configurations: vec![configuration],
            namespaces: [("shop".to_owned(), metadata)].into(),
            settings: [("default".to_owned(), Ok(settings))].into(),
        }
    }

    #[test]
    fn a_pod_stands_as_its_sidecar_does() {
        let enabled = json!({"istio-injection": "enabled"});
        let (now, later) = (around("1", &enabled, "/inject"), around("2", &enabled, "/inject"));
        let nobody = around("1", &json!({}), "/inject");
        let elsewhere = around("1", &enabled, "/inject/net/other");
        let bare = json!({"metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": "i"}]}});
        let injected = explain(&bare, "shop", &now).injection.unwrap().pod;
        let mut undated = injected.clone();
        undated["metadata"]["annotations"]
            .as_object_mut()
            .unwrap()
            .remove("inject.lateen.dev/digest");
        let mut refused = injected.clone();
        refused["metadata"]["annotations"]["sidecar.istio.io/proxyCPU"] = json!("x");
        for (pod, around, state) in [
            (&bare, &nobody, State::Outside),
            (&bare, &now, State::Missing),
            (&injected, &now, State::Current),
            (&injected, &later, State::Stale),
            (&injected, &elsewhere, State::Stale),
            (&injected, &nobody, State::Unwanted),
            (&undated, &now, State::Undated),
            (&refused, &now, State::Denied),
        ] {
            assert_eq!(audit(pod, "shop", around).state, state);
        }
        let said = audit(&injected, "shop", &later);
        assert_eq!(said.revision.as_deref(), Some("default"));
        assert!(said.image.unwrap().ends_with(":1"));
    }

    #[test]
    fn what_has_ended_is_not_judged() {
        assert!(lives(&json!({"metadata": {}, "status": {"phase": "Pending"}})));
        assert!(!lives(&json!({"metadata": {}, "status": {"phase": "Succeeded"}})));
        assert!(!lives(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})));
    }
}
