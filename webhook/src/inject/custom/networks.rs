//! Functions of templates about ports and networks.

use serde_json::Value as Json;

use super::functions::{map, shown};
use crate::gotemplate::{Call, Made, Value};

/// A list of ports with one more in it, if that is a port and not in it yet.
pub(super) fn exclude_inbound_port(call: &Call<'_>) -> Made {
    let (port, given) = (shown(call, 0), shown(call, 1));
    let port = port.trim();
    let known: Vec<&str> =
        given.split(',').map(str::trim).filter(|port| !port.is_empty()).collect();
    if port.is_empty() || port == "0" || known.contains(&port) {
        return Ok(Value::Text(given));
    }
    Ok(known.into_iter().chain([port]).collect::<Vec<_>>().join(",").into())
}

/// TCP ports of all containers.
pub(super) fn include_inbound_ports(call: &Call<'_>) -> Made {
    Ok(ports(&call.args[0], |_| true))
}

/// TCP ports of all containers but the proxy.
pub(super) fn application_ports(call: &Call<'_>) -> Made {
    Ok(ports(&call.args[0], |name| name != lateen_api::names::container::PROXY))
}

fn ports(containers: &Value, wanted: impl Fn(&str) -> bool) -> Value {
    let items = |value: &Value| match value {
        Value::List(list) => list.items.clone(),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    for container in items(containers) {
        let Some(container) = map(&container) else { continue };
        if !matches!(container.at("name"), Value::Text(name) if wanted(&name)) {
            continue;
        }
        for port in items(&container.at("ports")) {
            let Some(port) = map(&port) else { continue };
            let protocol = port.at("protocol");
            if protocol != Value::text("UDP") && protocol != Value::text("SCTP") {
                found.push(port.at("containerPort").printed().unwrap_or_default());
            }
        }
    }
    found.join(",").into()
}

/// A list of networks, JSON or comma separated, with one more in it.
pub(super) fn append_multus(call: &Call<'_>) -> Made {
    let (given, network) = (shown(call, 0), shown(call, 1));
    if given.is_empty() {
        return Ok(Value::Text(network));
    }
    if !given.contains(']') {
        let known = given.split(',').any(|known| known.trim() == &*network);
        return Ok(if known { Value::Text(given) } else { format!("{given}, {network}").into() });
    }
    let Ok(Json::Array(mut networks)) = serde_json::from_str(&given) else {
        return Ok(Value::Text(given));
    };
    let (namespace, name) = network.split_once('/').unwrap_or(("", &network));
    let same = |known: &Json| {
        known["name"] == name && known["namespace"].as_str().unwrap_or_default() == namespace
    };
    if networks.iter().any(same) {
        return Ok(Value::Text(given));
    }
    let mut added = serde_json::json!({"name": name});
    if !namespace.is_empty() {
        added["namespace"] = Json::from(namespace);
    }
    networks.push(added);
    Ok(Json::Array(networks).to_string().into())
}
