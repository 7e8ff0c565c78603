//! Makes `src/bootstrap/messages.bin`: what the messages of a bootstrap look like, for reading them
//! as JSON. Taken from the descriptor set that the crate `envoy-types` ships and does not export:
//! `cargo run -p lateen-proxy --example messages -- PATH-OF/envoy-types/src/generated/types.bin`

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

/// The bootstrap, and every extension that this proxy takes.
const ROOTS: [&str; 20] = [
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/formatter/req_without_query/v3/req_without_query.proto",
    "envoy/extensions/path/match/uri_template/v3/uri_template_match.proto",
    "envoy/extensions/request_id/uuid/v3/uuid.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let from = std::env::args().nth(1).ok_or("the path of types.bin is needed")?;
    let all = FileDescriptorSet::decode(std::fs::read(from)?.as_slice())?;
    let by_name: BTreeMap<&str, &FileDescriptorProto> =
        all.file.iter().map(|file| (file.name(), file)).collect();
    let mut wanted = BTreeSet::new();
    let mut open = ROOTS.to_vec();
    while let Some(name) = open.pop() {
        let file = by_name.get(name).ok_or_else(|| format!("{name} is not there"))?;
        if wanted.insert(name) {
            open.extend(file.dependency.iter().map(String::as_str));
        }
    }
    // Files stand in the set after those they need; that order is kept.
    let files = all.file.iter().filter(|file| wanted.contains(file.name()));
    let file =
        files.map(|file| FileDescriptorProto { source_code_info: None, ..file.clone() }).collect();
    let bytes = FileDescriptorSet { file }.encode_to_vec();
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/bootstrap/messages.bin"), bytes)?;
    Ok(())
}
