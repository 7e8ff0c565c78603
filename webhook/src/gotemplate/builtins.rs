//! Go's own functions.

use std::cmp::Ordering;

use super::format::{sprint_all, sprintf};
use super::syntax::{ANY, Call, Entry, How, Made};
use super::value::Value;

/// The functions.
pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("and", (1, ANY), |call| Ok(last(call))).called(How::And),
    Entry::new("or", (1, ANY), |call| Ok(last(call))).called(How::Or),
    Entry::new("not", (1, 1), |call| Ok(Value::Bool(!call.args[0].is_true()))).called(How::Passes),
    Entry::new("len", (1, 1), len).called(How::Passes),
    Entry::new("index", (1, ANY), index).called(How::Passes),
    Entry::new("slice", (1, 4), slice),
    Entry::new("print", (0, ANY), |call| sprint_all(call.args).map(Value::from)),
    Entry::new("println", (0, ANY), println),
    Entry::new("printf", (1, ANY), printf),
    Entry::new("html", (1, ANY), |call| sprint_all(call.args).map(|text| html(&text))),
    Entry::new("js", (1, ANY), |call| sprint_all(call.args).map(|text| js(&text))),
    Entry::new("urlquery", (1, ANY), |call| sprint_all(call.args).map(|text| urlquery(&text))),
    Entry::new("eq", (2, ANY), |call| {
        let (first, rest) = (&call.args[0], &call.args[1..]);
        Ok(Value::Bool(rest.iter().any(|other| same(first, other))))
    }),
    Entry::new("ne", (2, 2), |call| Ok(Value::Bool(!same(&call.args[0], &call.args[1])))),
    Entry::new("lt", (2, 2), |call| Ok(Value::Bool(order(call)?.is_lt()))),
    Entry::new("le", (2, 2), |call| Ok(Value::Bool(order(call)?.is_le()))),
    Entry::new("gt", (2, 2), |call| Ok(Value::Bool(order(call)?.is_gt()))),
    Entry::new("ge", (2, 2), |call| Ok(Value::Bool(order(call)?.is_ge()))),
];

fn last(call: &Call<'_>) -> Value {
    call.args.last().cloned().unwrap_or_default()
}

fn len(call: &Call<'_>) -> Made {
    let len = match &call.args[0] {
        Value::Text(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        other => return Err(format!("a {} has no length", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
}

fn index(call: &Call<'_>) -> Made {
    let mut value = call.args[0].clone();
    for key in &call.args[1..] {
        value = match (&value, key) {
            (Value::Map(map), Value::Text(key)) => map.at(key),
            (Value::List(list), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| list.items.get(at));
                found.cloned().ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::Text(text), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
                let byte = found.ok_or_else(|| format!("index out of range: {at}"))?;
                Value::Int(i64::from(*byte))
            }
            (Value::Nil, _) => return Err("index of untyped nil".to_owned()),
            (Value::Map(_) | Value::List(_) | Value::Text(_), key) => {
                return Err(format!(
                    "cannot index a {} with a {}",
                    value.type_name(),
                    key.type_name()
                ));
            }
            _ => return Err(format!("can't index item of type {}", value.type_name())),
        };
    }
    Ok(value)
}

fn slice(call: &Call<'_>) -> Made {
    let (value, bounds) = (&call.args[0], &call.args[1..]);
    let len = match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.items.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut edges = [0, len, len];
    for (edge, bound) in edges.iter_mut().zip(bounds) {
        *edge = match bound {
            Value::Int(at) => usize::try_from(*at).ok().filter(|at| *at <= len),
            _ => None,
        }
        .ok_or_else(|| "index out of range".to_owned())?;
    }
    let range = edges[0]..edges[1];
    if range.start > range.end || edges[1] > edges[2] {
        return Err("invalid slice index".to_owned());
    }
    match value {
        Value::Text(text) => match text.get(range) {
            Some(part) => Ok(Value::from(part)),
            None => Err("would cut a character in two".to_owned()),
        },
        Value::List(list) => Value::list(list.items[range].to_vec()),
        _ => Ok(Value::Nil),
    }
}

fn println(call: &Call<'_>) -> Made {
    let mut out = String::new();
    for (index, value) in call.args.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        out.push_str(&super::format::sprint(value)?);
    }
    out.push('\n');
    Ok(Value::from(out))
}

fn printf(call: &Call<'_>) -> Made {
    match &call.args[0] {
        Value::Text(format) => sprintf(format, &call.args[1..]).map(Value::from),
        other => Err(format!("expected a format, got a {}", other.type_name())),
    }
}

fn html(text: &str) -> Value {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    Value::from(out)
}

fn js(text: &str) -> Value {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' => out.push_str("\\u003C"),
            '>' => out.push_str("\\u003E"),
            '&' => out.push_str("\\u0026"),
            '=' => out.push_str("\\u003D"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    Value::from(out)
}

fn urlquery(text: &str) -> Value {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    Value::from(out)
}

/// Whether two values are the same; numbers of both kinds compare, other kinds differ.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(_), Value::Float(_)) | (Value::Float(_), Value::Int(_)) => {
            number(a).zip(number(b)).is_some_and(|(a, b)| a.total_cmp(&b).is_eq())
        }
        _ => a == b,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of 2^53 and more compares roughly")]
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}

fn order(call: &Call<'_>) -> Result<Ordering, String> {
    let (a, b) = (&call.args[0], &call.args[1]);
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => {
                a.partial_cmp(&b).ok_or_else(|| "not a number does not compare".to_owned())
            }
            _ => Err(format!(
                "incompatible types for comparison: {} and {}",
                a.type_name(),
                b.type_name()
            )),
        },
    }
}
