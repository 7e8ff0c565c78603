//! Protocol of a service port: from `appProtocol`, else from the prefix of the port's name, else
//! from well-known server-first ports, else detected on the wire.
//!
//! Behaviour is Istio's protocol selection; nothing here knows listeners.

use serde::{Deserialize, Serialize};

/// Protocol of a port as far as routing cares.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
pub enum Protocol {
    /// HTTP/1.1.
    #[serde(rename = "HTTP")]
    Http,
    /// HTTP/2.
    #[serde(rename = "HTTP2")]
    Http2,
    /// gRPC.
    #[serde(rename = "GRPC")]
    Grpc,
    /// gRPC-Web over HTTP/1.1.
    #[serde(rename = "GRPC-Web")]
    GrpcWeb,
    /// TLS of the application that carries HTTP; opaque to the mesh but for its SNI.
    #[serde(rename = "HTTPS")]
    Https,
    /// TLS of the application.
    #[serde(rename = "TLS")]
    Tls,
    /// Bytes.
    #[serde(rename = "TCP")]
    Tcp,
    /// Datagrams; never proxied.
    #[serde(rename = "UDP")]
    Udp,
    /// To be detected from the first bytes.
    #[default]
    #[serde(rename = "Auto")]
    Auto,
}

impl Protocol {
    /// HTTP that can be routed by its head.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// HTTP/2 on the wire.
    #[must_use]
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }

    /// Opaque bytes, TLS of the application among them.
    #[must_use]
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Https)
    }

    /// TLS of the application.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }

    /// Name as shown to users.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Auto => "Auto",
        }
    }

    /// The protocol that a name means, without regard to case; `None` for unknown names.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "http" => Some(Self::Http),
            "http2" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            "grpc-web" => Some(Self::GrpcWeb),
            "https" => Some(Self::Https),
            "tls" => Some(Self::Tls),
            "tcp" | "mongo" | "mysql" | "redis" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }

    fn from_app_protocol(name: &str) -> Option<Self> {
        match name {
            "kubernetes.io/h2c" => Some(Self::Http2),
            "kubernetes.io/ws" => Some(Self::Http),
            "kubernetes.io/wss" => Some(Self::Https),
            other => Self::from_name(other),
        }
    }
}

/// What protocol selection looks at.
#[derive(Debug, Clone, Copy, Default)]
pub struct PortHint<'a> {
    /// Port number of the service.
    pub number: u16,
    /// Port name, may be empty.
    pub name: &'a str,
    /// Transport protocol, `TCP` when empty.
    pub transport: &'a str,
    /// `appProtocol`, may be empty.
    pub app_protocol: &'a str,
}

/// Ports whose server speaks first (SMTP, DNS, MySQL, MongoDB), where waiting for the client's
/// first bytes would stall.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

/// Chooses the protocol of a port.
#[must_use]
pub fn select(hint: PortHint<'_>) -> Protocol {
    if hint.transport.eq_ignore_ascii_case("UDP") {
        return Protocol::Udp;
    }
    if let Some(protocol) = Protocol::from_app_protocol(hint.app_protocol) {
        return protocol;
    }
    if hint.app_protocol.is_empty()
        && let Some(protocol) = from_port_name(hint.name)
    {
        return protocol;
    }
    if SERVER_FIRST.contains(&hint.number) { Protocol::Tcp } else { Protocol::Auto }
}

fn from_port_name(name: &str) -> Option<Protocol> {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("grpc-web") {
        return Some(Protocol::GrpcWeb);
    }
    Protocol::from_name(lower.split_once('-').map_or(lower.as_str(), |(prefix, _)| prefix))
}

#[cfg(test)]
mod tests {
    use super::{PortHint, Protocol, select};

    fn named(name: &str) -> Protocol {
        select(PortHint { number: 8080, name, ..PortHint::default() })
    }

    #[test]
    fn the_prefix_of_the_name_decides() {
        let cases = [
            ("http", Protocol::Http),
            ("http-web", Protocol::Http),
            ("HTTP2-x", Protocol::Http2),
            ("grpc-api", Protocol::Grpc),
            ("grpc-web-api", Protocol::GrpcWeb),
            ("https", Protocol::Https),
            ("tls-x", Protocol::Tls),
            ("tcp-echo", Protocol::Tcp),
            ("mongo", Protocol::Tcp),
            ("redis-main", Protocol::Tcp),
            ("httpfoo", Protocol::Auto),
            ("", Protocol::Auto),
            ("web", Protocol::Auto),
        ];
        for (name, protocol) in cases {
            assert_eq!(named(name), protocol, "{name}");
        }
    }

    #[test]
    fn app_protocol_beats_the_name() {
        let select = |app_protocol| {
            select(PortHint { number: 80, name: "tcp", app_protocol, ..PortHint::default() })
        };
        assert_eq!(select("http"), Protocol::Http);
        assert_eq!(select("kubernetes.io/h2c"), Protocol::Http2);
        assert_eq!(select("example.com/other"), Protocol::Auto);
    }

    #[test]
    fn server_first_ports_are_not_sniffed() {
        assert_eq!(select(PortHint { number: 3306, ..PortHint::default() }), Protocol::Tcp);
        let http = PortHint { number: 3306, name: "http", ..PortHint::default() };
        assert_eq!(select(http), Protocol::Http);
        let udp = PortHint { number: 53, transport: "UDP", ..PortHint::default() };
        assert_eq!(select(udp), Protocol::Udp);
    }
}
