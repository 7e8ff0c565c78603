//! What a plan does to one packet: its chains, walked as the kernel walks them.
//!
//! Answers where a connection goes, by which rule, and why that rule is there. Pure; knows the order of
//! the kernel's hooks, not what carries the rules nor the machine. That the answers are those of real
//! packets is the matter of `tests/conformance.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::plan::{Action, Addresses, Hook, Match, Protocol, RedirectPlan, Rule};

const LOOPBACK: &str = "lo";

/// A packet as it meets the rules: most often the first of a connection, which decides for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub origin: Origin,
    /// TCP or UDP; `None` is any other.
    pub protocol: Option<Protocol>,
    /// Its source; an unspecified address and port 0 are in no rule's list.
    pub source: SocketAddr,
    /// Its destination.
    pub destination: SocketAddr,
    /// The mark it has from the start, as with `SO_MARK`.
    pub mark: u32,
    /// What connection tracking makes of it.
    pub tracking: Tracking,
}

/// Where a packet comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A process of the pod sends it.
    Process {
        /// User id of the process.
        uid: u32,
        /// Group id of the process.
        gid: u32,
        /// The interface to which the routes lead it; `lo` for addresses of the pod itself.
        interface: String,
    },
    /// It arrives from outside.
    Network {
        /// The interface through which it arrives.
        interface: String,
    },
}

/// What connection tracking makes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// The first of a connection.
    New,
    /// Of a connection that there is, as an answer to it; nat chains are not asked.
    Established,
    /// Of no connection.
    Invalid,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Where it was sent to; rules of others are asked next.
    Untouched,
    /// To this port of the pod, its destination rewritten.
    Redirected(u16),
    /// To this port of the pod, its addresses unchanged. Lost while nobody listens there.
    Tproxied(u16),
    /// Nowhere.
    Dropped,
}

/// A rule that a packet met and fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// The chain of the rule.
    pub hook: Hook,
    /// Its number there, from 1.
    pub number: usize,
    /// The rule.
    pub rule: &'a Rule,
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace<'a> {
    /// Where it goes.
    pub way: Way,
    /// The rules that it fitted, first to last.
    pub steps: Vec<Step<'a>>,
    /// Its mark in the end.
    pub mark: u32,
    /// The mark of its connection in the end.
    pub connection_mark: u32,
    /// The zone in which its connection is tracked, where a rule says one.
    pub zone: Option<u16>,
}

impl Trace<'_> {
    /// The rule that decided; `None` where no rule has to do with such packets.
    #[must_use]
    pub fn decisive(&self) -> Option<&Step<'_>> {
        let last = |fits: fn(&Step<'_>) -> bool| self.steps.iter().rev().find(|step| fits(step));
        match self.way {
            Way::Dropped => last(|step| step.rule.action == Action::Drop),
            Way::Tproxied(_) => last(|step| matches!(step.rule.action, Action::Tproxy { .. })),
            Way::Redirected(_) => last(|step| matches!(step.rule.action, Action::Redirect(_))),
            // The nat chains decide, where they have a word.
            Way::Untouched => last(|step| {
                matches!(step.hook, Hook::NatPrerouting | Hook::NatOutput)
                    && step.rule.action == Action::Return
            })
            .or_else(|| last(|step| step.rule.action == Action::Return)),
        }
    }
}

/// What the plan does to the packet.
#[must_use]
pub fn trace<'a>(plan: &'a RedirectPlan, packet: &Packet) -> Trace<'a> {
    let mut walk = Walk::new(plan, packet);
    match &packet.origin {
        Origin::Process { uid, gid, interface } => {
            walk.owner = Some((*uid, *gid));
            walk.out_interface = Some(interface);
            walk.through(&[Hook::RawOutput, Hook::MangleOutput, Hook::NatOutput]);
            if walk.out_interface == Some(LOOPBACK) {
                // What leaves over lo arrives over lo, with no socket that it belongs to, and where
                // its connection goes is settled: the nat chain is not asked again.
                (walk.owner, walk.out_interface) = (None, None);
                walk.in_interface = Some(LOOPBACK);
                walk.through(&[Hook::RawPrerouting, Hook::ManglePrerouting]);
            }
        }
        Origin::Network { interface } => {
            walk.in_interface = Some(interface);
            walk.through(&[Hook::RawPrerouting, Hook::ManglePrerouting, Hook::NatPrerouting]);
        }
    }
    walk.trace
}

/// A packet on its way.
struct Walk<'a, 'p> {
    plan: &'a RedirectPlan,
    packet: &'p Packet,
    destination: SocketAddr,
    owner: Option<(u32, u32)>,
    in_interface: Option<&'p str>,
    out_interface: Option<&'p str>,
    trace: Trace<'a>,
}

impl<'a, 'p> Walk<'a, 'p> {
    fn new(plan: &'a RedirectPlan, packet: &'p Packet) -> Self {
        let trace = Trace {
            way: Way::Untouched,
            steps: Vec::new(),
            mark: packet.mark,
            connection_mark: 0,
            zone: None,
        };
        let destination = packet.destination;
        let (owner, in_interface, out_interface) = (None, None, None);
        Self { plan, packet, destination, owner, in_interface, out_interface, trace }
    }

    fn through(&mut self, hooks: &[Hook]) {
        for hook in hooks {
            let nat = matches!(hook, Hook::NatPrerouting | Hook::NatOutput);
            if self.trace.way == Way::Dropped || nat && self.packet.tracking != Tracking::New {
                return;
            }
            let plan = self.plan;
            for chain in plan.chains.iter().filter(|chain| chain.hook == *hook) {
                self.chain(*hook, &chain.rules);
            }
        }
    }

    fn chain(&mut self, hook: Hook, rules: &'a [Rule]) {
        for (index, rule) in rules.iter().enumerate() {
            if !rule.matches.iter().all(|m| self.fits(m)) {
                continue;
            }
            self.trace.steps.push(Step { hook, number: index + 1, rule });
            if self.act(rule.action) {
                return;
            }
        }
    }

    /// Takes the action; whether the chain ends with it.
    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Return => return true,
            Action::Drop => self.trace.way = Way::Dropped,
            Action::Redirect(port) => self.redirect(port),
            Action::Tproxy { port, mark } => {
                (self.trace.way, self.trace.mark) = (Way::Tproxied(port), mark);
            }
            Action::SetMark(mark) => {
                self.trace.mark = mark;
                return false;
            }
            Action::SetMarkAndReturn(mark) => self.trace.mark = mark,
            Action::SaveMark => self.trace.connection_mark = self.trace.mark,
            Action::RestoreMark => {
                self.trace.mark = self.trace.connection_mark;
                return false;
            }
            // The first zone stays.
            Action::Zone(zone) => _ = self.trace.zone.get_or_insert(zone),
        }
        true
    }

    /// A packet that TPROXY gave a socket stays with that socket, whatever becomes of its addresses.
    fn redirect(&mut self, port: u16) {
        if self.trace.way == Way::Untouched {
            self.trace.way = Way::Redirected(port);
        }
        self.destination.set_port(port);
        if self.out_interface.is_some() {
            self.out_interface = Some(LOOPBACK);
            self.destination.set_ip(match self.destination.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
    }

    fn fits(&self, m: &Match) -> bool {
        let port = |wanted: &[u16], port: u16| wanted.contains(&port);
        let uid = self.owner.map(|(uid, _)| uid);
        let gid = self.owner.map(|(_, gid)| gid);
        match m {
            Match::InInterface(i) => self.in_interface.is_some_and(|name| i.includes(name)),
            Match::OutInterface(i) => self.out_interface.is_some_and(|name| i.includes(name)),
            Match::Protocol(protocol) => self.packet.protocol == Some(*protocol),
            Match::DestinationPort(ports) => port(&ports.ports, self.destination.port()),
            Match::NotDestinationPort(ports) => !port(ports, self.destination.port()),
            Match::SourcePort(wanted) => self.packet.source.port() == *wanted,
            Match::Destination(a) => includes(a, self.destination.ip()),
            Match::NotDestination(a) => !includes(a, self.destination.ip()),
            Match::Source(a) => includes(a, self.packet.source.ip()),
            // A packet without a socket has no owner, neither this one nor another.
            Match::Uid(id) => uid == Some(*id),
            Match::NotUid(id) => uid.is_some_and(|uid| uid != *id),
            Match::Gid(id) => gid == Some(*id),
            Match::NotGids(ids) => gid.is_some_and(|gid| !ids.contains(&gid)),
            Match::Mark(mark) => self.trace.mark == *mark,
            Match::NotMark(mark) => self.trace.mark != *mark,
            Match::ConnectionMark(mark) => self.trace.connection_mark == *mark,
            Match::Established => self.packet.tracking == Tracking::Established,
            Match::Invalid => self.packet.tracking == Tracking::Invalid,
        }
    }
}

fn includes(a: &Addresses, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => a.v4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => a.v6.iter().any(|net| net.contains(&ip)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{DnsCapture, Mode, PortSelection, RangeSelection, Setting, Settings};

    fn everything() -> Settings {
        Settings {
            inbound_ports: PortSelection::All,
            outbound_ranges: RangeSelection::All,
            ..Settings::default()
        }
    }

    fn packet(origin: Origin, protocol: Protocol, to: &str) -> Packet {
        let destination: SocketAddr = to.parse().unwrap();
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Packet {
            origin,
            protocol: Some(protocol),
            source: SocketAddr::new(any, 0),
            destination,
            mark: 0,
            tracking: Tracking::New,
        }
    }

    fn process(id: u32, interface: &str) -> Origin {
        Origin::Process { uid: id, gid: id, interface: interface.to_owned() }
    }

    fn outside() -> Origin {
        Origin::Network { interface: "eth0".to_owned() }
    }

    /// Way and flag of the decisive rule.
    fn told(settings: &Settings, packet: &Packet) -> (Way, Option<Setting>) {
        let plan = RedirectPlan::new(settings);
        let trace = trace(&plan, packet);
        (trace.way, trace.decisive().map(|step| step.rule.reason.setting))
    }

    #[test]
    fn a_connection_goes_where_the_first_rule_that_fits_says() {
        let settings = Settings { dns: DnsCapture::All, ..everything() };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        for (origin, protocol, to, way, setting) in [
            (
                process(7, "eth0"),
                tcp,
                "1.2.3.4:80",
                Way::Redirected(15001),
                Some(Setting::OutboundRanges),
            ),
            (process(1337, "eth0"), tcp, "1.2.3.4:80", Way::Untouched, Some(Setting::ProxyUid)),
            (
                process(1337, "lo"),
                tcp,
                "[fd00::1]:80",
                Way::Redirected(15006),
                Some(Setting::ProxyUid),
            ),
            (process(7, "lo"), tcp, "127.0.0.1:80", Way::Untouched, Some(Setting::ProxyUid)),
            (
                process(7, "eth0"),
                udp,
                "1.2.3.4:53",
                Way::Redirected(15053),
                Some(Setting::RedirectDns),
            ),
            (process(7, "eth0"), udp, "1.2.3.4:54", Way::Untouched, None),
            (outside(), tcp, "10.0.0.1:80", Way::Redirected(15006), Some(Setting::InboundPorts)),
            (outside(), tcp, "10.0.0.1:15008", Way::Untouched, Some(Setting::TunnelPort)),
            (outside(), udp, "10.0.0.1:80", Way::Untouched, None),
        ] {
            let packet = packet(origin, protocol, to);
            assert_eq!(told(&settings, &packet), (way, setting), "{packet:?}");
        }
    }

    #[test]
    fn the_zone_of_a_question_is_that_of_who_asks() {
        let plan = RedirectPlan::new(&Settings { dns: DnsCapture::All, ..everything() });
        let zone =
            |id| trace(&plan, &packet(process(id, "eth0"), Protocol::Udp, "1.2.3.4:53")).zone;
        assert_eq!((zone(1337), zone(7)), (Some(1), Some(2)));
    }

    #[test]
    fn tproxy_leaves_addresses_and_marks() {
        let settings = Settings { mode: Mode::Tproxy, ..everything() };
        let plan = RedirectPlan::new(&settings);
        let arriving = trace(&plan, &packet(outside(), Protocol::Tcp, "10.0.0.1:80"));
        assert_eq!((arriving.way, arriving.mark), (Way::Tproxied(15006), 1337));
        // The tunnel port over lo: spared by nat, then taken where it arrives.
        let own = packet(process(1337, "lo"), Protocol::Tcp, "10.0.0.1:15008");
        assert_eq!(told(&settings, &own), (Way::Tproxied(15006), Some(Setting::InboundPorts)));
        // Rewritten before it arrives, so that it is not taken twice.
        let own = packet(process(1337, "lo"), Protocol::Tcp, "10.0.0.1:80");
        assert_eq!(told(&settings, &own), (Way::Redirected(15006), Some(Setting::ProxyUid)));
    }

    #[test]
    fn packets_of_no_connection_are_dropped_where_that_is_set_and_never_redirected() {
        let lost = Packet {
            tracking: Tracking::Invalid,
            ..packet(outside(), Protocol::Tcp, "10.0.0.1:80")
        };
        assert_eq!(told(&everything(), &lost), (Way::Untouched, None));
        let dropping = Settings { drop_invalid: true, ..everything() };
        assert_eq!(told(&dropping, &lost), (Way::Dropped, Some(Setting::DropInvalid)));
    }

    #[test]
    fn without_rules_nothing_decides() {
        let packet = packet(process(7, "eth0"), Protocol::Tcp, "1.2.3.4:80");
        let plan = RedirectPlan { chains: Vec::new(), mark_route: None };
        let trace = trace(&plan, &packet);
        assert_eq!((trace.way, trace.decisive()), (Way::Untouched, None));
    }
}
