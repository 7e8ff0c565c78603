//! Values to and from JSON and YAML.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Number;
use serde_json::Value as Json;

use super::limits::room;
use super::syntax::Made;
use super::value::{Kind, Value};

/// As JSON; what JSON does not have (infinity) is null.
///
/// # Errors
/// It would be too large.
pub(super) fn json(value: &Value) -> Result<Json, String> {
    room(value.bytes())?;
    Ok(to_json(value))
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => {
            // Go writes a whole float without a fraction.
            format!("{value:.0}").parse::<i64>().map_or(Json::Null, Json::from)
        }
        Value::Float(value) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
        Value::Text(text) => Json::from(&**text),
        Value::List(list) => Json::Array(list.items.iter().map(to_json).collect()),
        Value::Map(map) => {
            let entry = |(key, value): (&Arc<str>, &Value)| (key.to_string(), to_json(value));
            Json::Object(map.entries.iter().map(entry).collect())
        }
    }
}

/// A value of what JSON holds; maps are `map[string]any`.
///
/// # Errors
/// It would be too large.
pub(super) fn value(json: &Json) -> Made {
    let made = from_json(json);
    room(made.bytes())?;
    Ok(made)
}

fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => from_number(number),
        Json::String(text) => Value::text(text.as_str()),
        Json::Array(items) => Value::given_list(items.iter().map(from_json).collect()),
        Json::Object(map) => {
            let entry =
                |(key, value): (&String, &Json)| (Arc::from(key.as_str()), from_json(value));
            let entries: BTreeMap<Arc<str>, Value> = map.iter().map(entry).collect();
            Value::given_map(entries, Kind::Any)
        }
    }
}

fn from_number(number: &Number) -> Value {
    match (number.as_i64(), number.as_f64()) {
        (Some(value), _) => Value::Int(value),
        (None, Some(value)) => Value::Float(value),
        (None, None) => Value::Nil,
    }
}

impl Value {
    /// Data of any size.
    pub(crate) fn given(json: &Json) -> Self {
        from_json(json)
    }

    /// As JSON.
    ///
    /// # Errors
    /// It would be too large.
    pub(crate) fn to_json(&self) -> Result<Json, String> {
        json(self)
    }

    /// As JSON text, as Go's encoder writes it.
    ///
    /// # Errors
    /// It would be too large.
    pub(crate) fn to_json_text(&self) -> Result<String, String> {
        json(self).map(|json| html_safe(&json.to_string()))
    }

    /// As YAML, keys in order, with a line end.
    ///
    /// # Errors
    /// It would be too large.
    pub(crate) fn to_yaml_text(&self) -> Result<String, String> {
        let json = json(self)?;
        let mut text = String::new();
        crate::yaml::write(&json, &mut text);
        room(text.len())?;
        Ok(text)
    }
}

/// Go's encoder escapes what HTML would take for markup.
fn html_safe(text: &str) -> String {
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
