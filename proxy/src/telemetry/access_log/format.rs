//! Format strings with `%OPERATORS%`, taken apart once.

use super::Entry;
use super::operator::Operator;
use thiserror::Error;

/// Longest format.
const MAX_FORMAT: usize = 64 << 10;

/// Why a format cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// A `%` without its partner.
    #[error("access log format: `%` at byte {0} has no partner (write `%%` for a percent sign)")]
    Open(usize),
    /// An operator is not known.
    #[error("access log format: operator `%{0}%` is not supported")]
    Operator(String),
    /// Too long.
    #[error("access log format is longer than {MAX_FORMAT} bytes")]
    TooLong,
}

#[derive(Debug)]
pub(super) enum Part {
    Literal(String),
    Operator(Operator),
}

/// A format taken apart.
#[derive(Debug)]
pub(super) struct Template(pub(super) Vec<Part>);

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, FormatError> {
        if text.len() > MAX_FORMAT {
            return Err(FormatError::TooLong);
        }
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(start) = rest.find('%') {
            literal.push_str(&rest[..start]);
            let inner = &rest[start + 1..];
            if let Some(after) = inner.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let at = text.len() - rest.len() + start;
            let end = end_of(inner).ok_or(FormatError::Open(at))?;
            let operator = Operator::parse(&inner[..end])
                .ok_or_else(|| FormatError::Operator(inner[..end].to_owned()))?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Operator(operator));
            rest = &inner[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    pub(super) fn write(&self, entry: &Entry<'_>, line: &mut String) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => line.push_str(text),
                Part::Operator(operator) => {
                    let before = line.len();
                    operator.write(entry, line);
                    if line.len() == before {
                        line.push('-');
                    }
                }
            }
        }
    }
}

/// Where the closing `%` is; those inside of parentheses (time formats) do not count.
fn end_of(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'%' if depth == 0 => return Some(place),
            _ => {}
        }
    }
    None
}
