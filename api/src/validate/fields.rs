//! Checks that several kinds share: hosts, ports, weights, names, labels, ranges, durations.
//!
//! Each says at most one thing about one field.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Remarks;
use crate::host::{Host, is_label};
use crate::meta::Labels;
use crate::networking::{Destination, WorkloadSelector};
use crate::string_match::StringMatch;

/// Longest value of a label.
const MAX_LABEL_VALUE: usize = 63;
/// Longest name of a label, without its prefix.
const MAX_LABEL_NAME: usize = 63;
/// Most labels of a selector.
const MAX_LABELS: usize = 4096;
/// Most labels of `workloadSelector`.
const MAX_WORKLOAD_LABELS: usize = 256;

/// A text that must be there.
pub(super) fn needed(remarks: &mut Remarks, path: &str, text: &str, limit: usize) {
    remarks.refuse_unless(!text.is_empty(), path, "a text is needed");
    at_most(remarks, path, text, limit);
}

/// A text of bounded length.
pub(super) fn at_most(remarks: &mut Remarks, path: &str, text: &str, limit: usize) {
    if text.len() > limit && text.chars().count() > limit {
        remarks.error(path, format!("longer than {limit} characters"));
    }
}

/// A host that may be a name, a wildcard or an address.
pub(super) fn host(remarks: &mut Remarks, path: &str, text: &str) {
    if text.parse::<IpAddr>().is_ok() {
        return;
    }
    if let Err(error) = Host::parse(text) {
        remarks.error(path, error.to_string());
    }
}

/// A name or a wildcard.
pub(super) fn domain(remarks: &mut Remarks, path: &str, text: &str) {
    if let Err(error) = Host::parse(text) {
        remarks.error(path, error.to_string());
    }
}

/// The path of a Unix socket, without `unix://`.
pub(super) fn socket(remarks: &mut Remarks, path: &str, socket: &str) {
    if !socket.starts_with(['/', '@']) {
        remarks.error(path, "a Unix socket needs an absolute path");
    } else if socket.starts_with('/') && socket.ends_with('/') {
        remarks.error(path, "a Unix socket is not a directory");
    }
}

/// A destination of a route.
pub(super) fn destination(remarks: &mut Remarks, path: &str, destination: &Destination) {
    let host_path = format!("{path}.host");
    if destination.host.is_empty() {
        remarks.error(host_path, "a host is needed");
    } else if destination.host == "*" {
        remarks.error(host_path, "a destination cannot be `*`");
    } else {
        host(remarks, &host_path, &destination.host);
    }
    if !destination.subset.is_empty() && !is_label(&destination.subset) {
        let message = format!("`{}` is not a name of letters, digits and `-`", destination.subset);
        remarks.error(format!("{path}.subset"), message);
    }
    if let Some(selector) = destination.port {
        port(remarks, &format!("{path}.port.number"), selector.number);
    }
}

/// A port number that must be there.
pub(super) fn port(remarks: &mut Remarks, path: &str, number: u32) {
    if !(1..=65535).contains(&number) {
        remarks.error(path, format!("{number} is not a port: 1 to 65535"));
    }
}

/// A port number of a match, where 0 means any.
pub(super) fn optional_port(remarks: &mut Remarks, path: &str, number: u32) {
    if number != 0 {
        port(remarks, path, number);
    }
}

/// Weights of destinations.
pub(super) fn weights(remarks: &mut Remarks, path: &str, weights: &[u32]) {
    let sum: u64 = weights.iter().copied().map(u64::from).sum();
    if weights.len() > 1 && sum == 0 {
        remarks.error(path, "the weights add up to 0: no destination would get anything");
    }
    if sum > u64::from(u32::MAX) {
        remarks.error(path, "the weights add up to more than 4294967295");
    }
}

/// `exportTo`.
pub(super) fn export_to(remarks: &mut Remarks, entries: &[String]) {
    for (index, entry) in entries.iter().enumerate() {
        let path = format!("spec.exportTo[{index}]");
        let special = matches!(entry.as_str(), "*" | "." | "~");
        if !special && !is_label(entry) {
            remarks.error(path, format!("`{entry}` is neither `*`, `.`, `~` nor a namespace"));
        } else if entries[..index].contains(entry) {
            remarks.error(path, format!("`{entry}` is there twice"));
        }
    }
    if entries.len() > 1 && entries.iter().any(|entry| entry == "~") {
        remarks.error("spec.exportTo", "`~` (nobody) excludes all other entries");
    }
}

/// A header name in a match or an operation.
pub(super) fn header_name(remarks: &mut Remarks, path: &str, name: &str) {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let plain = name.strip_prefix(':').unwrap_or(name);
    if plain.is_empty() || !plain.bytes().all(token) {
        remarks.error(path, format!("`{name}` is not a header name"));
    }
}

/// A header name of letters, digits, `-` and `_` only.
pub(super) fn plain_header(remarks: &mut Remarks, path: &str, name: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || !name.bytes().all(plain) {
        let message = format!("`{name}` is not a header name of letters, digits, `-` and `_`");
        remarks.error(path, message);
    }
}

/// String matches of headers or query parameters.
pub(super) fn matches(
    remarks: &mut Remarks,
    path: &str,
    matches: &BTreeMap<String, StringMatch>,
    headers: bool,
) {
    for (name, wanted) in matches {
        let path = format!("{path}.{name}");
        if headers {
            header_name(remarks, &path, name);
        } else if name.is_empty() {
            remarks.error(&path, "a name is needed");
        }
        string_match(remarks, &path, Some(wanted));
    }
}

/// A string match.
pub(super) fn string_match(remarks: &mut Remarks, path: &str, wanted: Option<&StringMatch>) {
    if let Some(Err(message)) = wanted.map(StringMatch::check) {
        remarks.error(path, message);
    }
}

/// A range or address.
pub(super) fn range(remarks: &mut Remarks, path: &str, text: &str) {
    if text.parse::<IpNet>().is_err() && text.parse::<IpAddr>().is_err() {
        remarks
            .error(path, format!("`{text}` is neither an address nor a range such as 10.0.0.0/8"));
    }
}

/// A duration that must be at least a millisecond, and of whole milliseconds.
pub(super) fn wait(remarks: &mut Remarks, path: &str, duration: Option<Duration>) {
    let Some(duration) = duration else { return };
    if duration < Duration::from_millis(1) {
        remarks.error(path, "must be 1ms or more");
    } else if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        remarks.error(path, "must be of whole milliseconds");
    }
}

/// A share in percent.
pub(super) fn percent(remarks: &mut Remarks, path: &str, value: f64) {
    if !(0.0..=100.0).contains(&value) || (value > 0.0 && value < 0.0001) {
        remarks.error(path, format!("{value} is not a percentage: 0, or 0.0001 to 100"));
    }
}

/// A selector of workloads: no wildcards, no empty keys.
pub(super) fn selector(remarks: &mut Remarks, path: &str, labels: &Labels) {
    if labels.len() > MAX_LABELS {
        remarks.error(path, format!("more than {MAX_LABELS} labels"));
    }
    for (key, value) in labels {
        if key.is_empty() {
            remarks.error(path, "a label without key");
        } else if key.contains('*') || value.contains('*') {
            remarks.error(format!("{path}.{key}"), "`*` has no meaning in a selector");
        } else {
            at_most(remarks, &format!("{path}.{key}"), value, MAX_LABEL_VALUE);
        }
    }
}

/// `workloadSelector` of networking kinds.
pub(super) fn workload_selector(remarks: &mut Remarks, selected: Option<&WorkloadSelector>) {
    let Some(selected) = selected else { return };
    let path = "spec.workloadSelector";
    if selected.labels.len() > MAX_WORKLOAD_LABELS {
        remarks.error(path, format!("more than {MAX_WORKLOAD_LABELS} labels"));
    }
    if selected.labels.is_empty() {
        remarks.warn(path, "a selector without labels means the whole namespace: leave it out");
    }
    selector(remarks, path, &selected.labels);
}

/// Labels that objects will carry, as Kubernetes takes them.
pub(super) fn labels(remarks: &mut Remarks, path: &str, labels: &Labels) {
    for (key, value) in labels {
        let path = format!("{path}.{key}");
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key.as_str()),
        };
        let domain = prefix.is_none_or(|it| Host::parse(it).is_ok_and(|host| !host.is_wildcard()));
        if !domain || name.is_empty() || name.len() > MAX_LABEL_NAME || !is_label_text(name) {
            remarks.error(&path, format!("`{key}` is not the key of a label"));
        }
        if value.len() > MAX_LABEL_VALUE || !is_label_text(value) {
            remarks.error(&path, format!("`{value}` is not the value of a label"));
        }
    }
}

/// Letters and digits, with `-`, `_` and `.` within.
fn is_label_text(text: &str) -> bool {
    let within = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.bytes().all(within) && edge(text.bytes().next()) && edge(text.bytes().last())
}
