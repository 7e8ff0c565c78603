//! Small constructors of protobuf values: `Any`, durations, addresses, matchers, structs.
//!
//! They keep the translation readable. They know the shape of Envoy's basic types and nothing of
//! services, policies or proxies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, CidrRange, ConfigSource, SocketAddress,
    TransportSocket, address::Address as AddressKind, config_source::ConfigSourceSpecifier,
    transport_socket,
};
use envoy_types::pb::envoy::config::core::v3::{RuntimeFractionalPercent, TypedExtensionConfig};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{
    Any, BoolValue, Duration as ProtoDuration, ListValue, Struct, UInt32Value, Value,
};
use prost::{Message, Name};

use super::canonical::{PLAIN, Shape, TYPED_STRUCT, canonical};

/// `udpa.type.v1.TypedStruct`: configuration whose type the receiver finds by name.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TypedStruct {
    /// Type of the configuration.
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    /// The configuration.
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Struct>,
}

/// The message as `Any`, for messages without filled maps.
pub(crate) fn any<M: Message + Name>(message: &M) -> Any {
    any_with(message, &PLAIN)
}

/// The message as `Any`, its maps in order.
pub(crate) fn any_with<M: Message + Name>(message: &M, shape: &Shape) -> Any {
    Any { type_url: M::type_url(), value: canonical(&message.encode_to_vec(), shape) }
}

/// A configuration of an extension that Envoy itself has no type for.
pub(crate) fn typed_struct(
    type_url: &str,
    fields: impl IntoIterator<Item = (String, Value)>,
) -> Any {
    let message = TypedStruct { type_url: type_url.to_owned(), value: Some(structure(fields)) };
    Any {
        type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".to_owned(),
        value: canonical(&message.encode_to_vec(), &TYPED_STRUCT),
    }
}

/// A named extension.
pub(crate) fn extension(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}

/// A transport socket.
pub(crate) fn transport_socket(name: &str, config: Any) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
    }
}

/// A `google.protobuf.Struct`.
pub(crate) fn structure(fields: impl IntoIterator<Item = (String, Value)>) -> Struct {
    Struct { fields: fields.into_iter().collect() }
}

/// A string in a struct.
pub(crate) fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

/// A truth value in a struct.
pub(crate) fn truth(value: bool) -> Value {
    Value { kind: Some(Kind::BoolValue(value)) }
}

/// A struct in a struct.
pub(crate) fn object(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value { kind: Some(Kind::StructValue(structure(fields))) }
}

/// A list in a struct.
pub(crate) fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

/// A duration; one too long for the type is the longest there is.
pub(crate) fn duration(value: Duration) -> ProtoDuration {
    ProtoDuration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or_default(),
    }
}

/// A wrapped number.
pub(crate) fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}

/// A wrapped truth value.
pub(crate) fn flag(value: bool) -> BoolValue {
    BoolValue { value }
}

/// A TCP address.
pub(crate) fn address(ip: IpAddr, port: u16) -> Address {
    named_address(ip.to_string(), port)
}

/// A TCP address by name.
pub(crate) fn named_address(host: String, port: u16) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: host,
            port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
            ..SocketAddress::default()
        })),
    }
}

/// Every IPv4 address.
pub(crate) const ANY_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Every IPv6 address.
pub(crate) const ANY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// An address range.
pub(crate) fn cidr(net: ipnet::IpNet) -> CidrRange {
    CidrRange {
        address_prefix: net.addr().to_string(),
        prefix_len: Some(number(u32::from(net.prefix_len()))),
    }
}

/// Resources of this come over the aggregated stream that brought the message; waits for ever.
pub(crate) fn from_ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(ProtoDuration::default()),
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(
            ConfigSourceSpecifier::Ads(AggregatedConfigSource::default()),
        ),
        ..ConfigSource::default()
    }
}

/// A regular expression in RE2 syntax that must match the whole text.
pub(crate) fn regex(pattern: impl Into<String>) -> RegexMatcher {
    RegexMatcher { regex: pattern.into(), ..RegexMatcher::default() }
}

/// A string matcher that minds case.
pub(crate) fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

/// A share of all requests, from percent. Exact to a millionth.
pub(crate) fn fraction(percent: f64) -> FractionalPercent {
    let millionths = (percent.clamp(0.0, 100.0) * 10_000.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=1,000,000 above"
    )]
    let numerator = millionths as u32;
    FractionalPercent { numerator, denominator: DenominatorType::Million as i32 }
}

/// The same as the default of a runtime value.
pub(crate) fn runtime_fraction(percent: f64) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent {
        default_value: Some(fraction(percent)),
        ..RuntimeFractionalPercent::default()
    }
}
