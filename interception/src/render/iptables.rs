//! From a plan to rules of iptables, for one family.
//!
//! A chain of the plan is a chain of ours with a jump to it at the head of the built-in one, so that
//! `RETURN` means what it means in the plan: the chain ends, the packet goes on. What is one rule in
//! the plan becomes several where iptables has no words for it; their order is that of the plan.

use std::collections::BTreeMap;

use ipnet::{Ipv4Net, Ipv6Net};

use super::nft::fingerprint;
use super::spans::ports;
use crate::iptables::rules::{Family, Jump, PREFIX, Rules, Table, transition};
use crate::plan::{Action, Addresses, Chain, Hook, Match, Protocol, RedirectPlan, Rule};
use crate::settings::Interface;

/// Ports that one `multiport` holds; a range counts as two.
const MULTIPORT: usize = 15;

/// The rules of a plan in one family; their comments need a kernel with `xt_comment`.
pub(crate) fn rules(plan: &RedirectPlan, family: Family, comments: bool) -> Rules {
    let mut found = Rules::default();
    let note =
        if comments { note(&format!("lateen {}", fingerprint(plan))) } else { String::new() };
    for chain in &plan.chains {
        let (table, from) = place(chain.hook);
        let mut writer = Writer { family, comments, chains: BTreeMap::new() };
        let name = format!("{PREFIX}{from}");
        writer.chain(&name, chain);
        if writer.chains.is_empty() {
            continue;
        }
        let ours = found.tables.entry(table).or_default();
        ours.chains.append(&mut writer.chains);
        let rule = format!("{note}-j {name}");
        ours.jumps.push(Jump { from: from.to_owned(), rule, first: true });
    }
    found
}

/// The restore text of both families where nothing of ours is there, for people.
pub(crate) fn text(plan: &RedirectPlan) -> String {
    let mut text = String::new();
    for (family, program) in Family::ALL.into_iter().zip(["iptables", "ip6tables"]) {
        let rules = transition(&Rules::default(), &rules(plan, family, true));
        text.push_str(&format!("# {program}-restore --noflush\n{rules}"));
    }
    text
}

fn place(hook: Hook) -> (Table, &'static str) {
    match hook {
        Hook::RawPrerouting => (Table::Raw, "PREROUTING"),
        Hook::RawOutput => (Table::Raw, "OUTPUT"),
        Hook::ManglePrerouting => (Table::Mangle, "PREROUTING"),
        Hook::MangleOutput => (Table::Mangle, "OUTPUT"),
        Hook::NatPrerouting => (Table::Nat, "PREROUTING"),
        Hook::NatOutput => (Table::Nat, "OUTPUT"),
    }
}

/// Words for a comment, with a space after them.
fn note(text: &str) -> String {
    format!("-m comment --comment {} ", quoted(text))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

struct Writer {
    family: Family,
    comments: bool,
    chains: BTreeMap<String, Vec<String>>,
}

impl Writer {
    fn add(&mut self, chain: &str, rule: String) {
        self.chains.entry(chain.to_owned()).or_default().push(rule);
    }

    fn chain(&mut self, name: &str, chain: &Chain) {
        let mut current = name.to_owned();
        let mut parts = 1;
        for rule in &chain.rules {
            let Some(conditions) = conditions(rule, self.family) else { continue };
            let note = if self.comments { note(&rule.reason.to_string()) } else { String::new() };
            let groups = groups_left_out(rule);
            let next = (!groups.is_empty()).then(|| {
                parts += 1;
                format!("{name}_{parts}")
            });
            if let Some(next) = &next {
                // Whose group is listed goes on behind this rule.
                for (condition, gid) in
                    conditions.iter().flat_map(|c| groups.iter().map(move |g| (c, g)))
                {
                    let words = format!("{condition}-m owner --gid-owner {gid} {note}-g {next}");
                    self.add(&current, words);
                }
            }
            let action = self.action(rule.action);
            for condition in &conditions {
                self.add(&current, format!("{condition}{note}{action}"));
            }
            if let Some(next) = next {
                self.add(&current, format!("{note}-g {next}"));
                self.chains.entry(next.clone()).or_default();
                current = next;
            }
        }
    }

    /// The words for an action. One that does something and then ends the chain is a chain of its
    /// own that is gone to: where that ends, the one with the rule has ended.
    fn action(&mut self, action: Action) -> String {
        let (name, words) = match action {
            Action::Return => return "-j RETURN".to_owned(),
            Action::Drop => return "-j DROP".to_owned(),
            Action::Redirect(port) => return format!("-j REDIRECT --to-ports {port}"),
            Action::Tproxy { port, mark } => {
                return format!("-j TPROXY --on-port {port} --tproxy-mark {mark}");
            }
            Action::SetMark(mark) => return format!("-j MARK --set-xmark {mark}"),
            Action::RestoreMark => return "-j CONNMARK --restore-mark".to_owned(),
            Action::SetMarkAndReturn(mark) => {
                (format!("{PREFIX}MARK_{mark}"), format!("-j MARK --set-xmark {mark}"))
            }
            Action::SaveMark => {
                (format!("{PREFIX}SAVE_MARK"), "-j CONNMARK --save-mark".to_owned())
            }
            Action::Zone(zone) => (format!("{PREFIX}ZONE_{zone}"), format!("-j CT --zone {zone}")),
        };
        self.chains.insert(name.clone(), vec![words]);
        format!("-g {name}")
    }
}

/// Groups of which a packet must be of none, where one rule cannot say so.
fn groups_left_out(rule: &Rule) -> &[u32] {
    let found = rule.matches.iter().find_map(|m| match m {
        Match::NotGids(ids) if ids.len() > 1 => Some(ids.as_slice()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// The conditions of a rule: it holds when one of them does. `None` when it never holds.
fn conditions(rule: &Rule, family: Family) -> Option<Vec<String>> {
    let protocol = rule.matches.iter().find_map(|m| match m {
        Match::Protocol(protocol) => Some(*protocol),
        _ => None,
    });
    let of_ports = rule.matches.iter().any(|m| {
        matches!(m, Match::DestinationPort(_) | Match::NotDestinationPort(_) | Match::SourcePort(_))
    });
    // Ports have a meaning only with a protocol, which must be named before them.
    let mut found: Vec<String> = match protocol {
        Some(Protocol::Tcp) => vec!["-p tcp ".to_owned()],
        Some(Protocol::Udp) => vec!["-p udp ".to_owned()],
        None if of_ports => vec!["-p tcp ".to_owned(), "-p udp ".to_owned()],
        None => vec![String::new()],
    };
    for m in &rule.matches {
        let choices = choices(m, family);
        let each = found.iter().flat_map(|f| choices.iter().map(move |c| format!("{f}{c}")));
        found = each.collect();
    }
    (!found.is_empty()).then_some(found)
}

/// The ways in which one condition can hold, each with a space after it; none when it cannot.
fn choices(m: &Match, family: Family) -> Vec<String> {
    let one = |text: String| vec![text];
    match m {
        Match::Protocol(_) => one(String::new()),
        Match::InInterface(i) => one(format!("-i {} ", interface(i))),
        Match::OutInterface(i) => one(format!("-o {} ", interface(i))),
        Match::DestinationPort(list) => match ports(&list.ports, MULTIPORT).as_slice() {
            [only] if !only.contains([',', ':']) => one(format!("--dport {only} ")),
            parts => parts.iter().map(|p| format!("-m multiport --dports {p} ")).collect(),
        },
        Match::NotDestinationPort(list) => {
            let parts = ports(list, MULTIPORT);
            one(parts.iter().map(|p| format!("-m multiport ! --dports {p} ")).collect())
        }
        Match::SourcePort(port) => one(format!("--sport {port} ")),
        Match::Destination(a) => ranges(a, family).map(|net| format!("-d {net} ")).collect(),
        Match::NotDestination(a) => {
            let nets: Vec<String> = ranges(a, family).map(|net| format!("! -d {net} ")).collect();
            nets.into_iter().take(1).collect()
        }
        Match::Source(a) => ranges(a, family).map(|net| format!("-s {net} ")).collect(),
        Match::Uid(id) => one(format!("-m owner --uid-owner {id} ")),
        Match::NotUid(id) => one(format!("-m owner ! --uid-owner {id} ")),
        Match::Gid(id) => one(format!("-m owner --gid-owner {id} ")),
        Match::NotGids(ids) => match ids.as_slice() {
            [id] => one(format!("-m owner ! --gid-owner {id} ")),
            _ => one(String::new()),
        },
        Match::Mark(mark) => one(format!("-m mark --mark {mark} ")),
        Match::NotMark(mark) => one(format!("-m mark ! --mark {mark} ")),
        Match::ConnectionMark(mark) => one(format!("-m connmark --mark {mark} ")),
        Match::Established => one("-m conntrack --ctstate RELATED,ESTABLISHED ".to_owned()),
        Match::Invalid => one("-m conntrack --ctstate INVALID ".to_owned()),
    }
}

fn interface(i: &Interface) -> String {
    let name = format!("{}{}", i.name(), if i.is_prefix() { "+" } else { "" });
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+@".contains(&b));
    if plain { name } else { quoted(&name) }
}

/// The ranges of a family, without those that others hold.
fn ranges(a: &Addresses, family: Family) -> impl Iterator<Item = String> {
    let (v4, v6) = match family {
        Family::V4 => (Ipv4Net::aggregate(&a.v4), Vec::new()),
        Family::V6 => (Vec::new(), Ipv6Net::aggregate(&a.v6)),
    };
    let v4 = v4.into_iter().map(|net| net.trunc().to_string());
    v4.chain(v6.into_iter().map(|net| net.trunc().to_string()))
}
