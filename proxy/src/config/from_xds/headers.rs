//! Header changes of routes.
//!
//! Envoy expands `%OPERATORS%` in values; they are refused, and `%%` is one percent sign.

use super::{At, Refusal, each};
use crate::config::{HeaderEdit, HeaderOps};
use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use http::{HeaderName, HeaderValue};

/// The four lists that routes, virtual hosts and clusters share.
pub(super) struct Lists<'a> {
    pub(super) request_add: &'a [HeaderValueOption],
    pub(super) request_remove: &'a [String],
    pub(super) response_add: &'a [HeaderValueOption],
    pub(super) response_remove: &'a [String],
}

/// Borrows the header lists of anything that has them.
macro_rules! header_lists {
    ($proto:expr) => {
        $crate::config::from_xds::headers::Lists {
            request_add: &$proto.request_headers_to_add,
            request_remove: &$proto.request_headers_to_remove,
            response_add: &$proto.response_headers_to_add,
            response_remove: &$proto.response_headers_to_remove,
        }
    };
}
pub(super) use header_lists;

pub(super) fn take(lists: &Lists<'_>) -> Result<HeaderOps, Refusal> {
    Ok(HeaderOps {
        request: edit(
            ["request_headers_to_add", "request_headers_to_remove"],
            lists.request_add,
            lists.request_remove,
        )?,
        response: edit(
            ["response_headers_to_add", "response_headers_to_remove"],
            lists.response_add,
            lists.response_remove,
        )?,
    })
}

/// `inner` first, then `outer`.
pub(super) fn join(mut inner: HeaderOps, outer: HeaderOps) -> HeaderOps {
    for (to, from) in [(&mut inner.request, outer.request), (&mut inner.response, outer.response)] {
        to.remove.extend(from.remove);
        to.set.extend(from.set);
        to.add.extend(from.add);
        to.add_absent.extend(from.add_absent);
        to.overwrite.extend(from.overwrite);
    }
    inner
}

/// Headers that are added, nothing else.
pub(super) fn added(field: &'static str, add: &[HeaderValueOption]) -> Result<HeaderEdit, Refusal> {
    edit([field, ""], add, &[])
}

fn edit(
    [add_field, remove_field]: [&str; 2],
    add: &[HeaderValueOption],
    remove: &[String],
) -> Result<HeaderEdit, Refusal> {
    let remove = each(remove_field, remove, |text| name(text))?;
    let mut out = HeaderEdit { remove, ..HeaderEdit::default() };
    for (i, option) in add.iter().enumerate() {
        one(option, &mut out).at_index(add_field, i)?;
    }
    Ok(out)
}

#[expect(deprecated, reason = "append is still sent by some control planes")]
fn one(option: &HeaderValueOption, out: &mut HeaderEdit) -> Result<(), Refusal> {
    let header = option.header.as_ref().ok_or_else(|| Refusal::new("is needed")).at("header")?;
    let text = if header.value.is_empty() {
        String::from_utf8(header.raw_value.clone())
            .map_err(|_| Refusal::new("is not UTF-8"))
            .at("header.raw_value")?
    } else {
        header.value.clone()
    };
    let value = plain(&text).at("header.value")?;
    if value.is_empty() && !option.keep_empty_value {
        return Ok(());
    }
    let pair = (
        name(&header.key).at("header.key")?,
        HeaderValue::try_from(value)
            .map_err(|_| Refusal::new("is not a header value"))
            .at("header.value")?,
    );
    let action = HeaderAppendAction::try_from(option.append_action)
        .map_err(|_| Refusal::new("unknown action"))
        .at("append_action")?;
    match (option.append.as_ref().map(|append| append.value), action) {
        (Some(false), _) | (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => {
            out.set.push(pair);
        }
        (Some(true), _) | (None, HeaderAppendAction::AppendIfExistsOrAdd) => out.add.push(pair),
        (None, HeaderAppendAction::AddIfAbsent) => out.add_absent.push(pair),
        (None, HeaderAppendAction::OverwriteIfExists) => out.overwrite.push(pair),
    }
    Ok(())
}

fn name(text: &str) -> Result<HeaderName, Refusal> {
    let reserved = text.starts_with(':') || text.eq_ignore_ascii_case("host");
    HeaderName::try_from(text)
        .ok()
        .filter(|_| !reserved)
        .ok_or_else(|| Refusal::new(format!("{text:?} is not a header that can be changed")))
}

fn plain(text: &str) -> Result<String, Refusal> {
    let unescaped = text.replace("%%", "");
    if unescaped.contains('%') {
        return Err(Refusal::new(format!("{text:?}: %OPERATORS% are not supported")));
    }
    Ok(text.replace("%%", "%"))
}
