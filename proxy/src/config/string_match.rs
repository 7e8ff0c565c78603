//! String matchers (`envoy.type.matcher.v3.StringMatcher`), compiled once.

use regex::Regex;

/// How one string is compared.
#[derive(Debug, Clone)]
pub enum StringMatch {
    /// Equal, optionally without regard to ASCII case.
    Exact {
        /// Text to compare with.
        value: String,
        /// Ignore ASCII case.
        ignore_case: bool,
    },
    /// Starts with.
    Prefix {
        /// Text to compare with.
        value: String,
        /// Ignore ASCII case.
        ignore_case: bool,
    },
    /// Ends with.
    Suffix {
        /// Text to compare with.
        value: String,
        /// Ignore ASCII case.
        ignore_case: bool,
    },
    /// Contains.
    Contains {
        /// Text to compare with.
        value: String,
        /// Ignore ASCII case.
        ignore_case: bool,
    },
    /// The whole text matches (RE2 syntax).
    Regex(Regex),
}

impl PartialEq for StringMatch {
    /// Equal patterns are equal matchers.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Exact { value: a, ignore_case: x },
                Self::Exact { value: b, ignore_case: y },
            )
            | (
                Self::Prefix { value: a, ignore_case: x },
                Self::Prefix { value: b, ignore_case: y },
            )
            | (
                Self::Suffix { value: a, ignore_case: x },
                Self::Suffix { value: b, ignore_case: y },
            )
            | (
                Self::Contains { value: a, ignore_case: x },
                Self::Contains { value: b, ignore_case: y },
            ) => a == b && x == y,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl StringMatch {
    /// An exact, case-sensitive matcher.
    #[must_use]
    pub fn exact(value: impl Into<String>) -> Self {
        Self::Exact { value: value.into(), ignore_case: false }
    }

    /// Whether `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact { value, ignore_case: false } => text == value,
            Self::Exact { value, ignore_case: true } => text.eq_ignore_ascii_case(value),
            Self::Prefix { value, ignore_case } => {
                text.get(..value.len()).is_some_and(|head| same(head, value, *ignore_case))
            }
            Self::Suffix { value, ignore_case } => text
                .len()
                .checked_sub(value.len())
                .and_then(|start| text.get(start..))
                .is_some_and(|tail| same(tail, value, *ignore_case)),
            Self::Contains { value, ignore_case: false } => text.contains(value.as_str()),
            Self::Contains { value, ignore_case: true } => {
                text.to_ascii_lowercase().contains(&value.to_ascii_lowercase())
            }
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

fn same(a: &str, b: &str, ignore_case: bool) -> bool {
    if ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
}
