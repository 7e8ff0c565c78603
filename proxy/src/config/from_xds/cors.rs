//! CORS policies of routes.

use super::field::{WHOLE, runtime_share, truth};
use super::matcher::strings;
use super::{At, Refusal};
use crate::config::Cors;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use http::HeaderValue;

pub(super) fn take(proto: &CorsPolicy) -> Result<Cors, Refusal> {
    let header = |text: &str, field: &str| match text {
        "" => Ok(None),
        text => HeaderValue::try_from(text)
            .map(Some)
            .map_err(|_| Refusal::new("is not a header value"))
            .at(field),
    };
    Ok(Cors {
        // A policy that is only watched (`shadow_enabled`) changes nothing.
        share: runtime_share(proto.filter_enabled.as_ref(), WHOLE).at("filter_enabled")?,
        origins: strings("allow_origin_string_match", &proto.allow_origin_string_match)?,
        methods: header(&proto.allow_methods, "allow_methods")?,
        headers: header(&proto.allow_headers, "allow_headers")?,
        exposed: header(&proto.expose_headers, "expose_headers")?,
        max_age: header(&proto.max_age, "max_age")?,
        credentials: truth(proto.allow_credentials.as_ref(), false),
        private_network: truth(proto.allow_private_network_access.as_ref(), false),
        forwards_others: truth(proto.forward_not_matching_preflights.as_ref(), true),
    })
}
