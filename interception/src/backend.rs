//! Chooses what carries the rules, nftables or iptables, and sees to it that only that one does.
//!
//! The transaction itself is the probe: a kernel that lacks one of the expressions refuses it as a
//! whole. The rules of the new carrier are set before those of the old one are removed.

use std::fmt;

use crate::apply::{self, ApplyError};
use crate::iptables::{self, IptablesError};
use crate::plan::RedirectPlan;
use crate::render;
use crate::settings::{Backend, IptablesKind};
use crate::verify::{self, State};

/// What carries the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// nftables, by netlink.
    Nft,
    /// iptables of this kind.
    Iptables(IptablesKind),
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nft => f.write_str("nftables"),
            Self::Iptables(kind) => write!(f, "iptables-{kind}"),
        }
    }
}

/// What carries the rules, and why that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The carrier.
    pub carrier: Carrier,
    /// Why.
    pub reason: String,
}

/// Why no carrier did what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// By netlink.
    #[error(transparent)]
    Netlink(#[from] ApplyError),
    /// By iptables.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    /// The kernel's nf_tables cannot, and iptables neither.
    #[error("{nft}; iptables instead: {iptables}")]
    Neither {
        /// What nf_tables lacks.
        nft: ApplyError,
        /// Why iptables did not do it.
        iptables: IptablesError,
    },
}

/// Replaces whatever rules of ours are in place, of any carrier, by those of the plan.
///
/// # Errors
/// When no carrier takes them; the rules are then as they were. Or when those of another carrier
/// cannot be removed; the new ones are then in place.
pub fn apply(
    plan: &RedirectPlan,
    backend: Backend,
    kind: Option<IptablesKind>,
) -> Result<Choice, BackendError> {
    apply::prepare(plan)?;
    let choice = match backend {
        Backend::Iptables => {
            let carrier = Carrier::Iptables(iptables::apply(plan, kind)?);
            Choice { carrier, reason: "as --backend says".to_owned() }
        }
        Backend::Nft => {
            apply::transact(plan)?;
            Choice { carrier: Carrier::Nft, reason: "as --backend says".to_owned() }
        }
        Backend::Auto => match apply::transact(plan) {
            Ok(()) => {
                let reason = "the kernel has all that the plan needs".to_owned();
                Choice { carrier: Carrier::Nft, reason }
            }
            Err(nft) if nft.is_lack() => match iptables::apply(plan, kind) {
                Ok(kind) => Choice { carrier: Carrier::Iptables(kind), reason: nft.to_string() },
                Err(iptables) => return Err(BackendError::Neither { nft, iptables }),
            },
            Err(other) => return Err(other.into()),
        },
    };
    remove_others(Some(choice.carrier))?;
    apply::finish(plan)?;
    Ok(choice)
}

/// Removes everything that any carrier made; also when there is nothing.
///
/// # Errors
/// When something of it cannot be removed.
pub fn cleanup() -> Result<(), BackendError> {
    remove_others(None)?;
    Ok(apply::finish_cleanup()?)
}

fn remove_others(kept: Option<Carrier>) -> Result<(), BackendError> {
    if kept != Some(Carrier::Nft) {
        match apply::transact(&RedirectPlan { chains: Vec::new(), mark_route: None }) {
            // Without nf_tables nothing can be in them.
            Ok(()) | Err(ApplyError::NoNftables(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    let mut others = iptables::in_place()?;
    others.retain(|kind| kept != Some(Carrier::Iptables(*kind)));
    Ok(iptables::remove(&others)?)
}

/// Compares the network namespace of the calling thread with the plan.
///
/// With [`Backend::Auto`] any one carrier may have the rules.
///
/// # Errors
/// When the kernel or iptables cannot be asked.
pub fn verify(
    plan: &RedirectPlan,
    backend: Backend,
    kind: Option<IptablesKind>,
) -> Result<State, BackendError> {
    let nft = match verify::rules(plan) {
        Ok(State::Absent) => None,
        Ok(state) => (!plan.is_empty() || state != State::Planned).then_some(state),
        Err(ApplyError::NoNftables(_)) => None,
        Err(other) => return Err(other.into()),
    };
    let mut found: Vec<Carrier> = nft.iter().map(|_| Carrier::Nft).collect();
    found.extend(iptables::in_place()?.into_iter().map(Carrier::Iptables));
    let one = match found.as_slice() {
        [] if plan.is_empty() => return Ok(State::Planned),
        [] => return Ok(State::Absent),
        [one] => *one,
        [first, second, ..] => {
            return Ok(State::Differs(format!("there are rules of {first} and of {second}")));
        }
    };
    let asked = match (backend, one) {
        (Backend::Auto, Carrier::Nft) | (Backend::Nft, Carrier::Nft) => true,
        (Backend::Auto | Backend::Iptables, Carrier::Iptables(found)) => {
            kind.is_none_or(|kind| kind == found)
        }
        (Backend::Nft, Carrier::Iptables(_)) | (Backend::Iptables, Carrier::Nft) => false,
    };
    if !asked {
        return Ok(State::Differs(format!("the rules are those of {one}, not of what was asked")));
    }
    let state = match (one, nft) {
        (Carrier::Iptables(kind), _) => iptables::compare(plan, kind)?,
        (Carrier::Nft, state) => state.unwrap_or(State::Absent),
    };
    if state != State::Planned {
        return Ok(state);
    }
    Ok(verify::around(plan)?.map_or(State::Planned, State::Differs))
}

/// The rules as text, in the words of what would carry them; changes nothing.
#[must_use]
pub fn describe(plan: &RedirectPlan, backend: Backend) -> String {
    let lack = backend == Backend::Auto && apply::probe(plan).is_err_and(|e| e.is_lack());
    if lack || backend == Backend::Iptables {
        render::iptables::text(plan) + &render::text::routes(plan)
    } else {
        render::text::render(plan)
    }
}
