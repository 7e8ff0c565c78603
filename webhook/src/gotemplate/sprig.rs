//! The functions of sprig, the library that Istio and Helm give to templates.
//!
//! What depends on time, chance, the machine or the network is left out: the same pod must be
//! injected the same way twice.

mod dicts;
mod encoding;
mod kinds;
mod lists;
mod numbers;
mod regexps;
mod strings;
mod words;

use super::syntax::{Call, Entry};
use super::value::Value;

/// All functions.
pub(super) const TABLES: [&[Entry]; 8] = [
    strings::ENTRIES,
    words::ENTRIES,
    lists::ENTRIES,
    dicts::ENTRIES,
    kinds::ENTRIES,
    numbers::ENTRIES,
    encoding::ENTRIES,
    regexps::ENTRIES,
];

/// Functions of sprig that are left out because their result is not always the same.
const CHANGING: [&str; 29] = [
    "ago",
    "bcrypt",
    "buildCustomCert",
    "date",
    "dateInZone",
    "dateModify",
    "date_in_zone",
    "date_modify",
    "decryptAES",
    "derivePassword",
    "encryptAES",
    "expandenv",
    "genCA",
    "genCAWithKey",
    "genPrivateKey",
    "genSelfSignedCert",
    "genSignedCert",
    "getHostByName",
    "htmlDate",
    "htmlDateInZone",
    "htpasswd",
    "now",
    "randAlpha",
    "randAlphaNum",
    "randAscii",
    "randBytes",
    "randInt",
    "randNumeric",
    "uuidv4",
];

/// Why there is no function of a name.
pub(super) fn why_not(name: &str) -> String {
    if CHANGING.contains(&name) {
        return format!(
            "function {name:?} is not offered: it depends on time, chance or the machine, and \
             injecting a pod twice must give the same pod"
        );
    }
    format!("function {name:?} not defined")
}

/// An argument that must be a text.
fn text<'a>(call: &'a Call<'_>, index: usize) -> Result<&'a str, String> {
    match &call.args[index] {
        Value::Text(text) => Ok(text),
        other => Err(format!("argument {}: expected string; got {}", index + 1, other.type_name())),
    }
}

/// An argument that must be a whole number.
fn int(call: &Call<'_>, index: usize) -> Result<i64, String> {
    match &call.args[index] {
        Value::Int(value) => Ok(*value),
        Value::Float(value) if value.fract() == 0.0 => Ok(numbers::truncated(*value)),
        other => Err(format!("argument {}: expected int; got {}", index + 1, other.type_name())),
    }
}

/// A number of things: a whole number that is not negative.
fn count(call: &Call<'_>, index: usize) -> Result<usize, String> {
    let value = int(call, index)?;
    usize::try_from(value).map_err(|_| format!("argument {}: {value} is negative", index + 1))
}

/// An argument that must be a list; nothing is an empty one.
fn list<'a>(call: &'a Call<'_>, index: usize) -> Result<&'a [Value], String> {
    match &call.args[index] {
        Value::List(list) => Ok(&list.items),
        Value::Nil => Ok(&[]),
        other => Err(format!("argument {}: expected list; got {}", index + 1, other.type_name())),
    }
}

/// A value as text: itself, or as Go prints it.
fn shown(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.to_string()),
        other => super::format::sprint(other),
    }
}

/// All elements of a list as texts; a single value counts as a list of one.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::List(list) => {
            list.items.iter().filter(|item| **item != Value::Nil).map(shown).collect()
        }
        Value::Nil => Ok(Vec::new()),
        other => Ok(vec![shown(other)?]),
    }
}
