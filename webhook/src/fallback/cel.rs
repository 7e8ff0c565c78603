//! Plain data as text of the Common Expression Language.
//!
//! Values are wrapped in `dyn`, because the API server takes lists and maps only of one type.
//! Must not know pods.

use serde_json::Value;

/// A text and the expression it stands for.
pub(super) type Marker = (&'static str, &'static str);

/// The value as an expression, with markers in its texts replaced by what they stand for.
pub(super) fn literal(value: &Value, markers: &[Marker]) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => interpolated(text, markers),
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(|item| wrapped(item, markers)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let fields = map
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), wrapped(value, markers)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

fn wrapped(value: &Value, markers: &[Marker]) -> String {
    format!("dyn({})", literal(value, markers))
}

/// A text literal.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The text as a sum of literals and what its markers stand for.
fn interpolated(text: &str, markers: &[Marker]) -> String {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((at, (marker, expression))) = first(rest, markers) {
        if at > 0 {
            parts.push(quoted(&rest[..at]));
        }
        parts.push(expression.to_owned());
        rest = &rest[at + marker.len()..];
    }
    if parts.is_empty() || !rest.is_empty() {
        parts.push(quoted(rest));
    }
    parts.join(" + ")
}

fn first(text: &str, markers: &[Marker]) -> Option<(usize, Marker)> {
    let found = markers.iter().filter_map(|marker| Some((text.find(marker.0)?, *marker)));
    found.min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::{literal, quoted};
    use serde_json::json;

    #[test]
    fn values_become_expressions() {
        let value = json!({"a": ["x", 1, true, null], "b": {}});
        assert_eq!(
            literal(&value, &[]),
            r#"{"a": dyn(["#.to_owned()
                + r#"dyn("x"), dyn(1), dyn(true), dyn(null)]), "b": dyn({})}"#
        );
    }

    #[test]
    fn markers_become_what_they_stand_for() {
        let markers = [("@{n}", "variables.name"), ("@{ns}", "request.namespace")];
        for (text, expression) in [
            ("@{n}", "variables.name"),
            ("a@{n}", r#""a" + variables.name"#),
            ("@{ns}/@{n}!", r#"request.namespace + "/" + variables.name + "!""#),
            ("", r#""""#),
        ] {
            assert_eq!(literal(&json!(text), &markers), expression);
        }
    }

    #[test]
    fn no_text_ends_its_literal() {
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\u000ad""#);
    }
}
