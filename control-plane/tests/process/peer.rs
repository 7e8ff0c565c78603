//! A gRPC library as the peer of a test: `peer.py`, over Google's own implementation.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::daemon::PATIENCE;

/// Fewest calls on which something is judged.
const ENOUGH: u32 = 40;

/// What became of calls: how many each server answered, and failures by status and text.
pub(crate) type Tally = BTreeMap<String, u32>;

/// A running peer; ended with the test.
pub(crate) struct Peer {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    /// Where it says what is wrong.
    log: std::path::PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Peer {
    /// Starts `peer.py` with these arguments; its log goes to `log`.
    fn start(arguments: &[&str], bootstrap: &Path, log: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/peer.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(arguments)
            .env("GRPC_XDS_BOOTSTRAP", bootstrap)
            // The library's own threads say what it refuses.
            .env("GRPC_VERBOSITY", "ERROR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .expect("python3 runs: apt-get install python3");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take().unwrap();
        Self { child, input, lines, log: log.to_owned() }
    }

    /// A server that answers with its name; `action` is `serve` or `serve-xds`.
    pub(crate) fn serve(action: &str, name: &str, address: &str, bootstrap: &Path) -> Self {
        let log = bootstrap.with_extension(format!("{name}.log"));
        let server = Self::start(&[action, name, address], bootstrap, &log);
        assert_eq!(server.line(), "serving");
        server
    }

    /// A caller of a target; `action` is `call` or `call-xds`.
    pub(crate) fn call(action: &str, target: &str, bootstrap: &Path) -> Self {
        let name = target.replace(|it: char| !it.is_ascii_alphanumeric(), "-");
        let log = bootstrap.with_extension(format!("{name}.log"));
        Self::start(&[action, target], bootstrap, &log)
    }

    /// A follower of all these targets.
    pub(crate) fn watch(targets: &[String], bootstrap: &Path) -> Self {
        let log = bootstrap.with_extension("watch.log");
        let targets = targets.iter().map(String::as_str);
        let arguments: Vec<&str> = std::iter::once("watch-xds").chain(targets).collect();
        let watcher = Self::start(&arguments, bootstrap, &log);
        assert_eq!(watcher.line(), "watching");
        watcher
    }

    fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        let hint = "PYTHONPATH=\"$(tests/python.sh)\" names where grpcio is";
        assert!(line.is_ok(), "the peer says nothing; {hint}\n{}", log());
        line.unwrap()
    }

    /// What became of calls since this was last asked.
    pub(crate) fn tally(&mut self) -> Tally {
        writeln!(self.input, "tally").unwrap();
        let line = self.line();
        serde_json::from_str(&line).unwrap()
    }

    /// What became of calls from now on, of as many as are wanted.
    pub(crate) async fn calls(&mut self, wanted: u32) -> Tally {
        let begun = Instant::now();
        let mut all = Tally::new();
        while all.values().sum::<u32>() < wanted {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            for (outcome, count) in self.tally() {
                *all.entry(outcome).or_default() += count;
            }
            assert!(begun.elapsed() < PATIENCE, "only {all:?}");
        }
        all
    }

    /// Calls until only these servers answer, and all of them; none may fail on the way.
    pub(crate) async fn until_served_by(&mut self, servers: &[&str]) {
        let begun = Instant::now();
        loop {
            let calls = self.calls(ENOUGH).await;
            let names: Vec<&str> = calls.keys().map(String::as_str).collect();
            if names == servers {
                return;
            }
            let failed = names.iter().any(|it| !["v1", "v2"].contains(it));
            assert!(!failed, "{calls:?}\n{}", std::fs::read_to_string(&self.log).unwrap());
            assert!(begun.elapsed() < PATIENCE, "{calls:?}, not {servers:?}");
        }
    }

    /// Calls until all of them end so.
    pub(crate) async fn until_all(&mut self, outcome: &str) {
        let begun = Instant::now();
        loop {
            let calls = self.calls(ENOUGH).await;
            if calls.keys().all(|it| it.starts_with(outcome)) {
                return;
            }
            let log = std::fs::read_to_string(&self.log).unwrap();
            assert!(begun.elapsed() < PATIENCE, "{calls:?}, not `{outcome}`\n{log}");
        }
    }
}
