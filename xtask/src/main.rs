//! `cargo xtask`: chores of the repository. `cargo xtask tidy` checks the rules of the house
//! that neither the compiler nor clippy knows.

mod arrows;
mod budgets;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy
  tidy   check crate arrows, module docs, names, and the budgets of files and functions";

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let command = std::env::args().nth(1);
    match command.as_deref() {
        Some("tidy") => tidy::run(&root),
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}
