//! Regular expressions.
//!
//! In time that is linear in pattern times text; large patterns are refused.

use regex::{Regex, RegexBuilder};

use super::super::limits::room;
use super::super::syntax::{Call, Entry, How, Made};
use super::super::value::Value;
use super::{int, text};

/// Largest compiled pattern, bytes.
const COMPILED: usize = 64 * 1024;
/// Longest text that patterns are tried on, bytes.
const LONGEST: usize = 16 * 1024;

pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("regexMatch", (2, 2), |call| Ok(regex(call, 1)?.is_match(text(call, 1)?).into()))
        .called(How::Matches),
    Entry::new("mustRegexMatch", (2, 2), |call| {
        Ok(regex(call, 1)?.is_match(text(call, 1)?).into())
    })
    .called(How::Matches),
    Entry::new("regexFind", (2, 2), find).called(How::Matches),
    Entry::new("mustRegexFind", (2, 2), find).called(How::Matches),
    Entry::new("regexFindAll", (3, 3), find_all).called(How::Matches),
    Entry::new("mustRegexFindAll", (3, 3), find_all).called(How::Matches),
    Entry::new("regexReplaceAll", (3, 3), |call| replace(call, true)).called(How::Matches),
    Entry::new("mustRegexReplaceAll", (3, 3), |call| replace(call, true)).called(How::Matches),
    Entry::new("regexReplaceAllLiteral", (3, 3), |call| replace(call, false)).called(How::Matches),
    Entry::new("mustRegexReplaceAllLiteral", (3, 3), |call| replace(call, false))
        .called(How::Matches),
    Entry::new("regexSplit", (3, 3), split).called(How::Matches),
    Entry::new("mustRegexSplit", (3, 3), split).called(How::Matches),
    Entry::new("regexQuoteMeta", (1, 1), |call| Ok(regex::escape(text(call, 0)?).into())),
];

/// The pattern, for the text in argument `subject`.
fn regex(call: &Call<'_>, subject: usize) -> Result<Regex, String> {
    if text(call, subject)?.len() > LONGEST {
        return Err(format!("argument {}: longer than {LONGEST} bytes", subject + 1));
    }
    let pattern = text(call, 0)?;
    let built = RegexBuilder::new(pattern).size_limit(COMPILED).dfa_size_limit(COMPILED).build();
    built.map_err(|error| format!("pattern {pattern:?}: {error}").replace('\n', " "))
}

fn find(call: &Call<'_>) -> Made {
    let regex = regex(call, 1)?;
    Ok(regex.find(text(call, 1)?).map_or("", |found| found.as_str()).into())
}

/// The most matches: a negative number means all.
fn most(call: &Call<'_>) -> Result<usize, String> {
    Ok(usize::try_from(int(call, 2)?).unwrap_or(usize::MAX))
}

fn find_all(call: &Call<'_>) -> Made {
    let regex = regex(call, 1)?;
    let found = regex.find_iter(text(call, 1)?).take(most(call)?);
    Value::list(found.map(|found| found.as_str().into()).collect())
}

fn replace(call: &Call<'_>, expands: bool) -> Made {
    let regex = regex(call, 1)?;
    let (subject, with) = (text(call, 1)?, text(call, 2)?);
    let groups = if expands { with.matches('$').count() } else { 0 };
    let mut out = String::new();
    let mut end = 0;
    for captures in regex.captures_iter(subject) {
        let Some(found) = captures.get(0) else { continue };
        out.push_str(&subject[end..found.start()]);
        let expanded = with.len().saturating_add(groups.saturating_mul(found.len()));
        room(out.len().saturating_add(expanded))?;
        if expands {
            captures.expand(with, &mut out);
        } else {
            out.push_str(with);
        }
        end = found.end();
    }
    out.push_str(&subject[end..]);
    Ok(out.into())
}

fn split(call: &Call<'_>) -> Made {
    let regex = regex(call, 1)?;
    let subject = text(call, 1)?;
    let parts: Vec<Value> = match int(call, 2)? {
        0 => Vec::new(),
        most if most > 0 => {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            regex.splitn(subject, most).map(Value::from).collect()
        }
        _ => regex.split(subject).map(Value::from).collect(),
    };
    Value::list(parts)
}
