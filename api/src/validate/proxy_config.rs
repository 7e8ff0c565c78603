//! Checks of `ProxyConfig`.

use super::{Remarks, attachment, fields};
use crate::networking::ProxyConfig;

/// Longest value of an environment variable.
const MAX_VALUE: usize = 2048;

/// Checks a ProxyConfig.
pub(super) fn check(spec: &ProxyConfig, remarks: &mut Remarks) {
    if let Some(selector) = &spec.selector {
        attachment::labels(remarks, selector);
    }
    for (name, value) in &spec.environment_variables {
        let path = format!("spec.environmentVariables.{name}");
        fields::at_most(remarks, &path, value, MAX_VALUE);
    }
}
