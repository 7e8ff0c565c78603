//! `OTEL_RESOURCE_ATTRIBUTES` as templates ask for it.

use super::functions::{map, shown};
use crate::gotemplate::{Call, Made, Value};

/// Attributes of the workload, if a tracing provider of the mesh wants them.
pub(super) fn otel_resource_attributes(call: &Call<'_>) -> Made {
    if !is_wanted(&call.args[0]) {
        return Ok("".into());
    }
    let namespace = shown(call, 3);
    let text = |value: &Value, key: &str| match map(value).map(|map| map.at(key)) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text.to_string()),
        _ => None,
    };
    let annotated = |key: &str| text(&call.args[1], &format!("resource.opentelemetry.io/{key}"));
    let containers = match &call.args[4] {
        Value::List(list) => list.items.as_slice(),
        _ => &[],
    };
    let spaces = annotated("service.namespace")
        .or_else(|| Some(namespace.to_string()).filter(|namespace| !namespace.is_empty()));
    let version = annotated("service.version")
        .or_else(|| text(&call.args[2], "app.kubernetes.io/version"))
        .or_else(|| match containers {
            [only] => text(only, "image").and_then(|image| image_version(&image)),
            _ => None,
        });
    let instance = annotated("service.instance.id").or_else(|| {
        let first = text(containers.first()?, "name").unwrap_or_default();
        Some(format!("{namespace}.$(POD_NAME).{first}"))
    });
    let named = [
        ("service.namespace", spaces),
        ("service.version", version),
        ("service.instance.id", instance),
    ];
    let set = named.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    Ok(set.collect::<Vec<_>>().join(",").into())
}

fn is_wanted(mesh: &Value) -> bool {
    let Some(Value::List(providers)) = map(mesh).map(|mesh| mesh.at("extensionProviders")) else {
        return false;
    };
    providers.items.iter().any(|provider| {
        let otel = map(provider).map(|provider| provider.at("opentelemetry")).unwrap_or_default();
        map(&otel).is_some_and(|otel| {
            otel.at("serviceAttributeEnrichment") == Value::text("OTEL_SEMANTIC_CONVENTIONS")
        })
    })
}

/// Tag and digest of an image.
fn image_version(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.rsplit_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
        (None, None) => None,
    }
}
