//! Writing YAML that every reader reads the same way.
//!
//! Block style; texts that any version of YAML could take for something else are quoted as in
//! JSON, which is YAML too. Must not know what documents mean.

use serde_json::{Map, Value};

/// Words that are no texts for readers of YAML 1.1.
const RESERVED: [&str; 9] = ["y", "n", "yes", "no", "true", "false", "on", "off", "null"];

/// Appends a document.
pub(crate) fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => map(members, 0, false, out),
        Value::Array(items) if !items.is_empty() => list(items, 0, false, out),
        other => scalar(other, None, out),
    }
}

/// `started`: the first member stands on a line that has begun.
fn map(members: &Map<String, Value>, indent: usize, mut started: bool, out: &mut String) {
    for (key, value) in members {
        if !std::mem::take(&mut started) {
            pad(indent, out);
        }
        if is_plain(key) {
            out.push_str(key);
        } else {
            quoted(key, out);
        }
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                map(inner, indent + 2, false, out);
            }
            // As kubectl does it: the dashes stand below the key.
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                list(items, indent, false, out);
            }
            other => {
                out.push(' ');
                scalar(other, Some(indent + 2), out);
            }
        }
    }
}

fn list(items: &[Value], indent: usize, mut started: bool, out: &mut String) {
    for item in items {
        if !std::mem::take(&mut started) {
            pad(indent, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(members) if !members.is_empty() => map(members, indent + 2, true, out),
            Value::Array(inner) if !inner.is_empty() => list(inner, indent + 2, true, out),
            other => scalar(other, Some(indent + 2), out),
        }
    }
}

/// A value that stands on its line; a text of several lines is put below where it may be.
fn scalar(value: &Value, below: Option<usize>, out: &mut String) {
    match (value, below) {
        (Value::String(text), _) if is_plain(text) => out.push_str(text),
        (Value::String(text), Some(indent)) if is_literal(text) => {
            out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
            for line in text.lines() {
                out.push('\n');
                if !line.is_empty() {
                    pad(indent, out);
                    out.push_str(line);
                }
            }
        }
        (Value::String(text), _) => quoted(text, out),
        // Empty maps and lists, numbers, booleans, null.
        (other, _) => out.push_str(&other.to_string()),
    }
    out.push('\n');
}

/// Whether a text is one without quotes, for any reader.
fn is_plain(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/');
    let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./@=,+-: ".contains(&b));
    first
        && rest
        && !text.ends_with([':', ' '])
        && !text.contains(": ")
        && !RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a text of several lines keeps every character in a literal block.
fn is_literal(text: &str) -> bool {
    let printable = |c: char| c == '\n' || !(c.is_control() || is_special(c));
    text.contains('\n')
        && text.chars().all(printable)
        && !text.starts_with([' ', '\n'])
        && !text.ends_with("\n\n")
}

fn quoted(text: &str, out: &mut String) {
    for c in Value::from(text).to_string().chars() {
        if c.is_control() || is_special(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
}

/// Line ends and marks that some readers do not keep; all of them below `\u{10000}`.
fn is_special(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use super::write;
    use serde_json::json;

    #[test]
    fn documents_look_as_people_write_them() {
        let document = json!({
            "kind": "Pod", "spec": {"containers": [
                {"name": "web", "image": "a/web:1", "args": ["-c", "sleep 1", "--", "yes", ""]},
                {"env": [], "nested": [["a", ["b"]], {}]},
            ], "port": 80, "none": null},
            "data": {"a.conf": "one\n  two\n\nthree\n", "b": "x\ny", "0": "0644", "c": "z\n\n"},
        });
        let mut text = String::new();
        write(&document, &mut text);
        let expected = r#"kind: Pod
spec:
  containers:
  - name: web
    image: a/web:1
    args:
    - "-c"
    - sleep 1
    - "--"
    - "yes"
    - ""
  - env: []
    nested:
    - - a
      - - b
    - {}
  port: 80
  none: null
data:
  a.conf: |
    one
      two

    three
  b: |-
    x
    y
  "0": "0644"
  c: "z\n\n"
"#;
        assert_eq!(text, expected);
    }
}
