//! Whatever bytes arrive, they are taken or refused.

use super::super::decode;
use super::{clusters, listeners, routes};
use lateen_xds::type_url;
use proptest::prelude::*;
use prost::Message;

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (type_url::LISTENER, listeners::virtual_inbound().encode_to_vec()),
        (type_url::CLUSTER, clusters::outbound().encode_to_vec()),
        (type_url::ROUTES, routes::sample().encode_to_vec()),
    ]
}

#[test]
fn samples_are_taken() {
    for (kind, bytes) in samples() {
        decode(kind, &bytes).unwrap();
    }
    assert!(decode("type.googleapis.com/x", &[]).is_err());
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for kind in [
            type_url::LISTENER,
            type_url::CLUSTER,
            type_url::ENDPOINTS,
            type_url::ROUTES,
            type_url::NAME_TABLE,
        ] {
            let _outcome = decode(kind, &bytes);
        }
    }

    #[test]
    fn a_damaged_resource_never_panics(
        which in 0usize..3,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (kind, mut bytes) = samples().swap_remove(which);
        for (place, value) in damage {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        let _outcome = decode(kind, &bytes);
    }
}
