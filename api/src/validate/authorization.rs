//! Checks of `AuthorizationPolicy`: every list that is given must be able to match something.

use std::net::IpAddr;

use ipnet::IpNet;

use super::attachment::{self, Attachment};
use super::{Remarks, fields};
use crate::security::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source};

/// Attributes of `when`; those that end in `[` take a name and `]`.
const ATTRIBUTES: [&str; 15] = [
    "request.headers[",
    "request.auth.claims[",
    "experimental.envoy.filters.",
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

/// Checks an AuthorizationPolicy.
pub(super) fn check(spec: &AuthorizationPolicy, remarks: &mut Remarks) {
    let (selector, target_ref) = (spec.selector.as_ref(), spec.target_ref.as_ref());
    let attached = Attachment { selector, target_ref, target_refs: &spec.target_refs };
    attachment::check(remarks, attached);
    if attached.by_reference() {
        remarks.warn(
            "spec.targetRefs",
            "targetRefs are not honoured yet: this has no effect on sidecars",
        );
    }
    action(spec, remarks);
    for (index, it) in spec.rules.iter().enumerate() {
        rule(remarks, &format!("spec.rules[{index}]"), it);
    }
}

fn action(spec: &AuthorizationPolicy, remarks: &mut Remarks) {
    let named = spec.provider.as_ref().is_some_and(|provider| !provider.name.is_empty());
    match spec.action {
        Action::Custom => {
            if !named {
                remarks.error("spec.provider.name", "CUSTOM needs the name of a provider");
            }
            if spec.rules.is_empty() {
                remarks.error("spec.rules", "CUSTOM needs at least one rule");
            }
            remarks.warn("spec.action", "CUSTOM is not honoured yet: nobody is asked");
        }
        Action::Audit => {
            remarks.warn("spec.action", "AUDIT is not honoured yet: nothing is logged")
        }
        Action::Deny if spec.rules.is_empty() => {
            remarks.error("spec.rules", "DENY needs at least one rule, or it denies nothing");
        }
        Action::Allow | Action::Deny => {}
    }
    if spec.provider.is_some() && spec.action != Action::Custom {
        remarks.error("spec.provider", "a provider goes with action CUSTOM only");
    }
}

fn rule(remarks: &mut Remarks, path: &str, rule: &Rule) {
    for (index, from) in rule.from.iter().enumerate() {
        let path = format!("{path}.from[{index}].source");
        if from.source == Source::default() {
            remarks.error(&path, "the source says nothing: remove it, or `from`");
        }
        source(remarks, &path, &from.source);
    }
    for (index, to) in rule.to.iter().enumerate() {
        let path = format!("{path}.to[{index}].operation");
        if to.operation == Operation::default() {
            remarks.error(&path, "the operation says nothing: remove it, or `to`");
        }
        operation(remarks, &path, &to.operation);
    }
    for (index, it) in rule.when.iter().enumerate() {
        condition(remarks, &format!("{path}.when[{index}]"), it);
    }
}

fn source(remarks: &mut Remarks, path: &str, source: &Source) {
    let texts = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    for (name, values) in texts {
        no_empty(remarks, &format!("{path}.{name}"), values);
    }
    let ranges = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    for (name, values) in ranges {
        for (index, value) in values.iter().enumerate() {
            fields::range(remarks, &format!("{path}.{name}[{index}]"), value);
        }
    }
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let others =
        [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    if accounts && others.iter().any(|values| !values.is_empty()) {
        remarks.error(path, "serviceAccounts exclude namespaces and principals");
    }
    for (name, values) in [
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
    ] {
        for (index, value) in values.iter().enumerate() {
            service_account(remarks, &format!("{path}.{name}[{index}]"), value);
        }
    }
}

fn service_account(remarks: &mut Remarks, path: &str, value: &str) {
    let parts: Vec<&str> = value.split('/').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
        remarks.error(path, format!("`{value}` is neither `name` nor `namespace/name`"));
    } else if value.contains('*') {
        remarks.error(path, "`*` has no meaning in a service account");
    }
}

fn operation(remarks: &mut Remarks, path: &str, operation: &Operation) {
    let texts = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    for (name, values) in texts {
        no_empty(remarks, &format!("{path}.{name}"), values);
    }
    for (name, values) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        for (index, value) in values.iter().enumerate() {
            if !value.parse::<u16>().is_ok_and(|port| port > 0) {
                let message = format!("`{value}` is not a port: 1 to 65535");
                remarks.error(format!("{path}.{name}[{index}]"), message);
            }
        }
    }
    for (name, values) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
        for (index, value) in values.iter().enumerate() {
            path_template(remarks, &format!("{path}.{name}[{index}]"), value);
        }
    }
}

/// Templates: `{*}` is one segment, `{**}` any number and only once, no other `*` or brace.
fn path_template(remarks: &mut Remarks, path: &str, value: &str) {
    if !value.contains("{*}") && !value.contains("{**}") {
        return;
    }
    let mut tail = false;
    for segment in value.split('/') {
        if tail && segment.contains("{**}") {
            return remarks.error(path, "`{**}` may be there once");
        }
        tail |= segment == "{**}";
        let is_template = matches!(segment, "{*}" | "{**}");
        if !is_template && segment.contains(['*', '{', '}']) {
            let message = format!(
                "segment `{segment}`: with `{{*}}` or `{{**}}` in a path, no other `*` or brace is allowed"
            );
            return remarks.error(path, message);
        }
    }
}

fn condition(remarks: &mut Remarks, path: &str, condition: &Condition) {
    let key = condition.key.as_str();
    let known = ATTRIBUTES.iter().any(|attribute| match attribute.as_bytes().last() {
        Some(b'[') => {
            let name = key.strip_prefix(attribute).and_then(|rest| rest.strip_suffix(']'));
            name.is_some_and(|name| !name.is_empty())
        }
        Some(b'.') => key.starts_with(attribute),
        _ => key == *attribute,
    });
    if !known {
        let message = format!(
            "unknown attribute `{key}`, expected one of {}",
            ATTRIBUTES
                .map(|name| if name.ends_with('[') {
                    format!("{name}NAME]")
                } else {
                    name.to_owned()
                })
                .join(", ")
        );
        remarks.error(format!("{path}.key"), message);
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        remarks.error(path, "one of values and notValues is needed");
    }
    for (name, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        for (index, value) in values.iter().enumerate() {
            let path = format!("{path}.{name}[{index}]");
            match key {
                "source.ip" | "remote.ip" | "destination.ip"
                    if value.parse::<IpNet>().is_err() && value.parse::<IpAddr>().is_err() =>
                {
                    remarks.error(path, format!("`{value}` is neither an address nor a range"));
                }
                "destination.port" if !value.parse::<u16>().is_ok_and(|port| port > 0) => {
                    remarks.error(path, format!("`{value}` is not a port"));
                }
                _ => {}
            }
        }
    }
}

fn no_empty(remarks: &mut Remarks, path: &str, values: &[String]) {
    for (index, value) in values.iter().enumerate() {
        if value.is_empty() {
            remarks.error(format!("{path}[{index}]"), "an empty value matches nothing");
        }
    }
}
