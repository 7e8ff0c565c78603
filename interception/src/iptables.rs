//! Rules by way of iptables, for kernels whose nf_tables cannot carry the plan.
//!
//! One restore text a family, one commit a table; on an error what was there is put back. Only
//! `lateen-init` uses this: it executes programs. Must not know what a plan means.

pub(crate) mod programs;
pub(crate) mod rules;
pub(crate) mod saved;

use std::fs::{self, File};

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::netlink::socket::{Connection, NetlinkError};
use crate::netlink::wire::{attributes, find, text};
use crate::plan::RedirectPlan;
use crate::render;
use crate::render::nft;
use crate::settings::IptablesKind;
use crate::verify::State;

pub use programs::IptablesError;

use programs::Programs;
use rules::{Family, PREFIX, Rules, transition};

const NAMESPACE: &str = "/proc/thread-self/ns/net";
/// Names of the legacy tables of this network namespace, by family.
const LEGACY_TABLES: [&str; 2] =
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// One at a time in a network namespace: the file is its own, and the lock ends with the process.
fn lock() -> Result<File, IptablesError> {
    let file = File::open(NAMESPACE).map_err(IptablesError::Lock)?;
    file.lock().map_err(IptablesError::Lock)?;
    Ok(file)
}

/// Makes the rules of ours exactly the planned ones, by the first kind that can, and returns it.
pub(crate) fn apply(
    plan: &RedirectPlan,
    forced: Option<IptablesKind>,
) -> Result<IptablesKind, IptablesError> {
    let _lock = lock()?;
    let (first, second) = candidates(forced);
    let refused = match set(plan, first) {
        Ok(()) => return Ok(first),
        Err(error) => error,
    };
    let Some(second) = second else { return Err(refused) };
    match set(plan, second) {
        Ok(()) => Ok(second),
        Err(error) => Err(IptablesError::Both(Box::new(refused), Box::new(error))),
    }
}

/// With the reasons of the rules as comments; a kernel without xt_comment takes them without.
fn set(plan: &RedirectPlan, kind: IptablesKind) -> Result<(), IptablesError> {
    let programs = Programs::find(kind)?;
    let by =
        |comments| replace(&programs, |family| render::iptables::rules(plan, family, comments));
    by(true).or_else(|error| by(false).map_err(|_| error))
}

/// Kinds in the order in which they are tried: legacy where it has rules, as those of both kinds in
/// one namespace are hard to read, else nft where the kernel has nf_tables.
fn candidates(forced: Option<IptablesKind>) -> (IptablesKind, Option<IptablesKind>) {
    use IptablesKind::{Legacy, Nft};
    let legacy = || {
        let programs = Programs::find(Legacy);
        programs.is_ok_and(|programs| {
            let text = |family| programs.save(family).unwrap_or_default();
            Family::ALL.into_iter().any(|family| saved::has_rules(&text(family)))
        })
    };
    match forced {
        Some(kind) => (kind, None),
        None if Connection::open(NETLINK_NETFILTER).is_err() => (Legacy, None),
        None if legacy_tables() && legacy() => (Legacy, Some(Nft)),
        None => (Nft, Some(Legacy)),
    }
}

/// Replaces what is ours in each family; puts back what was there when one of them fails.
fn replace(programs: &Programs, wanted: impl Fn(Family) -> Rules) -> Result<(), IptablesError> {
    let read = |family| -> Result<_, IptablesError> {
        Ok((family, saved::parse(&programs.save(family)?)))
    };
    let before = families().map(read).collect::<Result<Vec<_>, _>>()?;
    for (at, (family, rules)) in before.iter().enumerate() {
        let text = transition(rules, &wanted(*family));
        let done = if text.is_empty() { Ok(()) } else { programs.restore(*family, &text) };
        if let Err(error) = done {
            return Err(put_back(programs, &before[..=at], error));
        }
    }
    Ok(())
}

/// A restore that failed may have committed some tables, and another family all of them.
fn put_back(
    programs: &Programs,
    before: &[(Family, Rules)],
    error: IptablesError,
) -> IptablesError {
    let mut problems = Vec::new();
    for (family, before) in before {
        let undone = programs
            .save(*family)
            .and_then(|text| programs.restore(*family, &transition(&saved::parse(&text), before)));
        problems.extend(undone.err().map(|e| e.to_string()));
    }
    match error {
        IptablesError::Refused { program, problem, .. } if !problems.is_empty() => {
            let left = format!("putting back what was there failed: {}", problems.join("; "));
            IptablesError::Refused { program, problem, left }
        }
        other => other,
    }
}

/// Removes what is ours, of these kinds.
pub(crate) fn remove(kinds: &[IptablesKind]) -> Result<(), IptablesError> {
    if kinds.is_empty() {
        return Ok(());
    }
    let _lock = lock()?;
    for kind in kinds {
        replace(&Programs::find(*kind)?, |_| Rules::default())?;
    }
    Ok(())
}

/// Compares what is ours, of one kind, with the plan.
pub(crate) fn compare(plan: &RedirectPlan, kind: IptablesKind) -> Result<State, IptablesError> {
    let programs = Programs::find(kind)?;
    for family in families() {
        let found = saved::parse(&programs.save(family)?);
        let comments = found.lines().any(|rule| !saved::comment(rule).is_empty());
        let wanted = render::iptables::rules(plan, family, comments || found.is_empty());
        if let Some(difference) = saved::difference(family, &wanted, &found) {
            return Ok(State::Differs(difference));
        }
    }
    Ok(State::Planned)
}

/// The kinds of which rules of ours are in place. Executes something only where there are legacy
/// tables.
pub(crate) fn in_place() -> Result<Vec<IptablesKind>, IptablesError> {
    let mut kinds = Vec::new();
    if nft_chains() {
        kinds.push(IptablesKind::Nft);
    }
    // Without the program nobody can have made rules with it that could be looked at here.
    if legacy_tables()
        && let Ok(programs) = Programs::find(IptablesKind::Legacy)
    {
        for family in families() {
            if !saved::parse(&programs.save(family)?).is_empty() {
                kinds.push(IptablesKind::Legacy);
                break;
            }
        }
    }
    Ok(kinds)
}

fn legacy_tables() -> bool {
    LEGACY_TABLES
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|names| !names.trim().is_empty()))
}

/// Whether tables of iptables-nft hold chains of ours: asked of the kernel.
fn nft_chains() -> bool {
    const FAMILIES: [u8; 2] = [2, 10];
    let ask = |family| -> Result<bool, NetlinkError> {
        let chains = Connection::open(NETLINK_NETFILTER)?.request(&nft::get_chains(family))?;
        Ok(chains.iter().any(|(_, body)| {
            let found = attributes(body.get(4..).unwrap_or_default());
            text(find(&found, 3).unwrap_or_default()).starts_with(PREFIX)
        }))
    };
    FAMILIES.into_iter().any(|family| ask(family).unwrap_or(false))
}

/// The families that the kernel has; one that it has not cannot be used to go past.
fn families() -> impl Iterator<Item = Family> {
    let ipv6 = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let absent = matches!(ipv6, Err(Errno::EAFNOSUPPORT));
    Family::ALL.into_iter().filter(move |family| *family == Family::V4 || !absent)
}
