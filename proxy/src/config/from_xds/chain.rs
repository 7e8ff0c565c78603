//! Filter chains and their criteria.

use super::field::{cidr, limit, port};
use super::network::{self, NetworkFilter};
use super::tls::server;
use super::{At, Refusal, each, unsupported};
use crate::config::{ChainMatch, FilterChain, Terminal};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain as Proto, FilterChainMatch};
use ipnet::IpNet;
use std::time::Duration;

/// Time for a TLS handshake when the chain gives none; a silent peer must not stay for ever.
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

#[expect(deprecated, reason = "deprecated fields are refused when set")]
pub(super) fn take(proto: &Proto) -> Result<FilterChain, Refusal> {
    unsupported(&[(
        "use_proxy_proto",
        super::field::truth(proto.use_proxy_proto.as_ref(), false),
    )])?;
    let tls = match &proto.transport_socket {
        Some(socket) => server(socket).at("transport_socket")?,
        None => None,
    };
    let matches = match &proto.filter_chain_match {
        Some(matches) => criteria(matches).at("filter_chain_match")?,
        None => ChainMatch::default(),
    };
    let (mut rbac, mut stats, mut terminal) = (Vec::new(), false, None);
    for (i, filter) in proto.filters.iter().enumerate() {
        if terminal.is_some() {
            return Err(Refusal::new("stands after the filter that ends the chain"))
                .at_index("filters", i);
        }
        match network::take(filter).at_index("filters", i)? {
            NetworkFilter::Rbac(rules) => rbac.extend(rules),
            NetworkFilter::Stats => stats = true,
            NetworkFilter::Terminal(end) => terminal = Some(end),
        }
    }
    let terminal: Terminal = terminal
        .ok_or_else(|| Refusal::new("no filter ends the chain (tcp_proxy or HTTP)"))
        .at("filters")?;
    let timeout = proto.transport_socket_connect_timeout.as_ref();
    Ok(FilterChain {
        name: proto.name.as_str().into(),
        matches,
        tls,
        handshake_timeout: limit(timeout, None)
            .at("transport_socket_connect_timeout")?
            .unwrap_or(DEFAULT_HANDSHAKE_TIMEOUT),
        rbac,
        stats,
        terminal,
    })
}

fn criteria(proto: &FilterChainMatch) -> Result<ChainMatch, Refusal> {
    unsupported(&[
        ("address_suffix", !proto.address_suffix.is_empty()),
        ("suffix_len", proto.suffix_len.is_some()),
        ("direct_source_prefix_ranges", !proto.direct_source_prefix_ranges.is_empty()),
        ("source_type", proto.source_type != 0),
        ("source_prefix_ranges", !proto.source_prefix_ranges.is_empty()),
        ("source_ports", !proto.source_ports.is_empty()),
    ])?;
    let destination_port = match &proto.destination_port {
        Some(value) => Some(port(value.value).at("destination_port")?),
        None => None,
    };
    let tls = match proto.transport_protocol.as_str() {
        "" => None,
        "tls" => Some(true),
        "raw_buffer" => Some(false),
        other => {
            return Err(Refusal::new(format!("{other:?} is neither tls nor raw_buffer")))
                .at("transport_protocol");
        }
    };
    let mut prefix_ranges: Vec<IpNet> = each("prefix_ranges", &proto.prefix_ranges, cidr)?;
    prefix_ranges.sort_unstable();
    prefix_ranges.dedup();
    Ok(ChainMatch {
        destination_port,
        prefix_ranges,
        server_names: each("server_names", &proto.server_names, |name| server_name(name))?,
        tls,
        application_protocols: proto.application_protocols.clone(),
    })
}

/// `host` or `*.host`, lower case; `*` alone is any and not allowed here.
fn server_name(name: &str) -> Result<String, Refusal> {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    if bare.is_empty() || bare.contains('*') {
        return Err(Refusal::new(format!("{name:?} is neither a host nor *.host")));
    }
    Ok(name.to_ascii_lowercase())
}
