//! User and group ids of the proxy, and the security contexts of injected containers.
//!
//! The ids decide what redirection lets pass, so they are settled before anything is built. Must
//! not know how redirection works.

use lateen_api::names::{annotation, user};
use serde_json::{Map, Value};

use super::AdmissionContext;
use super::annotations::Annotations;
use super::facts::Facts;
use super::proxy_config::Mode;
use crate::kube::{Capabilities, SecurityContext};
use crate::settings::InjectionSettings;

const UID_RANGE: &str = "openshift.io/sa.scc.uid-range";
const GROUPS: &str = "openshift.io/sa.scc.supplemental-groups";

/// Ids of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    /// User of the proxy container.
    pub(crate) user: u64,
    /// User of an agent without data path, which needs root for nothing: the pod's choice alone.
    pub(crate) agent_user: u64,
    /// Group of the proxy container.
    pub(crate) group: u64,
    /// User whose traffic is not redirected, and user of the validation container.
    pub(crate) redirect_user: u64,
    /// Whether the user's `runAsUser` is the application's, set by OpenShift on every container.
    pub(crate) drops_user_ids: bool,
    net_bind: bool,
}

impl Ids {
    pub(crate) fn new(
        pod: &Value,
        proxy: Option<&Value>,
        (settings, context, annotations, mode): (
            &InjectionSettings,
            &AdmissionContext,
            &Annotations,
            Mode,
        ),
    ) -> Self {
        let (mut user, mut group) = (u64::from(user::PROXY_UID), u64::from(user::PROXY_GID));
        let tproxy = mode == Mode::Tproxy;
        if settings.openshift && !tproxy {
            let range = |key| context.namespace_annotations.get(key).and_then(|text| last(text));
            user = range(UID_RANGE).unwrap_or(user);
            group = range(GROUPS).unwrap_or(group);
        }
        let given = |field: &str| proxy.and_then(|proxy| proxy["securityContext"][field].as_u64());
        let first_app = pod["spec"]["containers"].get(0);
        let app = first_app.and_then(|app| app["securityContext"]["runAsUser"].as_u64());
        let drops_user_ids = settings.openshift && app.is_some() && given("runAsUser") == app;
        if !drops_user_ids {
            user = given("runAsUser").unwrap_or(user);
            group = given("runAsGroup").unwrap_or(group);
        }
        let net_bind = annotations
            .get(annotation::CAP_NET_BIND_SERVICE)
            .unwrap_or(&settings.values.global.proxy.cap_net_bind_service)
            == "true";
        let agent_user = user;
        let redirect_user = if user == 0 { u64::from(user::PROXY_UID) } else { user };
        if tproxy || net_bind {
            user = 0;
        }
        Self { user, agent_user, group, redirect_user, drops_user_ids, net_bind }
    }
}

/// Last id of the first range, `START/SIZE` or `START-END`.
fn last(ranges: &str) -> Option<u64> {
    let range = ranges.split(',').next()?.trim();
    if let Some((start, size)) = range.split_once('/') {
        let (start, size) = (start.parse::<u64>().ok()?, size.parse::<u64>().ok()?);
        return start.checked_add(size)?.checked_sub(1);
    }
    range.split_once('-')?.1.parse().ok()
}

/// Security context of the sidecar.
pub(crate) fn proxy(facts: &Facts<'_>) -> SecurityContext {
    let settings = &facts.settings.values.global.proxy;
    let traces = facts.config.metadata().get("IPTABLES_TRACE_LOGGING").is_some_and(|v| v == "true");
    let privileged = settings.privileged || traces;
    let mut add = Vec::new();
    if facts.mode == Mode::Tproxy || traces {
        add.push("NET_ADMIN");
    }
    if facts.ids.net_bind {
        add.push("NET_BIND_SERVICE");
    }
    let user = if traces { 0 } else { facts.ids.user };
    SecurityContext {
        allow_privilege_escalation: Some(privileged),
        capabilities: Some(Capabilities { add, drop: vec!["ALL"] }),
        privileged: Some(privileged),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(facts.ids.group),
        run_as_non_root: Some(user != 0),
        run_as_user: Some(user),
        seccomp_profile: seccomp(&settings.seccomp_profile),
    }
}

/// Security context of `istio-init`, which writes the rules: root, but only for that.
pub(crate) fn init(facts: &Facts<'_>) -> SecurityContext {
    let settings = &facts.settings.values.global.proxy;
    SecurityContext {
        allow_privilege_escalation: Some(settings.privileged),
        capabilities: Some(Capabilities { add: vec!["NET_ADMIN"], drop: vec!["ALL"] }),
        privileged: Some(settings.privileged),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(0),
        run_as_non_root: Some(false),
        run_as_user: Some(0),
        seccomp_profile: seccomp(&settings.seccomp_profile),
    }
}

/// Security context of what needs no rights, as `istio-validation`: the proxy's ids, and nothing else.
pub(crate) fn unprivileged(facts: &Facts<'_>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: Vec::new(), drop: vec!["ALL"] }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(facts.ids.group),
        run_as_non_root: Some(true),
        run_as_user: Some(facts.ids.redirect_user),
        seccomp_profile: seccomp(&facts.settings.values.global.proxy.seccomp_profile),
    }
}

/// Security context of an agent without data path: no rights, and the user that the pod wants it to be.
pub(crate) fn agent(facts: &Facts<'_>) -> SecurityContext {
    let user = facts.ids.agent_user;
    SecurityContext {
        run_as_non_root: Some(user != 0),
        run_as_user: Some(user),
        ..unprivileged(facts)
    }
}

/// Security context of a gateway's proxy: only ids, the rest is the Deployment's business.
pub(crate) fn gateway(facts: &Facts<'_>) -> SecurityContext {
    SecurityContext {
        run_as_group: Some(facts.ids.group),
        run_as_user: Some(facts.ids.redirect_user),
        ..SecurityContext::default()
    }
}

fn seccomp(profile: &Map<String, Value>) -> Map<String, Value> {
    profile.clone()
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn ranges() {
        assert_eq!(last("1000620000/10000"), Some(1_000_629_999));
        assert_eq!(last("5-9,20-30"), Some(9));
        assert_eq!(last("x"), None);
        assert_eq!(last("1/0"), Some(0));
        assert_eq!(last("18446744073709551615/2"), None);
    }
}
