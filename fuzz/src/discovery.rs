//! Configuration that proxies are sent or given.

use std::path::Path;

use lateen_proxy::bootstrap;
use lateen_proxy::config::from_xds::{self, Refusal};
use lateen_xds::type_url;

/// Types, by the first byte of an input.
const TYPES: [&str; 6] = [
    type_url::LISTENER,
    type_url::CLUSTER,
    type_url::ENDPOINTS,
    type_url::ROUTES,
    type_url::SECRET,
    type_url::NAME_TABLE,
];

/// A resource is taken, or refused with a reason.
pub(crate) fn resources(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let kind = TYPES[usize::from(*kind) % TYPES.len()];
    if let Err(Refusal { reason, .. }) = from_xds::decode(kind, bytes) {
        assert!(!reason.is_empty(), "a refusal without a reason");
    }
}

/// A bootstrap is taken, or refused with a reason that names the file.
pub(crate) fn bootstrap(text: &[u8]) {
    if let Err(error) = bootstrap::parse(Path::new("bootstrap.yaml"), text) {
        assert!(error.to_string().starts_with("bootstrap.yaml: "), "{error}");
    }
}
