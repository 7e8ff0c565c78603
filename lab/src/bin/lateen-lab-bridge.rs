//! `lateen-lab-bridge`: the main CNI plugin of the lab.

use std::io::{Read, Write};
use std::process::ExitCode;

use lateen_lab::runtime::bridge::settings::Invocation;
use lateen_lab::runtime::bridge::{self, CniError};

/// Longest network configuration that is read.
const MAX_STDIN: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let read = std::io::stdin().lock().take(MAX_STDIN).read_to_end(&mut stdin);
    let invocation = match read {
        Ok(_) => Invocation::from_environment(),
        Err(e) => Err(CniError::new(5, format!("standard input: {e}"))),
    };
    let output = bridge::run(invocation, &stdin);
    // A runtime that does not listen cannot be told.
    drop(writeln!(std::io::stdout(), "{}", output.text));
    if output.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
