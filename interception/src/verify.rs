//! Compares the rules in place with a plan: tables, sets, chains, rules and their order.
//!
//! The planned transaction and the kernel's dump are read by the same code into [`Ruleset`]s, so
//! that every attribute counts except counters and handles.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::apply::{ApplyError, step};
use crate::netlink::expression::{Observed, observe};
use crate::netlink::route::Routes;
use crate::netlink::socket::{Connection, NetlinkError};
use crate::netlink::wire::{DUMP, REQUEST, Writer, attributes, be32, find, messages, text};
use crate::plan::RedirectPlan;
use crate::render::nft::{
    self, GET_CHAIN, GET_ELEMENTS, GET_RULE, GET_SET, INET, NEW_CHAIN, NEW_ELEMENTS, NEW_RULE,
    NEW_SET, PLAN_SET, SUBSYSTEM, TABLE,
};
use crate::settings::PASSTHROUGH_SOURCE_V6;

const ENOENT: i32 = 2;
/// Dumps that another change interrupted are repeated this often.
const ATTEMPTS: usize = 8;

/// How the rules in place compare with a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Exactly the planned ones.
    Planned,
    /// None of ours.
    Absent,
    /// Others; the text names the first difference.
    Differs(String),
}

/// Compares the nftables rules of the network namespace of the calling thread with the plan.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn verify(plan: &RedirectPlan) -> Result<State, ApplyError> {
    match rules(plan)? {
        State::Planned if !plan.is_empty() => {
            Ok(around(plan)?.map_or(State::Planned, State::Differs))
        }
        other => Ok(other),
    }
}

/// Whether the table in place was made for this plan, whatever has become of its rules since.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn is_of(plan: &RedirectPlan) -> Result<bool, ApplyError> {
    let connection = Connection::open(NETLINK_NETFILTER).map_err(step("opening netfilter"))?;
    let mut found = Ruleset::default();
    match connection.request(&nft::dump(GET_SET)) {
        Ok(answers) => answers.iter().for_each(|(kind, body)| found.take(*kind, body)),
        Err(e) if e.errno() == ENOENT => return Ok(false),
        Err(e) => return Err(step("reading sets")(e)),
    }
    let wanted = Ruleset::of(plan)?;
    Ok(wanted.note == found.note)
}

/// The nftables rules alone.
pub(crate) fn rules(plan: &RedirectPlan) -> Result<State, ApplyError> {
    let connection = Connection::open(NETLINK_NETFILTER).map_err(step("opening netfilter"))?;
    let actual = read(&connection).map_err(step("reading rules"))?;
    let Some(actual) = actual else {
        return Ok(if plan.is_empty() { State::Planned } else { State::Absent });
    };
    Ok(Ruleset::of(plan)?.difference(&actual).map_or(State::Planned, State::Differs))
}

/// What differs in what rules need around them, whatever carries them.
pub(crate) fn around(plan: &RedirectPlan) -> Result<Option<String>, ApplyError> {
    let routes = Routes::open().map_err(step("opening a netlink socket"))?;
    let ipv6 = routes.has_address(Ipv6Addr::LOCALHOST).map_err(step("reading lo"))?;
    if !routes.matches(plan.mark_route, ipv6).map_err(step("reading routes"))? {
        return Ok(Some("the routes of the TPROXY mark are not the planned ones".to_owned()));
    }
    if ipv6 && !routes.has_address(PASSTHROUGH_SOURCE_V6).map_err(step("reading lo"))? {
        return Ok(Some("the address ::6 is not on lo".to_owned()));
    }
    Ok(None)
}

fn read(connection: &Connection) -> Result<Option<Ruleset>, NetlinkError> {
    for _ in 0..ATTEMPTS {
        match read_once(connection) {
            Err(NetlinkError::Interrupted) => {}
            Err(e) if e.errno() == ENOENT => return Ok(None),
            Err(e) => return Err(e),
            Ok(found) => return Ok(Some(found)),
        }
    }
    Err(NetlinkError::Interrupted)
}

fn read_once(connection: &Connection) -> Result<Ruleset, NetlinkError> {
    let mut found = Ruleset::default();
    for (kind, body) in connection.request(&nft::get_table())? {
        found.take(kind, &body);
    }
    for kind in [GET_CHAIN, GET_RULE, GET_SET] {
        for (kind, body) in connection.request(&nft::dump(kind))? {
            found.take(kind, &body);
        }
    }
    let sets: Vec<String> = found.sets.keys().cloned().collect();
    for set in sets {
        let mut w = Writer::default();
        w.message(nft::message_type(GET_ELEMENTS), REQUEST | DUMP, 1, |w| {
            w.raw(&nft::netfilter_header(INET, 0));
            w.string(1, TABLE);
            w.string(2, &set);
        });
        for (kind, body) in connection.request(&w.finish().unwrap_or_default())? {
            found.take(kind, &body);
        }
    }
    Ok(found)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct SetContent {
    flags: u32,
    key_length: u32,
    elements: BTreeSet<(Vec<u8>, u32)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ObservedRule {
    note: Vec<u8>,
    expressions: Vec<Observed>,
}

/// What our table holds, in a form that can be compared.
#[derive(Debug, Default)]
struct Ruleset {
    note: Vec<u8>,
    chains: BTreeMap<String, (u32, u32, u32, String)>,
    rules: BTreeMap<String, Vec<ObservedRule>>,
    sets: BTreeMap<String, SetContent>,
}

impl Ruleset {
    /// What the plan's transaction would leave.
    fn of(plan: &RedirectPlan) -> Result<Self, ApplyError> {
        let transaction = nft::replace(plan).ok_or(ApplyError::TooLong)?;
        let mut wanted = Self::default();
        for message in messages(&transaction.bytes) {
            wanted.take(message.kind, message.payload);
        }
        Ok(wanted)
    }

    /// Takes in one "new" message, of a transaction or of a dump.
    fn take(&mut self, kind: u16, payload: &[u8]) {
        if kind >> 8 != SUBSYSTEM || payload.len() < 4 {
            return;
        }
        let found = attributes(&payload[4..]);
        let get = |number| find(&found, number).unwrap_or_default();
        if text(get(1)) != TABLE {
            return;
        }
        match kind & 0xff {
            NEW_CHAIN => {
                let hook = attributes(get(4));
                let at = |number| find(&hook, number).map_or(0, be32);
                let chain = (at(1), at(2), be32(get(5)), text(get(7)));
                self.chains.insert(text(get(3)), chain);
            }
            NEW_RULE => self
                .rules
                .entry(text(get(2)))
                .or_default()
                .push(ObservedRule { note: get(7).to_vec(), expressions: observe(get(4)) }),
            NEW_SET => {
                if text(get(2)) == PLAN_SET {
                    self.note = get(13).to_vec();
                }
                let set = self.sets.entry(text(get(2))).or_default();
                (set.flags, set.key_length) = (be32(get(3)), be32(get(5)));
            }
            NEW_ELEMENTS => {
                let set = self.sets.entry(text(get(2))).or_default();
                for (_, element) in attributes(get(3)) {
                    let parts = attributes(element);
                    let key = attributes(find(&parts, 1).unwrap_or_default());
                    let key = find(&key, 1).unwrap_or_default().to_vec();
                    set.elements.insert((key, find(&parts, 3).map_or(0, be32)));
                }
            }
            _ => {}
        }
    }

    /// The first difference between what is wanted and what is there.
    fn difference(&self, actual: &Self) -> Option<String> {
        if self.note != actual.note {
            return Some(format!(
                "the rules are those of other settings ({}, planned {})",
                note(&actual.note),
                note(&self.note)
            ));
        }
        if self.chains != actual.chains {
            return Some("the chains are not the planned ones".to_owned());
        }
        if let Some(name) = self
            .sets
            .keys()
            .chain(actual.sets.keys())
            .find(|name| self.sets.get(*name) != actual.sets.get(*name))
        {
            return Some(format!("set {name} is not as planned"));
        }
        let chains = self.rules.keys().chain(actual.rules.keys());
        chains.into_iter().find_map(|chain| {
            let empty = Vec::new();
            let wanted = self.rules.get(chain).unwrap_or(&empty);
            let found = actual.rules.get(chain).unwrap_or(&empty);
            rule_difference(chain, wanted, found)
        })
    }
}

fn rule_difference(chain: &str, wanted: &[ObservedRule], found: &[ObservedRule]) -> Option<String> {
    let longest = wanted.len().max(found.len());
    let index = (0..longest).find(|i| wanted.get(*i) != found.get(*i))?;
    let place = format!("chain {chain}, rule {}", index + 1);
    Some(match (wanted.get(index), found.get(index)) {
        (Some(wanted), Some(found)) if wanted.note == found.note => {
            format!("{place} ({}) does something else", note(&wanted.note))
        }
        (Some(wanted), Some(found)) => {
            format!("{place}: planned {}, found {}", note(&wanted.note), note(&found.note))
        }
        (Some(wanted), None) => format!("{place} ({}) is missing", note(&wanted.note)),
        (None, _) => format!("{place} is not planned"),
    })
}

/// The text of a comment in user data.
fn note(bytes: &[u8]) -> String {
    format!("{:?}", text(bytes.get(2..).unwrap_or_default()))
}
