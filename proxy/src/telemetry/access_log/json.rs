//! JSON lines: one object each, numbers as numbers, what is absent as `null`.

use super::Entry;
use super::format::{Part, Template};

/// Appends one object and a line end.
pub(super) fn write(fields: &[(String, Template)], entry: &Entry<'_>, line: &mut String) {
    let mut value = String::new();
    line.push('{');
    for (place, (key, template)) in fields.iter().enumerate() {
        if place > 0 {
            line.push(',');
        }
        string(key, line);
        line.push(':');
        value.clear();
        if let [Part::Operator(operator)] = template.0.as_slice() {
            operator.write(entry, &mut value);
            if value.is_empty() {
                line.push_str("null");
            } else if operator.is_number() {
                line.push_str(&value);
            } else {
                string(&value, line);
            }
        } else {
            template.write(entry, &mut value);
            string(&value, line);
        }
    }
    line.push_str("}\n");
}

fn string(text: &str, line: &mut String) {
    use std::fmt::Write;
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c < ' ' => {
                let _infallible = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}
