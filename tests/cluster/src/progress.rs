//! What is going on, told on standard error; standard output is for results.

use std::io::Write;

/// Says a line.
pub(crate) fn say(text: &str) {
    let mut error = std::io::stderr().lock();
    // Nobody reads progress: nothing to do about it.
    drop(writeln!(error, "{text}"));
}
