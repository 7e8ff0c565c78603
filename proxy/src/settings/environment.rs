//! Environment variables as a value, with typed readers that name what is wrong.

use super::SettingsError;
use lateen_api::duration;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// Environment variables.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// The environment of this process; variables that are not UTF-8 are left out.
#[must_use]
pub fn environment() -> Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    Environment(std::env::vars_os().filter_map(text).collect())
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(list: [(&str, &str); N]) -> Self {
        Self(list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }
}

impl Environment {
    /// A variable; empty when it is not set.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value.trim())
    }

    /// A variable, or this when it is empty or not set.
    pub(super) fn or<'e>(&'e self, name: &str, otherwise: &'e str) -> &'e str {
        match self.text(name) {
            "" => otherwise,
            value => value,
        }
    }

    /// Variables that start with `prefix`, by the rest of their names.
    pub(super) fn with_prefix<'e>(
        &'e self,
        prefix: &'e str,
    ) -> impl Iterator<Item = (&'e str, &'e str)> {
        self.0.iter().filter_map(move |(name, value)| {
            name.strip_prefix(prefix).filter(|rest| !rest.is_empty()).map(|rest| (rest, &**value))
        })
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, SettingsError> {
        match self.text(name).to_ascii_lowercase().as_str() {
            "" | "0" | "f" | "false" => Ok(false),
            "1" | "t" | "true" => Ok(true),
            value => Err(wrong(name, value, "true or false")),
        }
    }

    pub(super) fn number<T: FromStr>(&self, name: &str, otherwise: T) -> Result<T, SettingsError> {
        match self.text(name) {
            "" => Ok(otherwise),
            value => value.parse().map_err(|_| wrong(name, value, "a whole number")),
        }
    }

    pub(super) fn duration(
        &self,
        name: &str,
        otherwise: Duration,
    ) -> Result<Duration, SettingsError> {
        match self.text(name) {
            "" => Ok(otherwise),
            value => duration::parse(value).map_err(|_| wrong(name, value, "a duration like 5s")),
        }
    }

    /// A number between 0 and 1.
    pub(super) fn share(&self, name: &str, otherwise: f64) -> Result<f64, SettingsError> {
        let value = self.text(name);
        if value.is_empty() {
            return Ok(otherwise);
        }
        value
            .parse()
            .ok()
            .filter(|share| (0.0..=1.0).contains(share))
            .ok_or_else(|| wrong(name, value, "a number from 0 to 1"))
    }

    /// Headers from variables `PREFIX<name>`; `_` in names stands for `-`.
    pub(super) fn headers(&self, prefix: &str) -> Vec<(String, String)> {
        let header = |(name, value): (&str, &str)| {
            (name.to_ascii_lowercase().replace('_', "-"), value.to_owned())
        };
        self.with_prefix(prefix).map(header).collect()
    }
}

fn wrong(name: &str, value: &str, expected: &'static str) -> SettingsError {
    SettingsError::Value { name: name.to_owned(), value: value.to_owned(), expected }
}
