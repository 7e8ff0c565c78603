//! Ids and capabilities of a container.
//!
//! Pure. Of the container where it says so, else of the pod, else those of container runtimes.

use lateen_api::core::{Container, PodSecurityContext, SecurityContext};

/// Names of capabilities by number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// What containers have when nothing is said.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];
/// All of them.
pub(super) const ALL: u64 = (1 << CAPABILITIES.len()) - 1;

/// What a container may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) groups: Vec<u32>,
    pub(super) capabilities: u64,
    pub(super) no_new_privileges: bool,
    pub(super) read_only: bool,
    pub(super) privileged: bool,
}

/// Rights of a container.
pub(super) fn rights(
    pod: Option<&PodSecurityContext>,
    container: &Container,
) -> Result<Rights, String> {
    let (empty, none) = (SecurityContext::default(), PodSecurityContext::default());
    let pod = pod.unwrap_or(&none);
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let inherited = &pod.inherited;
    let user = id("runAsUser", own.run_as_user.or(inherited.run_as_user).unwrap_or(0))?;
    let group = id("runAsGroup", own.run_as_group.or(inherited.run_as_group).unwrap_or(0))?;
    if user == 0 && own.run_as_non_root.or(inherited.run_as_non_root) == Some(true) {
        return Err("runAsNonRoot: the container would run as root; set runAsUser".to_owned());
    }
    let mut groups = vec![group];
    for gid in pod.supplemental_groups.iter().chain(&pod.fs_group) {
        groups.push(id("supplementalGroups or fsGroup", *gid)?);
    }
    groups.sort_unstable();
    groups.dedup();
    let privileged = own.privileged == Some(true);
    Ok(Rights {
        user,
        group,
        groups,
        capabilities: if privileged { ALL } else { capabilities(own)? },
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        read_only: own.read_only_root_filesystem == Some(true),
        privileged,
    })
}

fn id(field: &str, number: i64) -> Result<u32, String> {
    let id = u32::try_from(number).ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| format!("{field}: {number} is not an id"))
}

/// `ALL` first, then single ones, added before dropped.
fn capabilities(context: &SecurityContext) -> Result<u64, String> {
    let mut set = DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | bit);
    let Some(wanted) = &context.capabilities else { return Ok(set) };
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    if wanted.add.iter().any(is_all) {
        set = ALL;
    }
    if wanted.drop.iter().any(is_all) {
        set = 0;
    }
    let single = |names: &[String]| -> Result<u64, String> {
        names.iter().filter(|name| !is_all(name)).try_fold(0, |set, name| {
            let bit = bit(name).ok_or_else(|| format!("capabilities: {name:?} is not known"))?;
            Ok(set | bit)
        })
    };
    Ok((set | single(&wanted.add)?) & !single(&wanted.drop)?)
}

/// The bit of a capability, with or without `CAP_`.
pub(super) fn bit(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let bare = name.strip_prefix("CAP_").unwrap_or(&name);
    CAPABILITIES.iter().position(|known| *known == bare).map(|number| 1 << number)
}

#[cfg(test)]
mod tests {
    use super::{ALL, bit, rights};
    use serde_json::{Value, json};

    fn of(pod: Value, own: &Value) -> Result<super::Rights, String> {
        let container = json!({"name": "a", "securityContext": own});
        let pod = serde_json::from_value(pod).unwrap();
        rights(Some(&pod), &serde_json::from_value(container).unwrap())
    }

    #[test]
    fn the_container_comes_before_the_pod() {
        let pod = json!({"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7, "supplementalGroups": [9]});
        let got = of(pod, &json!({"runAsUser": 1337, "readOnlyRootFilesystem": true})).unwrap();
        assert_eq!((got.user, got.group, got.groups), (1337, 6, vec![6, 7, 9]));
        assert!(got.read_only && !got.no_new_privileges);
    }

    #[test]
    fn capabilities_are_those_of_container_runtimes() {
        let of = |capabilities: Value| {
            of(json!({}), &json!({"capabilities": capabilities})).unwrap().capabilities
        };
        let admin = bit("NET_ADMIN").unwrap();
        assert_eq!(of(json!({})) & admin, 0);
        assert_eq!(of(json!({})).count_ones(), 14);
        assert_eq!(of(json!({"drop": ["ALL"]})), 0);
        assert_eq!(of(json!({"drop": ["ALL"], "add": ["cap_net_admin"]})), admin);
        assert_eq!(of(json!({"add": ["ALL"], "drop": ["NET_ADMIN"]})), ALL & !admin);
    }

    #[test]
    fn root_is_refused_where_it_is_not_wanted() {
        assert!(of(json!({"runAsNonRoot": true}), &json!({})).unwrap_err().contains("runAsUser"));
        assert!(of(json!({"runAsNonRoot": true}), &json!({"runAsUser": 1})).is_ok());
        assert!(of(json!({"runAsUser": -1}), &json!({})).is_err());
        let error = of(json!({}), &json!({"capabilities": {"add": ["FLY"]}})).unwrap_err();
        assert!(error.contains("FLY"));
    }

    #[test]
    fn privileged_is_everything() {
        let got = of(json!({}), &json!({"privileged": true, "allowPrivilegeEscalation": true}));
        assert_eq!(got.unwrap().capabilities, ALL);
    }
}
