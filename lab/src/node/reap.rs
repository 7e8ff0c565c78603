//! The first process of a pid namespace is given the orphans of all others; it must bury them,
//! but not its own children, whose exit status somebody awaits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio_util::sync::CancellationToken;

/// Own children are reaped at once by who started them: a corpse this old has nobody.
const OLD: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reaps orphans until told to stop.
pub(super) async fn orphans(stop: CancellationToken) {
    let mut dead = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for pid in old(&mut dead, &corpses(), Instant::now()) {
            // Reaped by somebody meanwhile: nothing to do.
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// Remembers since when each is dead, and gives those that are so for long. Pure.
fn old(dead: &mut BTreeMap<i32, Instant>, now_dead: &[i32], now: Instant) -> Vec<i32> {
    dead.retain(|pid, _| now_dead.contains(pid));
    for pid in now_dead {
        dead.entry(*pid).or_insert(now);
    }
    let old = dead.iter().filter(|(_, since)| now.duration_since(**since) >= OLD);
    old.map(|(pid, _)| *pid).collect()
}

/// Dead children of this process that nobody has reaped.
fn corpses() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let own = std::process::id();
    pids.filter(|pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        is_corpse(&stat, own)
    })
    .collect()
}

/// Whether a line of `/proc/PID/stat` is that of a dead child of `parent`.
fn is_corpse(stat: &str, parent: u32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut fields = rest.split(' ');
    fields.next() == Some("Z") && fields.next().and_then(|p| p.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Duration, Instant, OLD, is_corpse, old};

    #[test]
    fn corpses_are_told_by_state_and_parent() {
        assert!(is_corpse("7 (a) b) Z 1 7 7", 1));
        assert!(!is_corpse("7 (a) S 1 7 7", 1));
        assert!(!is_corpse("7 (a) Z 12 7 7", 1));
        assert!(!is_corpse("", 1));
    }

    #[test]
    fn only_what_is_dead_for_long_is_reaped() {
        let (mut dead, start) = (BTreeMap::new(), Instant::now());
        assert!(old(&mut dead, &[5, 6], start).is_empty());
        assert!(old(&mut dead, &[6], start + Duration::from_secs(1)).is_empty());
        // 5 was reaped, and its number given to another that has just died.
        assert_eq!(old(&mut dead, &[5, 6], start + OLD), [6]);
    }
}
