//! Number and character literals, as Go writes them.

use super::lexer::unescape;
use super::value::Value;

/// The value of a literal.
///
/// # Errors
/// It is none.
pub(super) fn literal(text: &str) -> Result<Value, String> {
    let wrong = || format!("bad number syntax: {text:?}");
    if let Some(inside) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        let text = unescape(inside)?;
        let mut characters = text.chars();
        return match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(Value::Int(i64::from(u32::from(character)))),
            _ => Err(wrong()),
        };
    }
    if let Some(value) = integer(text) {
        return Ok(Value::Int(value));
    }
    let digits = text.replace('_', "");
    let known = digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match digits.parse::<f64>() {
        Ok(value) if known && value.is_finite() => Ok(Value::Float(value)),
        _ => Err(wrong()),
    }
}

/// A whole number in any of Go's bases.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = rest.to_ascii_lowercase().replace('_', "");
    if !lower.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (base, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(digits, base).ok()?;
    i64::try_from(if negative { -value } else { value }).ok()
}
