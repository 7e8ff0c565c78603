//! `lateen-cni`: the CNI plugin as a process. Result or error as JSON on stdout.

use std::io::{Read, Write};
use std::process::ExitCode;

use lateen_cni::error::{CniError, Code};
use lateen_cni::plugin::{MAX_STDIN, run};
use lateen_cni::settings::Invocation;

fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let output = match std::io::stdin().take(MAX_STDIN).read_to_end(&mut stdin) {
        Ok(_) => run(Invocation::from_environment(), &stdin),
        Err(e) => {
            let error = CniError::new(Code::Io, format!("reading stdin: {e}"));
            Err(("1.1.0".to_owned(), error))
        }
    };
    let (text, status) = match output {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err((version, error)) => (error.json(&version), ExitCode::FAILURE),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => status,
        Err(_) => ExitCode::FAILURE,
    }
}
