//! What routes, virtual hosts and route configurations say to single filters.

use super::field::{type_name, unpack};
use super::{At, Refusal, cors, fault, unsupported};
use crate::config::{Cors, Fault};
use envoy_types::pb::envoy::config::route::v3::FilterConfig;
use envoy_types::pb::google::protobuf::Any;
use std::collections::HashMap;
use std::sync::Arc;

const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const CORS: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

/// What is said to filters in one place.
#[derive(Debug, Clone, Default)]
pub(super) struct PerFilter {
    pub(super) fault: Option<Arc<Fault>>,
    pub(super) cors: Option<Arc<Cors>>,
}

impl PerFilter {
    /// What is said here, and where nothing is, what was said around it.
    pub(super) fn within(self, outer: &Self) -> Self {
        Self {
            fault: self.fault.or_else(|| outer.fault.clone()),
            cors: self.cors.or_else(|| outer.cors.clone()),
        }
    }
}

/// Takes a per-filter configuration; what is said to filters we do not know is refused.
pub(super) fn take(filters: &HashMap<String, Any>) -> Result<PerFilter, Refusal> {
    let mut all = PerFilter::default();
    for (name, any) in filters {
        one(any, &mut all).at(&format!("typed_per_filter_config[{name}]"))?;
    }
    Ok(all)
}

fn one(any: &Any, all: &mut PerFilter) -> Result<(), Refusal> {
    match type_name(any) {
        FAULT => all.fault = Some(Arc::new(fault::take(&unpack(any)?)?)),
        CORS => all.cors = Some(Arc::new(cors::take(&unpack(any)?)?)),
        FILTER_CONFIG => {
            let wrapper: FilterConfig = unpack(any)?;
            unsupported(&[("disabled", wrapper.disabled)])?;
            match &wrapper.config {
                Some(inner) if matches!(type_name(inner), FAULT | CORS) => one(inner, all)?,
                None => {}
                Some(_) if wrapper.is_optional => {}
                Some(inner) => {
                    return Err(Refusal::new(format!("unknown extension {}", type_name(inner))));
                }
            }
        }
        other => return Err(Refusal::new(format!("unknown extension {other}"))),
    }
    Ok(())
}
