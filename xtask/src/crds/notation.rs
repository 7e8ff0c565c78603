//! The notation of the tables: how a type is written, and the OpenAPI schema it stands for.
//!
//! | written | stands for |
//! |---|---|
//! | `string`, `bool`, `integer`, `int32`, `uint`, `uint32`, `double`, `time`, `bytes` | the type |
//! | `string 1..253`, `integer 1..65535`, `double 0..` | with limits of length or value |
//! | `port`, `duration` | with its condition |
//! | `ON\|OFF` | one of the words |
//! | `open`, `int-or-string` | any object; a number or a text |
//! | `bool?` | or null |
//! | `Name` | a type of `shapes` |
//! | `[T]` | a list |
//! | `{a: T, b!: T}` | an object; `b` is required |
//! | `{$list: T}`, `{$map: T}`, `{$of: T}` | a list, a map, a scalar with more to say |
//!
//! More is said by `$min`, `$max` (sizes), `$keys` (a list that is a map by these), `$pattern`,
//! `$rules` (names in `rules.yaml`), `$exclusive` (lists of fields of which one at most is set) and
//! `$open` (further fields are kept).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A condition in CEL.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    rule: String,
    message: String,
}

/// Something that the notation does not have.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotationError {
    #[error("`{0}` is no type of the notation and no shape")]
    Type(String),
    #[error("`{0}` is no condition of rules.yaml")]
    Rule(String),
    #[error("{0} cannot stand for a type")]
    Form(Value),
}

/// What names stand for.
#[derive(Debug)]
pub(super) struct Notation<'a> {
    pub(super) rules: &'a BTreeMap<String, Rule>,
    /// Own shapes of the kind, then those of all.
    pub(super) shapes: [&'a BTreeMap<String, Value>; 2],
}

impl Notation<'_> {
    /// The schema of a type.
    pub(super) fn schema(&self, written: &Value) -> Result<Value, NotationError> {
        match written {
            Value::String(term) => self.term(term),
            Value::Array(items) if items.len() == 1 => {
                Ok(json!({"type": "array", "items": self.schema(&items[0])?}))
            }
            Value::Object(parts) => self.parts(parts),
            other => Err(NotationError::Form(other.clone())),
        }
    }

    fn term(&self, term: &str) -> Result<Value, NotationError> {
        if let Some(term) = term.strip_suffix('?') {
            let mut schema = self.term(term)?;
            schema["nullable"] = json!(true);
            return Ok(schema);
        }
        if let Some(shape) = self.shapes.iter().find_map(|shapes| shapes.get(term)) {
            return self.schema(shape);
        }
        if term.contains('|') {
            return Ok(json!({"type": "string", "enum": term.split('|').collect::<Vec<_>>()}));
        }
        if let Some((word, range)) = term.split_once(' ') {
            return Self::limited(self.term(word)?, range)
                .ok_or_else(|| NotationError::Type(term.to_owned()));
        }
        Ok(match term {
            "string" => json!({"type": "string"}),
            "bool" => json!({"type": "boolean"}),
            "integer" => json!({"type": "integer"}),
            "int32" => json!({"type": "integer", "format": "int32"}),
            "uint" => json!({"type": "integer", "minimum": 0}),
            "uint32" => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            "double" => json!({"type": "number", "format": "double"}),
            "time" => json!({"type": "string", "format": "date-time"}),
            "bytes" => json!({"type": "string", "format": "byte"}),
            "open" => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            "int-or-string" => json!({
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": true,
            }),
            "port" => self.ruled(self.term("uint32")?, &["port"])?,
            "duration" => self.ruled(self.term("string")?, &["duration"])?,
            other => return Err(NotationError::Type(other.to_owned())),
        })
    }

    /// `schema` with a range such as `1..5`, `1..` or `..5`.
    fn limited(mut schema: Value, range: &str) -> Option<Value> {
        let (least, most) = range.split_once("..")?;
        let text = schema["type"] == "string";
        let keys = if text { ["minLength", "maxLength"] } else { ["minimum", "maximum"] };
        for (key, limit) in keys.into_iter().zip([least, most]) {
            if !limit.is_empty() {
                schema[key] = json!(limit.parse::<u64>().ok()?);
            }
        }
        Some(schema)
    }

    fn parts(&self, parts: &Map<String, Value>) -> Result<Value, NotationError> {
        let (mut schema, sizes) = if let Some(of) = parts.get("$of") {
            (self.schema(of)?, ["minLength", "maxLength"])
        } else if let Some(item) = parts.get("$list") {
            (json!({"type": "array", "items": self.schema(item)?}), ["minItems", "maxItems"])
        } else if let Some(value) = parts.get("$map") {
            let schema = json!({"type": "object", "additionalProperties": self.schema(value)?});
            (schema, ["minProperties", "maxProperties"])
        } else {
            (self.object(parts)?, ["minProperties", "maxProperties"])
        };
        for (key, value) in parts.iter().filter(|(key, _)| key.starts_with('$')) {
            match key.as_str() {
                "$of" | "$list" | "$map" | "$exclusive" => {}
                "$min" => schema[sizes[0]] = value.clone(),
                "$max" => schema[sizes[1]] = value.clone(),
                "$pattern" => schema["pattern"] = value.clone(),
                "$open" => schema["x-kubernetes-preserve-unknown-fields"] = value.clone(),
                "$keys" => {
                    schema["x-kubernetes-list-type"] = json!("map");
                    schema["x-kubernetes-list-map-keys"] = value.clone();
                }
                "$rules" => schema = self.ruled(schema, &words(value))?,
                other => return Err(NotationError::Type(other.to_owned())),
            }
        }
        Ok(schema)
    }

    fn object(&self, parts: &Map<String, Value>) -> Result<Value, NotationError> {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for (name, written) in parts.iter().filter(|(name, _)| !name.starts_with('$')) {
            let field = name.strip_suffix('!').unwrap_or(name);
            if field != name {
                required.push(field);
            }
            properties.insert(field.to_owned(), self.schema(written)?);
        }
        let mut schema = json!({"type": "object"});
        if !properties.is_empty() {
            schema["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        let groups = parts.get("$exclusive").and_then(Value::as_array);
        let groups: Vec<Value> = groups.into_iter().flatten().map(one_at_most).collect();
        match groups.as_slice() {
            [] => {}
            [one] => schema["oneOf"] = one.clone(),
            several => {
                let all: Vec<Value> = several.iter().map(|one| json!({"oneOf": one})).collect();
                schema["allOf"] = json!(all);
            }
        }
        Ok(schema)
    }

    fn ruled(&self, mut schema: Value, names: &[&str]) -> Result<Value, NotationError> {
        let mut rules = Vec::new();
        for name in names {
            let rule = self.rules.get(*name);
            let rule = rule.ok_or_else(|| NotationError::Rule((*name).to_owned()))?;
            rules.push(json!({"rule": rule.rule, "message": rule.message}));
        }
        schema["x-kubernetes-validations"] = json!(rules);
        Ok(schema)
    }
}

/// Alternatives of `oneOf`: none of the fields, or exactly one.
fn one_at_most(fields: &Value) -> Value {
    let each: Vec<Value> = words(fields).iter().map(|it| json!({"required": [it]})).collect();
    let mut alternatives = vec![json!({"not": {"anyOf": each}})];
    alternatives.extend(each);
    json!(alternatives)
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::{Notation, Rule};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn schema(written: &Value) -> Result<Value, String> {
        let rule = Rule { rule: "self != ''".to_owned(), message: "empty".to_owned() };
        let rules = BTreeMap::from([("set".to_owned(), rule)]);
        let shapes = BTreeMap::from([("Named".to_owned(), json!({"name!": "string"}))]);
        let notation = Notation { rules: &rules, shapes: [&BTreeMap::new(), &shapes] };
        notation.schema(written).map_err(|error| error.to_string())
    }

    #[test]
    fn terms() {
        let expected = json!({"type": "string", "minLength": 1, "maxLength": 63});
        assert_eq!(schema(&json!("string 1..63")).unwrap(), expected);
        let expected =
            json!({"type": "number", "format": "double", "minimum": 0, "nullable": true});
        assert_eq!(schema(&json!("double 0..?")).unwrap(), expected);
        assert_eq!(schema(&json!("A|B")).unwrap(), json!({"type": "string", "enum": ["A", "B"]}));
    }

    #[test]
    fn objects_lists_and_conditions() {
        let named = json!({
            "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"],
        });
        let expected = json!({"type": "array", "items": named, "maxItems": 3});
        assert_eq!(schema(&json!({"$list": "Named", "$max": 3})).unwrap(), expected);
        let written = json!({"a": "bool", "b": "bool", "$exclusive": [["a", "b"]]});
        let expected = json!([
            {"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}},
            {"required": ["a"]}, {"required": ["b"]},
        ]);
        assert_eq!(schema(&written).unwrap()["oneOf"], expected);
        let ruled = schema(&json!({"$of": "string", "$rules": ["set"]})).unwrap();
        assert_eq!(ruled["x-kubernetes-validations"][0]["message"], "empty");
    }

    #[test]
    fn what_the_notation_does_not_have_is_named() {
        assert!(schema(&json!("strin")).unwrap_err().contains("`strin`"));
        assert!(schema(&json!({"a": {"$rules": ["no"]}})).unwrap_err().contains("`no`"));
        assert!(schema(&json!({"$mx": 1})).unwrap_err().contains("`$mx`"));
        assert!(schema(&json!(5)).unwrap_err().contains("cannot stand"));
    }
}
