//! Criteria of headers, for routes, authorization and retries alike.

use super::StringMatch;

/// A header criterion.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    /// Lower-case name, pseudo headers with their colon.
    pub name: String,
    /// `None`: present is enough.
    pub value: Option<StringMatch>,
    /// A whole number of this half-open range.
    pub range: Option<(i64, i64)>,
    /// The opposite is wanted.
    pub invert: bool,
    /// An absent header counts as empty text.
    pub treat_missing_as_empty: bool,
}

impl HeaderMatch {
    /// Whether a header with this value, or its absence, is what is wanted.
    #[must_use]
    pub fn accepts(&self, value: Option<&str>) -> bool {
        if self.range.is_none() && self.value.is_none() {
            return value.is_some() != self.invert;
        }
        // An absent header meets no criterion of values, inverted or not: there is no value that
        // could differ.
        let absent = if self.treat_missing_as_empty { Some("") } else { None };
        let Some(value) = value.or(absent) else { return false };
        let found = match (self.range, &self.value) {
            (Some((start, end)), _) => {
                value.parse::<i64>().is_ok_and(|number| number >= start && number < end)
            }
            (None, Some(matcher)) => matcher.matches(value),
            (None, None) => true,
        };
        found != self.invert
    }
}
