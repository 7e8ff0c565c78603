//! What the command line and the environment say.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use xtask::fuzz;
use xtask::images::Request;
use xtask::statics::Statics;

/// Chores of the repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A chore.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check crate arrows, module docs, names, and the budgets of files and functions.
    Tidy,
    /// Build all programs, linked statically, and put them into cargo's target folder.
    Programs(ProgramsArgs),
    /// Build static programs and write OCI archives of them, one an image.
    Images(ImagesArgs),
    /// Write the resource definitions of charts/base from the tables in xtask/crds.
    Crds,
    /// Feed the targets of fuzz/ with anything, for a while each.
    Fuzz(FuzzArgs),
}

/// What is fed, and for how long.
#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// Targets; all where none is named.
    names: Vec<String>,
    /// How long each is fed, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Cargo's target folder; instrumented code is built below it.
    #[arg(long, env = "CARGO_TARGET_DIR", default_value = "target")]
    target: PathBuf,
}

impl FuzzArgs {
    /// The request, with paths from the checkout `root` where they are not absolute.
    pub(crate) fn request(self, root: &Path) -> fuzz::Request {
        let Self { names, seconds, target } = self;
        fuzz::Request { root: root.to_owned(), target: root.join(target), seconds, names }
    }
}

/// How programs are built.
#[derive(Debug, Args)]
pub(crate) struct ProgramsArgs {
    /// Cargo profile of the programs: dist is what ships, release and dev build faster.
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Cargo's target folder; static programs are built below it.
    #[arg(long, env = "CARGO_TARGET_DIR", default_value = "target")]
    target: PathBuf,
    /// Cargo's home, whose path is kept out of the programs.
    #[arg(long, env = "CARGO_HOME")]
    cargo_home: Option<PathBuf>,
    #[arg(long, env = "HOME", default_value = "/root", hide = true)]
    home: PathBuf,
}

/// How images are built.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    #[command(flatten)]
    programs: ProgramsArgs,
    /// Folder of the archives; `images` in cargo's target folder where it is not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Registry and path of the images' names.
    #[arg(long, default_value = "ghcr.io/lateen-mesh")]
    hub: String,
    /// Tag of the images' names.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Age of all files in the images, in seconds since 1970.
    #[arg(long, env = "SOURCE_DATE_EPOCH", default_value_t = 0)]
    epoch: u64,
}

impl ProgramsArgs {
    /// The build, with paths from the checkout `root` where they are not absolute.
    pub(crate) fn statics(self, root: &Path) -> Statics {
        Statics {
            root: root.to_owned(),
            target: root.join(self.target),
            cargo_home: self.cargo_home.unwrap_or_else(|| self.home.join(".cargo")),
            profile: self.profile,
        }
    }
}

impl ImagesArgs {
    /// The request, with paths from the checkout `root` where they are not absolute.
    pub(crate) fn request(self, root: &Path) -> Request {
        let statics = self.programs.statics(root);
        Request {
            out: self.out.map_or_else(|| statics.target.join("images"), |out| root.join(out)),
            statics,
            hub: self.hub,
            tag: self.tag,
            epoch: self.epoch,
        }
    }
}
