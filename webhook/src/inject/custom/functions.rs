//! The functions that Istio gives to injection templates, besides sprig's.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::networks::{
    append_multus, application_ports, exclude_inbound_port, include_inbound_ports,
};
use super::telemetry::otel_resource_attributes;
use crate::gotemplate::{ANY, Call, Dict, Entry, How, Kind, Made, VALUE_BYTES, Value};
use crate::settings::mesh::proxy_config_defaults;

pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("annotation", (3, 3), annotation).called(How::Passes),
    Entry::new("isset", (2, 2), |call| {
        let set = map(&call.args[0]).is_some_and(|map| map.entries.contains_key(&*shown(call, 1)));
        Ok(set.into())
    })
    .called(How::Passes),
    Entry::new("valueOrDefault", (2, 2), |call| {
        let value = &call.args[0];
        let empty = *value == Value::Nil || *value == Value::text("");
        Ok(call.args[usize::from(empty)].clone())
    })
    .called(How::Passes),
    Entry::new("toJSON", (1, 1), struct_to_json),
    Entry::new("structToJSON", (1, 1), struct_to_json),
    Entry::new("fromJSON", (1, 1), |call| {
        let parsed = serde_json::from_str::<Json>(&shown(call, 0)).ok();
        let Some(json) = parsed else { return Ok(Value::text("{}")) };
        let value = Value::given(&json);
        if value.bytes() > VALUE_BYTES {
            return Err(format!("would make more than {VALUE_BYTES} bytes"));
        }
        Ok(value)
    }),
    Entry::new("protoToJSON", (1, 1), proto_to_json),
    Entry::new("toYaml", (1, 1), |call| call.args[0].to_yaml_text().map(Value::from)),
    Entry::new("indent", (2, 2), indent),
    Entry::new("directory", (1, 1), |call| {
        let path = shown(call, 0);
        Ok(path.rfind('/').map_or("", |slash| &path[..=slash]).into())
    }),
    Entry::new("env", (2, 2), env).called(How::Passes),
    Entry::new("strdict", (0, ANY), |call| {
        let entry = |index: usize| {
            let value =
                if index + 1 < call.args.len() { shown(call, index + 1) } else { "".into() };
            (shown(call, index), Value::Text(value))
        };
        Value::map((0..call.args.len()).step_by(2).map(entry).collect(), Kind::Texts)
    })
    .called(How::Builds),
    Entry::new("mergeMaps", (0, ANY), merge_maps),
    Entry::new("toJsonMap", (0, ANY), |call| merge_maps(call)?.to_json_text().map(Value::from)),
    Entry::new("omitNil", (1, 1), |call| Ok(without_nil(&call.args[0])?.unwrap_or_default())),
    Entry::new("formatDuration", (1, 1), |call| Ok(duration(&shown(call, 0)).into())),
    Entry::new("kubevirtInterfaces", (1, 1), |call| Ok(Value::Text(shown(call, 0)))),
    Entry::new("excludeInterfaces", (1, 1), |call| Ok(Value::Text(shown(call, 0)))),
    Entry::new("excludeInboundPort", (2, 2), exclude_inbound_port),
    Entry::new("includeInboundPorts", (1, 1), include_inbound_ports),
    Entry::new("applicationPorts", (1, 1), application_ports),
    Entry::new("appendMultusNetwork", (2, 2), append_multus),
    Entry::new("otelResourceAttributes", (5, 5), otel_resource_attributes),
];

/// An argument as text; as Go prints it if it is none.
pub(super) fn shown(call: &Call<'_>, index: usize) -> Arc<str> {
    match &call.args[index] {
        Value::Text(text) => text.clone(),
        Value::Nil => "".into(),
        other => other.printed().unwrap_or_default().into(),
    }
}

/// A map, if it is one.
pub(super) fn map(value: &Value) -> Option<&Dict> {
    match value {
        Value::Map(map) => Some(map),
        _ => None,
    }
}

/// An annotation of the metadata, or a default as Go prints it: nothing is `<nil>`.
fn annotation(call: &Call<'_>) -> Made {
    let annotations = call.args[0].field("Annotations")?;
    match map(&annotations).and_then(|map| map.entries.get(&*shown(call, 1))) {
        Some(value) => Ok(value.clone()),
        None => call.args[2].printed().map(Value::from),
    }
}

fn struct_to_json(call: &Call<'_>) -> Made {
    match &call.args[0] {
        Value::Nil => Ok("{}".into()),
        value => value.to_json_text().map(Value::from),
    }
}

/// A message as JSON; of a ProxyConfig only what every proxy does not know anyway.
fn proto_to_json(call: &Call<'_>) -> Made {
    let value = &call.args[0];
    let Json::Object(mut fields) = value.to_json()? else { return Ok("{}".into()) };
    if value.type_name() == "ProxyConfig" {
        let defaults = proxy_config_defaults();
        fields.retain(|key, value| {
            let unset = key == "proxyMetadata" && value.as_object().is_some_and(Map::is_empty);
            defaults.get(key) != Some(value) && !unset
        });
    }
    Ok(Json::Object(fields).to_string().into())
}

/// Every line but the first after so many spaces.
fn indent(call: &Call<'_>) -> Made {
    let Value::Int(spaces) = call.args[0] else {
        return Err(format!("argument 1: expected int; got {}", call.args[0].type_name()));
    };
    let text = shown(call, 1);
    let spaces = usize::try_from(spaces).map_err(|_| format!("{spaces} spaces"))?;
    let longer = text.matches('\n').count().saturating_mul(spaces);
    if text.len().saturating_add(longer) > VALUE_BYTES {
        return Err(format!("would make more than {VALUE_BYTES} bytes"));
    }
    Ok(text.replace('\n', &format!("\n{}", " ".repeat(spaces))).into())
}

/// A variable of the control plane's environment, as `pilot.env` sets it, or a default.
fn env(call: &Call<'_>) -> Made {
    let values = call.data.field("Values")?;
    let environment = ["pilot", "env"]
        .into_iter()
        .try_fold(values, |value, key| map(&value)?.entries.get(key).cloned());
    let set = environment.and_then(|all| map(&all)?.entries.get(&*shown(call, 0)).cloned());
    Ok(set.filter(Value::is_true).unwrap_or_else(|| call.args[1].clone()))
}

fn merge_maps(call: &Call<'_>) -> Made {
    let mut all: BTreeMap<Arc<str>, Value> = BTreeMap::new();
    for map in call.args.iter().filter_map(map) {
        all.extend(map.entries.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    Value::map(all, Kind::Texts)
}

/// A value without anything that is nothing; `None` if nothing is left of it.
fn without_nil(value: &Value) -> Result<Option<Value>, String> {
    match value {
        Value::Nil => Ok(None),
        Value::Map(map) => {
            let mut kept = BTreeMap::new();
            for (key, value) in &map.entries {
                if let Some(value) = without_nil(value)? {
                    kept.insert(key.clone(), value);
                }
            }
            let emptied = kept.is_empty() && !map.entries.is_empty();
            if emptied { Ok(None) } else { Value::map(kept, map.kind).map(Some) }
        }
        Value::List(list) => {
            let mut kept = Vec::new();
            for item in &list.items {
                kept.extend(without_nil(item)?);
            }
            let emptied = kept.is_empty() && !list.items.is_empty();
            if emptied { Ok(None) } else { Value::list(kept).map(Some) }
        }
        other => Ok(Some(other.clone())),
    }
}

/// Seconds, as protobuf writes them, as Go writes a duration.
fn duration(text: &str) -> String {
    let Some(seconds) = text.strip_suffix('s').and_then(|text| text.parse::<f64>().ok()) else {
        return text.to_owned();
    };
    if seconds < 60.0 || seconds.fract() != 0.0 {
        return text.to_owned();
    }
    let Ok(whole) = format!("{seconds:.0}").parse::<u64>() else { return text.to_owned() };
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 {
        format!("{hours}h{minutes}m{seconds}s")
    } else {
        format!("{minutes}m{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_look_as_in_go() {
        for (given, shown) in
            [("45s", "45s"), ("90s", "1m30s"), ("3600s", "1h0m0s"), ("0.5s", "0.5s"), ("x", "x")]
        {
            assert_eq!(duration(given), shown);
        }
    }
}
