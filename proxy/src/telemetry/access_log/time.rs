//! Times in access logs: ISO 8601 by default, else the usual `strftime` letters.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A letter of `strftime`.
    Letter(char),
    /// `%<digits>f`: a fraction of the second.
    Fraction(u32),
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimeFormat(Option<Vec<Piece>>);

impl TimeFormat {
    /// Milliseconds in UTC: `2026-11-23T02:23:49.123Z`.
    pub(super) const ISO: Self = Self(None);

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mut pieces, mut literal, mut chars) = (Vec::new(), String::new(), text.chars());
        while let Some(c) = chars.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            let piece = match chars.next()? {
                '%' => {
                    literal.push('%');
                    continue;
                }
                digit @ '1'..='9' => {
                    (chars.next()? == 'f').then_some(Piece::Fraction(digit.to_digit(10)?))?
                }
                'f' => Piece::Fraction(9),
                letter if "YmdHMSsFTyejbBaAZz".contains(letter) => Piece::Letter(letter),
                _ => return None,
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Some(Self(Some(pieces)))
    }

    pub(super) fn write(&self, at: SystemTime, line: &mut String) {
        let date = OffsetDateTime::from(at);
        let Some(pieces) = &self.0 else {
            letter('F', date, at, line);
            line.push('T');
            letter('T', date, at, line);
            let _infallible = write!(line, ".{:03}Z", date.millisecond());
            return;
        };
        for piece in pieces {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Letter(c) => letter(*c, date, at, line),
                Piece::Fraction(digits) => {
                    let nanos = format!("{:09}", date.nanosecond());
                    line.push_str(&nanos[..*digits as usize]);
                }
            }
        }
    }
}

fn letter(letter: char, date: OffsetDateTime, at: SystemTime, line: &mut String) {
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = (date.hour(), date.minute(), date.second());
    let _infallible = match letter {
        'Y' => write!(line, "{year:04}"),
        'y' => write!(line, "{:02}", year.rem_euclid(100)),
        'm' => write!(line, "{month:02}"),
        'd' => write!(line, "{day:02}"),
        'e' => write!(line, "{day:2}"),
        'j' => write!(line, "{:03}", date.ordinal()),
        'H' => write!(line, "{hour:02}"),
        'M' => write!(line, "{minute:02}"),
        'S' => write!(line, "{second:02}"),
        'F' => write!(line, "{year:04}-{month:02}-{day:02}"),
        'T' => write!(line, "{hour:02}:{minute:02}:{second:02}"),
        'B' => write!(line, "{}", date.month()),
        'b' => write!(line, "{:.3}", date.month().to_string()),
        'A' => write!(line, "{}", date.weekday()),
        'a' => write!(line, "{:.3}", date.weekday().to_string()),
        'Z' => write!(line, "UTC"),
        'z' => write!(line, "+0000"),
        _ => {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            write!(line, "{}", since.as_secs())
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_asked() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_045);
        let write = |format: &TimeFormat| {
            let mut line = String::new();
            format.write(at, &mut line);
            line
        };
        assert_eq!(write(&TimeFormat::ISO), "2023-11-14T22:13:20.045Z");
        let custom = TimeFormat::parse("%d/%b/%Y:%H:%M:%S %z %3f %s %%").unwrap();
        assert_eq!(write(&custom), "14/Nov/2023:22:13:20 +0000 045 1700000000 %");
        assert_eq!(TimeFormat::parse("%Q"), None);
        assert_eq!(TimeFormat::parse("%"), None);
    }
}
