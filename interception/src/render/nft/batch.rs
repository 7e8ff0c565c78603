//! The messages of one nftables transaction: table, sets, chains and rules, numbered and labelled.
//!
//! Must not know what a rule of a plan means: it takes compiled ones.

use std::collections::BTreeMap;

use super::{
    BATCH_BEGIN, BATCH_END, Compiled, DELETE_RULE, DELETE_TABLE, ELEMENTS_PER_MESSAGE,
    INET_SERVICE, INTERVAL_END, NEW_CHAIN, NEW_ELEMENTS, NEW_RULE, NEW_SET, NEW_TABLE, PLAN_SET,
    SET_CONSTANT, SET_INTERVAL, SUBSYSTEM, Set, TABLE, Transaction, base, compile_chain,
    fingerprint, message_type, netfilter_header,
};
use crate::netlink::expression::Expression;
use crate::netlink::wire::{ACK, APPEND, CREATE, REQUEST, Writer};
use crate::plan::{Hook, RedirectPlan};
use crate::render::nft::INET;

/// A name that no table has.
const NO_TABLE: &str = "lateen-is-never-here";

/// Types of comments in the user data of rules and of sets, as nft has them.
const RULE_COMMENT: u8 = 0;
const SET_COMMENT: u8 = 7;

/// A comment as nft stores it in user data: type, length, text with its zero.
fn comment(kind: u8, text: &str) -> Vec<u8> {
    let mut bytes = vec![kind, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

#[derive(Debug)]
pub(super) struct Batch {
    writer: Writer,
    labels: Vec<String>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::begin(None)
    }
}

impl Batch {
    /// One that is only taken at this generation of the kernel's rules.
    pub(super) fn at(generation: u32) -> Self {
        Self::begin(Some(generation))
    }

    fn begin(generation: Option<u32>) -> Self {
        let mut writer = Writer::default();
        writer.message(BATCH_BEGIN, REQUEST, 0, |w| {
            w.raw(&netfilter_header(0, SUBSYSTEM));
            if let Some(generation) = generation {
                w.be32(1, generation);
            }
        });
        Self { writer, labels: vec!["nf_tables".to_owned()] }
    }

    fn add(&mut self, kind: u16, flags: u16, label: String, body: impl FnOnce(&mut Writer)) {
        let seq = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        self.labels.push(label);
        self.writer.message(message_type(kind), REQUEST | flags, seq, |w| {
            w.raw(&netfilter_header(INET, 0));
            body(w);
        });
    }

    /// The table with everything in it.
    pub(super) fn plan(&mut self, flags: u16, plan: &RedirectPlan) {
        self.table(NEW_TABLE, flags);
        self.plan_set(&fingerprint(plan));
        let mut sets = BTreeMap::new();
        let rules: Vec<Vec<Compiled>> =
            plan.chains.iter().map(|chain| compile_chain(chain, &mut sets)).collect();
        for (name, set) in &sets {
            self.set(name, set);
        }
        for (chain, rules) in plan.chains.iter().zip(&rules) {
            self.chain(chain.hook);
            for rule in rules {
                self.rule(chain.hook, rule);
            }
        }
    }

    pub(super) fn table(&mut self, kind: u16, flags: u16) {
        self.add(kind, flags, format!("table {TABLE}"), |w| w.string(1, TABLE));
    }

    /// All rules of the table; its chains and sets stay.
    pub(super) fn delete_rules(&mut self) {
        self.add(DELETE_RULE, 0, "the rules before".to_owned(), |w| w.string(1, TABLE));
    }

    /// One thing of the table, whose name is this attribute.
    pub(super) fn delete(&mut self, kind: u16, attribute: u16, what: &str, name: &str) {
        self.add(kind, 0, format!("the {what} {name} before"), |w| {
            w.string(1, TABLE);
            w.string(attribute, name);
        });
    }

    fn plan_set(&mut self, note: &str) {
        let id = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        self.add(NEW_SET, CREATE, format!("set {PLAN_SET}"), |w| {
            w.string(1, TABLE);
            w.string(2, PLAN_SET);
            w.be32(3, SET_CONSTANT);
            w.be32(4, INET_SERVICE);
            w.be32(5, 2);
            w.be32(10, id);
            w.attribute(13, &comment(SET_COMMENT, note));
        });
    }

    /// Deletes a table that nobody has: the kernel refuses this message and with it the transaction.
    pub(super) fn refusal(&mut self) {
        self.add(DELETE_TABLE, 0, "nothing".to_owned(), |w| w.string(1, NO_TABLE));
    }

    fn set(&mut self, name: &str, set: &Set) {
        let id = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        let interval = if set.interval { SET_INTERVAL } else { 0 };
        let length = set.elements.first().map_or(0, |(key, _)| key.len());
        self.add(NEW_SET, CREATE, format!("set {name}"), |w| {
            w.string(1, TABLE);
            w.string(2, name);
            w.be32(3, SET_CONSTANT | interval);
            w.be32(4, set.kind);
            w.be32(5, u32::try_from(length).unwrap_or(0));
            w.be32(10, id);
        });
        for part in set.elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.add(NEW_ELEMENTS, CREATE, format!("elements of set {name}"), |w| {
                w.string(1, TABLE);
                w.string(2, name);
                w.nested(3, |w| {
                    for (first, end) in part {
                        element(w, first, 0);
                        if let Some(end) = end {
                            element(w, end, INTERVAL_END);
                        }
                    }
                });
            });
        }
    }

    fn chain(&mut self, hook: Hook) {
        let (name, kind, number, priority) = base(hook);
        self.add(NEW_CHAIN, CREATE, format!("chain {name} of type {kind}"), |w| {
            w.string(1, TABLE);
            w.string(3, name);
            w.nested(4, |w| {
                w.be32(1, number);
                w.attribute(2, &priority.to_be_bytes());
            });
            // Policy accept.
            w.be32(5, 1);
            w.string(7, kind);
        });
    }

    fn rule(&mut self, hook: Hook, rule: &Compiled) {
        let (chain, ..) = base(hook);
        let mut needs: Vec<&str> = rule.expressions.iter().map(Expression::name).collect();
        needs.dedup();
        let label =
            format!("rule {:?} of chain {chain} (needs {})", rule.comment, needs.join(", "));
        self.add(NEW_RULE, CREATE | APPEND, label, |w| {
            w.string(1, TABLE);
            w.string(2, chain);
            w.nested(4, |w| {
                for expression in &rule.expressions {
                    expression.write(w);
                }
            });
            w.attribute(7, &comment(RULE_COMMENT, &rule.comment));
        });
    }

    /// The last message of substance asks for the answer; every refused one answers anyway.
    pub(super) fn finish(mut self) -> Option<Transaction> {
        let last = u32::try_from(self.labels.len()).ok()?;
        self.writer.message(BATCH_END, REQUEST, last, |w| w.raw(&netfilter_header(0, SUBSYSTEM)));
        let mut bytes = self.writer.finish()?;
        let mut at = 0;
        while let Some(header) = bytes.get(at..at + 16) {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            if u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) == last - 1 {
                let flags = u16::from_ne_bytes([header[6], header[7]]) | ACK;
                bytes[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
                break;
            }
            at += length.next_multiple_of(4);
        }
        Some(Transaction { bytes, labels: self.labels })
    }
}

fn element(w: &mut Writer, key: &[u8], flags: u32) {
    w.nested(1, |w| {
        w.nested(1, |w| w.attribute(1, key));
        if flags != 0 {
            w.be32(3, flags);
        }
    });
}
