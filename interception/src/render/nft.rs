//! From a plan to one nftables transaction.
//!
//! One table `inet lateen`. [`exchange`] empties the chains that are there and fills them anew: the
//! kernel switches all rules in one step, and a packet meets either the old rules of a chain or the
//! new ones. [`replace`] deletes the table and makes it again, whatever was there; a packet may then
//! fall between the two chains of a hook, for the kernel asks the new one first and switches them
//! while it goes on to the old one. [`create`] is for namespaces without the table, which is most of
//! them: a transaction that deletes makes the kernel wait for all readers of the old rules (10 ms and
//! more), one that only adds does not.

mod batch;

use std::collections::BTreeMap;

use batch::Batch;

use super::spans::{ranges_v4, ranges_v6};
use crate::netlink::expression::{Ct, Expression, Header, Meta, Verdict};
use crate::netlink::wire::{ACK, CREATE, DUMP, EXCLUSIVE, REQUEST, Writer};
use crate::plan::{Action, Addresses, Chain, Hook, Match, Protocol, RedirectPlan, Rule};
use crate::settings::Interface;

/// The table that is ours.
pub(crate) const TABLE: &str = "lateen";
/// `NFPROTO_INET`: rules for both families.
pub(crate) const INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`, the high byte of message types.
pub(crate) const SUBSYSTEM: u16 = 10;
pub(crate) const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
pub(crate) const NEW_CHAIN: u16 = 3;
pub(crate) const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
pub(crate) const NEW_RULE: u16 = 6;
pub(crate) const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
pub(crate) const NEW_SET: u16 = 9;
pub(crate) const GET_SET: u16 = 10;
const DELETE_SET: u16 = 11;
pub(crate) const NEW_ELEMENTS: u16 = 12;
pub(crate) const GET_ELEMENTS: u16 = 13;
const GET_GENERATION: u16 = 16;

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SET_CONSTANT: u32 = 2;
const SET_INTERVAL: u32 = 4;
const INTERVAL_END: u32 = 1;
/// Elements of one message: an attribute holds 64 KiB and an element at most 40 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1024;
/// nft shows comments up to this length.
const MAX_COMMENT: usize = 120;

/// The set that says which plan the rules are of. It has no elements; unlike the table, which stays,
/// it is made anew with the rules.
pub(crate) const PLAN_SET: &str = "plan";

/// A transaction ready to be sent.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) bytes: Vec<u8>,
    /// What each message is for, by sequence number.
    pub(crate) labels: Vec<String>,
}

/// Address families of one rule after the family-neutral plan is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Both,
    V4,
    V6,
}

/// A set with its elements: first key, and for ranges the key after the last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    kind: u32,
    interval: bool,
    elements: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

const INET_SERVICE: u32 = 13;
const IPV4_ADDRESS: u32 = 7;
const IPV6_ADDRESS: u32 = 8;

/// The transaction that makes the plan the only rules of ours; `None` when it is too long.
pub(crate) fn replace(plan: &RedirectPlan) -> Option<Transaction> {
    let mut batch = Batch::default();
    batch.table(NEW_TABLE, CREATE);
    batch.table(DELETE_TABLE, 0);
    if !plan.is_empty() {
        batch.plan(CREATE, plan);
    }
    batch.finish()
}

/// What of ours is in place, at a generation of the kernel's rules.
#[derive(Debug, Default)]
pub(crate) struct InPlace {
    pub(crate) generation: u32,
    pub(crate) chains: Vec<String>,
    pub(crate) sets: Vec<String>,
}

/// The same where the table holds these; refused as a whole when anything was changed meanwhile.
pub(crate) fn exchange(plan: &RedirectPlan, there: &InPlace) -> Option<Transaction> {
    let mut batch = Batch::at(there.generation);
    batch.delete_rules();
    for set in &there.sets {
        batch.delete(DELETE_SET, 2, "set", set);
    }
    let kept = |chain: &String| plan.chains.iter().any(|it| base(it.hook).0 == chain);
    for chain in there.chains.iter().filter(|chain| !kept(chain)) {
        batch.delete(DELETE_CHAIN, 3, "chain", chain);
    }
    batch.plan(CREATE, plan);
    batch.finish()
}

/// The same where there is no table of ours; refused as a whole when there is one.
pub(crate) fn create(plan: &RedirectPlan) -> Option<Transaction> {
    let mut batch = Batch::default();
    batch.plan(CREATE | EXCLUSIVE, plan);
    batch.finish()
}

/// Everything of the plan, and last a message that the kernel refuses: whether it refuses an earlier
/// one tells what it lacks, and nothing is changed.
pub(crate) fn probe(plan: &RedirectPlan) -> Option<Transaction> {
    let mut batch = Batch::default();
    batch.plan(CREATE, plan);
    batch.refusal();
    batch.finish()
}

/// A request for the chains of iptables-nft in one family (2 for IPv4, 10 for IPv6).
pub(crate) fn get_chains(family: u8) -> Vec<u8> {
    let mut w = Writer::default();
    w.message(message_type(GET_CHAIN), REQUEST | DUMP, 1, |w| w.raw(&netfilter_header(family, 0)));
    w.finish().unwrap_or_default()
}

/// A request for the table of ours. With an acknowledgement, so that the answer has an end.
pub(crate) fn get_table() -> Vec<u8> {
    let mut w = Writer::default();
    w.message(message_type(GET_TABLE), REQUEST | ACK, 1, |w| {
        w.raw(&netfilter_header(INET, 0));
        w.string(1, TABLE);
    });
    w.finish().unwrap_or_default()
}

/// A request for the generation of the kernel's rules.
pub(crate) fn get_generation() -> Vec<u8> {
    let mut w = Writer::default();
    w.message(message_type(GET_GENERATION), REQUEST | ACK, 1, |w| w.raw(&netfilter_header(0, 0)));
    w.finish().unwrap_or_default()
}

/// A request for everything of a kind in the table of ours.
pub(crate) fn dump(kind: u16) -> Vec<u8> {
    let mut w = Writer::default();
    w.message(message_type(kind), REQUEST | DUMP, 1, |w| {
        w.raw(&netfilter_header(INET, 0));
        w.string(1, TABLE);
    });
    w.finish().unwrap_or_default()
}

/// A number that stands for the plan, to tell other settings from changed rules.
pub(crate) fn fingerprint(plan: &RedirectPlan) -> String {
    let text = super::text::render(plan);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("plan {hash:016x}")
}

/// Name, type and priority of the chain at a hook.
pub(crate) fn base(hook: Hook) -> (&'static str, &'static str, u32, i32) {
    const PREROUTING: u32 = 0;
    const OUTPUT: u32 = 3;
    match hook {
        Hook::RawPrerouting => ("raw-prerouting", "filter", PREROUTING, -300),
        Hook::RawOutput => ("raw-output", "filter", OUTPUT, -300),
        Hook::ManglePrerouting => ("mangle-prerouting", "filter", PREROUTING, -150),
        Hook::MangleOutput => ("mangle-output", "route", OUTPUT, -150),
        Hook::NatPrerouting => ("nat-prerouting", "nat", PREROUTING, -100),
        Hook::NatOutput => ("nat-output", "nat", OUTPUT, -100),
    }
}

#[derive(Debug)]
struct Compiled {
    expressions: Vec<Expression>,
    comment: String,
}

fn compile_chain(chain: &Chain, sets: &mut BTreeMap<String, Set>) -> Vec<Compiled> {
    let mut compiled = Vec::new();
    for rule in &chain.rules {
        for family in families(rule) {
            let mut comment = rule.reason.to_string();
            comment.truncate(comment.floor_char_boundary(MAX_COMMENT));
            compiled.push(Compiled { expressions: compile(rule, family, sets), comment });
        }
    }
    compiled
}

/// A rule with addresses becomes one rule for each family that has some.
fn families(rule: &Rule) -> Vec<Family> {
    let mut found = vec![Family::Both];
    for m in &rule.matches {
        let (Match::Destination(a) | Match::NotDestination(a) | Match::Source(a)) = m else {
            continue;
        };
        if found == [Family::Both] {
            found = vec![Family::V4, Family::V6];
        }
        found.retain(|f| if *f == Family::V4 { !a.v4.is_empty() } else { !a.v6.is_empty() });
    }
    if found == [Family::Both] && matches!(rule.action, Action::Tproxy { .. }) {
        found = vec![Family::V4, Family::V6];
    }
    found
}

fn compile(rule: &Rule, family: Family, sets: &mut BTreeMap<String, Set>) -> Vec<Expression> {
    let mut e = Vec::new();
    match family {
        Family::Both => {}
        Family::V4 => e.extend([Expression::Meta(Meta::NetworkProtocol), equal(vec![2])]),
        Family::V6 => e.extend([Expression::Meta(Meta::NetworkProtocol), equal(vec![10])]),
    }
    for m in &rule.matches {
        compile_match(m, family, sets, &mut e);
    }
    e.push(Expression::Counter);
    compile_action(rule.action, family, &mut e);
    e
}

fn equal(data: Vec<u8>) -> Expression {
    Expression::Equal(data)
}

fn host(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

fn network(port: u16) -> Vec<u8> {
    port.to_be_bytes().to_vec()
}

fn compile_match(
    m: &Match,
    family: Family,
    sets: &mut BTreeMap<String, Set>,
    e: &mut Vec<Expression>,
) {
    let port_at = |offset| Expression::Payload { header: Header::Transport, offset, length: 2 };
    match m {
        Match::InInterface(i) => e.extend([Expression::Meta(Meta::InInterface), name_of(i)]),
        Match::OutInterface(i) => e.extend([Expression::Meta(Meta::OutInterface), name_of(i)]),
        Match::Protocol(p) => {
            let number = match p {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
            };
            e.extend([Expression::Meta(Meta::TransportProtocol), equal(vec![number])]);
        }
        Match::DestinationPort(ports) => {
            e.push(port_at(2));
            if let [port] = ports.ports.as_slice() {
                e.push(equal(network(*port)));
            } else {
                let elements = ports.ports.iter().map(|p| (network(*p), None)).collect();
                let set = Set { kind: INET_SERVICE, interval: false, elements };
                sets.insert(ports.name.to_owned(), set);
                e.push(Expression::InSet(ports.name.to_owned()));
            }
        }
        Match::NotDestinationPort(ports) => {
            e.push(port_at(2));
            e.extend(ports.iter().map(|p| Expression::NotEqual(network(*p))));
        }
        Match::SourcePort(port) => e.extend([port_at(0), equal(network(*port))]),
        Match::Destination(a) => address(a, family, false, sets, e),
        Match::Source(a) => address(a, family, true, sets, e),
        Match::NotDestination(a) => {
            address(a, family, false, sets, e);
            if let Some(Expression::Equal(data)) = e.pop() {
                e.push(Expression::NotEqual(data));
            }
        }
        Match::Uid(id) => e.extend([Expression::Meta(Meta::SocketUid), equal(host(*id))]),
        Match::NotUid(id) => {
            e.extend([Expression::Meta(Meta::SocketUid), Expression::NotEqual(host(*id))]);
        }
        Match::Gid(id) => e.extend([Expression::Meta(Meta::SocketGid), equal(host(*id))]),
        Match::NotGids(ids) => {
            e.push(Expression::Meta(Meta::SocketGid));
            e.extend(ids.iter().map(|id| Expression::NotEqual(host(*id))));
        }
        Match::Mark(mark) => e.extend([Expression::Meta(Meta::Mark), equal(host(*mark))]),
        Match::NotMark(mark) => {
            e.extend([Expression::Meta(Meta::Mark), Expression::NotEqual(host(*mark))]);
        }
        Match::ConnectionMark(mark) => e.extend([Expression::Ct(Ct::Mark), equal(host(*mark))]),
        Match::Established => e.extend(state(2 | 4)),
        Match::Invalid => e.extend(state(1)),
    }
}

/// `NF_CT_STATE_BIT`: invalid 1, established 2, related 4.
fn state(bits: u32) -> [Expression; 3] {
    let zero = Expression::NotEqual(host(0));
    [Expression::Ct(Ct::State), Expression::Mask(host(bits)), zero]
}

/// A whole name is compared with its padding, the start of one without.
fn name_of(interface: &Interface) -> Expression {
    let mut name = interface.name().as_bytes().to_vec();
    if !interface.is_prefix() {
        name.resize(16, 0);
    }
    equal(name)
}

fn address(
    a: &Addresses,
    family: Family,
    source: bool,
    sets: &mut BTreeMap<String, Set>,
    e: &mut Vec<Expression>,
) {
    let (suffix, kind, offset, length) = match (family, source) {
        (Family::V6, true) => ("v6", IPV6_ADDRESS, 8, 16),
        (Family::V6, false) => ("v6", IPV6_ADDRESS, 24, 16),
        (_, true) => ("v4", IPV4_ADDRESS, 12, 4),
        (_, false) => ("v4", IPV4_ADDRESS, 16, 4),
    };
    e.push(Expression::Payload { header: Header::Network, offset, length });
    let single = match (family, a.v4.as_slice(), a.v6.as_slice()) {
        (Family::V6, _, [net]) => Some((
            net.netmask().octets().to_vec(),
            net.network().octets().to_vec(),
            net.prefix_len() == 128,
        )),
        (Family::V4 | Family::Both, [net], _) => Some((
            net.netmask().octets().to_vec(),
            net.network().octets().to_vec(),
            net.prefix_len() == 32,
        )),
        _ => None,
    };
    if let Some((mask, network, whole)) = single {
        if !whole {
            e.push(Expression::Mask(mask));
        }
        e.push(equal(network));
        return;
    }
    let elements = if family == Family::V6 { ranges_v6(&a.v6) } else { ranges_v4(&a.v4) };
    let name = format!("{}-{suffix}", a.name);
    sets.insert(name.clone(), Set { kind, interval: true, elements });
    e.push(Expression::InSet(name));
}

fn compile_action(action: Action, family: Family, e: &mut Vec<Expression>) {
    let verdict = Expression::Verdict;
    match action {
        Action::Return => e.push(verdict(Verdict::Return)),
        Action::Drop => e.push(verdict(Verdict::Drop)),
        Action::Redirect(port) => {
            e.extend([Expression::Immediate(network(port)), Expression::Redirect]);
        }
        Action::Tproxy { port, mark } => {
            let family = if family == Family::V6 { 10 } else { 2 };
            e.extend([Expression::Immediate(network(port)), Expression::Tproxy { family }]);
            e.extend([Expression::Immediate(host(mark)), Expression::SetMeta(Meta::Mark)]);
            e.push(verdict(Verdict::Accept));
        }
        Action::SetMark(mark) => {
            e.extend([Expression::Immediate(host(mark)), Expression::SetMeta(Meta::Mark)]);
        }
        Action::SetMarkAndReturn(mark) => {
            e.extend([Expression::Immediate(host(mark)), Expression::SetMeta(Meta::Mark)]);
            e.push(verdict(Verdict::Return));
        }
        Action::SaveMark => {
            e.extend([Expression::Meta(Meta::Mark), Expression::SetCt(Ct::Mark)]);
            e.push(verdict(Verdict::Return));
        }
        Action::RestoreMark => {
            e.extend([Expression::Ct(Ct::Mark), Expression::SetMeta(Meta::Mark)]);
        }
        Action::Zone(zone) => {
            e.extend([
                Expression::Immediate(zone.to_ne_bytes().to_vec()),
                Expression::SetCt(Ct::Zone),
                verdict(Verdict::Return),
            ]);
        }
    }
}

/// Header of a netfilter message: family, version, resource.
pub(crate) fn netfilter_header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Type of an nftables message.
pub(crate) fn message_type(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}
