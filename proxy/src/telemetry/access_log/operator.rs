//! The operators of access log formats, and what each writes of a request or connection.
//!
//! An operator that has nothing to say writes nothing; the format makes `-` or `null` of it.
//! Headers come from others: control characters are written as `_`.

use super::Entry;
use super::time::TimeFormat;
use crate::http::RequestRecord;
use http::header::HeaderName;
use http::{HeaderMap, Version};
use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// Longest header value that is logged without a limit of its own.
const MAX_HEADER: usize = 16 << 10;

/// A header by name, or a part of the request line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Method,
    Path,
    Authority,
    Scheme,
    Header(HeaderName),
}

/// Something that is looked up in every entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operator {
    StartTime(TimeFormat),
    Request(Headers),
    RequestWithoutQuery(Headers),
    Response(Headers),
    /// Trailers are not kept; always absent.
    Trailer,
    Plain(Plain),
}

/// A header with its stand-in and the longest text written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Headers {
    main: Field,
    otherwise: Option<Field>,
    limit: usize,
}

macro_rules! plain {
    ($($name:ident = $text:literal;)*) => {
        /// Operators without arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Plain { $($name),* }

        impl Plain {
            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

plain! {
    Protocol = "PROTOCOL";
    ResponseCode = "RESPONSE_CODE";
    ResponseFlags = "RESPONSE_FLAGS";
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS";
    TerminationDetails = "CONNECTION_TERMINATION_DETAILS";
    TransportFailure = "UPSTREAM_TRANSPORT_FAILURE_REASON";
    BytesReceived = "BYTES_RECEIVED";
    BytesSent = "BYTES_SENT";
    Duration = "DURATION";
    RequestDuration = "REQUEST_DURATION";
    ResponseDuration = "RESPONSE_DURATION";
    ResponseTxDuration = "RESPONSE_TX_DURATION";
    UpstreamHost = "UPSTREAM_HOST";
    UpstreamCluster = "UPSTREAM_CLUSTER";
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW";
    UpstreamLocal = "UPSTREAM_LOCAL_ADDRESS";
    UpstreamRemote = "UPSTREAM_REMOTE_ADDRESS";
    Attempts = "UPSTREAM_REQUEST_ATTEMPT_COUNT";
    DownstreamLocal = "DOWNSTREAM_LOCAL_ADDRESS";
    DownstreamLocalIp = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT";
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT";
    DownstreamRemote = "DOWNSTREAM_REMOTE_ADDRESS";
    DownstreamRemoteIp = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT";
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT";
    DirectRemote = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS";
    DirectRemoteIp = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT";
    ServerName = "REQUESTED_SERVER_NAME";
    RouteName = "ROUTE_NAME";
    GrpcStatusNumber = "GRPC_STATUS_NUMBER";
    PeerUri = "DOWNSTREAM_PEER_URI_SAN";
    PeerDns = "DOWNSTREAM_PEER_DNS_SAN";
    PeerSubject = "DOWNSTREAM_PEER_SUBJECT";
    PeerFingerprint = "DOWNSTREAM_PEER_FINGERPRINT_256";
    LocalUri = "DOWNSTREAM_LOCAL_URI_SAN";
    TlsVersion = "DOWNSTREAM_TLS_VERSION";
}

impl Operator {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Some((name, rest)) = text.split_once('(') else {
            return match text {
                "START_TIME" => Some(Self::StartTime(TimeFormat::ISO)),
                _ => Plain::parse(text).map(Self::Plain),
            };
        };
        let (argument, limit) = rest.rsplit_once(')')?;
        let limit = match limit.strip_prefix(':') {
            Some(limit) => limit.parse().ok()?,
            None if limit.is_empty() => MAX_HEADER,
            None => return None,
        };
        match name {
            "START_TIME" => TimeFormat::parse(argument).map(Self::StartTime),
            "REQ" => Headers::parse(argument, limit).map(Self::Request),
            "REQ_WITHOUT_QUERY" => Headers::parse(argument, limit).map(Self::RequestWithoutQuery),
            "RESP" => Headers::parse(argument, limit).map(Self::Response),
            "TRAILER" => Headers::parse(argument, limit).map(|_| Self::Trailer),
            _ => None,
        }
    }

    /// JSON writes its value as a number.
    pub(super) fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Plain(
                Plain::ResponseCode
                    | Plain::BytesReceived
                    | Plain::BytesSent
                    | Plain::Duration
                    | Plain::RequestDuration
                    | Plain::ResponseDuration
                    | Plain::ResponseTxDuration
                    | Plain::Attempts
                    | Plain::DownstreamLocalPort
                    | Plain::DownstreamRemotePort
                    | Plain::GrpcStatusNumber
            )
        )
    }

    pub(super) fn write(&self, entry: &Entry<'_>, line: &mut String) {
        match (self, entry) {
            (Self::StartTime(format), Entry::Request(r)) => format.write(r.start, line),
            (Self::StartTime(format), Entry::Connection(r)) => format.write(r.start, line),
            (Self::Request(headers), Entry::Request(r)) => headers.request(r, true, line),
            (Self::RequestWithoutQuery(headers), Entry::Request(r)) => {
                headers.request(r, false, line);
            }
            (Self::Response(headers), Entry::Request(r)) => headers.response(r, line),
            (Self::Plain(plain), _) => plain.write(entry, line),
            (
                Self::Request(_) | Self::RequestWithoutQuery(_) | Self::Response(_) | Self::Trailer,
                _,
            ) => {}
        }
    }
}

impl Headers {
    fn parse(text: &str, limit: usize) -> Option<Self> {
        let (main, otherwise) = match text.split_once('?') {
            Some((main, otherwise)) => (main, Some(field(otherwise)?)),
            None => (text, None),
        };
        Some(Self { main: field(main)?, otherwise, limit })
    }

    fn request(&self, record: &RequestRecord, query: bool, line: &mut String) {
        let before = line.len();
        for field in [Some(&self.main), self.otherwise.as_ref()].into_iter().flatten() {
            match field {
                Field::Method => line.push_str(record.method.as_str()),
                Field::Path => {
                    let whole = record.uri.path_and_query().map_or("/", |path| path.as_str());
                    let shown = if query { whole } else { record.uri.path() };
                    clean(shown.as_bytes(), self.limit, line);
                }
                Field::Scheme => line.push_str(record.downstream.scheme()),
                Field::Authority => {
                    if let Some(host) = &record.authority {
                        clean(host.as_bytes(), self.limit, line);
                    }
                }
                Field::Header(name) => {
                    header(record.request_headers.as_deref(), name, self.limit, line)
                }
            }
            if line.len() > before {
                return;
            }
        }
    }

    fn response(&self, record: &RequestRecord, line: &mut String) {
        let before = line.len();
        for field in [Some(&self.main), self.otherwise.as_ref()].into_iter().flatten() {
            if let Field::Header(name) = field {
                header(record.response_headers.as_deref(), name, self.limit, line);
            }
            if line.len() > before {
                return;
            }
        }
    }
}

fn field(text: &str) -> Option<Field> {
    Some(match text.to_ascii_lowercase().as_str() {
        ":method" => Field::Method,
        ":path" => Field::Path,
        ":authority" => Field::Authority,
        ":scheme" => Field::Scheme,
        name => Field::Header(name.parse().ok()?),
    })
}

fn header(headers: Option<&HeaderMap>, name: &HeaderName, limit: usize, line: &mut String) {
    if let Some(value) = headers.and_then(|headers| headers.get(name)) {
        clean(value.as_bytes(), limit, line);
    }
}

/// Appends text of others so that it cannot forge lines.
fn clean(bytes: &[u8], limit: usize, line: &mut String) {
    for c in String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]).chars() {
        line.push(if c.is_control() { '_' } else { c });
    }
}

impl Plain {
    fn write(self, entry: &Entry<'_>, line: &mut String) {
        match entry {
            Entry::Request(_) => self.shared(entry, line).or_else(|| self.request(entry, line)),
            Entry::Connection(_) => {
                self.shared(entry, line).or_else(|| self.connection(entry, line))
            }
        };
    }

    /// What requests and connections have alike; `None` when the operator is none of these.
    fn shared(self, entry: &Entry<'_>, line: &mut String) -> Option<()> {
        let downstream = entry.downstream();
        let tls = downstream.tls.as_deref();
        let peer = tls.and_then(|tls| tls.peer.as_ref());
        match self {
            Self::ResponseFlags => show(line, entry.flags()),
            Self::DownstreamLocal => show(line, downstream.local),
            Self::DownstreamLocalIp => show(line, downstream.local.ip()),
            Self::DownstreamLocalPort => show(line, downstream.local.port()),
            Self::DownstreamRemote | Self::DirectRemote => show(line, downstream.peer),
            Self::DownstreamRemoteIp | Self::DirectRemoteIp => show(line, downstream.peer.ip()),
            Self::DownstreamRemotePort => show(line, downstream.peer.port()),
            Self::ServerName => text(line, entry.server_name()),
            Self::TlsVersion => text(line, tls.and_then(|tls| tls.version.as_deref())),
            Self::LocalUri => join(line, tls.map_or(&[][..], |tls| &tls.local_uris)),
            Self::PeerUri => join(line, peer.map_or(&[][..], |peer| &peer.uris)),
            Self::PeerDns => join(line, peer.map_or(&[][..], |peer| &peer.dns)),
            Self::PeerSubject => text(line, peer.map(|peer| peer.subject.as_str())),
            Self::PeerFingerprint => text(line, peer.map(|peer| peer.hash.as_str())),
            _ => return None,
        }
        Some(())
    }

    fn request(self, entry: &Entry<'_>, line: &mut String) -> Option<()> {
        let Entry::Request(record) = entry else { return None };
        match self {
            Self::Protocol => line.push_str(protocol(record.version)),
            Self::ResponseCode => show(line, record.status.map_or(0, |status| status.as_u16())),
            Self::ResponseCodeDetails => details(line, &record.details),
            Self::TransportFailure => details(line, record.failure.as_deref().unwrap_or("")),
            Self::BytesReceived => show(line, record.bytes_received),
            Self::BytesSent => show(line, record.bytes_sent),
            Self::Duration => millis(line, Some(record.duration)),
            Self::RequestDuration => millis(line, record.request_duration),
            Self::ResponseDuration => millis(line, record.response_duration),
            Self::ResponseTxDuration => {
                millis(line, record.response_duration.map(|d| record.duration.saturating_sub(d)));
            }
            Self::UpstreamHost | Self::UpstreamRemote => {
                address(line, record.endpoint.as_ref().map(|endpoint| endpoint.address));
            }
            Self::UpstreamCluster | Self::UpstreamClusterRaw => {
                text(line, record.cluster_name().map(|name| &**name));
            }
            Self::UpstreamLocal => address(line, record.upstream_local),
            Self::Attempts => show(line, record.attempts),
            Self::RouteName => text(line, Some(record.route_name())),
            Self::GrpcStatusNumber => {
                if let Some(status) = record.grpc_status {
                    show(line, status);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn connection(self, entry: &Entry<'_>, line: &mut String) -> Option<()> {
        let Entry::Connection(record) = entry else { return None };
        let outcome = record.outcome();
        match self {
            Self::ResponseCode => show(line, 0),
            Self::TerminationDetails | Self::ResponseCodeDetails => details(line, &outcome.details),
            Self::TransportFailure => details(line, outcome.failure.as_deref().unwrap_or("")),
            Self::BytesReceived => show(line, record.traffic.received.get()),
            Self::BytesSent => show(line, record.traffic.sent.get()),
            Self::Duration => millis(line, Some(record.started.elapsed())),
            Self::UpstreamHost | Self::UpstreamRemote => {
                address(line, outcome.endpoint.as_ref().map(|endpoint| endpoint.address));
            }
            Self::UpstreamCluster | Self::UpstreamClusterRaw => {
                text(line, outcome.cluster.as_ref().map(|cluster| &*cluster.name));
            }
            Self::UpstreamLocal => address(line, outcome.upstream_local),
            _ => return None,
        }
        Some(())
    }
}

fn show(line: &mut String, value: impl Display) {
    let _infallible = write!(line, "{value}");
}

fn text(line: &mut String, value: Option<&str>) {
    clean(value.unwrap_or("").as_bytes(), MAX_HEADER, line);
}

fn join(line: &mut String, values: &[String]) {
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            line.push(',');
        }
        clean(value.as_bytes(), MAX_HEADER, line);
    }
}

/// Details are one word for whoever splits lines at spaces.
fn details(line: &mut String, value: &str) {
    line.extend(value.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }));
}

fn address(line: &mut String, value: Option<SocketAddr>) {
    if let Some(value) = value {
        show(line, value);
    }
}

fn millis(line: &mut String, value: Option<Duration>) {
    if let Some(value) = value {
        show(line, value.as_millis());
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/3",
    }
}
