//! The annotation that makes an authorization policy one that is only watched.
//!
//! Other kinds take effect at once, so on them it is refused: who wrote it expects that nothing
//! happens.

use crate::finding::Finding;
use crate::kind::Kind;
use crate::names::annotation::DRY_RUN;
use crate::object::Object;
use crate::security::Action;

/// Whether the policy is to be left without effect, and what there is to say.
pub(super) fn check(kind: Kind, object: &Object) -> (bool, Option<Finding>) {
    let Some(value) = object.metadata.annotations.get(DRY_RUN) else { return (false, None) };
    let path = format!("metadata.annotations[{DRY_RUN}]");
    let (only_watched, finding) = match read(value) {
        _ if kind != Kind::AuthorizationPolicy => {
            let message = format!("{} has no dry run: take the annotation out", object.kind);
            (false, Finding::error(path, message))
        }
        None => {
            let message = format!("`{value}` is neither `true` nor `false`");
            (false, Finding::error(path, message))
        }
        Some(_) if !is_plain(object) => {
            let message = "goes with action ALLOW and DENY only";
            (false, Finding::error(path, message))
        }
        Some(false) => return (false, None),
        Some(true) => {
            let message = "the policy is not enforced; what it would do is not logged yet";
            (true, Finding::warning(path, message))
        }
    };
    (only_watched, Some(finding.about(object)))
}

fn read(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn is_plain(object: &Object) -> bool {
    let action = object.value.get("spec").and_then(|spec| spec.get("action"));
    let action = action.filter(|it| !it.is_null()).cloned().map(serde_json::from_value::<Action>);
    // One that cannot be read is reported with the rest of the policy.
    matches!(action, None | Some(Err(_) | Ok(Action::Allow | Action::Deny)))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::kind::Kind;
    use crate::stream;

    fn judged(kind: Kind, value: &str, spec: &str) -> (bool, Option<String>) {
        let text = format!(
            "{{apiVersion: a/v1, kind: A, metadata: {{name: a, annotations: {{istio.io/dry-run: '{value}'}}}}, spec: {spec}}}"
        );
        let object = stream::parse("a.yaml", &text).objects.remove(0);
        let (only_watched, finding) = check(kind, &object);
        (only_watched, finding.map(|it| format!("{:?}: {}", it.severity, it.message)))
    }

    #[test]
    fn only_policies_are_watched_and_only_when_they_say_so() {
        let policy = Kind::AuthorizationPolicy;
        let (watched, said) = judged(policy, "true", "{action: DENY}");
        assert!(watched && said.unwrap().starts_with("Warning: the policy is not enforced"));
        assert_eq!(judged(policy, "false", "{}"), (false, None));
        for (kind, value, spec) in [
            (policy, "perhaps", "{}"),
            (policy, "true", "{action: CUSTOM}"),
            (policy, "false", "{action: 2}"),
            (Kind::PeerAuthentication, "true", "{}"),
        ] {
            let (watched, said) = judged(kind, value, spec);
            assert!(!watched && said.unwrap().starts_with("Error"), "{value} {spec}");
        }
    }
}
