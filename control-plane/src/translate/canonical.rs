//! One encoding for one meaning: sorts the map entries of encoded protobuf messages.
//!
//! The generated types hold protobuf maps in hash maps, whose order differs from build to build.
//! A version is the hash of the bytes, so the bytes must not. The tables below name the map fields
//! that the translation fills; everything else is copied as it is. Sorting map entries never
//! changes what a message means. Knows field numbers only, not what the resources are for.

use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// What to do below one message.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Number of the map field of this message, if it has one that is filled.
    maps: &'static [u32],
    /// Sub-messages (map entries among them) that need the same.
    inside: &'static [(u32, &'static Self)],
}

/// Messages without maps.
pub(crate) static PLAIN: Shape = Shape { maps: &[], inside: &[] };
static VALUE: Shape = Shape { maps: &[], inside: &[(5, &STRUCT), (6, &LIST)] };
static LIST: Shape = Shape { maps: &[], inside: &[(1, &VALUE)] };
static STRUCT_FIELD: Shape = Shape { maps: &[], inside: &[(2, &VALUE)] };
static STRUCT: Shape = Shape { maps: &[1], inside: &[(1, &STRUCT_FIELD)] };
static METADATA_FIELD: Shape = Shape { maps: &[], inside: &[(2, &STRUCT)] };
static METADATA: Shape = Shape { maps: &[1], inside: &[(1, &METADATA_FIELD)] };
static LB_ENDPOINT: Shape = Shape { maps: &[], inside: &[(3, &METADATA)] };
static LOCALITY: Shape = Shape { maps: &[], inside: &[(2, &LB_ENDPOINT)] };
/// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
pub(crate) static ENDPOINTS: Shape = Shape { maps: &[], inside: &[(2, &LOCALITY)] };
static SOCKET_MATCH: Shape = Shape { maps: &[], inside: &[(2, &STRUCT)] };
/// `envoy.config.cluster.v3.Cluster`.
pub(crate) static CLUSTER: Shape =
    Shape { maps: &[36], inside: &[(25, &METADATA), (33, &ENDPOINTS), (43, &SOCKET_MATCH)] };
static ROUTE: Shape = Shape { maps: &[13], inside: &[(4, &METADATA)] };
static VIRTUAL_HOST: Shape = Shape { maps: &[15], inside: &[(3, &ROUTE)] };
/// `envoy.config.route.v3.RouteConfiguration`.
pub(crate) static ROUTES: Shape = Shape { maps: &[16], inside: &[(2, &VIRTUAL_HOST)] };
static FILTER_CHAIN: Shape = Shape { maps: &[], inside: &[(5, &METADATA)] };
/// `envoy.config.listener.v3.Listener`.
pub(crate) static LISTENER: Shape =
    Shape { maps: &[], inside: &[(3, &FILTER_CHAIN), (25, &FILTER_CHAIN), (6, &METADATA)] };
/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
pub(crate) static CONNECTION_MANAGER: Shape = Shape { maps: &[], inside: &[(4, &ROUTES)] };
static RBAC_RULES: Shape = Shape { maps: &[2], inside: &[] };
/// The RBAC filters; the HTTP and the network filter share these field numbers.
pub(crate) static RBAC: Shape =
    Shape { maps: &[], inside: &[(1, &RBAC_RULES), (2, &RBAC_RULES), (3, &RBAC_RULES)] };
static LOG_FORMAT: Shape = Shape { maps: &[], inside: &[(2, &STRUCT)] };
/// `envoy.extensions.access_loggers.file.v3.FileAccessLog`.
pub(crate) static FILE_LOG: Shape = Shape { maps: &[], inside: &[(5, &LOG_FORMAT)] };
/// `udpa.type.v1.TypedStruct`.
pub(crate) static TYPED_STRUCT: Shape = Shape { maps: &[], inside: &[(2, &STRUCT)] };
/// `istio.networking.nds.v1.NameTable`.
pub(crate) static NAME_TABLE: Shape = Shape { maps: &[1], inside: &[] };

/// The same message with its map entries in order of their keys. Bytes that are no message come
/// back unchanged.
pub(crate) fn canonical(bytes: &[u8], shape: &Shape) -> Vec<u8> {
    rewrite(bytes, shape).unwrap_or_else(|| bytes.to_vec())
}

fn rewrite(bytes: &[u8], shape: &Shape) -> Option<Vec<u8>> {
    if shape.maps.is_empty() && shape.inside.is_empty() {
        return Some(bytes.to_vec());
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut pending: Vec<(u32, Vec<Vec<u8>>)> = Vec::new();
    let mut rest = bytes;
    while rest.has_remaining() {
        let (tag, kind) = decode_key(&mut rest).ok()?;
        if kind != WireType::LengthDelimited {
            encode_key(tag, kind, &mut out);
            copy_scalar(kind, &mut rest, &mut out)?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        let body = rest.get(..length)?;
        rest = rest.get(length..)?;
        let inner = match shape.inside.iter().find(|(number, _)| *number == tag) {
            Some((_, inside)) => rewrite(body, inside)?,
            None => body.to_vec(),
        };
        if shape.maps.contains(&tag) {
            match pending.iter_mut().find(|(number, _)| *number == tag) {
                Some((_, entries)) => entries.push(inner),
                None => pending.push((tag, vec![inner])),
            }
        } else {
            append(tag, &inner, &mut out);
        }
    }
    pending.sort_by_key(|(tag, _)| *tag);
    for (tag, mut entries) in pending {
        entries.sort();
        entries.iter().for_each(|entry| append(tag, entry, &mut out));
    }
    Some(out)
}

fn append(tag: u32, body: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(body.len() as u64, out);
    out.extend_from_slice(body);
}

fn copy_scalar(kind: WireType, rest: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    let width = match kind {
        WireType::Varint => {
            encode_varint(decode_varint(rest).ok()?, out);
            return Some(());
        }
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited | WireType::StartGroup | WireType::EndGroup => return None,
    };
    out.extend_from_slice(rest.get(..width)?);
    *rest = rest.get(width..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{CLUSTER, PLAIN, RBAC, Shape, canonical};
    use crate::translate::pack::{structure, text};
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::core::v3::Metadata;
    use envoy_types::pb::envoy::config::rbac::v3::{Policy, Rbac as Rules};
    use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
    use proptest::prelude::{prop_assert_eq, proptest};
    use prost::Message;

    fn cluster() -> Cluster {
        let fields: Vec<(String, _)> = (0..12).map(|n| (format!("k{n}"), text("v"))).collect();
        let metadata = ["a", "b", "c", "d", "e"]
            .into_iter()
            .map(|name| (name.to_owned(), structure(fields.clone())))
            .collect();
        Cluster {
            name: "x".to_owned(),
            metadata: Some(Metadata { filter_metadata: metadata, ..Metadata::default() }),
            ..Cluster::default()
        }
    }

    #[test]
    fn equal_messages_have_equal_bytes() {
        let first = canonical(&cluster().encode_to_vec(), &CLUSTER);
        for _ in 0..20 {
            assert_eq!(canonical(&cluster().encode_to_vec(), &CLUSTER), first);
        }
        assert_eq!(Cluster::decode(first.as_slice()).unwrap(), cluster());
    }

    #[test]
    fn policies_are_sorted_by_name() {
        let filter = || {
            let names = ["c", "a", "b", "d", "e", "f"];
            let policies =
                names.into_iter().map(|name| (name.to_owned(), Policy::default())).collect();
            Rbac { rules: Some(Rules { policies, ..Rules::default() }), ..Rbac::default() }
        };
        let first = canonical(&filter().encode_to_vec(), &RBAC);
        for _ in 0..20 {
            assert_eq!(canonical(&filter().encode_to_vec(), &RBAC), first);
        }
        assert_eq!(Rbac::decode(first.as_slice()).unwrap(), filter());
    }

    proptest! {
        #[test]
        fn anything_is_taken_and_a_second_time_changes_nothing(bytes: Vec<u8>) {
            for shape in [&PLAIN, &CLUSTER, &RBAC] as [&Shape; 3] {
                let once = canonical(&bytes, shape);
                prop_assert_eq!(canonical(&once, shape), once);
            }
        }
    }
}
