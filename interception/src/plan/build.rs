//! From settings to rules, in the order that Istio's rules have.
//!
//! The order and its oddities are those of `istio-iptables` (nat, raw and mangle tables), so that a
//! pod moves between the two without a packet taking another way. Both families are always covered.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Action, Addresses, Chain, Hook, MarkRoute, Match, Ports, Protocol, Reason, RedirectPlan, Rule,
};
use crate::settings::{
    DNS_PORT, DnsCapture, Interface, Mode, OUTBOUND_MARK, OwnerGroups, PASSTHROUGH_SOURCE_V4,
    PASSTHROUGH_SOURCE_V6, PortSelection, RangeSelection, Setting, Settings,
};

const DNS: u16 = 53;
/// Zone of what the proxy asks and what comes back to it.
const ZONE_PROXY: u16 = 1;
/// Zone of what the application asks and the proxy answers.
const ZONE_APPLICATION: u16 = 2;

impl RedirectPlan {
    /// The plan for these settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let build = Build { s: settings };
        let chains = [
            (Hook::RawPrerouting, build.raw_prerouting()),
            (Hook::RawOutput, build.raw_output()),
            (Hook::ManglePrerouting, build.mangle_prerouting()),
            (Hook::MangleOutput, build.mangle_output()),
            (Hook::NatPrerouting, build.nat_prerouting()),
            (Hook::NatOutput, build.nat_output()),
        ]
        .into_iter()
        .filter(|(_, rules)| !rules.is_empty())
        .map(|(hook, rules)| Chain { hook, rules })
        .collect();
        let mark_route = (settings.mode == Mode::Tproxy)
            .then_some(MarkRoute { mark: settings.tproxy_mark, table: settings.tproxy_table });
        Self { chains, mark_route }
    }
}

/// An owner of packets that counts as the proxy.
#[derive(Clone, Copy)]
enum Owner {
    Uid(u32),
    Gid(u32),
}

impl Owner {
    fn is(self) -> Match {
        match self {
            Self::Uid(id) => Match::Uid(id),
            Self::Gid(id) => Match::Gid(id),
        }
    }

    fn is_not(self) -> Match {
        match self {
            Self::Uid(id) => Match::NotUid(id),
            Self::Gid(id) => Match::NotGids(vec![id]),
        }
    }

    fn setting(self) -> Setting {
        match self {
            Self::Uid(_) => Setting::ProxyUid,
            Self::Gid(_) => Setting::ProxyGid,
        }
    }
}

fn rule(matches: Vec<Match>, action: Action, setting: Setting, text: &'static str) -> Rule {
    Rule { matches, action, reason: Reason { setting, text } }
}

fn tcp() -> Match {
    Match::Protocol(Protocol::Tcp)
}

fn udp() -> Match {
    Match::Protocol(Protocol::Udp)
}

/// Ports in order: lists that name the same ports are the same plan.
fn ports(name: &'static str, ports: &[u16]) -> Match {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    Match::DestinationPort(Ports { name, ports })
}

fn port(port: u16) -> Match {
    ports("port", &[port])
}

fn out_lo() -> Match {
    Match::OutInterface(Interface::loopback())
}

fn in_lo() -> Match {
    Match::InInterface(Interface::loopback())
}

fn addresses(name: &'static str, nets: &[IpNet]) -> Addresses {
    let mut found = Addresses { name, v4: Vec::new(), v6: Vec::new() };
    for net in nets {
        match net {
            IpNet::V4(net) => found.v4.push(*net),
            IpNet::V6(net) => found.v6.push(*net),
        }
    }
    found
}

fn passthrough_source() -> Match {
    Match::Source(Addresses {
        name: "passthrough",
        v4: vec![Ipv4Net::from(PASSTHROUGH_SOURCE_V4)],
        v6: vec![Ipv6Net::from(PASSTHROUGH_SOURCE_V6)],
    })
}

struct Build<'a> {
    s: &'a Settings,
}

impl Build<'_> {
    fn owners(&self) -> impl Iterator<Item = Owner> {
        let uids = self.s.proxy_uids.iter().map(|id| Owner::Uid(*id));
        uids.chain(self.s.proxy_gids.iter().map(|id| Owner::Gid(*id)))
    }

    fn tproxy(&self) -> bool {
        self.s.mode == Mode::Tproxy
    }

    fn loopback(&self) -> Addresses {
        Addresses {
            name: "loopback",
            v4: vec![self.s.loopback_range],
            v6: vec![Ipv6Net::from(Ipv6Addr::LOCALHOST)],
        }
    }

    /// The name servers whose questions are captured: `None` is no capture, an inner `None` all.
    fn dns_servers(&self) -> Option<Option<Addresses>> {
        match &self.s.dns {
            DnsCapture::Off => None,
            DnsCapture::All => Some(None),
            DnsCapture::Servers(servers) => {
                let nets: Vec<IpNet> = servers.iter().map(|ip| IpNet::from(*ip)).collect();
                Some(Some(addresses("dns-servers", &nets)))
            }
        }
    }

    fn raw_prerouting(&self) -> Vec<Rule> {
        let Some(servers) = self.dns_servers() else { return Vec::new() };
        let mut matches = vec![udp(), Match::SourcePort(DNS)];
        matches.extend(servers.map(Match::Source));
        let text = "answers to the proxy's questions";
        vec![rule(matches, Action::Zone(ZONE_PROXY), Setting::RedirectDns, text)]
    }

    fn raw_output(&self) -> Vec<Rule> {
        let Some(servers) = self.dns_servers() else { return Vec::new() };
        let setting = Setting::RedirectDns;
        let mut rules = Vec::new();
        for owner in self.owners() {
            let question = vec![udp(), port(DNS), owner.is()];
            let text = "the proxy's own questions";
            rules.push(rule(question, Action::Zone(ZONE_PROXY), setting, text));
            let answer = vec![udp(), Match::SourcePort(DNS_PORT), owner.is()];
            let text = "the proxy's answers to the application";
            rules.push(rule(answer, Action::Zone(ZONE_APPLICATION), setting, text));
        }
        let mut matches = vec![udp(), port(DNS)];
        matches.extend(servers.map(Match::Destination));
        let text = "the application's questions";
        rules.push(rule(matches, Action::Zone(ZONE_APPLICATION), setting, text));
        rules
    }

    fn mangle_prerouting(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.tproxy() {
            rules.extend(self.excluded_interfaces(Match::InInterface));
        }
        if self.s.drop_invalid {
            let text = "packets of no connection";
            rules.push(rule(vec![Match::Invalid], Action::Drop, Setting::DropInvalid, text));
        }
        if self.tproxy() {
            let marked = vec![tcp(), Match::Mark(self.s.tproxy_mark)];
            let text = "from the proxy to the application, remembered for the answer";
            rules.push(rule(marked, Action::SaveMark, Setting::TproxyMark, text));
            rules.extend(self.tproxy_inbound());
        }
        rules
    }

    fn tproxy_inbound(&self) -> Vec<Rule> {
        let selected = match &self.s.inbound_ports {
            PortSelection::All => Vec::new(),
            PortSelection::Only(list) if list.is_empty() => return Vec::new(),
            PortSelection::Only(list) => vec![ports("inbound-ports", list)],
        };
        let setting = Setting::InboundPorts;
        let passthrough = vec![in_lo(), tcp(), passthrough_source()];
        let local = vec![in_lo(), tcp(), Match::NotMark(OUTBOUND_MARK)];
        let mut rules = vec![
            rule(passthrough, Action::Return, setting, "from the proxy to the application"),
            rule(local, Action::Return, setting, "local, not the proxy's call to its own pod"),
        ];
        if self.s.inbound_ports == PortSelection::All {
            rules.extend(self.excluded_inbound_ports());
        }
        let with = |last: Match| [vec![tcp()], selected.clone(), vec![last]].concat();
        let mark = self.s.tproxy_mark;
        let known = with(Match::Established);
        let text = "connections the proxy already has";
        rules.push(rule(known, Action::SetMarkAndReturn(mark), setting, text));
        let new = with(Match::NotDestination(self.loopback()));
        let action = Action::Tproxy { port: self.s.inbound_port, mark };
        rules.push(rule(new.clone(), action, setting, "new inbound connections"));
        rules.push(rule(new, Action::Drop, setting, "inbound while no proxy listens"));
        rules
    }

    fn mangle_output(&self) -> Vec<Rule> {
        if !self.tproxy() {
            return Vec::new();
        }
        let (mark, setting) = (self.s.tproxy_mark, Setting::TproxyMark);
        let mut rules = self.excluded_interfaces(Match::OutInterface);
        let marked = vec![out_lo(), tcp(), Match::Mark(mark)];
        rules.push(rule(marked, Action::Return, setting, "from the proxy to the application"));
        for owner in self.owners() {
            let own = vec![out_lo(), tcp(), Match::NotDestination(self.loopback()), owner.is()];
            let action = Action::SetMark(OUTBOUND_MARK);
            rules.push(rule(own, action, owner.setting(), "the proxy calls its own pod"));
        }
        let answer = vec![tcp(), Match::ConnectionMark(mark)];
        let text = "answers of the application find the proxy";
        rules.push(rule(answer, Action::RestoreMark, setting, text));
        rules
    }

    fn excluded_interfaces(&self, side: fn(Interface) -> Match) -> Vec<Rule> {
        let one = |interface: &Interface| {
            let matches = vec![side(interface.clone())];
            rule(matches, Action::Return, Setting::ExcludeInterfaces, "interface left alone")
        };
        self.s.exclude_interfaces.iter().map(one).collect()
    }

    fn excluded_inbound_ports(&self) -> Option<Rule> {
        let list = &self.s.inbound_ports_exclude;
        let matches = vec![tcp(), ports("inbound-ports-exclude", list)];
        let text = "inbound port left alone";
        (!list.is_empty())
            .then(|| rule(matches, Action::Return, Setting::InboundPortsExclude, text))
    }

    fn nat_prerouting(&self) -> Vec<Rule> {
        let mut rules = self.rerouted_interfaces();
        rules.extend(self.excluded_interfaces(Match::InInterface));
        if self.s.inbound_ports == PortSelection::Only(Vec::new()) {
            return rules;
        }
        if !self.tproxy() {
            let tunnel = vec![tcp(), port(self.s.tunnel_port)];
            let text = "the tunnel port is the proxy's own";
            rules.push(rule(tunnel, Action::Return, Setting::TunnelPort, text));
        }
        let mut matches = vec![tcp()];
        match &self.s.inbound_ports {
            PortSelection::All => rules.extend(self.excluded_inbound_ports()),
            PortSelection::Only(list) => matches.push(ports("inbound-ports", list)),
        }
        let mut text = "inbound connections";
        if self.tproxy() {
            // Chains are exchanged together, but a packet may be between two of them: it met the
            // mangle chain of another mode, which does nothing, and would meet a nat chain that
            // does nothing either.
            matches.push(Match::NotDestination(self.loopback()));
            matches.push(Match::NotMark(self.s.tproxy_mark));
            text = "inbound that came while rules were exchanged";
        }
        let action = Action::Redirect(self.s.inbound_port);
        rules.push(rule(matches, action, Setting::InboundPorts, text));
        rules
    }

    fn rerouted_interfaces(&self) -> Vec<Rule> {
        let setting = Setting::RerouteInterfaces;
        let captured = match &self.s.outbound_ranges {
            RangeSelection::All => Some(Vec::new()),
            RangeSelection::Only(list) if list.is_empty() => None,
            RangeSelection::Only(list) => {
                Some(vec![Match::Destination(addresses("outbound-ranges", list))])
            }
        };
        let mut rules = Vec::new();
        for interface in &self.s.reroute_interfaces {
            let Some(captured) = &captured else { break };
            let from = vec![Match::InInterface(interface.clone()), tcp()];
            let action = Action::Redirect(self.s.outbound_port);
            let matches = [from, captured.clone()].concat();
            rules.push(rule(matches, action, setting, "a virtual machine calls out"));
        }
        for interface in &self.s.reroute_interfaces {
            let from = vec![Match::InInterface(interface.clone())];
            let text = "everything else of a virtual machine";
            rules.push(rule(from, Action::Return, setting, text));
        }
        rules
    }

    fn nat_output(&self) -> Vec<Rule> {
        let mut rules = self.excluded_interfaces(Match::OutInterface);
        rules.extend(self.excluded_outbound_ports());
        let passthrough = vec![out_lo(), passthrough_source()];
        let text = "from the proxy to the application";
        rules.push(rule(passthrough, Action::Return, Setting::InboundPort, text));
        for owner in self.owners() {
            rules.extend(self.proxy_owner(owner));
        }
        rules.extend(self.owner_groups());
        rules.extend(self.dns());
        let inside = vec![Match::Destination(self.loopback())];
        rules.push(rule(inside, Action::Return, Setting::LoopbackRange, "within the pod"));
        rules.extend(self.outbound_selection());
        rules
    }

    fn excluded_outbound_ports(&self) -> Vec<Rule> {
        let list = &self.s.outbound_ports_exclude;
        if list.is_empty() {
            return Vec::new();
        }
        let one = |protocol: Match| {
            let matches = vec![protocol, ports("outbound-ports-exclude", list)];
            let text = "outbound port left alone";
            rule(matches, Action::Return, Setting::OutboundPortsExclude, text)
        };
        vec![one(tcp()), one(udp())]
    }

    /// What the proxy itself sends, and what never leaves the pod.
    fn proxy_owner(&self, owner: Owner) -> Vec<Rule> {
        let dns = self.s.dns != DnsCapture::Off;
        // Istio spares port 53 for user ids only; a pod must not notice which one made its rules.
        let spared = match owner {
            Owner::Uid(_) if dns => vec![DNS, self.s.tunnel_port],
            Owner::Uid(_) | Owner::Gid(_) => vec![self.s.tunnel_port],
        };
        let to_itself = vec![
            out_lo(),
            tcp(),
            Match::NotDestination(self.loopback()),
            Match::NotDestinationPort(spared),
            owner.is(),
        ];
        let action = Action::Redirect(self.s.inbound_port);
        let setting = owner.setting();
        let mut rules = vec![rule(to_itself, action, setting, "the proxy calls its own pod")];
        if !self.s.captures_loopback() {
            let mut local = vec![out_lo()];
            if dns {
                local.extend([tcp(), Match::NotDestinationPort(vec![DNS])]);
            }
            local.push(owner.is_not());
            rules.push(rule(local, Action::Return, setting, "the application calls its own pod"));
        }
        rules.push(rule(vec![owner.is()], Action::Return, setting, "the proxy's connections"));
        rules
    }

    fn owner_groups(&self) -> Vec<Rule> {
        let return_from =
            |matches: Match, setting, text| rule(vec![matches], Action::Return, setting, text);
        match &self.s.owner_groups {
            OwnerGroups::AllExcept(groups) => groups
                .iter()
                .map(|g| {
                    return_from(Match::Gid(*g), Setting::OwnerGroupsExclude, "group left alone")
                })
                .collect(),
            OwnerGroups::Only(groups) => {
                let others = Match::NotGids(groups.clone());
                vec![return_from(others, Setting::OwnerGroups, "group not listed")]
            }
        }
    }

    fn dns(&self) -> Vec<Rule> {
        let Some(servers) = self.dns_servers() else { return Vec::new() };
        let one = |protocol: Match| {
            let mut matches = vec![protocol, port(DNS)];
            matches.extend(servers.clone().map(Match::Destination));
            let text = "names are asked of the proxy";
            rule(matches, Action::Redirect(DNS_PORT), Setting::RedirectDns, text)
        };
        vec![one(tcp()), one(udp())]
    }

    fn outbound_selection(&self) -> Vec<Rule> {
        let s = self.s;
        let mut rules = Vec::new();
        let action = Action::Redirect(s.outbound_port);
        if !s.outbound_ranges_exclude.is_empty() {
            let excluded = addresses("outbound-ranges-exclude", &s.outbound_ranges_exclude);
            let matches = vec![Match::Destination(excluded)];
            let text = "outbound range left alone";
            rules.push(rule(matches, Action::Return, Setting::OutboundRangesExclude, text));
        }
        if !s.outbound_ports.is_empty() {
            let matches = vec![tcp(), ports("outbound-ports", &s.outbound_ports)];
            rules.push(rule(matches, action, Setting::OutboundPorts, "port always captured"));
        }
        let matches = match &s.outbound_ranges {
            RangeSelection::All => vec![tcp()],
            RangeSelection::Only(list) if list.is_empty() => return rules,
            RangeSelection::Only(list) => {
                vec![tcp(), Match::Destination(addresses("outbound-ranges", list))]
            }
        };
        rules.push(rule(matches, action, Setting::OutboundRanges, "outbound connections"));
        rules
    }
}
