//! The redirect plan: what is to happen to a pod's packets, in order, for both families.
//!
//! Plain data with the reason of each rule, made from settings by [`RedirectPlan::new`]. Must not
//! know nftables, iptables, netlink or the machine it runs on.

mod build;

use std::fmt;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::settings::{Interface, Setting};

/// What is to happen to the packets of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectPlan {
    /// Chains in the order in which a packet would meet them; none is empty.
    pub chains: Vec<Chain>,
    /// Routes for packets that carry the TPROXY mark.
    pub mark_route: Option<MarkRoute>,
}

/// `ip rule fwmark MARK lookup TABLE` with `local default dev lo` in that table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRoute {
    /// Packet mark.
    pub mark: u32,
    /// Number of the route table.
    pub table: u32,
}

/// One chain of rules at one hook; a packet that matches no final rule goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where it is called.
    pub hook: Hook,
    /// First to last.
    pub rules: Vec<Rule>,
}

/// Where in the network stack a chain is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Before connection tracking, packets that arrive.
    RawPrerouting,
    /// Before connection tracking, packets of local processes.
    RawOutput,
    /// Marks and TPROXY, packets that arrive.
    ManglePrerouting,
    /// Marks, packets of local processes; a new mark means a new route look-up.
    MangleOutput,
    /// Address translation, new connections that arrive.
    NatPrerouting,
    /// Address translation, new connections of local processes.
    NatOutput,
}

/// One rule: every match must hold, then the action is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Conditions, all of which must hold.
    pub matches: Vec<Match>,
    /// What happens.
    pub action: Action,
    /// Why the rule exists.
    pub reason: Reason,
}

/// The setting that a rule comes from, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Setting whose value made the rule.
    pub setting: Setting,
    /// What the rule is for, a few words.
    pub text: &'static str,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting.flag(), self.text)
    }
}

/// Transport protocols that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Addresses of both families. A family without entries matches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Name for a set of them.
    pub name: &'static str,
    /// IPv4 ranges.
    pub v4: Vec<Ipv4Net>,
    /// IPv6 ranges.
    pub v6: Vec<Ipv6Net>,
}

/// Ports, with a name for a set of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Name for a set of them.
    pub name: &'static str,
    /// The ports.
    pub ports: Vec<u16>,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Arrived through this interface.
    InInterface(Interface),
    /// Leaves through this interface.
    OutInterface(Interface),
    /// Is of this protocol.
    Protocol(Protocol),
    /// Destination port is one of these.
    DestinationPort(Ports),
    /// Destination port is none of these.
    NotDestinationPort(Vec<u16>),
    /// Source port is this one.
    SourcePort(u16),
    /// Destination is in one of these ranges.
    Destination(Addresses),
    /// Destination is in none of these ranges; one range a family.
    NotDestination(Addresses),
    /// Source is in one of these ranges.
    Source(Addresses),
    /// Sent by this user id.
    Uid(u32),
    /// Sent by another user id.
    NotUid(u32),
    /// Sent by this group id.
    Gid(u32),
    /// Sent by a group id that is none of these.
    NotGids(Vec<u32>),
    /// Carries this mark.
    Mark(u32),
    /// Carries another mark.
    NotMark(u32),
    /// Its connection carries this mark.
    ConnectionMark(u32),
    /// Belongs to a known connection or is related to one.
    Established,
    /// Belongs to no connection that conntrack can follow.
    Invalid,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The chain ends, the packet goes on untouched.
    Return,
    /// The packet is lost.
    Drop,
    /// The connection goes to this local port.
    Redirect(u16),
    /// The packet goes to this local port with its addresses unchanged, and gets the mark.
    Tproxy {
        /// Local port.
        port: u16,
        /// Mark that routes the packet to the local machine.
        mark: u32,
    },
    /// The packet gets this mark; the chain goes on.
    SetMark(u32),
    /// The packet gets this mark; the chain ends.
    SetMarkAndReturn(u32),
    /// The connection gets the packet's mark; the chain ends.
    SaveMark,
    /// The packet gets the connection's mark; the chain goes on.
    RestoreMark,
    /// The connection is tracked in this zone; the chain ends.
    Zone(u16),
}

impl RedirectPlan {
    /// Whether nothing at all is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }
}
