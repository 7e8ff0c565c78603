//! The launcher: what happens between the kubelet and the first instruction of a container.
//!
//! It is a program of its own with one thread, because only such a process may enter user and pid
//! namespaces. Must not know pods: it does what a [`Container`] or [`Join`] says.

mod container;
mod enter;
mod join;
mod rights;
mod root;
mod wait;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// Exit status when a command cannot be started.
pub const NOT_STARTED: u8 = 126;
/// Where every container sees our programs.
pub const BINARIES: &str = "/opt/lateen/bin";

/// A process and its rights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whole environment.
    pub environment: Vec<(String, String)>,
    /// Working directory.
    pub folder: PathBuf,
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// Additional groups.
    pub groups: Vec<u32>,
    /// Capabilities, one bit each; only user 0 has them from the start.
    pub capabilities: u64,
    /// No program may give more rights.
    pub no_new_privileges: bool,
}

/// A folder or file that a container sees at another place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What.
    pub source: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// A container to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Socket that learns why the process did not start, or the end of file when it did.
    pub status: PathBuf,
    /// Network namespace.
    pub network: PathBuf,
    /// Empty folder for the root file system and its layers.
    pub work: PathBuf,
    /// Host name.
    pub hostname: String,
    /// Files in `/etc`.
    pub etc: BTreeMap<String, String>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Whether the root file system cannot be written.
    pub read_only: bool,
    /// Whether it may change what is the whole machine's.
    pub privileged: bool,
    /// Its first process.
    pub process: Process,
}

/// A process to be started beside others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// First process of a container; `None`: on the node, in `network`.
    pub container: Option<i32>,
    /// Network namespace.
    pub network: PathBuf,
    /// The process.
    pub process: Process,
}

/// The signal by which a launcher kills its container.
#[must_use]
pub fn kill_signal() -> nix::sys::signal::Signal {
    wait::KILL
}

/// What could not be done, in words.
type Failed = String;

/// Runs the launcher with its arguments, the program's name left out.
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    let verb = arguments.first().and_then(|verb| verb.to_str()).unwrap_or_default();
    let rest = arguments.get(1..).unwrap_or_default();
    let file = rest.first().map(Path::new).unwrap_or_else(|| Path::new(""));
    let done = match verb {
        "enter" => enter::enter(rest).map(|()| ExitCode::SUCCESS),
        "container" => container::outside(file),
        "inside" => container::inside(file),
        "join" => join::outside(file),
        "joined" => join::inside(file),
        "pause" => wait::pause(),
        other => Err(format!("{other:?} is none of its verbs; `lateen lab` starts this program")),
    };
    done.unwrap_or_else(|text| {
        eprintln!("lateen-lab-launch: {text}");
        ExitCode::from(NOT_STARTED)
    })
}

fn read<T: for<'a> Deserialize<'a>>(file: &Path) -> Result<T, Failed> {
    let text = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", file.display()))
}

/// This program, with another verb.
fn again(verb: &str, file: &Path) -> Result<std::process::Command, Failed> {
    let own = std::env::current_exe().map_err(|e| format!("finding this program: {e}"))?;
    let mut command = std::process::Command::new(own);
    command.arg(verb).arg(file);
    Ok(command)
}
