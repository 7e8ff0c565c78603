//! String matches of configuration: exact, prefix or regular expression.
//!
//! Regular expressions are RE2 syntax and must match the whole text; they are checked, not
//! compiled, here.

use regex::Regex;
use serde::{Deserialize, Deserializer, de};

/// Longest regular expression accepted.
pub const MAX_REGEX: usize = 1024;

/// How a text is matched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Starts with.
    Prefix(String),
    /// The whole text matches (RE2 syntax).
    Regex(String),
    /// Is there at all: an empty match.
    Present,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match Fields::deserialize(input)? {
            Fields { exact: Some(text), prefix: None, regex: None } => Ok(Self::Exact(text)),
            Fields { exact: None, prefix: Some(text), regex: None } => Ok(Self::Prefix(text)),
            Fields { exact: None, prefix: None, regex: Some(text) } => Ok(Self::Regex(text)),
            Fields { exact: None, prefix: None, regex: None } => Ok(Self::Present),
            _ => Err(de::Error::custom("only one of exact, prefix and regex may be set")),
        }
    }
}

impl StringMatch {
    /// Says what is wrong with the match, if anything.
    ///
    /// # Errors
    /// A sentence for the user: the expression is too long or does not compile.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Regex(expression) => check_regex(expression),
            Self::Exact(_) | Self::Prefix(_) | Self::Present => Ok(()),
        }
    }
}

/// Says what is wrong with a regular expression, if anything.
///
/// # Errors
/// A sentence for the user.
pub fn check_regex(expression: &str) -> Result<(), String> {
    if expression.is_empty() {
        return Err("the regular expression is empty".to_owned());
    }
    if expression.len() > MAX_REGEX {
        return Err(format!("the regular expression is longer than {MAX_REGEX} bytes"));
    }
    Regex::new(expression)
        .map(|_compiled| ())
        .map_err(|error| format!("`{expression}` is not a regular expression: {error}"))
}

#[cfg(test)]
mod tests {
    use super::StringMatch;
    use serde_json::{from_value, json};

    #[test]
    fn one_of_three() {
        let exact: StringMatch = from_value(json!({"exact": "a"})).unwrap();
        assert_eq!(exact, StringMatch::Exact("a".to_owned()));
        assert_eq!(from_value::<StringMatch>(json!({})).unwrap(), StringMatch::Present);
        let both = from_value::<StringMatch>(json!({"exact": "a", "prefix": "b"}));
        assert!(both.unwrap_err().to_string().contains("only one of"));
        assert!(from_value::<StringMatch>(json!({"suffix": "a"})).is_err());
    }

    #[test]
    fn expressions_are_checked() {
        assert!(StringMatch::Regex("a.*b".to_owned()).check().is_ok());
        assert!(StringMatch::Regex("(".to_owned()).check().is_err());
        assert!(StringMatch::Regex("a".repeat(2000)).check().is_err());
        assert!(StringMatch::Regex(String::new()).check().is_err());
    }
}
