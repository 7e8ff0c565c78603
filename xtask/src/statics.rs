//! Builds programs that need nothing of the machine they run on: linked statically, with nothing
//! of the builder's paths in them. It does not know what they are for.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Where and how programs are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statics {
    /// The checkout.
    pub root: PathBuf,
    /// Cargo's target folder of ordinary builds; static ones lie below it, in `static`, so that
    /// neither makes the other build again.
    pub target: PathBuf,
    /// Cargo's home: sources of dependencies.
    pub cargo_home: PathBuf,
    /// Cargo profile: `dist`, `release` or `dev`.
    pub profile: String,
}

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub enum StaticsError {
    /// Cargo is not there.
    #[error("cargo cannot be started: {0}; is a Rust toolchain installed?")]
    Start(io::Error),
    /// The build failed; cargo has said why.
    #[error(
        "cargo build failed ({0}); its messages are above. Linking needs a static C library: \
         Debian's libc6-dev, Fedora's glibc-static"
    )]
    Build(ExitStatus),
    /// Built, but not put in place.
    #[error("programs cannot be put into {}: {error}", .folder.display())]
    Place {
        /// Where they belong.
        folder: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Packages that have programs. They are always built together: what cargo makes of a dependency
/// hangs on who asks for it, and a program must not differ with what is built beside it.
const PACKAGES: [&str; 6] = [
    "lateen-cli",
    "lateen-control-plane",
    "lateen-proxy",
    "lateen-interception",
    "lateen-cni",
    "lateen-lab",
];

/// All programs: those of images, the command line, and those of the lab.
pub const PROGRAMS: [&str; 9] = [
    "lateen",
    "lateend",
    "lateen-proxy",
    "lateen-init",
    "lateen-cni",
    "lateen-cni-node",
    "lateen-echo",
    "lateen-lab-bridge",
    "lateen-lab-launch",
];

impl Statics {
    /// Builds `programs` and says in which folder they are.
    ///
    /// # Errors
    /// When cargo fails.
    pub fn build(&self, programs: &[&str]) -> Result<PathBuf, StaticsError> {
        let status = self.command(programs).status().map_err(StaticsError::Start)?;
        if !status.success() {
            return Err(StaticsError::Build(status));
        }
        Ok(self.target_folder().join(triple()).join(self.folder()))
    }

    /// Builds all programs and puts them where cargo puts those of an ordinary build, `release` in
    /// the target folder for the profile `release`. Says in which folder that is.
    ///
    /// # Errors
    /// When cargo fails or the programs cannot be put there.
    pub fn install(&self) -> Result<PathBuf, StaticsError> {
        let built = self.build(&PROGRAMS)?;
        let folder = self.target.join(self.folder());
        let place = |error| StaticsError::Place { folder: folder.clone(), error };
        fs::create_dir_all(&folder).map_err(place)?;
        for program in PROGRAMS {
            // Under another name first: nobody sees a part of it, and what runs goes on.
            let (new, to) = (folder.join(format!(".{program}.new")), folder.join(program));
            fs::copy(built.join(program), &new)
                .and_then(|_| fs::rename(&new, &to))
                .map_err(place)?;
        }
        Ok(folder)
    }

    /// What cargo calls the folder of the profile.
    fn folder(&self) -> &str {
        if self.profile == "dev" { "debug" } else { &self.profile }
    }

    fn target_folder(&self) -> PathBuf {
        self.target.join("static")
    }

    fn command(&self, programs: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root);
        command.args(["build", "--locked", "--profile", &self.profile, "--target", &triple()]);
        for package in PACKAGES {
            command.args(["-p", package]);
        }
        for program in programs {
            command.args(["--bin", program]);
        }
        // The target is named, so these flags are not those of build scripts and macros.
        command.env("CARGO_ENCODED_RUSTFLAGS", self.rust_flags());
        command.env("CFLAGS", self.c_flags());
        command.env("CARGO_TARGET_DIR", self.target_folder());
        // What an earlier build left would show in the code of a later one.
        command.env("CARGO_INCREMENTAL", "0");
        command.env_remove("RUSTFLAGS");
        command
    }

    /// Paths of the builder, and what stands for them in messages of the programs. The checkout is
    /// not among them: cargo names our own files from its root, and a flag that names it would make
    /// every other checkout build all dependencies again.
    fn renamed(&self) -> [(PathBuf, &'static str); 2] {
        [(self.cargo_home.clone(), "/cargo"), (self.target_folder(), "/target")]
    }

    fn rust_flags(&self) -> OsString {
        let mut flags = OsString::from("-Ctarget-feature=+crt-static");
        for (from, to) in self.renamed() {
            flags.push("\x1f");
            flags.push(rename("--remap-path-prefix=", &from, to));
        }
        flags
    }

    fn c_flags(&self) -> OsString {
        let flags = self.renamed().map(|(from, to)| rename("-ffile-prefix-map=", &from, to));
        flags.join(OsString::from(" ").as_os_str())
    }
}

fn rename(flag: &str, from: &Path, to: &str) -> OsString {
    let mut text = OsString::from(flag);
    text.push(from);
    text.push("=");
    text.push(to);
    text
}

/// The target, named. glibc is what is tested; musl's allocator and resolver are not.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::Statics;
    use std::path::PathBuf;

    #[test]
    fn paths_of_the_builder_are_renamed() {
        let statics = Statics {
            root: PathBuf::from("/home/me/lateen"),
            target: PathBuf::from("/home/me/lateen/target"),
            cargo_home: PathBuf::from("/home/me/.cargo"),
            profile: "dev".to_owned(),
        };
        let flags = statics.rust_flags().into_string().unwrap();
        let flags: Vec<_> = flags.split('\x1f').collect();
        let wanted = [
            "-Ctarget-feature=+crt-static",
            "--remap-path-prefix=/home/me/.cargo=/cargo",
            "--remap-path-prefix=/home/me/lateen/target/static=/target",
        ];
        assert_eq!(flags, wanted);
    }
}
