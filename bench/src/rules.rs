//! Setting the rules of a pod, by the program and not through the node agent: our transaction beside
//! `iptables-restore` of the same plan, each in fresh network namespaces.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::figure::{Figure, percentile};

/// Namespaces in which each way is measured, in turns.
const ROUNDS: usize = 100;
/// What the webhook's init container is given, with DNS.
const ARGUMENTS: [&str; 8] =
    ["-b", "*", "-d", "15090,15021,15020", "-i", "*", "--redirect-dns", "--capture-all-dns"];
/// Where the restore text of the second family begins.
const IPV6: &str = "# ip6tables-restore";

/// Time of each way from process start to exit, both families.
pub(crate) fn measure(bin: &Path) -> anyhow::Result<Vec<Figure>> {
    let program = bin.join("lateen-init");
    let mut dry_run = Command::new(&program);
    dry_run.args(ARGUMENTS).args(["--backend", "iptables", "--dry-run"]);
    let text = String::from_utf8(dry_run.output()?.stdout)?;
    let (v4, v6) = text.split_at(text.find(IPV6).context("no rules for IPv6")?);
    let (mut ours, mut restores) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(apart(|| {
            let mut command = Command::new(&program);
            finish(command.args(ARGUMENTS).args(["--backend", "nft"]), "")
        })?);
        restores.push(apart(|| {
            finish(Command::new("iptables-restore").arg("--noflush"), v4)?;
            finish(Command::new("ip6tables-restore").arg("--noflush"), v6)
        })?);
    }
    let (ours, restores) = (percentile(&mut ours, 50), percentile(&mut restores, 50));
    let name = "rules: a pod's, beside iptables-restore of both families, p50";
    Ok(vec![Figure::at_most(name, ours, (restores * 100.0).round() / 100.0, "ms")])
}

/// Milliseconds of the work, done by a thread in a network namespace that ends with it.
fn apart(work: impl FnOnce() -> anyhow::Result<()> + Send) -> anyhow::Result<f64> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            finish(Command::new("ip").args(["link", "set", "lo", "up"]), "")?;
            let started = Instant::now();
            work()?;
            Ok(started.elapsed().as_secs_f64() * 1000.0)
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread of the benchmark ended early"))?
    })
}

fn finish(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = pipes.spawn().with_context(|| format!("{name} cannot be started"))?;
    child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
    let done = child.wait_with_output()?;
    ensure!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
