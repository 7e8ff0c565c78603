//! Gives up rights: bounding set, groups, ids; then becomes the program.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::{Failed, Process};

/// Replaces this process; returns only why it could not.
pub(super) fn become_program(process: &Process, input: Option<Stdio>) -> Failed {
    if let Err(text) = reduce(process) {
        return text;
    }
    // What the launcher waits for it has blocked, and a mask is inherited: without this no program
    // would ever see SIGTERM.
    if let Err(e) = SigSet::empty().thread_set_mask() {
        return format!("unblocking signals: {e}");
    }
    let Some((program, arguments)) = process.command.split_first() else {
        return "the command is empty".to_owned();
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(process.environment.iter().map(|(k, v)| (k, v)));
    if let Some(input) = input {
        command.stdin(input);
    }
    format!("{program}: {}", command.exec())
}

fn reduce(process: &Process) -> Result<(), Failed> {
    let failed = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    bound(CapabilitySet::from_bits_retain(process.capabilities))?;
    if process.no_new_privileges {
        set_no_new_privs().map_err(|e| failed("allowPrivilegeEscalation", &e))?;
    }
    let groups: Vec<Gid> = process.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    setgroups(&groups).map_err(|e| failed("additional groups", &e))?;
    let (uid, gid) = (Uid::from_raw(process.user), Gid::from_raw(process.group));
    setresgid(gid, gid, gid).map_err(|e| failed(&format!("group id {gid}"), &e))?;
    setresuid(uid, uid, uid).map_err(|e| failed(&format!("user id {uid}"), &e))?;
    if uid.is_root() {
        // What is out of bounds must not stay until the program is there.
        let mut sets = capabilities(None).map_err(|e| failed("capabilities", &e))?;
        sets.inheritable = CapabilitySet::empty();
        set_capabilities(None, sets).map_err(|e| failed("capabilities", &e))?;
    }
    // Ends with the launcher; a change of ids would have cleared this.
    set_pdeathsig(Signal::SIGKILL).map_err(|e| failed("death signal", &e))?;
    umask(Mode::from_bits_truncate(0o022));
    chdir(&process.folder).map_err(|e| failed(&process.folder.display().to_string(), &e))
}

fn bound(kept: CapabilitySet) -> Result<(), Failed> {
    let failed = |e: rustix::io::Errno| format!("bounding set of capabilities: {e}");
    clear_ambient_capability_set().map_err(failed)?;
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // The kernel knows no such capability, nor one after it.
        let Ok(has) = capability_is_in_bounding_set(capability) else { break };
        if has && !kept.contains(capability) {
            remove_capability_from_bounding_set(capability).map_err(failed)?;
        }
    }
    Ok(())
}
