//! How Go writes values: `fmt.Sprint` and `fmt.Sprintf`.
//!
//! Must not know templates.

use std::fmt::Write as _;

use super::limits::room;
use super::value::Value;

/// Widest field and longest fraction that a format may ask for.
const WIDEST: usize = 10_000;

/// As an action writes it.
///
/// # Errors
/// It would be too long.
pub(super) fn display(value: &Value) -> Result<String, String> {
    match value {
        Value::Nil => Ok("<no value>".to_owned()),
        other => sprint(other),
    }
}

impl Value {
    /// As `%v` prints it.
    ///
    /// # Errors
    /// It would be too long.
    pub(crate) fn printed(&self) -> Result<String, String> {
        sprint(self)
    }
}

/// `%v`.
pub(super) fn sprint(value: &Value) -> Result<String, String> {
    room(value.bytes())?;
    let mut out = String::new();
    plain(value, &mut out);
    Ok(out)
}

fn plain(value: &Value, out: &mut String) {
    match value {
        Value::Nil => out.push_str("<nil>"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Float(value) => out.push_str(&float(*value)),
        Value::Text(text) => out.push_str(text),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                plain(item, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push_str("map[");
            for (index, (key, value)) in map.entries.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                plain(value, out);
            }
            out.push(']');
        }
    }
}

/// A number as Go's `%v` has it: shortest, with an exponent where it is very large or small.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        return exponent(format!("{value:e}"), 'e');
    }
    value.to_string()
}

/// Rust's exponent as Go writes it: a sign and two digits.
fn exponent(text: String, letter: char) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}{letter}{sign}{exponent:0>2}")
}

/// Several values as `fmt.Sprint` joins them: spaces between two that are no texts.
pub(super) fn sprint_all(values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        let spaced = index > 0
            && !matches!(value, Value::Text(_))
            && !matches!(values[index - 1], Value::Text(_));
        if spaced {
            out.push(' ');
        }
        out.push_str(&sprint(value)?);
        room(out.len())?;
    }
    Ok(out)
}

/// Flags of a verb.
#[derive(Debug, Default)]
struct Verb {
    flags: String,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `fmt.Sprintf`.
///
/// # Errors
/// It would be too long.
pub(super) fn sprintf(format: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    let mut next = 0;
    while let Some(c) = rest.next() {
        room(out.len())?;
        if c != '%' {
            out.push(c);
            continue;
        }
        let Some(verb) = Verb::read(&mut rest, args, &mut next) else {
            out.push_str("%!(BADWIDTH)");
            continue;
        };
        let Some(letter) = rest.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if letter == '%' {
            out.push('%');
            continue;
        }
        let Some(arg) = args.get(next) else {
            let _ = write!(out, "%!{letter}(MISSING)");
            continue;
        };
        next += 1;
        let text = verb.format(letter, arg)?;
        out.push_str(&verb.pad(text, arg));
    }
    for (index, extra) in args.iter().enumerate().skip(next) {
        out.push_str(if index == next { "%!(EXTRA " } else { ", " });
        let _ = write!(out, "{}={}", extra.type_name(), sprint(extra)?);
        if index + 1 == args.len() {
            out.push(')');
        }
    }
    Ok(out)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

impl Verb {
    /// Flags, width and precision; `None` if one is too large.
    fn read(rest: &mut Chars<'_>, args: &[Value], next: &mut usize) -> Option<Self> {
        let mut verb = Self::default();
        while let Some(flag) = rest.next_if(|c| "-+# 0".contains(*c)) {
            verb.flags.push(flag);
        }
        verb.width = number(rest, args, next)?;
        if rest.next_if_eq(&'.').is_some() {
            verb.precision = Some(number(rest, args, next)?.unwrap_or_default());
        }
        Some(verb)
    }

    fn format(&self, letter: char, arg: &Value) -> Result<String, String> {
        let text = match (letter, arg) {
            ('v', Value::Int(_) | Value::Float(_)) if self.flags.contains('+') => {
                self.signed(sprint(arg)?)
            }
            ('v', Value::Text(text)) if self.flags.contains('#') => quoted(text),
            ('v', _) => sprint(arg)?,
            ('T', _) => arg.type_name().to_owned(),
            ('t', Value::Bool(value)) => value.to_string(),
            ('d', Value::Int(value)) => self.signed(value.to_string()),
            ('b', Value::Int(value)) => based(*value, |n| format!("{n:b}")),
            ('o', Value::Int(value)) => based(*value, |n| format!("{n:o}")),
            ('x', Value::Int(value)) => self.prefixed("0x", based(*value, |n| format!("{n:x}"))),
            ('X', Value::Int(value)) => self.prefixed("0X", based(*value, |n| format!("{n:X}"))),
            ('c', Value::Int(value)) => character(*value).to_string(),
            ('q', Value::Int(value)) => format!("{:?}", character(*value)),
            ('U', Value::Int(value)) => format!("U+{value:04X}"),
            ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Float(value)) => {
                self.signed(self.float(letter, *value))
            }
            ('s', Value::Text(text)) => self.cut(text),
            ('q', Value::Text(text)) => quoted(&self.cut(text)),
            ('x', Value::Text(text)) => hex(text, |b| format!("{b:02x}")),
            ('X', Value::Text(text)) => hex(text, |b| format!("{b:02X}")),
            ('s' | 'd' | 'q' | 't' | 'f' | 'x', Value::List(list)) => {
                let items = list.items.iter().map(|item| self.format(letter, item));
                format!("[{}]", items.collect::<Result<Vec<_>, _>>()?.join(" "))
            }
            (_, Value::Nil) => format!("%!{letter}(<nil>)"),
            _ => format!("%!{letter}({}={})", arg.type_name(), sprint(arg)?),
        };
        room(text.len())?;
        Ok(text)
    }

    fn signed(&self, text: String) -> String {
        if text.starts_with(['-', '+']) {
            text
        } else if self.flags.contains('+') {
            format!("+{text}")
        } else if self.flags.contains(' ') {
            format!(" {text}")
        } else {
            text
        }
    }

    fn prefixed(&self, prefix: &str, text: String) -> String {
        match text.strip_prefix('-') {
            _ if !self.flags.contains('#') => text,
            Some(digits) => format!("-{prefix}{digits}"),
            None => format!("{prefix}{text}"),
        }
    }

    fn float(&self, letter: char, value: f64) -> String {
        match (letter, self.precision) {
            ('f' | 'F', precision) => format!("{value:.*}", precision.unwrap_or(6)),
            ('e', precision) => exponent(format!("{value:.*e}", precision.unwrap_or(6)), 'e'),
            ('E', precision) => exponent(format!("{value:.*e}", precision.unwrap_or(6)), 'E'),
            (_, None) => float(value),
            (_, Some(precision)) => {
                // So many digits in all, without zeros at the end.
                let digits = precision.max(1) - 1;
                let rounded = format!("{value:.digits$e}").parse().unwrap_or(value);
                float(rounded)
            }
        }
    }

    fn cut(&self, text: &str) -> String {
        self.precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect())
    }

    fn pad(&self, text: String, arg: &Value) -> String {
        let Some(missing) = self.width.and_then(|width| width.checked_sub(text.chars().count()))
        else {
            return text;
        };
        if self.flags.contains('-') {
            return text + &" ".repeat(missing);
        }
        if !self.flags.contains('0') {
            return " ".repeat(missing) + &text;
        }
        let zeros = "0".repeat(missing);
        match text.strip_prefix(['-', '+']) {
            Some(digits) if matches!(arg, Value::Int(_) | Value::Float(_)) => {
                format!("{}{zeros}{digits}", &text[..1])
            }
            _ => zeros + &text,
        }
    }
}

/// A width: digits, or `*` for an argument. `None`: too large.
fn number(rest: &mut Chars<'_>, args: &[Value], next: &mut usize) -> Option<Option<usize>> {
    if rest.next_if_eq(&'*').is_some() {
        let given = args.get(*next);
        *next += 1;
        let Some(Value::Int(width)) = given else { return None };
        let width = usize::try_from(*width).ok().filter(|width| *width <= WIDEST)?;
        return Some(Some(width));
    }
    let mut width = None;
    while let Some(digit) = rest.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
        let digit = usize::try_from(digit).ok()?;
        let wider = width.unwrap_or(0usize).saturating_mul(10).saturating_add(digit);
        width = Some(wider);
    }
    (width.unwrap_or_default() <= WIDEST).then_some(width)
}

fn based(value: i64, digits: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", digits(value.unsigned_abs()))
}

fn character(value: i64) -> char {
    u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}')
}

fn hex(text: &str, digits: impl Fn(u8) -> String) -> String {
    text.bytes().map(digits).collect()
}

/// A text in quotes, as Go quotes it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
