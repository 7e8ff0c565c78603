//! A plan as text in the manner of nft, for `--dry-run` and for explaining.
//!
//! Family-neutral: a rule with addresses of both families is one line here and two in the kernel.

use std::fmt::{self, Display, Write};

use super::nft::{TABLE, base};
use crate::plan::{Action, Addresses, Hook, Match, Protocol, RedirectPlan, Rule};
use crate::settings::Interface;

/// The whole plan.
#[must_use]
pub fn render(plan: &RedirectPlan) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(plan, &mut out);
    out
}

fn write(plan: &RedirectPlan, out: &mut String) -> fmt::Result {
    writeln!(out, "table inet {TABLE} {{")?;
    for chain in &plan.chains {
        let (name, kind, _, priority) = base(chain.hook);
        let hook = match chain.hook {
            Hook::RawPrerouting | Hook::ManglePrerouting | Hook::NatPrerouting => "prerouting",
            Hook::RawOutput | Hook::MangleOutput | Hook::NatOutput => "output",
        };
        writeln!(out, "  chain {name} {{")?;
        writeln!(out, "    type {kind} hook {hook} priority {priority}; policy accept;")?;
        for rule in &chain.rules {
            writeln!(out, "    {}  # {}", line(rule), rule.reason)?;
        }
        writeln!(out, "  }}")?;
    }
    writeln!(out, "}}")?;
    out.push_str(&routes(plan));
    Ok(())
}

/// The routes of the mark, if the plan has one.
#[must_use]
pub fn routes(plan: &RedirectPlan) -> String {
    plan.mark_route.map_or_else(String::new, |route| {
        format!(
            "ip rule fwmark {} lookup {table}\nip route local default dev lo table {table}\n",
            route.mark,
            table = route.table
        )
    })
}

/// The name of the chain at a hook.
#[must_use]
pub fn chain_name(hook: Hook) -> &'static str {
    base(hook).0
}

/// One rule: its conditions and what it does.
#[must_use]
pub fn line(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.matches.iter().map(condition).collect();
    words.push(match rule.action {
        Action::Return => "return".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Redirect(port) => format!("redirect to :{port}"),
        Action::Tproxy { port, mark } => format!("tproxy to :{port} meta mark set {mark} accept"),
        Action::SetMark(mark) => format!("meta mark set {mark}"),
        Action::SetMarkAndReturn(mark) => format!("meta mark set {mark} return"),
        Action::SaveMark => "ct mark set meta mark return".to_owned(),
        Action::RestoreMark => "meta mark set ct mark".to_owned(),
        Action::Zone(zone) => format!("ct zone set {zone} return"),
    });
    words.join(" ")
}

fn condition(m: &Match) -> String {
    match m {
        Match::InInterface(i) => format!("iifname {}", interface(i)),
        Match::OutInterface(i) => format!("oifname {}", interface(i)),
        Match::Protocol(Protocol::Tcp) => "meta l4proto tcp".to_owned(),
        Match::Protocol(Protocol::Udp) => "meta l4proto udp".to_owned(),
        Match::DestinationPort(ports) => format!("th dport {}", list(&ports.ports)),
        Match::NotDestinationPort(ports) => format!("th dport != {}", list(ports)),
        Match::SourcePort(port) => format!("th sport {port}"),
        Match::Destination(a) => format!("daddr {}", addresses(a)),
        Match::NotDestination(a) => format!("daddr != {}", addresses(a)),
        Match::Source(a) => format!("saddr {}", addresses(a)),
        Match::Uid(id) => format!("skuid {id}"),
        Match::NotUid(id) => format!("skuid != {id}"),
        Match::Gid(id) => format!("skgid {id}"),
        Match::NotGids(ids) => format!("skgid != {}", list(ids)),
        Match::Mark(mark) => format!("meta mark {mark}"),
        Match::NotMark(mark) => format!("meta mark != {mark}"),
        Match::ConnectionMark(mark) => format!("ct mark {mark}"),
        Match::Established => "ct state established,related".to_owned(),
        Match::Invalid => "ct state invalid".to_owned(),
    }
}

fn interface(i: &Interface) -> String {
    format!("\"{}{}\"", i.name(), if i.is_prefix() { "*" } else { "" })
}

fn list<T: Display>(values: &[T]) -> String {
    let words: Vec<String> = values.iter().map(ToString::to_string).collect();
    match words.as_slice() {
        [word] => word.clone(),
        _ => format!("{{ {} }}", words.join(", ")),
    }
}

fn addresses(a: &Addresses) -> String {
    let v4 = a.v4.iter().map(ToString::to_string);
    list(&v4.chain(a.v6.iter().map(ToString::to_string)).collect::<Vec<_>>())
}
