//! Settings of redirection: arguments of the init container, annotations for the CNI plugin.
//!
//! What the pod's annotations and the settings say, put together once for both. The lists are
//! checked by the code that will read them. Must not know rules.

use std::collections::BTreeMap;

use lateen_api::names::{annotation, container, port};

use super::annotations::Annotations;
use super::facts::Facts;
use super::{identity, images, resources};
use crate::kube::{Container, EnvVar};
use crate::settings::InjectionSettings;

/// Effective redirection of a pod; empty texts are unset.
#[derive(Debug, Clone)]
pub(crate) struct Redirect {
    include_ranges: String,
    exclude_ranges: String,
    include_inbound: String,
    exclude_inbound: String,
    include_outbound: String,
    exclude_outbound: String,
    exclude_interfaces: String,
    reroute_interfaces: String,
}

impl Redirect {
    pub(crate) fn new(
        settings: &InjectionSettings,
        annotations: &Annotations,
        status_port: Option<u16>,
    ) -> Self {
        let proxy = &settings.values.global.proxy;
        let either = |key: &str, value: &str| {
            annotations.get(key).cloned().unwrap_or_else(|| value.to_owned())
        };
        let annotated = |key: &str| either(key, "");
        let reroute = match annotations.get(annotation::REROUTE_INTERFACES) {
            Some(interfaces) => interfaces.clone(),
            None => annotated(annotation::KUBEVIRT_INTERFACES),
        };
        let exclude_inbound =
            either(annotation::EXCLUDE_INBOUND_PORTS, &proxy.exclude_inbound_ports);
        Self {
            include_ranges: either(annotation::INCLUDE_OUTBOUND_RANGES, &proxy.include_ip_ranges),
            exclude_ranges: either(annotation::EXCLUDE_OUTBOUND_RANGES, &proxy.exclude_ip_ranges),
            include_inbound: either(
                annotation::INCLUDE_INBOUND_PORTS,
                &proxy.include_inbound_ports,
            ),
            exclude_inbound: with_port(exclude_inbound, status_port),
            include_outbound: either(
                annotation::INCLUDE_OUTBOUND_PORTS,
                &proxy.include_outbound_ports,
            ),
            exclude_outbound: either(
                annotation::EXCLUDE_OUTBOUND_PORTS,
                &proxy.exclude_outbound_ports,
            ),
            exclude_interfaces: annotated(annotation::EXCLUDE_INTERFACES),
            reroute_interfaces: reroute,
        }
    }

    /// Annotations from which a CNI plugin reads what the init container would be told.
    pub(crate) fn annotations(&self, mode: &str) -> BTreeMap<&'static str, String> {
        [
            (annotation::INTERCEPTION_MODE, mode),
            (annotation::INCLUDE_OUTBOUND_RANGES, &self.include_ranges),
            (annotation::EXCLUDE_OUTBOUND_RANGES, &self.exclude_ranges),
            (annotation::INCLUDE_INBOUND_PORTS, &self.include_inbound),
            (annotation::EXCLUDE_INBOUND_PORTS, &self.exclude_inbound),
            (annotation::INCLUDE_OUTBOUND_PORTS, &self.include_outbound),
            (annotation::EXCLUDE_OUTBOUND_PORTS, &self.exclude_outbound),
            (annotation::EXCLUDE_INTERFACES, &self.exclude_interfaces),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key, value.to_owned()))
        .collect()
    }

    fn arguments(&self, facts: &Facts<'_>) -> Vec<String> {
        let global = &facts.settings.values.global;
        let own = [port::PROMETHEUS, port::HEALTH].map(|port| port.to_string());
        let excluded: Vec<&str> = own
            .iter()
            .map(String::as_str)
            .chain([self.exclude_inbound.as_str()])
            .filter(|list| !list.is_empty())
            .collect();
        let mut arguments: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: &str| {
            arguments.extend([name.to_owned(), value.to_owned()]);
        };
        flag("-p", &port::PROXY_OUTBOUND.to_string());
        flag("-z", &port::PROXY_INBOUND.to_string());
        flag("-u", &facts.ids.redirect_user.to_string());
        flag("-m", facts.mode.name());
        flag("-i", &self.include_ranges);
        flag("-x", &self.exclude_ranges);
        flag("-b", &self.include_inbound);
        flag("-d", &excluded.join(","));
        for (name, value) in [
            ("-q", &self.include_outbound),
            ("-o", &self.exclude_outbound),
            ("-k", &self.reroute_interfaces),
            ("-c", &self.exclude_interfaces),
        ] {
            if !value.is_empty() {
                flag(name, value);
            }
        }
        let switches = [
            (global.proxy_init.force_apply_iptables, "--force-apply"),
            (global.native_nftables, "--native-nftables"),
        ];
        arguments.extend(switches.iter().filter(|(on, _)| *on).map(|(_, flag)| (*flag).to_owned()));
        arguments
    }
}

/// Log level of the agent.
pub(crate) fn log_level<'a>(facts: &'a Facts<'_>) -> &'a str {
    facts
        .annotations
        .get(annotation::AGENT_LOG_LEVEL)
        .unwrap_or(&facts.settings.values.global.logging.level)
}

/// The container that redirects, or, where the CNI plugin did, checks that it did.
pub(crate) fn container(facts: &Facts<'_>) -> Container {
    let cni = facts.settings.values.pilot.cni.enabled;
    let mut args = facts.redirect.arguments(facts);
    if cni {
        args.extend(["--run-validation".to_owned(), "--skip-rule-apply".to_owned()]);
    }
    let environment = facts.config.metadata().into_iter();
    Container {
        name: if cni { container::VALIDATION } else { container::INIT }.to_owned(),
        image: images::init(facts),
        image_pull_policy: facts.settings.values.global.image_pull_policy.clone(),
        command: vec!["lateen-init".to_owned()],
        args,
        env: environment.map(|(name, value)| EnvVar::value(name, value)).collect(),
        resources: resources::resources(facts),
        security_context: Some(if cni {
            identity::unprivileged(facts)
        } else {
            identity::init(facts)
        }),
        ..Container::default()
    }
}

/// A list of ports with one more, unless it is there.
fn with_port(list: String, port: Option<u16>) -> String {
    let Some(port) = port.map(|port| port.to_string()) else { return list };
    if list.split(',').any(|entry| entry.trim() == port) {
        list
    } else if list.trim().is_empty() {
        port
    } else {
        format!("{list},{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn the_status_port_is_excluded_once() {
        assert_eq!(with_port(String::new(), Some(15020)), "15020");
        assert_eq!(with_port("4,5".to_owned(), Some(15020)), "4,5,15020");
        assert_eq!(with_port("4, 15020".to_owned(), Some(15020)), "4, 15020");
        assert_eq!(with_port("4".to_owned(), None), "4");
    }
}
