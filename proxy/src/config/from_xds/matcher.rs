//! String, header and query matchers.

use super::pattern;
use super::{At, Refusal, unsupported};
use crate::config::{HeaderMatch, QueryMatch, StringMatch};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher};
use envoy_types::pb::envoy::r#type::matcher::v3::path_matcher::Rule as PathRule;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{PathMatcher, StringMatcher};

pub(super) fn string(matcher: &StringMatcher) -> Result<StringMatch, Refusal> {
    let ignore_case = matcher.ignore_case;
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(value)) => {
            Ok(StringMatch::Exact { value: value.clone(), ignore_case })
        }
        Some(MatchPattern::Prefix(value)) => {
            not_empty(value, "prefix")?;
            Ok(StringMatch::Prefix { value: value.clone(), ignore_case })
        }
        Some(MatchPattern::Suffix(value)) => {
            not_empty(value, "suffix")?;
            Ok(StringMatch::Suffix { value: value.clone(), ignore_case })
        }
        Some(MatchPattern::Contains(value)) => {
            not_empty(value, "contains")?;
            Ok(StringMatch::Contains { value: value.clone(), ignore_case })
        }
        Some(MatchPattern::SafeRegex(regex)) => {
            pattern::full(&regex.regex).map(StringMatch::Regex).at("safe_regex.regex")
        }
        Some(MatchPattern::Custom(_)) => Err(Refusal::new("is not supported")).at("custom"),
        None => Err(Refusal::new("a match pattern is needed")),
    }
}

fn not_empty(value: &str, field: &str) -> Result<(), Refusal> {
    if value.is_empty() { Err(Refusal::new("must not be empty")).at(field) } else { Ok(()) }
}

pub(super) fn strings(field: &str, list: &[StringMatcher]) -> Result<Vec<StringMatch>, Refusal> {
    super::each(field, list, string)
}

/// The string matcher of a path matcher.
pub(super) fn path(matcher: &PathMatcher) -> Result<StringMatch, Refusal> {
    match &matcher.rule {
        Some(PathRule::Path(matcher)) => string(matcher).at("path"),
        None => Err(Refusal::new("a path is needed")),
    }
}

#[expect(deprecated, reason = "control planes still send the older single-purpose matchers")]
pub(super) fn header(matcher: &HeaderMatcher) -> Result<HeaderMatch, Refusal> {
    let plain = |value: &String, make: fn(String, bool) -> StringMatch| {
        Ok(Some(make(value.clone(), false)))
    };
    let (mut invert, mut range) = (matcher.invert_match, None);
    let value = match &matcher.header_match_specifier {
        None | Some(HeaderMatchSpecifier::PresentMatch(true)) => None,
        Some(HeaderMatchSpecifier::PresentMatch(false)) => {
            invert = !invert;
            None
        }
        Some(HeaderMatchSpecifier::StringMatch(inner)) => {
            string(inner).map(Some).at("string_match")?
        }
        Some(HeaderMatchSpecifier::ExactMatch(text)) => {
            plain(text, |value, ignore_case| StringMatch::Exact { value, ignore_case })?
        }
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => {
            plain(text, |value, ignore_case| StringMatch::Prefix { value, ignore_case })?
        }
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
            plain(text, |value, ignore_case| StringMatch::Suffix { value, ignore_case })?
        }
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            plain(text, |value, ignore_case| StringMatch::Contains { value, ignore_case })?
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
            Some(pattern::full(&regex.regex).map(StringMatch::Regex).at("safe_regex_match")?)
        }
        Some(HeaderMatchSpecifier::RangeMatch(bounds)) => {
            range = Some((bounds.start, bounds.end));
            None
        }
    };
    Ok(HeaderMatch {
        name: header_name(&matcher.name)?,
        value,
        range,
        invert,
        treat_missing_as_empty: matcher.treat_missing_header_as_empty,
    })
}

/// A header or pseudo header name in lower case.
fn header_name(name: &str) -> Result<String, Refusal> {
    let bare = name.strip_prefix(':').unwrap_or(name);
    match http::HeaderName::try_from(bare) {
        Ok(_) => Ok(name.to_ascii_lowercase()),
        Err(_) => Err(Refusal::new(format!("{name:?} is not a header name"))).at("name"),
    }
}

pub(super) fn query(matcher: &QueryParameterMatcher) -> Result<QueryMatch, Refusal> {
    let value = match &matcher.query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => None,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            unsupported(&[("present_match", true)])?;
            None
        }
        Some(QueryParameterMatchSpecifier::StringMatch(inner)) => {
            Some(string(inner).at("string_match")?)
        }
    };
    Ok(QueryMatch { name: matcher.name.clone(), value })
}
