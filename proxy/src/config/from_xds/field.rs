//! Small protobuf values: durations, shares, addresses, packed messages.

use super::{At, Refusal};
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::{PortSpecifier, Protocol};
use envoy_types::pb::envoy::config::core::v3::{
    Address, CidrRange, DataSource, RuntimeFractionalPercent, SocketAddress,
};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration as ProtoDuration, UInt32Value};
use ipnet::IpNet;
use prost::Message;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// All of something, in parts per million.
pub(super) const WHOLE: u32 = 1_000_000;

pub(super) fn duration(value: &ProtoDuration) -> Result<Duration, Refusal> {
    let seconds = u64::try_from(value.seconds).map_err(|_| Refusal::new("negative duration"))?;
    let nanos = u32::try_from(value.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .ok_or_else(|| Refusal::new("nanoseconds out of range"))?;
    Ok(Duration::new(seconds, nanos))
}

/// A time limit: absent is `default`, zero is none.
pub(super) fn limit(
    value: Option<&ProtoDuration>,
    default: Option<Duration>,
) -> Result<Option<Duration>, Refusal> {
    match value {
        None => Ok(default),
        Some(value) => duration(value).map(|time| (!time.is_zero()).then_some(time)),
    }
}

/// The duration is there and not zero.
pub(super) fn lasts(value: Option<&ProtoDuration>) -> bool {
    value.is_some_and(|value| value.seconds != 0 || value.nanos != 0)
}

pub(super) fn truth(value: Option<&BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

pub(super) fn number(value: Option<&UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

/// A share in parts per million.
pub(super) fn parts_per_million(share: &FractionalPercent) -> Result<u32, Refusal> {
    let factor = match DenominatorType::try_from(share.denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_) => return Err(Refusal::new("unknown denominator")),
    };
    Ok(share.numerator.saturating_mul(factor).min(WHOLE))
}

/// A share that a runtime key could override; absent is `default`.
pub(super) fn runtime_share(
    share: Option<&RuntimeFractionalPercent>,
    default: u32,
) -> Result<u32, Refusal> {
    match share.and_then(|share| share.default_value.as_ref()) {
        Some(value) => parts_per_million(value).at("default_value"),
        None => Ok(default),
    }
}

pub(super) fn ip(text: &str) -> Result<IpAddr, Refusal> {
    text.parse::<IpAddr>()
        .map(|ip| ip.to_canonical())
        .map_err(|_| Refusal::new(format!("{text:?} is not an IP address")))
}

/// A TCP port.
pub(super) fn port(value: u32) -> Result<u16, Refusal> {
    u16::try_from(value).map_err(|_| Refusal::new(format!("port {value} is out of range")))
}

/// Host (address or name) and port of a TCP address.
pub(super) fn host_port(address: Option<&Address>) -> Result<(&str, u16), Refusal> {
    let Some(kind) = address.and_then(|address| address.address.as_ref()) else {
        return Err(Refusal::new("an address is needed"));
    };
    match kind {
        AddressKind::SocketAddress(socket) => tcp(socket).at("socket_address"),
        AddressKind::Pipe(_) => Err(Refusal::new("Unix sockets are not supported")).at("pipe"),
        AddressKind::EnvoyInternalAddress(_) => {
            Err(Refusal::new("internal listeners are not supported")).at("envoy_internal_address")
        }
    }
}

fn tcp(socket: &SocketAddress) -> Result<(&str, u16), Refusal> {
    if socket.protocol != Protocol::Tcp as i32 {
        return Err(Refusal::new("only TCP is supported")).at("protocol");
    }
    super::unsupported(&[
        ("resolver_name", !socket.resolver_name.is_empty()),
        ("network_namespace_filepath", !socket.network_namespace_filepath.is_empty()),
    ])?;
    match &socket.port_specifier {
        Some(PortSpecifier::PortValue(value)) => {
            Ok((&socket.address, port(*value).at("port_value")?))
        }
        Some(PortSpecifier::NamedPort(_)) => {
            Err(Refusal::new("named ports are not supported")).at("named_port")
        }
        None => Err(Refusal::new("a port is needed")).at("port_value"),
    }
}

/// Takes the address of a port that is listened on.
///
/// # Errors
/// When it is not a TCP address with a literal IP address.
pub fn address(proto: &Address) -> Result<SocketAddr, Refusal> {
    socket_address(Some(proto)).at("address")
}

/// A TCP address that is a literal.
pub(super) fn socket_address(address: Option<&Address>) -> Result<SocketAddr, Refusal> {
    let (host, port) = host_port(address)?;
    Ok(SocketAddr::new(ip(host)?, port))
}

pub(super) fn cidr(range: &CidrRange) -> Result<IpNet, Refusal> {
    let address = ip(&range.address_prefix).at("address_prefix")?;
    let length = number(range.prefix_len.as_ref(), 0);
    u8::try_from(length)
        .ok()
        .and_then(|length| IpNet::new(address, length).ok())
        .map(|net| net.trunc())
        .ok_or_else(|| Refusal::new(format!("prefix length {length} is too long")))
        .at("prefix_len")
}

/// A message packed in an `Any`, whatever its type URL says.
pub(super) fn unpack<M: Message + Default>(any: &Any) -> Result<M, Refusal> {
    M::decode(any.value.as_slice())
        .map_err(|e| Refusal::new(format!("cannot decode {}: {e}", type_name(any))))
}

/// The message name of an `Any`, without `type.googleapis.com/`.
pub(super) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Text given in place.
pub(super) fn inline(source: &DataSource) -> Result<&[u8], Refusal> {
    match &source.specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(Specifier::InlineString(text)) => Ok(text.as_bytes()),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) => {
            Err(Refusal::new("only inline data is supported"))
        }
        None => Ok(&[]),
    }
}
