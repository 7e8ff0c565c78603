//! Choosing between values, asking for their types, converting, and giving up.

use super::super::builtins::{number, same};
use super::super::number::integer;
use super::super::syntax::{ANY, Call, Entry, How, Made};
use super::super::value::Value;
use super::numbers::truncated;
use super::{list, text};

pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("default", (1, 2), default).called(How::Passes),
    Entry::new("empty", (1, 1), |call| Ok((!call.args[0].is_true()).into())).called(How::Passes),
    Entry::new("coalesce", (0, ANY), |call| {
        Ok(call.args.iter().find(|arg| arg.is_true()).cloned().unwrap_or_default())
    })
    .called(How::Passes),
    Entry::new("ternary", (3, 3), |call| match call.args[2] {
        Value::Bool(yes) => Ok(call.args[usize::from(!yes)].clone()),
        _ => Err(format!("argument 3: expected bool; got {}", call.args[2].type_name())),
    })
    .called(How::Passes),
    Entry::new("all", (0, ANY), |call| Ok(call.args.iter().all(Value::is_true).into()))
        .called(How::Passes),
    Entry::new("any", (0, ANY), |call| Ok(call.args.iter().any(Value::is_true).into()))
        .called(How::Passes),
    Entry::new("typeOf", (1, 1), |call| Ok(call.args[0].type_name().into())).called(How::Passes),
    Entry::new("kindOf", (1, 1), |call| Ok(kind(&call.args[0]).into())).called(How::Passes),
    Entry::new("typeIs", (2, 2), |call| Ok((text(call, 0)? == call.args[1].type_name()).into()))
        .called(How::Passes),
    Entry::new("typeIsLike", (2, 2), |call| {
        Ok((text(call, 0)?.trim_start_matches('*') == call.args[1].type_name()).into())
    })
    .called(How::Passes),
    Entry::new("kindIs", (2, 2), |call| Ok((text(call, 0)? == kind(&call.args[1])).into()))
        .called(How::Passes),
    Entry::new("deepEqual", (2, 2), |call| Ok(same(&call.args[0], &call.args[1]).into())),
    Entry::new("fail", (1, 1), |call| Err(text(call, 0)?.to_owned())),
    Entry::new("int", (1, 1), whole),
    Entry::new("int64", (1, 1), whole),
    Entry::new("atoi", (1, 1), whole),
    Entry::new("float64", (1, 1), |call| Ok(Value::Float(as_float(&call.args[0])))),
    Entry::new("toDecimal", (1, 1), |call| {
        let octal = super::shown(&call.args[0])?;
        Ok(Value::Int(i64::from_str_radix(octal.trim(), 8).unwrap_or_default()))
    }),
];

/// The second if it is not empty, else the first.
fn default(call: &Call<'_>) -> Made {
    Ok(call.args.get(1).filter(|value| value.is_true()).unwrap_or(&call.args[0]).clone())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::Map(map) => match map.kind {
            super::super::value::Kind::Record(_) => "struct",
            _ => "map",
        },
        other => other.type_name(),
    }
}

fn whole(call: &Call<'_>) -> Made {
    if matches!(call.args[0], Value::List(_)) {
        list(call, 0)?;
    }
    Ok(Value::Int(as_int(&call.args[0])))
}

/// Any value as a whole number; what is none is zero.
pub(super) fn as_int(value: &Value) -> i64 {
    match value {
        Value::Int(value) => *value,
        Value::Float(value) => truncated(*value),
        Value::Bool(value) => i64::from(*value),
        Value::Text(text) => integer(text)
            .or_else(|| text.parse().ok())
            .unwrap_or_else(|| text.parse().map(truncated).unwrap_or_default()),
        _ => 0,
    }
}

/// Any value as a number; what is none is zero.
pub(super) fn as_float(value: &Value) -> f64 {
    match value {
        Value::Text(text) => text.parse().unwrap_or_default(),
        Value::Bool(true) => 1.0,
        other => number(other).unwrap_or_default(),
    }
}
