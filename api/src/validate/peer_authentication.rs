//! Checks of `PeerAuthentication`.

use super::{Remarks, attachment};
use crate::security::PeerAuthentication;

/// Checks a PeerAuthentication.
pub(super) fn check(spec: &PeerAuthentication, remarks: &mut Remarks) {
    let selects = spec.selector.as_ref().is_some_and(|it| !it.match_labels.is_empty());
    if let Some(selector) = &spec.selector {
        attachment::labels(remarks, selector);
    }
    if !spec.port_level_mtls.is_empty() && !selects {
        let message = "modes of ports need a selector: ports belong to a workload";
        remarks.error("spec.portLevelMtls", message);
    }
    if spec.port_level_mtls.contains_key(&0) {
        remarks.error("spec.portLevelMtls.0", "0 is not a port");
    }
}
