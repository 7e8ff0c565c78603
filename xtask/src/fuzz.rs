//! Builds the fuzzing engine, and lets it look for a bounded time.
//!
//! Targets are the folders of `fuzz/corpus`. What an engine makes stays below cargo's target
//! folder: `found` is the corpus it grew, `failed` what a target failed on, `log` what it said. What
//! is to be kept is copied into `fuzz/corpus` by hand.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The checkout.
    pub root: PathBuf,
    /// Cargo's target folder; instrumented code lies below it, in `fuzzing`.
    pub target: PathBuf,
    /// How long each target is fed, in seconds.
    pub seconds: u32,
    /// Names of targets; all where empty.
    pub names: Vec<String>,
}

/// What became of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// How many inputs it took, as far as the engine says.
    pub inputs: u64,
    /// Whether it passed all of them.
    pub passed: bool,
    /// What the engine said.
    pub log: PathBuf,
}

/// Why nothing was looked for.
#[derive(Debug, thiserror::Error)]
pub enum FuzzError {
    /// Cargo is not there.
    #[error("cargo cannot be started: {0}; is a Rust toolchain installed?")]
    Start(io::Error),
    /// The build failed; cargo has said why.
    #[error(
        "cargo build failed ({0}); its messages are above. The engine needs a C++ compiler: g++"
    )]
    Build(ExitStatus),
    /// There is no such target.
    #[error("there is no target {name}; there are {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// All there are.
        known: Vec<String>,
    },
    /// A folder or file cannot be used.
    #[error("{}: {error}", place.display())]
    Place {
        /// Which.
        place: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Lets the compiler count which code an input reaches, and what it compares; each is an option of
/// its code generator.
const COUNTERS: [&str; 4] = [
    "-sanitizer-coverage-level=4",
    "-sanitizer-coverage-inline-8bit-counters",
    "-sanitizer-coverage-pc-table",
    "-sanitizer-coverage-trace-compares",
];

/// Limits of one input: seconds, MiB, bytes.
const LIMITS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384"];

/// Builds the engine and runs the targets, one after the other.
///
/// # Errors
/// When the build fails, or a target is not known. A target that fails is no error.
pub fn run(request: &Request, mut tell: impl FnMut(&Outcome)) -> Result<bool, FuzzError> {
    let known = targets(&request.root)?;
    if let Some(name) = request.names.iter().find(|name| !known.contains(name)) {
        return Err(FuzzError::Unknown { name: name.clone(), known });
    }
    let status = request.build().status().map_err(FuzzError::Start)?;
    if !status.success() {
        return Err(FuzzError::Build(status));
    }
    let mut passed = true;
    for name in if request.names.is_empty() { &known } else { &request.names } {
        let outcome = request.feed(name)?;
        passed &= outcome.passed;
        tell(&outcome);
    }
    Ok(passed)
}

fn targets(root: &Path) -> Result<Vec<String>, FuzzError> {
    let place = root.join("fuzz/corpus");
    let unusable = |error| FuzzError::Place { place: place.clone(), error };
    let mut names = Vec::new();
    for entry in fs::read_dir(&place).map_err(unusable)? {
        names.push(entry.map_err(unusable)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

impl Request {
    fn folder(&self) -> PathBuf {
        self.target.join("fuzzing")
    }

    fn build(&self) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root);
        command.args(["build", "--locked", "--profile", "fuzz", "--target", &triple()]);
        command.args(["-p", "lateen-fuzz", "--features", "engine"]);
        // The target is named, so these flags are not those of build scripts and macros.
        let mut flags = vec!["-Cpasses=sancov-module".to_owned()];
        flags.extend(COUNTERS.map(|counter| format!("-Cllvm-args={counter}")));
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        command.env("CARGO_TARGET_DIR", self.folder());
        command.env_remove("RUSTFLAGS");
        command
    }

    fn feed(&self, name: &str) -> Result<Outcome, FuzzError> {
        let [found, failed, logs] = ["found", "failed", "log"].map(|it| self.folder().join(it));
        let (found, failed) = (found.join(name), failed.join(name));
        for folder in [&found, &failed, &logs] {
            fs::create_dir_all(folder)
                .map_err(|error| FuzzError::Place { place: folder.clone(), error })?;
        }
        let log = logs.join(name);
        let unusable = |error| FuzzError::Place { place: log.clone(), error };
        let output = File::create(&log).map_err(unusable)?;
        let engine = self.folder().join(triple()).join("fuzz/lateen-fuzz");
        let status = Command::new(engine)
            // The first folder, where the engine writes, tells it the target.
            .args([&found, &self.root.join("fuzz/corpus").join(name)])
            .args(LIMITS)
            .args(["-print_final_stats=1", &format!("-max_total_time={}", self.seconds)])
            .arg(format!("-artifact_prefix={}/", failed.display()))
            .stdout(output.try_clone().map_err(unusable)?)
            .stderr(output)
            .status()
            .map_err(FuzzError::Start)?;
        let said = fs::read(&log).map_err(unusable)?;
        let inputs = executed(&String::from_utf8_lossy(&said));
        Ok(Outcome { name: name.to_owned(), inputs, passed: status.success(), log })
    }
}

/// How many inputs a target took, by what its engine said last.
fn executed(log: &str) -> u64 {
    let said = log.lines().rev().find_map(|line| {
        let number = line.strip_prefix("stat::number_of_executed_units:")?;
        number.trim().parse().ok()
    });
    said.unwrap_or_default()
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::{FuzzError, Request, executed, run};
    use std::path::{Path, PathBuf};

    #[test]
    fn the_engine_is_asked_what_it_did() {
        let log =
            "#8 DONE cov: 1\nstat::number_of_executed_units: 8123\nstat::new_units_added: 4\n";
        assert_eq!(executed(log), 8123);
        assert_eq!(executed("killed"), 0);
    }

    #[test]
    fn a_target_that_is_none_is_said_before_the_long_work() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let names = vec!["dns".to_owned(), "everything".to_owned()];
        let request = Request { root, target: PathBuf::from("/nowhere"), seconds: 1, names };
        let error = run(&request, |_| {}).unwrap_err();
        let FuzzError::Unknown { name, known } = error else { panic!("{error}") };
        assert!(name == "everything" && known.contains(&"dns".to_owned()), "{known:?}");
    }
}
