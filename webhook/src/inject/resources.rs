//! Resources of injected containers.
//!
//! The settings' block, or, as soon as one of the four annotations is there, only what the
//! annotations say. Must not know containers.

use lateen_api::names::annotation;
use serde_json::{Map, Value};

use super::facts::Facts;

/// Resources of the sidecar and of the init container.
pub(crate) fn resources(facts: &Facts<'_>) -> Map<String, Value> {
    let blocks = [
        ("requests", annotation::PROXY_CPU, annotation::PROXY_MEMORY),
        ("limits", annotation::PROXY_CPU_LIMIT, annotation::PROXY_MEMORY_LIMIT),
    ];
    let mut annotated = Map::new();
    for (block, cpu, memory) in blocks {
        let mut quantities = Map::new();
        for (name, key) in [("cpu", cpu), ("memory", memory)] {
            if let Some(quantity) = facts.annotations.get(key) {
                quantities.insert(name.to_owned(), Value::from(quantity.as_str()));
            }
        }
        if !quantities.is_empty() {
            annotated.insert(block.to_owned(), Value::Object(quantities));
        }
    }
    if annotated.is_empty() {
        facts.settings.values.global.proxy.resources.clone()
    } else {
        annotated
    }
}

/// A warning when annotations took away a request or limit that the settings give.
pub(crate) fn warning(facts: &Facts<'_>) -> Option<String> {
    let effective = resources(facts);
    let lost: Vec<String> = facts
        .settings
        .values
        .global
        .proxy
        .resources
        .iter()
        .flat_map(|(block, quantities)| {
            let names = quantities.as_object().into_iter().flat_map(Map::keys);
            names.map(move |name| (block, name))
        })
        .filter(|(block, name)| {
            effective.get(*block).is_none_or(|quantities| quantities[name.as_str()].is_null())
        })
        .map(|(block, name)| format!("{block}.{name}"))
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "annotations sidecar.istio.io/proxyCPU, proxyMemory and their limits replace all \
             resources of the sidecar: {} not set",
            lost.join(", ")
        )
    })
}
