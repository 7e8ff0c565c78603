//! Maps.
//!
//! Maps never change; `set`, `unset` and the merges give a new one, which also becomes the value
//! of the variable they were called on. What shares the old map keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::syntax::{ANY, Call, Entry, How, Made};
use super::super::value::{Dict, Kind, Value};
use super::{shown, text};

pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("dict", (0, ANY), dict).called(How::Builds),
    Entry::new("get", (2, 2), |call| {
        let found = map(call, 0)?.entries.get(text(call, 1)?);
        Ok(found.cloned().unwrap_or_else(|| Value::text("")))
    })
    .called(How::Passes),
    Entry::new("hasKey", (2, 2), |call| {
        Ok(map(call, 0)?.entries.contains_key(text(call, 1)?).into())
    })
    .called(How::Passes),
    Entry::new("set", (3, 3), |call| {
        let mut entries = map(call, 0)?.entries.clone();
        entries.insert(text(call, 1)?.into(), call.args[2].clone());
        Value::map(entries, kind(call)?)
    })
    .called(How::Changes),
    Entry::new("unset", (2, 2), |call| {
        let mut entries = map(call, 0)?.entries.clone();
        entries.remove(text(call, 1)?);
        Value::map(entries, kind(call)?)
    })
    .called(How::Changes),
    Entry::new("merge", (1, ANY), |call| merged(call, false)).called(How::Changes),
    Entry::new("mustMerge", (1, ANY), |call| merged(call, false)).called(How::Changes),
    Entry::new("mergeOverwrite", (1, ANY), |call| merged(call, true)).called(How::Changes),
    Entry::new("mustMergeOverwrite", (1, ANY), |call| merged(call, true)).called(How::Changes),
    Entry::new("keys", (0, ANY), |call| {
        let mut keys = Vec::new();
        for index in 0..call.args.len() {
            keys.extend(map(call, index)?.entries.keys().cloned().map(Value::Text));
        }
        Value::list(keys)
    }),
    Entry::new("values", (1, 1), |call| {
        Value::list(map(call, 0)?.entries.values().cloned().collect())
    }),
    Entry::new("pick", (1, ANY), |call| chosen(call, true)),
    Entry::new("omit", (1, ANY), |call| chosen(call, false)),
    Entry::new("pluck", (1, ANY), |call| {
        let key = text(call, 0)?;
        let mut found = Vec::new();
        for index in 1..call.args.len() {
            found.extend(map(call, index)?.entries.get(key).cloned());
        }
        Value::list(found)
    }),
    Entry::new("dig", (3, ANY), dig),
    Entry::new("deepCopy", (1, 1), |call| Ok(call.args[0].clone())).called(How::Passes),
    Entry::new("mustDeepCopy", (1, 1), |call| Ok(call.args[0].clone())).called(How::Passes),
];

/// An argument that must be a map.
fn map<'a>(call: &'a Call<'_>, index: usize) -> Result<&'a Dict, String> {
    match &call.args[index] {
        Value::Map(map) => Ok(map),
        other => Err(format!("argument {}: expected map; got {}", index + 1, other.type_name())),
    }
}

fn kind(call: &Call<'_>) -> Result<Kind, String> {
    Ok(map(call, 0)?.kind)
}

fn dict(call: &Call<'_>) -> Made {
    let mut entries: BTreeMap<Arc<str>, Value> = BTreeMap::new();
    for pair in call.args.chunks(2) {
        let value = pair.get(1).cloned().unwrap_or_else(|| Value::text(""));
        entries.insert(shown(&pair[0])?.into(), value);
    }
    Value::map(entries, Kind::Any)
}

fn merged(call: &Call<'_>, overwrites: bool) -> Made {
    let mut all = call.args[0].clone();
    map(call, 0)?;
    for index in 1..call.args.len() {
        map(call, index)?;
        all = merge(&all, &call.args[index], overwrites)?;
    }
    Ok(all)
}

/// One value and another below it, or over it. What is empty counts as absent.
fn merge(a: &Value, b: &Value, overwrites: bool) -> Made {
    match (a, b) {
        (Value::Map(one), Value::Map(other)) => {
            let mut entries = one.entries.clone();
            for (key, value) in &other.entries {
                let merged = match entries.get(key) {
                    Some(known) => merge(known, value, overwrites)?,
                    None => value.clone(),
                };
                entries.insert(key.clone(), merged);
            }
            Value::map(entries, one.kind)
        }
        _ if overwrites && b.is_true() => Ok(b.clone()),
        _ if !a.is_true() => Ok(b.clone()),
        _ => Ok(a.clone()),
    }
}

/// The entries with these keys, or the others.
fn chosen(call: &Call<'_>, with: bool) -> Made {
    let mut keys: Vec<&str> = Vec::new();
    for index in 1..call.args.len() {
        keys.push(text(call, index)?);
    }
    keys.sort_unstable();
    let chosen = |key: &str| keys.binary_search(&key).is_ok() == with;
    let source = map(call, 0)?;
    let entries = source.entries.iter().filter(|(key, _)| chosen(key));
    Value::map(entries.map(|(key, value)| (key.clone(), value.clone())).collect(), source.kind)
}

/// `dig "a" "b" default map`.
fn dig(call: &Call<'_>) -> Made {
    let (keys, rest) = call.args.split_at(call.args.len() - 2);
    let mut value = &rest[1];
    for index in 0..keys.len() {
        let Value::Map(map) = value else { return Ok(rest[0].clone()) };
        match map.entries.get(text(call, index)?) {
            Some(inner) => value = inner,
            None => return Ok(rest[0].clone()),
        }
    }
    Ok(value.clone())
}
