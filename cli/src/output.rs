//! The two forms of output, and how findings are told: a table for people, JSON for programs,
//! remarks on standard error so that standard output is the result.

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use lateen_api::Finding;

/// Form of a command's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Tells findings, one a line.
pub(crate) fn say_findings(findings: &[Finding]) {
    let mut error = std::io::stderr().lock();
    for finding in findings {
        // Nobody reads remarks: nothing to do about it.
        drop(writeln!(error, "{}: {finding}", finding.severity));
    }
}

/// Exit status of input that cannot be read (`EX_DATAERR` of sysexits).
const UNREADABLE: u8 = 65;

/// Tells why input cannot be read.
pub(crate) fn unreadable(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(UNREADABLE)
}
