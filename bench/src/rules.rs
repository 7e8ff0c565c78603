//! Setting the rules of a pod, by the program and not through the node agent: our transaction beside
//! `iptables-restore` and `nft -f` of the same plan, and beside single commands, each in fresh network
//! namespaces.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::figure::{Figure, percentile};
use crate::process::output;

/// Namespaces in which each way is measured, in turns.
const ROUNDS: usize = 100;
/// What the webhook's init container is given, with DNS.
const ARGUMENTS: [&str; 8] =
    ["-b", "*", "-d", "15090,15021,15020", "-i", "*", "--redirect-dns", "--capture-all-dns"];
/// Where the restore text of the second family begins.
const IPV6: &str = "# ip6tables-restore";

/// Commands of those who add one rule after the other.
const SINGLE: u16 = 20;

/// Time of each way from process start to exit, both families.
pub(crate) fn measure(bin: &Path) -> anyhow::Result<Vec<Figure>> {
    let peers = Peers::of(&bin.join("lateen-init"))?;
    let (mut ours, mut restores, mut loads, mut singles) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        ours.push(apart(|| timed(|| finish(&mut peers.ours(), "")))?);
        restores.push(apart(|| timed(|| peers.restore()))?);
        loads.push(apart(|| timed(|| peers.load()))?);
        singles.push(apart(|| timed(one_by_one))?);
    }
    let ours = percentile(&mut ours, 50);
    let beside = |peer: &str, samples: &mut [f64], times: f64| {
        let limit = percentile(samples, 50) / times;
        let name = format!("rules: a pod's, beside {peer}, p50");
        Figure::at_most(&name, ours, (limit * 100.0).round() / 100.0, "ms")
    };
    Ok(vec![
        beside("iptables-restore of both families", &mut restores, 1.0),
        beside("nft -f", &mut loads, 1.0),
        beside("a tenth of 20 iptables commands", &mut singles, 10.0),
    ])
}

/// The same plan as others carry it.
struct Peers {
    program: PathBuf,
    v4: String,
    v6: String,
    nft: String,
}

impl Peers {
    fn of(program: &Path) -> anyhow::Result<Self> {
        let program = program.to_owned();
        let mut peers = Self { program, v4: String::new(), v6: String::new(), nft: String::new() };
        let mut dry_run = Command::new(&peers.program);
        dry_run.args(ARGUMENTS).args(["--backend", "iptables", "--dry-run"]);
        let text = output(&mut dry_run)?;
        let (v4, v6) = text.split_at(text.find(IPV6).context("no rules for IPv6")?);
        (peers.v4, peers.v6) = (v4.to_owned(), v6.to_owned());
        peers.nft = apart(|| {
            finish(&mut peers.ours(), "")?;
            output(Command::new("nft").args(["-s", "list", "table", "inet", "lateen"]))
        })?;
        Ok(peers)
    }

    fn ours(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(ARGUMENTS).args(["--backend", "nft"]);
        command
    }

    fn restore(&self) -> anyhow::Result<()> {
        finish(Command::new("iptables-restore").arg("--noflush"), &self.v4)?;
        finish(Command::new("ip6tables-restore").arg("--noflush"), &self.v6)
    }

    fn load(&self) -> anyhow::Result<()> {
        finish(Command::new("nft").args(["-f", "-"]), &self.nft)
    }
}

fn one_by_one() -> anyhow::Result<()> {
    for port in 0..SINGLE {
        let port = (9000 + port).to_string();
        let rule = ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", &port, "-j", "RETURN"];
        finish(Command::new("iptables").args(rule), "")?;
    }
    Ok(())
}

/// Does the work in a thread in a network namespace that ends with it.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            finish(Command::new("ip").args(["link", "set", "lo", "up"]), "")?;
            work()
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread of the benchmark ended early"))?
    })
}

/// Milliseconds of the work.
fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

pub(crate) fn finish(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = pipes.spawn().with_context(|| format!("{name} cannot be started"))?;
    child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
    let done = child.wait_with_output()?;
    ensure!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
