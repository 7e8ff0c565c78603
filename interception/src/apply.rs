//! Makes the rules of a network namespace exactly the planned ones, or removes them.
//!
//! Acts on the namespace of the calling thread; see [`crate::netns`] for others. Knows the order
//! of steps, not what is in the messages.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink::route::Routes;
use crate::netlink::socket::{Connection, NetlinkError};
use crate::netlink::wire::{attributes, be32, find, text};
use crate::plan::RedirectPlan;
use crate::render::nft::{self, InPlace, Transaction};
use crate::settings::PASSTHROUGH_SOURCE_V6;

/// How often rules that somebody else changes meanwhile are looked at again.
const ATTEMPTS: usize = 8;

/// Why rules could not be set, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel has no nf_tables.
    #[error(
        "the kernel has no nf_tables (CONFIG_NF_TABLES, module nf_tables): {0}; \
         load the module on the node"
    )]
    NoNftables(io::Error),
    /// The privilege is missing.
    #[error("rules need the capability NET_ADMIN in the network namespace: {0}")]
    NotPermitted(io::Error),
    /// The kernel refused one part of the transaction; nothing was changed.
    #[error("the kernel refused {part}: {source}; nothing was changed")]
    Refused {
        /// What was refused, with the kernel features it needs.
        part: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The lists of the settings do not fit one transaction.
    #[error("the lists are too long for one transaction; nothing was changed")]
    TooLong,
    /// A step around the transaction failed.
    #[error("{step}: {problem}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// What went wrong.
        problem: String,
    },
}

pub(crate) fn step(step: &'static str) -> impl FnOnce(NetlinkError) -> ApplyError {
    move |e| match e.errno() {
        libc_errno::EPERM => ApplyError::NotPermitted(io::Error::from_raw_os_error(e.errno())),
        libc_errno::EPROTONOSUPPORT => {
            ApplyError::NoNftables(io::Error::from_raw_os_error(e.errno()))
        }
        _ => ApplyError::Step { step, problem: e.to_string() },
    }
}

/// Error numbers of Linux that have a meaning of their own here.
mod libc_errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ERESTART: i32 = 85;
    pub(super) const EPROTONOSUPPORT: i32 = 93;
    pub(super) const EOPNOTSUPP: i32 = 95;
    pub(super) const EAFNOSUPPORT: i32 = 97;
}

impl ApplyError {
    /// Whether the kernel's nf_tables lacks something, so that other means may do.
    pub(crate) fn is_lack(&self) -> bool {
        const LACKS: [i32; 5] = [
            libc_errno::ENOENT,
            libc_errno::EINVAL,
            libc_errno::EPROTONOSUPPORT,
            libc_errno::EOPNOTSUPP,
            libc_errno::EAFNOSUPPORT,
        ];
        match self {
            Self::NoNftables(_) => true,
            Self::Refused { source, .. } => {
                source.raw_os_error().is_some_and(|e| LACKS.contains(&e))
            }
            Self::NotPermitted(_) | Self::TooLong | Self::Step { .. } => false,
        }
    }
}

/// Replaces whatever nftables rules of ours are in place by those of the plan, in one step.
///
/// What the new rules need is added before, what only the old ones needed is removed after them;
/// between the two no packet takes a way that neither set of rules has.
///
/// # Errors
/// When the kernel refuses; the rules are then as they were.
pub fn apply(plan: &RedirectPlan) -> Result<(), ApplyError> {
    prepare(plan)?;
    transact(plan)?;
    finish(plan)
}

/// Removes everything that [`apply`] made; also when there is nothing.
///
/// # Errors
/// When the kernel refuses.
pub fn cleanup() -> Result<(), ApplyError> {
    transact(&NOTHING)?;
    finish_cleanup()
}

const NOTHING: RedirectPlan = RedirectPlan { chains: Vec::new(), mark_route: None };

/// Adds what rules need around them, whatever carries them.
pub(crate) fn prepare(plan: &RedirectPlan) -> Result<(), ApplyError> {
    let routes = Routes::open().map_err(step("opening a netlink socket"))?;
    if !plan.is_empty() {
        routes.add_address(PASSTHROUGH_SOURCE_V6).map_err(step("adding ::6 to lo"))?;
    }
    if let Some(wanted) = plan.mark_route {
        routes.add(wanted).map_err(step("adding the routes of the TPROXY mark"))?;
    }
    Ok(())
}

/// Removes what only an earlier run's rules needed around them.
pub(crate) fn finish(plan: &RedirectPlan) -> Result<(), ApplyError> {
    let routes = Routes::open().map_err(step("opening a netlink socket"))?;
    routes.remove_others(plan.mark_route).map_err(step("removing routes of an earlier run"))
}

/// Removes everything around rules that are gone.
pub(crate) fn finish_cleanup() -> Result<(), ApplyError> {
    finish(&NOTHING)?;
    let routes = Routes::open().map_err(step("opening a netlink socket"))?;
    routes.delete_address(PASSTHROUGH_SOURCE_V6).map_err(step("removing ::6 from lo"))
}

/// Whether the kernel has what the plan needs; changes nothing.
pub(crate) fn probe(plan: &RedirectPlan) -> Result<(), ApplyError> {
    let connection = Connection::open(NETLINK_NETFILTER).map_err(step("opening netfilter"))?;
    let transaction = nft::probe(plan).ok_or(ApplyError::TooLong)?;
    let last = last(&transaction)?;
    match connection.transact(&transaction.bytes, 0, last) {
        Err(NetlinkError::Refused { seq, .. }) if seq == last => Ok(()),
        Err(error) => Err(refusal(error, &transaction)),
        Ok(()) => Ok(()),
    }
}

/// The nftables part alone.
pub(crate) fn transact(plan: &RedirectPlan) -> Result<(), ApplyError> {
    let connection = Connection::open(NETLINK_NETFILTER).map_err(step("opening netfilter"))?;
    for _ in 0..ATTEMPTS {
        let transaction = match in_place(&connection) {
            // Any other error is that of the transaction too, which says more about it.
            Err(error) if error.errno() == libc_errno::ENOENT && plan.is_empty() => return Ok(()),
            Err(error) if error.errno() == libc_errno::ENOENT => nft::create(plan),
            Ok(there) if !plan.is_empty() => nft::exchange(plan, &there),
            Err(NetlinkError::Interrupted) => continue,
            Ok(_) | Err(_) => break,
        };
        match send(&connection, transaction) {
            // Somebody else was faster: what they made is replaced.
            Err(ApplyError::Refused { source, .. })
                if [libc_errno::EEXIST, libc_errno::ERESTART]
                    .contains(&source.raw_os_error().unwrap_or(0)) => {}
            // Something in the table that is not ours to know: the table is made anew.
            Err(ApplyError::Refused { .. }) => break,
            done => return done,
        }
    }
    send(&connection, nft::replace(plan))
}

/// What of ours is in place; `ENOENT` when nothing is.
fn in_place(connection: &Connection) -> Result<InPlace, NetlinkError> {
    let generation = connection.request(&nft::get_generation())?;
    let number =
        |body: &Vec<u8>| find(&attributes(body.get(4..).unwrap_or_default()), 1).map_or(0, be32);
    let generation = generation.first().map_or(0, |(_, body)| number(body));
    connection.request(&nft::get_table())?;
    let names = |kind: u16, attribute: u16| -> Result<Vec<String>, NetlinkError> {
        let answers = connection.request(&nft::dump(kind))?;
        let names = answers.iter().filter_map(|(_, body)| {
            let found = attributes(body.get(4..)?);
            let ours = find(&found, 1).map(text).as_deref() == Some(nft::TABLE);
            ours.then(|| find(&found, attribute).map(text))?
        });
        Ok(names.collect())
    };
    let (chains, sets) = (names(nft::GET_CHAIN, 3)?, names(nft::GET_SET, 2)?);
    Ok(InPlace { generation, chains, sets })
}

fn send(connection: &Connection, transaction: Option<Transaction>) -> Result<(), ApplyError> {
    let transaction = transaction.ok_or(ApplyError::TooLong)?;
    let last = last(&transaction)?;
    let sent = connection.transact(&transaction.bytes, 0, last);
    sent.map_err(|error| refusal(error, &transaction))
}

fn last(transaction: &Transaction) -> Result<u32, ApplyError> {
    u32::try_from(transaction.labels.len() - 1).map_err(|_| ApplyError::TooLong)
}

fn refusal(error: NetlinkError, transaction: &Transaction) -> ApplyError {
    match error {
        NetlinkError::Refused { seq: 0, source }
            if [libc_errno::EINVAL, libc_errno::EOPNOTSUPP]
                .contains(&source.raw_os_error().unwrap_or(0)) =>
        {
            ApplyError::NoNftables(source)
        }
        NetlinkError::Refused { source, .. }
            if source.raw_os_error() == Some(libc_errno::EPERM) =>
        {
            ApplyError::NotPermitted(source)
        }
        NetlinkError::Refused { seq, source } => {
            let part = transaction.labels.get(seq as usize).cloned().unwrap_or_default();
            ApplyError::Refused { part, source }
        }
        other => step("changing rules")(other),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::{ApplyError, libc_errno};

    #[test]
    fn only_what_the_kernel_lacks_is_a_lack() {
        let refused = |errno| ApplyError::Refused {
            part: "rule".to_owned(),
            source: Error::from_raw_os_error(errno),
        };
        assert!(refused(libc_errno::ENOENT).is_lack(), "an expression that is no module");
        assert!(refused(libc_errno::EOPNOTSUPP).is_lack(), "a chain of a type that is none");
        let no_memory = 12;
        assert!(!refused(no_memory).is_lack());
        assert!(!refused(libc_errno::EEXIST).is_lack());
        assert!(!ApplyError::NotPermitted(Error::from_raw_os_error(libc_errno::EPERM)).is_lack());
        assert!(!ApplyError::TooLong.is_lack());
    }
}
