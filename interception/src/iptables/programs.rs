//! The programs `iptables-save` and `iptables-restore` of both kinds: finds and runs them.
//!
//! The only place of this crate that executes anything. The plugin and the node agent never come here.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::rules::Family;
use crate::settings::IptablesKind;

/// Where the programs are when `PATH` does not lead to them, as for an ordinary user.
const FOLDERS: [&str; 3] = ["", "/usr/sbin/", "/sbin/"];
/// How long a restore waits for others that change tables.
const WAIT: &str = "--wait=30";
/// The lock of the legacy programs, and what serves where it cannot be made.
const LOCK: &str = "/run/xtables.lock";
const NO_LOCK: &str = "/dev/null";

/// Why iptables did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// The programs are not there.
    #[error(
        "iptables-{kind}-restore is not here, nor an iptables-restore of that kind; the images of \
         Lateen hold none: use an image that has it, or load the module nf_tables on the node"
    )]
    Missing {
        /// Which kind was looked for.
        kind: IptablesKind,
    },
    /// A program did not start.
    #[error("running {program}: {source}")]
    Run {
        /// Its name.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A program refused.
    #[error("{program}: {problem}; {left}")]
    Refused {
        /// Its name.
        program: String,
        /// What it said.
        problem: String,
        /// What is in place now.
        left: String,
    },
    /// The lock of the network namespace could not be had.
    #[error("locking the network namespace: {0}")]
    Lock(io::Error),
    /// None of the kinds could do it.
    #[error("{0}; {1}")]
    Both(Box<Self>, Box<Self>),
}

/// The programs of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Programs {
    pub(crate) kind: IptablesKind,
    /// `-nft`, `-legacy`, or nothing where the plain names are of this kind.
    infix: String,
    folder: &'static str,
}

impl Programs {
    /// Those of a kind, by their own names or, when these say that they are it, by the plain ones.
    pub(crate) fn find(kind: IptablesKind) -> Result<Self, IptablesError> {
        for infix in [format!("-{kind}"), String::new()] {
            for folder in FOLDERS {
                let programs = Self { kind, infix: infix.clone(), folder };
                let version =
                    Command::new(programs.name(Family::V4, "restore")).arg("--version").output();
                let Ok(version) = version else { continue };
                if kind_of(&String::from_utf8_lossy(&version.stdout)) == Some(kind) {
                    return Ok(programs);
                }
            }
        }
        Err(IptablesError::Missing { kind })
    }

    fn name(&self, family: Family, what: &str) -> String {
        let six = if family == Family::V6 { "6" } else { "" };
        format!("{}ip{six}tables{}-{what}", self.folder, self.infix)
    }

    /// Everything that is in the tables of a family.
    pub(crate) fn save(&self, family: Family) -> Result<String, IptablesError> {
        let program = self.name(family, "save");
        let output = Command::new(&program)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| IptablesError::Run { program: program.clone(), source })?;
        answer(program, &output)
    }

    /// Carries out a restore text.
    pub(crate) fn restore(&self, family: Family, text: &str) -> Result<(), IptablesError> {
        let program = self.name(family, "restore");
        let failed = |source| IptablesError::Run { program: program.clone(), source };
        let mut command = Command::new(&program);
        command.args(["--noflush", WAIT]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.kind == IptablesKind::Legacy && !lockable() {
            command.env("XTABLES_LOCKFILE", NO_LOCK);
        }
        let mut child = command.spawn().map_err(failed)?;
        // A program that ends early closes the pipe; what it says then matters more.
        let written =
            child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
        let output = child.wait_with_output().map_err(failed)?;
        answer(program.clone(), &output)?;
        written.map_err(failed)
    }
}

/// Whether the lock of the legacy programs can be made: not on a read-only root, nor by an ordinary
/// user in a namespace of its own.
fn lockable() -> bool {
    OpenOptions::new().create(true).append(true).open(Path::new(LOCK)).is_ok()
}

fn answer(program: String, output: &Output) -> Result<String, IptablesError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).take(4).collect();
    let problem = if lines.is_empty() { output.status.to_string() } else { lines.join("; ") };
    Err(IptablesError::Refused { program, problem, left: "nothing was changed".to_owned() })
}

/// The kind that a version text tells; before there were two it told none.
fn kind_of(version: &str) -> Option<IptablesKind> {
    if !version.contains("tables") {
        None
    } else if version.contains("(nf_tables)") {
        Some(IptablesKind::Nft)
    } else {
        Some(IptablesKind::Legacy)
    }
}

#[cfg(test)]
mod tests {
    use super::{IptablesKind, kind_of};

    #[test]
    fn the_kind_is_told_by_the_version() {
        assert_eq!(kind_of("iptables-restore v1.8.9 (nf_tables)\n"), Some(IptablesKind::Nft));
        assert_eq!(kind_of("iptables-restore v1.8.9 (legacy)\n"), Some(IptablesKind::Legacy));
        assert_eq!(kind_of("iptables-restore v1.6.1\n"), Some(IptablesKind::Legacy));
        assert_eq!(kind_of("bash: no such file"), None);
    }
}
