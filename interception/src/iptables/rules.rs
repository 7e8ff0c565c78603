//! Rules of iptables as data, and the restore text that leads from some to others.
//!
//! All chains of ours have names that begin with [`PREFIX`]; of the built-in chains only the jumps to
//! ours are known. Must not know plans, nor how the text is carried out.

use std::collections::BTreeMap;
use std::fmt::Write;

/// How the chains of ours are called.
pub(crate) const PREFIX: &str = "LATEEN_";

/// An address family: each has its own program and its own tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The tables that plans use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Raw,
    Mangle,
    Nat,
}

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Mangle, Self::Nat];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
        }
    }
}

/// A rule in a built-in chain that leads to a chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Jump {
    /// The built-in chain.
    pub(crate) from: String,
    /// What follows its name in the rule.
    pub(crate) rule: String,
    /// Whether no rule of somebody else stands before it.
    pub(crate) first: bool,
}

/// What is ours in one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TableRules {
    /// Chains with their rules, each without the words `-A CHAIN`.
    pub(crate) chains: BTreeMap<String, Vec<String>>,
    /// How packets get there.
    pub(crate) jumps: Vec<Jump>,
}

/// What is ours in one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) tables: BTreeMap<Table, TableRules>,
}

impl Rules {
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// All rules, those of the jumps too.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &String> {
        self.tables.values().flat_map(|table| {
            table.chains.values().flatten().chain(table.jumps.iter().map(|jump| &jump.rule))
        })
    }

    /// The tables in an order in which what captures comes before what no longer does: each table is
    /// a commit of its own, and between two of them nothing may go past.
    fn order(&self) -> Vec<Table> {
        let tproxy = self
            .tables
            .get(&Table::Mangle)
            .is_some_and(|t| t.chains.values().flatten().any(|rule| rule.contains("-j TPROXY")));
        let mut order = Table::ALL.to_vec();
        if !tproxy {
            order.swap(1, 2);
        }
        order.sort_by_key(|table| !self.tables.contains_key(table));
        order
    }
}

/// Text for `iptables-restore --noflush` that makes `to` of `from`: one commit for each table.
pub(crate) fn transition(from: &Rules, to: &Rules) -> String {
    let nothing = TableRules::default();
    let mut text = String::new();
    for table in to.order() {
        let (old, new) = (from.tables.get(&table), to.tables.get(&table));
        if old.is_some() || new.is_some() {
            let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
            // Writing to a string cannot fail.
            let _ = commit(&mut text, table, old, new);
        }
    }
    text
}

/// A chain that is named is empty afterwards; so are those that are to go.
fn commit(text: &mut String, table: Table, old: &TableRules, new: &TableRules) -> std::fmt::Result {
    writeln!(text, "*{}", table.name())?;
    let stale: Vec<&String> = old.chains.keys().filter(|c| !new.chains.contains_key(*c)).collect();
    for chain in new.chains.keys().chain(stale.iter().copied()) {
        writeln!(text, ":{chain} - [0:0]")?;
    }
    for (chain, rules) in &new.chains {
        for rule in rules {
            writeln!(text, "-A {chain} {rule}")?;
        }
    }
    for jump in &old.jumps {
        writeln!(text, "-D {} {}", jump.from, jump.rule)?;
    }
    for jump in &new.jumps {
        writeln!(text, "-I {} 1 {}", jump.from, jump.rule)?;
    }
    for chain in stale {
        writeln!(text, "-X {chain}")?;
    }
    writeln!(text, "COMMIT")
}
