//! Lists.

use super::super::builtins::same;
use super::super::limits::room;
use super::super::syntax::{ANY, Call, Entry, How, Made};
use super::super::value::Value;
use super::{count, int, list, shown};

pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("list", (0, ANY), |call| Value::list(call.args.to_vec())).called(How::Builds),
    Entry::new("tuple", (0, ANY), |call| Value::list(call.args.to_vec())).called(How::Builds),
    Entry::new("first", (1, 1), |call| Ok(list(call, 0)?.first().cloned().unwrap_or_default()))
        .called(How::Passes),
    Entry::new("last", (1, 1), |call| Ok(list(call, 0)?.last().cloned().unwrap_or_default()))
        .called(How::Passes),
    Entry::new("rest", (1, 1), |call| {
        Value::list(list(call, 0)?.iter().skip(1).cloned().collect())
    })
    .called(How::Builds),
    Entry::new("initial", (1, 1), |call| {
        let items = list(call, 0)?;
        Value::list(items[..items.len().saturating_sub(1)].to_vec())
    }),
    Entry::new("append", (2, 2), append).called(How::Builds),
    Entry::new("push", (2, 2), append).called(How::Builds),
    Entry::new("mustAppend", (2, 2), append).called(How::Builds),
    Entry::new("prepend", (2, 2), |call| {
        Value::list(std::iter::once(&call.args[1]).chain(list(call, 0)?).cloned().collect())
    })
    .called(How::Builds),
    Entry::new("concat", (0, ANY), |call| {
        let mut all = Vec::new();
        for index in 0..call.args.len() {
            all.extend_from_slice(list(call, index)?);
        }
        Value::list(all)
    }),
    Entry::new("reverse", (1, 1), |call| {
        Value::list(list(call, 0)?.iter().rev().cloned().collect())
    }),
    Entry::new("uniq", (1, 1), |call| {
        let mut kept: Vec<Value> = Vec::new();
        let items = list(call, 0)?;
        pairs(items.len(), items.len())?;
        for item in items {
            if !kept.iter().any(|known| same(known, item)) {
                kept.push(item.clone());
            }
        }
        Value::list(kept)
    }),
    Entry::new("without", (1, ANY), |call| {
        let (items, gone) = (list(call, 0)?, &call.args[1..]);
        pairs(items.len(), gone.len())?;
        let kept = items.iter().filter(|item| !gone.iter().any(|gone| same(gone, item)));
        Value::list(kept.cloned().collect())
    }),
    Entry::new("has", (2, 2), |call| {
        Ok(list(call, 1)?.iter().any(|item| same(item, &call.args[0])).into())
    }),
    Entry::new("compact", (1, 1), |call| {
        Value::list(list(call, 0)?.iter().filter(|item| item.is_true()).cloned().collect())
    }),
    Entry::new("sortAlpha", (1, 1), |call| {
        let words: Result<Vec<String>, String> = list(call, 0)?.iter().map(shown).collect();
        let mut words = words?;
        words.sort();
        Value::list(words.into_iter().map(Value::from).collect())
    }),
    Entry::new("chunk", (2, 2), |call| {
        let size = count(call, 0)?.max(1);
        let chunks = list(call, 1)?.chunks(size).map(|chunk| Value::list(chunk.to_vec()));
        Value::list(chunks.collect::<Result<_, _>>()?)
    }),
    Entry::new("until", (1, 1), |call| {
        steps(0, int(call, 0)?, if int(call, 0)? < 0 { -1 } else { 1 })
    }),
    Entry::new("untilStep", (3, 3), |call| steps(int(call, 0)?, int(call, 1)?, int(call, 2)?)),
    Entry::new("seq", (1, 3), sequence),
];

fn append(call: &Call<'_>) -> Made {
    Value::list(list(call, 0)?.iter().chain([&call.args[1]]).cloned().collect())
}

/// Every element is compared with every other.
fn pairs(a: usize, b: usize) -> Result<(), String> {
    room(a.saturating_mul(b).saturating_mul(8))
}

/// Numbers from `start`, before `stop`.
fn steps(start: i64, stop: i64, step: i64) -> Made {
    if step == 0 || (step > 0) != (stop > start) || start == stop {
        return Value::list(Vec::new());
    }
    let len = (i128::from(stop) - i128::from(start)) / i128::from(step);
    room(usize::try_from(len).unwrap_or(usize::MAX).saturating_mul(24))?;
    let mut numbers = Vec::new();
    let mut next = Some(start);
    while let Some(number) = next.filter(|n| if step > 0 { *n < stop } else { *n > stop }) {
        numbers.push(Value::Int(number));
        next = number.checked_add(step);
    }
    Value::list(numbers)
}

/// Numbers up to and with the last, as a text.
fn sequence(call: &Call<'_>) -> Made {
    let last = int(call, call.args.len() - 1)?;
    let first = if call.args.len() > 1 { int(call, 0)? } else { 1 };
    let down = if last < first { -1 } else { 1 };
    let step = if call.args.len() > 2 { int(call, 1)? } else { down };
    let beyond = if step < 0 { last.saturating_sub(1) } else { last.saturating_add(1) };
    let numbers = steps(first, beyond, step)?;
    let Value::List(numbers) = &numbers else { return Ok(Value::text("")) };
    let texts: Result<Vec<String>, String> = numbers.items.iter().map(shown).collect();
    Ok(texts?.join(" ").into())
}
