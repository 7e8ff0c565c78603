//! Kubernetes objects out of YAML or JSON text with any number of documents.
//!
//! Documents are split at `---` lines first and parsed one by one, as `kubectl` does, so that a
//! broken one costs only itself. `kind: List` is expanded, empty documents are skipped, sizes are
//! bounded. Every text gives a result; nothing here panics or reads files.

use std::net::Ipv6Addr;
use std::sync::Arc;

use serde_json::Value;
use serde_saphyr::{Options, options};

use crate::finding::Finding;
use crate::meta::{ObjectMeta, ObjectRef};
use crate::object::{Object, Origin, decode};

/// Largest text accepted, in bytes: etcd refuses objects of 1.5 MiB, and a file may hold several.
pub const MAX_TEXT: usize = 16 * 1024 * 1024;
/// Most documents in one text.
pub const MAX_DOCUMENTS: usize = 10_000;
/// Deepest lists within lists.
const MAX_LIST_DEPTH: usize = 8;

/// What a text held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stream {
    /// Objects, in order.
    pub objects: Vec<Object>,
    /// Documents that are no objects, each with file, document and line.
    pub findings: Vec<Finding>,
}

/// Reads all objects of `text`; `file` is only used to say where they came from.
#[must_use]
pub fn parse(file: &str, text: &str) -> Stream {
    let mut stream = Stream::default();
    let file: Arc<str> = file.into();
    if text.len() > MAX_TEXT {
        let origin = Origin { file, document: 1, line: 1 };
        let message = format!("the file is larger than {MAX_TEXT} bytes");
        stream.findings.push(Finding::error("", message).within(&origin));
        return stream;
    }
    for (document, (line, text)) in documents(text).into_iter().enumerate() {
        let origin = Origin { file: Arc::clone(&file), document: document + 1, line };
        if document >= MAX_DOCUMENTS {
            let message = format!("more than {MAX_DOCUMENTS} documents in one file");
            stream.findings.push(Finding::error("", message).within(&origin));
            return stream;
        }
        match value(&text) {
            Ok(Value::Null) => {}
            Ok(value) => collect(value, &origin, 0, &mut stream),
            Err(error) => stream.findings.push(unparsable(&error, &origin)),
        }
    }
    stream
}

/// Reads one YAML or JSON document as a value; an empty one is null.
///
/// # Errors
/// The parser's error, with the line within the text.
pub fn value(text: &str) -> Result<Value, Box<serde_saphyr::Error>> {
    if is_blank(text) {
        return Ok(Value::Null);
    }
    let mut value = serde_saphyr::from_str_with_options(text, yaml_options()).map_err(Box::new)?;
    mend_addresses(&mut value);
    Ok(value)
}

/// `[2001:db8::]` is a list of one mapping in YAML 1.2, of one text for `kubectl`, which reads
/// YAML 1.1. Mapping an address to nothing is never meant.
fn mend_addresses(value: &mut Value) {
    match value {
        Value::Array(items) => {
            for item in items {
                match address(item) {
                    Some(text) => *item = Value::String(text),
                    None => mend_addresses(item),
                }
            }
        }
        Value::Object(members) => members.values_mut().for_each(mend_addresses),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The address that a mapping of its front to nothing stands for.
fn address(item: &Value) -> Option<String> {
    let members = item.as_object().filter(|members| members.len() == 1)?;
    let (front, nothing) = members.iter().next()?;
    let text = format!("{front}:");
    let is_address = nothing.is_null() && text.ends_with("::") && text.parse::<Ipv6Addr>().is_ok();
    is_address.then_some(text)
}

/// Reads one YAML or JSON document into `T`, as configuration files that are no objects are read.
///
/// # Errors
/// A finding with line or field path.
pub fn document<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> Result<T, Finding> {
    let origin = Origin { file: file.into(), document: 1, line: 1 };
    let value = value(text).map_err(|error| unparsable(&error, &origin))?;
    decode("", value).map_err(|finding| Finding { file: Some(file.to_owned()), ..finding })
}

fn yaml_options() -> Options {
    options! { legacy_octal_numbers: true }
}

fn is_blank(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#') || line == "...")
}

fn unparsable(error: &serde_saphyr::Error, origin: &Origin) -> Finding {
    let error = error.without_snippet();
    let message = error.to_string();
    let message = message.lines().next().unwrap_or_default().to_owned();
    let inner = error.location().and_then(|location| usize::try_from(location.line()).ok());
    let line = origin.line + inner.unwrap_or(1).saturating_sub(1);
    let finding = Finding::error("", format!("not valid YAML: {message}")).within(origin);
    Finding { line: Some(line), ..finding }
}

/// Splits at `---` lines; each part with the line it starts at, from 1.
fn documents(text: &str) -> Vec<(usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut start = 1;
    for (index, line) in text.lines().enumerate() {
        let separator = line.strip_prefix("---").filter(|rest| {
            rest.is_empty() || rest.starts_with(|next: char| next.is_ascii_whitespace())
        });
        match separator {
            Some(rest) => {
                push(&mut parts, start, &part);
                part.clear();
                start = index + 1;
                part.push_str("   ");
                part.push_str(rest);
            }
            None => part.push_str(line),
        }
        part.push('\n');
    }
    push(&mut parts, start, &part);
    parts
}

fn push(parts: &mut Vec<(usize, String)>, start: usize, part: &str) {
    if is_blank(part) {
        return;
    }
    let skipped = part
        .lines()
        .take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        .count();
    let body = part.lines().skip(skipped).fold(String::new(), |mut body, line| {
        body.push_str(line);
        body.push('\n');
        body
    });
    parts.push((start + skipped, body));
}

fn collect(value: Value, origin: &Origin, depth: usize, stream: &mut Stream) {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| {
        kind == "List"
            || (kind.ends_with("List") && value.get("items").is_some_and(Value::is_array))
    });
    if !is_list {
        match object(value, origin) {
            Ok(object) => stream.objects.push(object),
            Err(finding) => stream.findings.push(finding.within(origin)),
        }
        return;
    }
    if depth >= MAX_LIST_DEPTH {
        let message = format!("lists are nested deeper than {MAX_LIST_DEPTH}");
        stream.findings.push(Finding::error("items", message).within(origin));
        return;
    }
    let Value::Object(mut members) = value else { return };
    match members.remove("items") {
        Some(Value::Array(items)) => {
            for item in items {
                collect(item, origin, depth + 1, stream);
            }
        }
        Some(Value::Null) | None => {}
        Some(_) => {
            let finding = Finding::error("items", "items of a List must be a list");
            stream.findings.push(finding.within(origin));
        }
    }
}

fn object(value: Value, origin: &Origin) -> Result<Object, Finding> {
    if !value.is_object() {
        return Err(Finding::error("", "not a Kubernetes object: a mapping is expected"));
    }
    let text = |field: &str| match value.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Null | Value::String(_)) | None => {
            Err(Finding::error(field, format!("{field} is missing")))
        }
        Some(_) => Err(Finding::error(field, format!("{field} must be a string"))),
    };
    let api_version = text("apiVersion")?;
    let kind = text("kind")?;
    let metadata = value.get("metadata").cloned().unwrap_or(Value::Null);
    let metadata: ObjectMeta = decode("metadata", metadata).map_err(|finding| {
        let reference = Box::new(ObjectRef::new(&kind, "", ""));
        Finding { object: Some(reference), ..finding }
    })?;
    Ok(Object { api_version, kind, metadata, value, origin: origin.clone() })
}

#[cfg(test)]
mod tests;
