//! Our entry in the network configuration of another plugin: text in, text out.
//!
//! Nothing but the entry changes, to the byte, so that taking it out again restores what was
//! there. Pure; knows neither files nor folders.

use std::cmp::Ordering;
use std::ops::Range;

use serde_json::{Map, Value};

use super::spans::{elements, members, whole};
use crate::netconf::VERSIONS;

/// Type of our entry, which is the name of the program.
pub const PLUGIN: &str = "lateen-cni";
/// Key of our entry: the file whose only plugin was made a list for us.
pub const MADE_FROM: &str = "lateen_made_from";
/// Key of our entry: the file that a list of our own is a copy of.
pub const COPY_OF: &str = "lateen_copy_of";
/// Types of entries that ours takes the place of: two of them would redirect twice.
const REPLACED: [&str; 2] = [PLUGIN, "istio-cni"];
/// The runtime reads no longer file.
pub const MAX_FILE: u64 = 2 << 20;
const NO_NETWORK: &str = "it has no plugin that makes a network";
/// What Istio names a network that has no name.
const NO_NAME: &str = "k8s-pod-network";

/// The two forms of a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `.conflist`: a list of plugins.
    List,
    /// `.conf` and `.json`: one plugin.
    Single,
}

impl Form {
    /// The form a file of this name has; `None` when the runtime does not read it.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.') {
            Some((_, "conflist")) => Some(Self::List),
            Some((_, "conf" | "json")) => Some(Self::Single),
            _ => None,
        }
    }
}

/// Why a text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// Not JSON, or half of it.
    #[error("it is not complete JSON ({0})")]
    Json(String),
    /// Not what the runtime would read.
    #[error("{0}")]
    Shape(&'static str),
    /// A version that our plugin does not serve.
    #[error("its cniVersion {0:?} is none of those that lateen-cni serves ({known}); every pod of the node would fail", known = VERSIONS.join(", "))]
    Version(String),
}

/// What is left of a file without our entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// It had none.
    Unchanged,
    /// This list.
    List(String),
    /// The file that was there before the list was made for us.
    Single {
        /// Its name.
        name: String,
        /// Its text.
        text: String,
    },
    /// Nothing: it held our entry only.
    Nothing,
}

/// Reads a text as the runtime does.
///
/// # Errors
/// When the runtime would not take it.
pub fn check(text: &str, form: Form) -> Result<(), ConfError> {
    let conf = parse(text)?;
    let filled = |key: &str| conf.get(key).and_then(Value::as_str).is_some_and(|v| !v.is_empty());
    if form == Form::Single {
        return match conf.get("type").and_then(Value::as_str) {
            None | Some("") => Err(ConfError::Shape("it has no type; is this a .conflist?")),
            Some(PLUGIN) => Err(ConfError::Shape(NO_NETWORK)),
            Some(_) => Ok(()),
        };
    }
    if !filled("name") {
        return Err(ConfError::Shape("it has no name"));
    }
    let plugins = conf.get("plugins").and_then(Value::as_array);
    let plugins = plugins.ok_or(ConfError::Shape("it has no list of plugins"))?;
    if !plugins.iter().all(|p| p["type"].as_str().is_some_and(|kind| !kind.is_empty())) {
        return Err(ConfError::Shape("one of its plugins has no type"));
    }
    if plugins.iter().all(|plugin| REPLACED.iter().any(|kind| plugin["type"] == *kind)) {
        return Err(ConfError::Shape(NO_NETWORK));
    }
    Ok(())
}

/// The form that a text has, whatever its file is called.
#[must_use]
pub fn form_in(text: &str) -> Form {
    let is_list = parse(text).is_ok_and(|conf| conf.contains_key("plugins"));
    if is_list { Form::List } else { Form::Single }
}

/// Puts our entry at the end of the plugins of a list, in the place of older ones and of Istio's; a
/// list that has it there stays as it is.
///
/// # Errors
/// When the list is none, or of a version that we do not serve.
pub fn insert(text: &str, entry: &Map<String, Value>) -> Result<String, ConfError> {
    check(text, Form::List)?;
    check_version(&parse(text)?)?;
    let mut entry = entry.clone();
    let found = entries(text, &REPLACED);
    if let Some(made_from) = found.iter().find_map(|(_, plugin)| plugin.get(MADE_FROM)) {
        entry.insert(MADE_FROM.to_owned(), made_from.clone());
    }
    let last = plugins(text).len().wrapping_sub(1);
    if let [(at, plugin)] = found.as_slice()
        && *at == last
        && *plugin == Value::Object(entry.clone())
    {
        return Ok(text.to_owned());
    }
    Ok(append(&without(text, &REPLACED), &entry))
}

/// Makes a list of a file with one plugin, that plugin and our entry in it.
///
/// # Errors
/// When the file is none such, or of a version that we do not serve.
pub fn convert(text: &str, name: &str, entry: &Map<String, Value>) -> Result<String, ConfError> {
    check(text, Form::Single)?;
    let mut conf = parse(text)?;
    // Only a list may name several versions.
    conf.remove("cniVersions");
    check_version(&conf)?;
    let mut entry = entry.clone();
    entry.insert(MADE_FROM.to_owned(), Value::from(name));
    let network = conf.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    Ok(format!(
        "{{\n  \"cniVersion\": {},\n  \"name\": {},\n  \"plugins\": [\n{},\n{}\n  ]\n}}\n",
        conf.get("cniVersion").unwrap_or(&Value::Null),
        Value::from(network.unwrap_or(NO_NAME)),
        &text[whole(text)],
        Value::Object(entry),
    ))
}

/// A list of our own: what is in the primary configuration of this name and form, and our entry.
///
/// # Errors
/// When the configuration is none, or of a version that we do not serve.
pub fn copy(
    text: &str,
    (name, form): (&str, Form),
    entry: &Map<String, Value>,
) -> Result<String, ConfError> {
    let mut entry = entry.clone();
    entry.insert(COPY_OF.to_owned(), Value::from(name));
    match form {
        Form::List => insert(&without(text, &REPLACED), &entry),
        Form::Single => convert(text, name, &entry),
    }
}

/// Whether a text is a list that [`copy`] made.
#[must_use]
pub fn is_copy(text: &str) -> bool {
    parse(text).is_ok() && ours(text).iter().any(|(_, plugin)| plugin.get(COPY_OF).is_some())
}

/// Types of the plugins of others, which are the names of their programs.
#[must_use]
pub fn programs(text: &str, form: Form) -> Vec<String> {
    let conf = parse(text).map(Value::Object).unwrap_or_default();
    let of = |plugin: &Value| plugin["type"].as_str().map(str::to_owned);
    let all: Vec<String> = match form {
        Form::Single => of(&conf).into_iter().collect(),
        Form::List => conf["plugins"].as_array().into_iter().flatten().filter_map(of).collect(),
    };
    all.into_iter().filter(|kind| !REPLACED.contains(&kind.as_str())).collect()
}

/// A file of our own, for runtimes whose plugin calls others by name (Multus).
#[must_use]
pub fn own_file(entry: &Map<String, Value>) -> String {
    let mut conf = Map::new();
    conf.insert("cniVersion".to_owned(), Value::from("0.3.1"));
    conf.insert("name".to_owned(), Value::from("istio-cni"));
    conf.extend(entry.clone());
    format!("{:#}\n", Value::Object(conf))
}

/// Takes our entry out of a list; of a file that is all ours nothing is left.
///
/// # Errors
/// When the text is not JSON.
pub fn remove(text: &str) -> Result<Removed, ConfError> {
    let conf = parse(text)?;
    if is_copy(text) || conf.get("type").is_some_and(|kind| kind == PLUGIN) {
        return Ok(Removed::Nothing);
    }
    let found = ours(text);
    if found.is_empty() {
        return Ok(Removed::Unchanged);
    }
    let rest = without(text, &[PLUGIN]);
    let left = plugins(&rest);
    if left.is_empty() {
        return Ok(Removed::Nothing);
    }
    let made_from = found.iter().find_map(|(_, plugin)| plugin.get(MADE_FROM)?.as_str());
    let safe = |name: &&str| Form::of(name) == Some(Form::Single) && !name.contains('/');
    if let Some(name) = made_from.filter(safe)
        && let [only] = left.as_slice()
        && members(&rest, whole(&rest)).len() == 3
    {
        return Ok(Removed::Single {
            name: name.to_owned(),
            text: format!("{}\n", &rest[only.clone()]),
        });
    }
    Ok(Removed::List(rest))
}

/// Whether a list has our entry.
#[must_use]
pub fn has_entry(text: &str) -> bool {
    parse(text).is_ok() && !ours(text).is_empty()
}

fn parse(text: &str) -> Result<Map<String, Value>, ConfError> {
    serde_json::from_str(text).map_err(|e| ConfError::Json(e.to_string()))
}

/// The highest version counts: that is the one the runtime speaks.
fn check_version(conf: &Map<String, Value>) -> Result<(), ConfError> {
    let several = conf.get("cniVersions").and_then(Value::as_array);
    let all = several.into_iter().flatten().chain(conf.get("cniVersion"));
    let highest = all.filter_map(Value::as_str).max_by(|a, b| compare(a, b)).unwrap_or_default();
    if VERSIONS.contains(&highest) {
        return Ok(());
    }
    Err(ConfError::Version(highest.to_owned()))
}

fn compare(a: &str, b: &str) -> Ordering {
    let numbers =
        |v: &str| -> Vec<u64> { v.split('.').map(|n| n.parse().unwrap_or_default()).collect() };
    numbers(a).cmp(&numbers(b))
}

/// Where the plugins of a list stand.
fn plugins(text: &str) -> Vec<Range<usize>> {
    let members = members(text, whole(text));
    // Of two keys of the same name the last one counts, for the runtime and for serde.
    let list = members.into_iter().rev().find(|(key, _)| key == "plugins");
    let list = list.filter(|(_, at)| text[at.clone()].starts_with('['));
    list.map(|(_, at)| elements(text, at)).unwrap_or_default()
}

/// Our entries and their positions.
fn ours(text: &str) -> Vec<(usize, Value)> {
    entries(text, &[PLUGIN])
}

/// The entries of these types and their positions.
fn entries(text: &str, kinds: &[&str]) -> Vec<(usize, Value)> {
    let values = plugins(text).into_iter().map(|at| serde_json::from_str(&text[at]));
    let values = values.enumerate().filter_map(|(at, value)| Some((at, value.ok()?)));
    let is_one = |plugin: &Value| kinds.iter().any(|kind| plugin["type"] == *kind);
    values.filter(|(_, plugin): &(usize, Value)| is_one(plugin)).collect()
}

fn without(text: &str, kinds: &[&str]) -> String {
    let mut text = text.to_owned();
    while let Some((at, _)) = entries(&text, kinds).pop() {
        let all = plugins(&text);
        let Some(entry) = all.get(at) else { break };
        let gap = match (at.checked_sub(1).and_then(|at| all.get(at)), all.get(at + 1)) {
            (Some(before), _) => before.end..entry.end,
            (None, Some(after)) => entry.start..after.start,
            (None, None) => entry.clone(),
        };
        text.replace_range(gap, "");
    }
    text
}

/// Behind the last plugin, set off from it as the others are.
fn append(text: &str, entry: &Map<String, Value>) -> String {
    let all = plugins(text);
    let Some(last) = all.last() else { return text.to_owned() };
    let before = match all.len().checked_sub(2).and_then(|at| all.get(at)) {
        Some(previous) => text[previous.end..last.start].to_owned(),
        None => {
            let open = text[..last.start].trim_end().len();
            format!(",{}", &text[open..last.start])
        }
    };
    let entry = Value::Object(entry.clone());
    format!("{}{before}{entry}{}", &text[..last.end], &text[last.end..])
}
