//! What decides which packets of a pod go through its proxy, and where that is read from.
//!
//! [`Settings`] is plain data. [`flags`] makes it from the command line and environment of
//! `lateen-init`, [`pod`] from a pod object. Must not know rules or the kernel.

pub mod flags;
mod lists;
pub mod pod;
mod read;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

pub use lists::{Interface, ListError};

/// Port on which the proxy answers DNS.
pub const DNS_PORT: u16 = 15053;
/// Mark of the proxy's calls to its own pod in TPROXY mode.
pub const OUTBOUND_MARK: u32 = 1338;
/// Address from which the proxy calls the application, IPv4.
pub const PASSTHROUGH_SOURCE_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// Address from which the proxy calls the application, IPv6; put on `lo` with the rules.
pub const PASSTHROUGH_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
/// User and group id of the proxy.
pub const PROXY_ID: u32 = 1337;

/// How inbound connections reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Destination rewritten to the proxy's port.
    Redirect,
    /// Addresses unchanged; the proxy sees the client's.
    Tproxy,
}

/// Which inbound ports are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSelection {
    /// All but the excluded ones.
    All,
    /// These, whatever is excluded. Empty: none.
    Only(Vec<u16>),
}

/// Which outbound ranges are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeSelection {
    /// All.
    All,
    /// These. Empty: none.
    Only(Vec<IpNet>),
}

/// Processes of which groups are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerGroups {
    /// All but these.
    AllExcept(Vec<u32>),
    /// Only these.
    Only(Vec<u32>),
}

/// Which questions for names go to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsCapture {
    /// None.
    Off,
    /// Those to these servers.
    Servers(Vec<IpAddr>),
    /// All to port 53.
    All,
}

/// What carries the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// nftables where the kernel has what the plan needs, else iptables.
    Auto,
    /// nftables.
    Nft,
    /// iptables.
    Iptables,
}

/// The two programs that are called iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IptablesKind {
    /// Over nf_tables.
    Nft,
    /// Over the tables that kernels had before.
    Legacy,
}

impl std::fmt::Display for IptablesKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

/// Everything a redirect plan is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Port that outbound TCP goes to.
    pub outbound_port: u16,
    /// Port that inbound TCP goes to.
    pub inbound_port: u16,
    /// Tunnel port, never redirected.
    pub tunnel_port: u16,
    /// User ids of the proxy.
    pub proxy_uids: Vec<u32>,
    /// Group ids of the proxy.
    pub proxy_gids: Vec<u32>,
    /// How inbound is captured.
    pub mode: Mode,
    /// Inbound ports captured.
    pub inbound_ports: PortSelection,
    /// Inbound ports left alone when all are captured.
    pub inbound_ports_exclude: Vec<u16>,
    /// Outbound ranges captured.
    pub outbound_ranges: RangeSelection,
    /// Outbound ranges left alone.
    pub outbound_ranges_exclude: Vec<IpNet>,
    /// Outbound ports captured whatever the range.
    pub outbound_ports: Vec<u16>,
    /// Outbound ports left alone.
    pub outbound_ports_exclude: Vec<u16>,
    /// Interfaces left alone.
    pub exclude_interfaces: Vec<Interface>,
    /// Interfaces whose inbound counts as outbound (virtual machines).
    pub reroute_interfaces: Vec<Interface>,
    /// Groups captured.
    pub owner_groups: OwnerGroups,
    /// DNS capture.
    pub dns: DnsCapture,
    /// Whether packets of no connection are dropped.
    pub drop_invalid: bool,
    /// IPv4 destinations that never leave the pod.
    pub loopback_range: Ipv4Net,
    /// Mark of TPROXY packets.
    pub tproxy_mark: u32,
    /// Route table of that mark.
    pub tproxy_table: u32,
}

impl Default for Settings {
    /// What `istio-iptables` does without arguments: only the proxy's calls to its own pod.
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            proxy_uids: vec![PROXY_ID],
            proxy_gids: vec![PROXY_ID],
            mode: Mode::Redirect,
            inbound_ports: PortSelection::Only(Vec::new()),
            inbound_ports_exclude: Vec::new(),
            outbound_ranges: RangeSelection::Only(Vec::new()),
            outbound_ranges_exclude: Vec::new(),
            outbound_ports: Vec::new(),
            outbound_ports_exclude: Vec::new(),
            exclude_interfaces: Vec::new(),
            reroute_interfaces: Vec::new(),
            owner_groups: OwnerGroups::AllExcept(Vec::new()),
            dns: DnsCapture::Off,
            drop_invalid: false,
            loopback_range: Ipv4Net::from(Ipv4Addr::LOCALHOST),
            tproxy_mark: 1337,
            tproxy_table: 133,
        }
    }
}

impl Settings {
    /// Whether a captured outbound range begins within loopback. Calls of the application over
    /// `lo` are then not passed by, in both families.
    #[must_use]
    pub fn captures_loopback(&self) -> bool {
        match &self.outbound_ranges {
            RangeSelection::All => false,
            RangeSelection::Only(list) => list.iter().any(|net| net.network().is_loopback()),
        }
    }
}

/// A setting by its names, for the reason of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say what they are; `flag` gives the documented one")]
pub enum Setting {
    InboundPort,
    TunnelPort,
    ProxyUid,
    ProxyGid,
    InboundPorts,
    InboundPortsExclude,
    OutboundRanges,
    OutboundRangesExclude,
    OutboundPorts,
    OutboundPortsExclude,
    ExcludeInterfaces,
    RerouteInterfaces,
    OwnerGroups,
    OwnerGroupsExclude,
    RedirectDns,
    DropInvalid,
    LoopbackRange,
    TproxyMark,
}

impl Setting {
    /// The command line flag, or the environment variable of one that has no flag.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::InboundPort => "--inbound-capture-port",
            Self::TunnelPort => "--inbound-tunnel-port",
            Self::ProxyUid => "--proxy-uid",
            Self::ProxyGid => "--proxy-gid",
            Self::InboundPorts => "--istio-inbound-ports",
            Self::InboundPortsExclude => "--istio-local-exclude-ports",
            Self::OutboundRanges => "--istio-service-cidr",
            Self::OutboundRangesExclude => "--istio-service-exclude-cidr",
            Self::OutboundPorts => "--istio-outbound-ports",
            Self::OutboundPortsExclude => "--istio-local-outbound-ports-exclude",
            Self::ExcludeInterfaces => "--istio-exclude-interfaces",
            Self::RerouteInterfaces => "--kube-virt-interfaces",
            Self::OwnerGroups => "ISTIO_OUTBOUND_OWNER_GROUPS",
            Self::OwnerGroupsExclude => "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
            Self::RedirectDns => "--redirect-dns",
            Self::DropInvalid => "--drop-invalid",
            Self::LoopbackRange => "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
            Self::TproxyMark => "--istio-inbound-tproxy-mark",
        }
    }

    /// The pod annotation that sets it, if one does.
    #[must_use]
    pub fn annotation(self) -> Option<&'static str> {
        match self {
            Self::InboundPorts => Some(pod::INCLUDE_INBOUND_PORTS),
            Self::InboundPortsExclude => Some(pod::EXCLUDE_INBOUND_PORTS),
            Self::OutboundRanges => Some(pod::INCLUDE_OUTBOUND_RANGES),
            Self::OutboundRangesExclude => Some(pod::EXCLUDE_OUTBOUND_RANGES),
            Self::OutboundPorts => Some(pod::INCLUDE_OUTBOUND_PORTS),
            Self::OutboundPortsExclude => Some(pod::EXCLUDE_OUTBOUND_PORTS),
            Self::ExcludeInterfaces => Some(pod::EXCLUDE_INTERFACES),
            Self::RerouteInterfaces => Some(pod::REROUTE_INTERFACES),
            Self::TproxyMark => Some(pod::MODE),
            Self::InboundPort
            | Self::TunnelPort
            | Self::ProxyUid
            | Self::ProxyGid
            | Self::OwnerGroups
            | Self::OwnerGroupsExclude
            | Self::RedirectDns
            | Self::DropInvalid
            | Self::LoopbackRange => None,
        }
    }
}
