//! Durations as configuration writes them: protobuf JSON (`1.5s`) and Go (`1m30s`, `250ms`).
//!
//! Negative durations are refused: nothing in the mesh waits a negative time.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a duration: write it like 1.5s, 250ms or 1m30s")]
pub struct DurationError(String);

/// Nanoseconds of each unit. Longer unit names come first so that `ms` is not read as `m`.
const UNITS: [(&str, u128); 7] = [
    ("ms", 1000000),
    ("us", 1000),
    ("µs", 1000),
    ("ns", 1),
    ("h", 3600000000000),
    ("m", 60000000000),
    ("s", 1000000000),
];

/// Largest duration: about 292 years, Go's limit.
const MAX_NANOSECONDS: u64 = i64::MAX.unsigned_abs();

/// Reads a duration.
///
/// # Errors
/// When the text has no unit, an unknown unit, a sign, or is too large.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds = 0_u128;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let (unit, size) =
            UNITS.iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(wrong)?;
        let part = scaled(number, *size).ok_or_else(wrong)?;
        nanoseconds = nanoseconds.checked_add(part).ok_or_else(wrong)?;
        rest = after.get(unit.len()..).unwrap_or_default();
    }
    let nanoseconds = u64::try_from(nanoseconds).ok().filter(|n| *n <= MAX_NANOSECONDS);
    nanoseconds.map(Duration::from_nanos).ok_or_else(wrong)
}

/// A decimal number times `size`, exactly; digits past a nanosecond are dropped.
fn scaled(number: &str, size: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    // Eighteen digits are finer than a nanosecond of an hour.
    let fraction = fraction.get(..fraction.len().min(18))?;
    let part =
        digits(fraction)?.checked_mul(size)? / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(size)?.checked_add(part)
}

/// For `#[serde(deserialize_with)]`: a duration, where the field may be absent.
///
/// # Errors
/// When the value is not a string that [`parse`] takes.
pub fn optional<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(input)?;
    text.map(|text| parse(&text).map_err(de::Error::custom)).transpose()
}

/// Protobuf JSON form, such as `1.5s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        return format!("{}s", duration.as_secs());
    }
    let digits = format!("{:09}", duration.subsec_nanos());
    format!("{}.{}s", duration.as_secs(), digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::{format, parse};
    use proptest::prelude::{prop_assert_eq, proptest};
    use std::time::Duration;

    #[test]
    fn both_spellings_are_read() {
        let cases = [
            ("1.5s", 1_500),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("0", 0),
            ("0.001s", 1),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "5", "s", "-1s", "1d", "1s2", "1..2s", "99999999999h", "1 s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(milliseconds in 0_u64..1_000_000_000_000) {
            let duration = Duration::from_millis(milliseconds);
            let back = parse(&format(duration)).unwrap();
            prop_assert_eq!(back.as_millis(), duration.as_millis());
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ignored = parse(&text);
        }
    }
}
