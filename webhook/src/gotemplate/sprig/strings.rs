//! Texts: cutting, joining, quoting, indenting.

use std::sync::Arc;

use super::super::format::quoted;
use super::super::limits::room;
use super::super::syntax::{ANY, Call, Entry, Made};
use super::super::value::{Kind, Value};
use super::{count, int, shown, text, texts};

pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("trim", (1, 1), |call| Ok(text(call, 0)?.trim().into())),
    Entry::new("trimAll", (2, 2), trim_all),
    Entry::new("trimall", (2, 2), trim_all),
    Entry::new("trimPrefix", (2, 2), |call| {
        let (prefix, text) = (text(call, 0)?, text(call, 1)?);
        Ok(text.strip_prefix(prefix).unwrap_or(text).into())
    }),
    Entry::new("trimSuffix", (2, 2), |call| {
        let (suffix, text) = (text(call, 0)?, text(call, 1)?);
        Ok(text.strip_suffix(suffix).unwrap_or(text).into())
    }),
    Entry::new("hasPrefix", (2, 2), |call| Ok(text(call, 1)?.starts_with(text(call, 0)?).into())),
    Entry::new("hasSuffix", (2, 2), |call| Ok(text(call, 1)?.ends_with(text(call, 0)?).into())),
    Entry::new("contains", (2, 2), |call| Ok(text(call, 1)?.contains(text(call, 0)?).into())),
    Entry::new("upper", (1, 1), |call| Ok(text(call, 0)?.to_uppercase().into())),
    Entry::new("lower", (1, 1), |call| Ok(text(call, 0)?.to_lowercase().into())),
    Entry::new("toLower", (1, 1), |call| Ok(text(call, 0)?.to_lowercase().into())),
    Entry::new("toUpper", (1, 1), |call| Ok(text(call, 0)?.to_uppercase().into())),
    Entry::new("trunc", (2, 2), trunc),
    Entry::new("substr", (3, 3), substr),
    Entry::new("repeat", (2, 2), repeat),
    Entry::new("replace", (3, 3), replace),
    Entry::new("nospace", (1, 1), |call| {
        Ok(text(call, 0)?.split_whitespace().collect::<String>().into())
    }),
    Entry::new("quote", (0, ANY), |call| quote(call, quoted)),
    Entry::new("squote", (0, ANY), |call| quote(call, |text| format!("'{text}'"))),
    Entry::new("cat", (0, ANY), |call| {
        let words: Result<Vec<String>, String> =
            call.args.iter().filter(|arg| **arg != Value::Nil).map(shown).collect();
        joined(&words?, " ")
    }),
    Entry::new("indent", (2, 2), |call| indented(call, "")),
    Entry::new("nindent", (2, 2), |call| indented(call, "\n")),
    Entry::new("join", (2, 2), |call| joined(&texts(&call.args[1])?, text(call, 0)?)),
    Entry::new("split", (2, 2), |call| {
        let (separator, text) = (text(call, 0)?, text(call, 1)?);
        parts(text, separator, 160)?;
        numbered(text.split(separator))
    }),
    Entry::new("splitn", (3, 3), |call| match count(call, 1)? {
        0 => numbered(std::iter::empty()),
        most => {
            let (separator, text) = (text(call, 0)?, text(call, 2)?);
            parts(text, separator, 160)?;
            numbered(text.splitn(most, separator))
        }
    }),
    Entry::new("splitList", (2, 2), |call| {
        let (separator, text) = (text(call, 0)?, text(call, 1)?);
        parts(text, separator, 64)?;
        if separator.is_empty() {
            return Value::list(text.chars().map(|c| Value::from(c.to_string())).collect());
        }
        Value::list(text.split(separator).map(Value::from).collect())
    }),
    Entry::new("toStrings", (1, 1), |call| {
        Value::list(texts(&call.args[0])?.into_iter().map(Value::from).collect())
    }),
    Entry::new("toString", (1, 1), |call| shown(&call.args[0]).map(Value::from)),
];

fn trim_all(call: &Call<'_>) -> Made {
    let (cut, text) = (text(call, 0)?, text(call, 1)?);
    Ok(text.trim_matches(|c| cut.contains(c)).into())
}

/// The first so many bytes, or the last for a negative number; whole characters.
fn trunc(call: &Call<'_>) -> Made {
    let (most, text) = (int(call, 0)?, text(call, 1)?);
    let len = usize::try_from(most.unsigned_abs()).unwrap_or(usize::MAX);
    if len >= text.len() {
        return Ok(text.into());
    }
    if most >= 0 {
        let end = (0..=len).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        return Ok(text[..end].into());
    }
    let begin = text.len() - len;
    let begin = (begin..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    Ok(text[begin..].into())
}

fn substr(call: &Call<'_>) -> Made {
    let (start, end, text) = (int(call, 0)?, int(call, 1)?, text(call, 2)?);
    let edge = |at: i64, other: usize| usize::try_from(at).unwrap_or(other).min(text.len());
    let (start, end) = (edge(start, 0), edge(end, text.len()));
    match text.get(start.min(end)..end) {
        Some(part) => Ok(part.into()),
        None => Err("would cut a character in two".to_owned()),
    }
}

fn repeat(call: &Call<'_>) -> Made {
    let (times, text) = (count(call, 0)?, text(call, 1)?);
    room(text.len().saturating_mul(times))?;
    Ok(text.repeat(times).into())
}

fn replace(call: &Call<'_>) -> Made {
    let (old, new, text) = (text(call, 0)?, text(call, 1)?, text(call, 2)?);
    let found = text.matches(old).count();
    room(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(text.replace(old, new).into())
}

fn quote(call: &Call<'_>, quote: impl Fn(&str) -> String) -> Made {
    let mut words = Vec::with_capacity(call.args.len());
    for arg in call.args.iter().filter(|arg| **arg != Value::Nil) {
        words.push(quote(&shown(arg)?));
    }
    joined(&words, " ")
}

fn joined(words: &[String], separator: &str) -> Made {
    let letters = words.iter().fold(0, |sum: usize, word| sum.saturating_add(word.len()));
    room(letters.saturating_add(separator.len().saturating_mul(words.len())))?;
    Ok(words.join(separator).into())
}

/// Every line after so many spaces.
fn indented(call: &Call<'_>, before: &str) -> Made {
    let (spaces, text) = (count(call, 0)?, text(call, 1)?);
    let lines = text.matches('\n').count() + 1;
    room(text.len().saturating_add(lines.saturating_mul(spaces)))?;
    let pad = " ".repeat(spaces);
    Ok(format!("{before}{pad}{}", text.replace('\n', &format!("\n{pad}"))).into())
}

/// Whether a text may be split into parts that take so many bytes each besides their letters.
fn parts(text: &str, separator: &str, each: usize) -> Result<(), String> {
    let found = text.matches(separator).count() + 1;
    room(text.len().saturating_add(found.saturating_mul(each)))
}

/// A map from `_0`, `_1` and so on.
fn numbered<'a>(parts: impl Iterator<Item = &'a str>) -> Made {
    let entry = |(index, part): (usize, &str)| (Arc::from(format!("_{index}")), Value::from(part));
    Value::map(parts.enumerate().map(entry).collect(), Kind::Texts)
}
