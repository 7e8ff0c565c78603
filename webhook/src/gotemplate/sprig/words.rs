//! Texts as words: the case of letters, abbreviations, line breaks.

use super::super::limits::room;
use super::super::syntax::{Call, Entry, Made};
use super::super::value::Value;
use super::{count, int, text};

pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("title", (1, 1), |call| Ok(first_letters(text(call, 0)?, upper))),
    Entry::new("untitle", (1, 1), |call| Ok(first_letters(text(call, 0)?, lower))),
    Entry::new("swapcase", (1, 1), |call| {
        let swap = |c: char| if c.is_uppercase() { lower(c) } else { upper(c) };
        Ok(text(call, 0)?.chars().map(swap).collect::<String>().into())
    }),
    Entry::new("initials", (1, 1), |call| {
        let words = text(call, 0)?.split_whitespace();
        Ok(words.filter_map(|word| word.chars().next()).collect::<String>().into())
    }),
    Entry::new("snakecase", (1, 1), |call| Ok(parts(text(call, 0)?).join("_").into())),
    Entry::new("kebabcase", (1, 1), |call| Ok(parts(text(call, 0)?).join("-").into())),
    Entry::new("camelcase", (1, 1), |call| {
        let words = parts(text(call, 0)?);
        Ok(words.iter().map(|word| capital(word)).collect::<String>().into())
    }),
    Entry::new("plural", (3, 3), |call| {
        Ok(text(call, if int(call, 2)? == 1 { 0 } else { 1 })?.into())
    }),
    Entry::new("abbrev", (2, 2), abbreviation),
    Entry::new("wrap", (2, 2), |call| wrapped(text(call, 1)?, (count(call, 0)?, "\n", false))),
    Entry::new("wrapWith", (3, 3), |call| {
        wrapped(text(call, 2)?, (count(call, 0)?, text(call, 1)?, true))
    }),
];

fn upper(c: char) -> char {
    c.to_uppercase().next().unwrap_or(c)
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(upper).into_iter().chain(letters).collect()
}

/// The text with another first letter in every word.
fn first_letters(text: &str, change: fn(char) -> char) -> Value {
    let mut inside = false;
    let changed: String = text
        .chars()
        .map(|c| {
            let first = !std::mem::replace(&mut inside, c.is_alphanumeric() || c == '_');
            if first { change(c) } else { c }
        })
        .collect();
    changed.into()
}

/// Words in small letters, split where the case changes and at separators.
fn parts(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut words = vec![String::new()];
    for (index, c) in letters.iter().enumerate() {
        if matches!(c, '_' | '-' | ' ' | '.') {
            words.push(String::new());
            continue;
        }
        let before = index.checked_sub(1).and_then(|before| letters.get(before));
        let after = letters.get(index + 1);
        let begins = c.is_uppercase()
            && (before.is_some_and(|c| c.is_lowercase() || c.is_ascii_digit())
                || (before.is_some_and(|c| c.is_uppercase())
                    && after.is_some_and(|c| c.is_lowercase())));
        if begins {
            words.push(String::new());
        }
        words.iter_mut().last().into_iter().for_each(|word| word.extend(c.to_lowercase()));
    }
    words.retain(|word| !word.is_empty());
    words
}

fn abbreviation(call: &Call<'_>) -> Made {
    let (width, text) = (count(call, 0)?, text(call, 1)?);
    if width < 4 || text.chars().count() <= width {
        return Ok(text.into());
    }
    let kept: String = text.chars().take(width - 3).collect();
    Ok(format!("{kept}...").into())
}

/// Lines of at most so many characters; a longer word stands alone, or is cut.
fn wrapped(text: &str, (width, line_end, cuts): (usize, &str, bool)) -> Made {
    let width = width.max(1);
    room(text.len().saturating_add(text.len().saturating_mul(line_end.len())))?;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        let pieces: Vec<String> = if cuts && letters.len() > width {
            letters.chunks(width).map(|piece| piece.iter().collect()).collect()
        } else {
            vec![word.to_owned()]
        };
        for piece in pieces {
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + piece.chars().count() <= width => {
                    line.push(' ');
                    line.push_str(&piece);
                }
                _ => lines.push(piece),
            }
        }
    }
    Ok(lines.join(line_end).into())
}
