//! Environment of the proxy in the webhook's path.
//!
//! `/inject/cluster/NAME/net/NAME/KEY/VALUE` or `/inject/:ENV:KEY=VALUE:ENV:...`, with
//! `--slash--` for a slash in a value. Pure.

use std::collections::BTreeMap;

use lateen_api::names::env;

const ENV_MARK: &str = ":ENV:";
const SLASH: &str = "--slash--";

/// A path that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A key without a value.
    #[error("webhook path: {0:?} has no value; write /inject/KEY/VALUE")]
    NoValue(String),
    /// A key that is no name of an environment variable.
    #[error("webhook path: {0:?} is not a name of an environment variable")]
    Name(String),
    /// Text that is not UTF-8.
    #[error("webhook path is not UTF-8")]
    Encoding,
}

/// The environment in a path that starts with `/inject`.
///
/// # Errors
/// A key without value, or that is no name.
pub fn environment(path: &str) -> Result<BTreeMap<String, String>, PathError> {
    let path = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| PathError::Encoding)?;
    let rest = path.strip_prefix("/inject").unwrap_or(&path).trim_matches('/');
    let mut pairs = Vec::new();
    if rest.contains(ENV_MARK) {
        for pair in rest.split(ENV_MARK).map(|pair| pair.trim_matches('/')) {
            if !pair.is_empty() {
                let (key, value) =
                    pair.split_once('=').ok_or_else(|| PathError::NoValue(short(pair)))?;
                pairs.push((key, value));
            }
        }
    } else {
        let mut parts = rest.split('/').filter(|part| !part.is_empty());
        while let Some(key) = parts.next() {
            pairs.push((key, parts.next().ok_or_else(|| PathError::NoValue(short(key)))?));
        }
    }
    pairs.into_iter().map(|(key, value)| Ok((variable(key)?, value.replace(SLASH, "/")))).collect()
}

fn variable(key: &str) -> Result<String, PathError> {
    match key {
        "cluster" => Ok(env::META_CLUSTER_ID.to_owned()),
        "net" => Ok(env::META_NETWORK.to_owned()),
        _ => {
            let valid = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && key.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
            if valid { Ok(key.to_uppercase()) } else { Err(PathError::Name(short(key))) }
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::{PathError, environment};

    fn pairs(path: &str) -> Vec<(String, String)> {
        environment(path).unwrap().into_iter().collect()
    }

    #[test]
    fn both_forms() {
        let expected = [
            ("ISTIO_META_CLUSTER_ID".to_owned(), "c/1".to_owned()),
            ("ISTIO_META_NETWORK".to_owned(), "n".to_owned()),
            ("KEY".to_owned(), "v".to_owned()),
        ];
        assert_eq!(pairs("/inject/cluster/c--slash--1/net/n/key/v"), expected);
        assert_eq!(pairs("/inject/:ENV:cluster=c--slash--1:ENV:net=n:ENV:KEY=v"), expected);
        assert_eq!(pairs("/inject/cluster/c%2D%2Dslash--1/net/n/key/v/"), expected);
        assert_eq!(pairs("/inject"), []);
        assert_eq!(pairs("/inject/"), []);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(environment("/inject/cluster"), Err(PathError::NoValue("cluster".to_owned())));
        assert_eq!(environment("/inject/:ENV:a"), Err(PathError::NoValue("a".to_owned())));
        assert_eq!(environment("/inject/a-b/c"), Err(PathError::Name("a-b".to_owned())));
        assert_eq!(environment("/inject/a%ff/c"), Err(PathError::Encoding));
    }
}
