//! Checks of `EnvoyFilter`: whether what is changed, what is matched and the change go together.
//!
//! Whether the value of a patch is an object of Envoy's is not judged here.

use super::{Remarks, attachment, fields};
use crate::networking::{
    ApplyTo, ConfigPatch, EnvoyFilter, FilterMatch, ObjectMatch, Patch, PatchContext,
    PatchOperation, WaypointMatch,
};
use crate::string_match::{MAX_REGEX, check_regex};

/// Names of the filter that filters of HTTP stand in.
const HTTP_MANAGERS: [&str; 2] =
    ["envoy.filters.network.http_connection_manager", "envoy.http_connection_manager"];

/// Checks an EnvoyFilter.
pub(super) fn check(spec: &EnvoyFilter, remarks: &mut Remarks) {
    fields::workload_selector(remarks, spec.workload_selector.as_ref());
    if spec.workload_selector.is_some() && !spec.target_refs.is_empty() {
        remarks.error("spec", "workloadSelector and targetRefs exclude each other");
    }
    attachment::references(remarks, &spec.target_refs);
    for (index, it) in spec.config_patches.iter().enumerate() {
        config_patch(remarks, &format!("spec.configPatches[{index}]"), it);
    }
}

fn config_patch(remarks: &mut Remarks, path: &str, change: &ConfigPatch) {
    let wanted = change.matches.as_ref();
    if let Some(wanted) = wanted {
        one_object(remarks, &format!("{path}.match"), wanted);
    }
    if wanted.is_some_and(|wanted| wanted.context == Some(PatchContext::Waypoint)) {
        return;
    }
    if change.apply_to == ApplyTo::Invalid {
        remarks.error(format!("{path}.applyTo"), "what is changed must be said");
    }
    patch(remarks, &format!("{path}.patch"), change.patch.as_ref());
    if let Some(wanted) = wanted {
        let path = format!("{path}.match");
        proxies(remarks, &path, wanted);
        fitting(remarks, &path, change.apply_to, wanted);
        let chain = wanted.listener.as_ref().and_then(|it| it.filter_chain.as_ref());
        if let Some(it) = chain.and_then(|it| it.filter.as_ref())
            && is_of_listeners(change.apply_to)
        {
            filter(remarks, &format!("{path}.listener.filterChain.filter"), change.apply_to, it);
        }
    }
}

/// One object at most is matched, and waypoints in their context only.
fn one_object(remarks: &mut Remarks, path: &str, wanted: &ObjectMatch) {
    let given = [
        wanted.listener.is_some(),
        wanted.route_configuration.is_some(),
        wanted.cluster.is_some(),
        wanted.waypoint.is_some(),
    ];
    if given.iter().filter(|is| **is).count() > 1 {
        let message = "listener, routeConfiguration, cluster and waypoint exclude each other";
        remarks.error(path, message);
    }
    let context = wanted.context == Some(PatchContext::Waypoint);
    if context != wanted.waypoint.is_some() {
        let message = "context WAYPOINT and waypoint need each other";
        remarks.error(format!("{path}.waypoint"), message);
    }
    if let Some(WaypointMatch { port_number: Some(number), .. }) = wanted.waypoint {
        fields::port(remarks, &format!("{path}.waypoint.portNumber"), number);
    }
}

fn patch(remarks: &mut Remarks, path: &str, patch: Option<&Patch>) {
    let Some(Patch { operation, value, .. }) = patch else {
        return remarks.error(path, "a change is needed");
    };
    match operation {
        PatchOperation::Invalid => {
            remarks.error(format!("{path}.operation"), "what is done must be said");
        }
        PatchOperation::Remove => {}
        _ if value.is_none() => {
            let message = format!("operation {} needs a value", operation.as_str());
            remarks.error(format!("{path}.value"), message);
        }
        _ => {}
    }
}

fn proxies(remarks: &mut Remarks, path: &str, wanted: &ObjectMatch) {
    let version = wanted.proxy.as_ref().map_or("", |proxy| proxy.proxy_version.as_str());
    let path = format!("{path}.proxy.proxyVersion");
    if version.len() > MAX_REGEX {
        remarks.warn(path, format!("longer than {MAX_REGEX} characters: it has no effect"));
    } else if !version.is_empty()
        && let Err(message) = check_regex(version)
    {
        remarks.error(path, message);
    }
}

fn is_of_listeners(apply_to: ApplyTo) -> bool {
    matches!(
        apply_to,
        ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::NetworkFilter | ApplyTo::HttpFilter
    )
}

/// What is changed decides what can be matched.
fn fitting(remarks: &mut Remarks, path: &str, apply_to: ApplyTo, wanted: &ObjectMatch) {
    let (listener, routes, cluster) =
        (wanted.listener.is_some(), wanted.route_configuration.is_some(), wanted.cluster.is_some());
    let (fits, field) = match apply_to {
        _ if is_of_listeners(apply_to) => (!routes && !cluster, "listener"),
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => {
            (!listener && !cluster, "routeConfiguration")
        }
        ApplyTo::Cluster => (!listener && !routes, "cluster"),
        _ => return,
    };
    if !fits {
        let message = format!("applyTo {} goes with a match of {field} only", apply_to.as_str());
        remarks.error(path, message);
    }
}

fn filter(remarks: &mut Remarks, path: &str, apply_to: ApplyTo, filter: &FilterMatch) {
    if matches!(apply_to, ApplyTo::Listener | ApplyTo::FilterChain) {
        remarks.warn(path, format!("has no effect with applyTo {}", apply_to.as_str()));
    }
    if filter.name.is_empty() {
        return remarks.error(format!("{path}.name"), "a name is needed");
    }
    old_name(remarks, &format!("{path}.name"), &filter.name);
    let Some(inner) = &filter.sub_filter else { return };
    let path = format!("{path}.subFilter");
    if apply_to != ApplyTo::HttpFilter {
        remarks.error(&path, "goes with applyTo HTTP_FILTER only");
    }
    if !HTTP_MANAGERS.contains(&filter.name.as_str()) {
        remarks.error(&path, format!("only {} has filters within", HTTP_MANAGERS[0]));
    }
    remarks.refuse_unless(!inner.name.is_empty(), &format!("{path}.name"), "a name is needed");
    old_name(remarks, &format!("{path}.name"), &inner.name);
}

/// Envoy's filters once had short names, which it no longer knows.
fn old_name(remarks: &mut Remarks, path: &str, name: &str) {
    let old = name.strip_prefix("envoy.").is_some_and(|rest| !rest.starts_with("filters."));
    if old {
        let message = format!("`{name}` is an old name: filters are called envoy.filters...");
        remarks.warn(path, message);
    }
}
