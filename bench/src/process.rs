//! Child processes: started, watched through `/proc`, and ended with the benchmark.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// A process that is killed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

impl Process {
    /// Starts `command`; what it prints goes to the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { child, name })
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system time so far, in microseconds.
    pub(crate) fn cpu_us(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))
            .with_context(|| format!("{} has ended", self.name))?;
        let fields = stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1;
        let ticks = |index: usize| -> anyhow::Result<f64> {
            Ok(fields.split_whitespace().nth(index).context("/proc/PID/stat is short")?.parse()?)
        };
        // Fields 14 and 15 of proc(5); the kernel reports hundredths of a second.
        Ok((ticks(11)? + ticks(12)?) * 10_000.0)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        status_mib(self.id(), "VmRSS:")
    }

    /// The most resident memory so far, in MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<f64> {
        peak_mib(self.id())
    }
}

/// The most resident memory of a process so far, in MiB.
pub(crate) fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|text| text.split_whitespace().next());
    Ok(kib.with_context(|| format!("no {field}"))?.parse::<f64>()? / 1024.0)
}

/// Runs `command` to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let done = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "{name}: {}: {}", done.status, error.trim());
    Ok(String::from_utf8(done.stdout)?)
}

/// Asks again and again until `ready`, at most `limit`; returns how long it took.
pub(crate) fn until(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> bool,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    while !ready() {
        if started.elapsed() > limit {
            bail!("{what} did not happen within {} s", limit.as_secs());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(started.elapsed())
}
