//! What carries the rules of a test: nftables, or one of the kinds of iptables.

use std::process::Command;

use lateen_interception::settings::{Backend, IptablesKind};
use lateen_interception::{RedirectPlan, State, apply, backend, cleanup, verify};

/// What carries the rules of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// nftables, as the node agent sets them.
    Nftables,
    Iptables(IptablesKind),
}

impl On {
    pub(crate) fn apply(self, plan: &RedirectPlan) -> Result<(), String> {
        match self {
            Self::Nftables => apply(plan).map_err(|e| e.to_string()),
            Self::Iptables(kind) => backend::apply(plan, Backend::Iptables, Some(kind))
                .map(drop)
                .map_err(|e| e.to_string()),
        }
    }

    pub(crate) fn verify(self, plan: &RedirectPlan) -> Result<State, String> {
        match self {
            Self::Nftables => verify(plan).map_err(|e| e.to_string()),
            Self::Iptables(kind) => {
                backend::verify(plan, Backend::Iptables, Some(kind)).map_err(|e| e.to_string())
            }
        }
    }

    pub(crate) fn cleanup(self) -> Result<(), String> {
        match self {
            Self::Nftables => cleanup().map_err(|e| e.to_string()),
            Self::Iptables(_) => backend::cleanup().map_err(|e| e.to_string()),
        }
    }

    /// Processes take milliseconds where netlink takes microseconds.
    pub(crate) fn rounds(self, nftables: usize) -> usize {
        if self == Self::Nftables { nftables } else { nftables / 5 }
    }

    /// The legacy tables are absent from some kernels, and cannot be listed in a namespace that is
    /// older than its user ids, as that of an ordinary user here.
    pub(crate) fn is_here(self) -> bool {
        let works = |program, args: &[&str]| {
            // The lock cannot be made by an ordinary user.
            let mut command = Command::new(program);
            command.args(args).env("XTABLES_LOCKFILE", "/dev/null");
            command.output().expect("apt-get install iptables").status.success()
        };
        let here = self != Self::Iptables(IptablesKind::Legacy)
            || works("iptables-legacy", &["-t", "nat", "-S"]) && works("iptables-legacy-save", &[]);
        if !here {
            println!("NOT RUN: legacy iptables does not work here");
        }
        here
    }
}
