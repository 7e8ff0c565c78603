//! What plugin and agent say to each other: one line of JSON each way.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Name of the agent's socket in its run folder.
pub const SOCKET: &str = "pluginevent.sock";
/// Longest line either side reads.
const MAX_LINE: u64 = 64 << 10;

/// What the plugin asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Request {
    /// Set the rules of a sandbox.
    Add(Sandbox),
    /// Compare them.
    Check(Sandbox),
    /// Can ADD be served?
    Status,
}

/// A sandbox and its pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Container id of the runtime.
    pub container: String,
    /// Path of the network namespace.
    pub netns: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Uid of the pod, if the runtime said.
    pub uid: Option<String>,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Answer {
    /// Done, or nothing to do; the reason code says which.
    Ok {
        /// Reason code.
        reason: String,
    },
    /// Not done.
    Error {
        /// CNI error code.
        code: u32,
        /// What was wrong and what to do.
        message: String,
    },
}

/// Writes a value as one line.
///
/// # Errors
/// When the stream does not take it.
pub fn send<T: Serialize>(mut stream: impl Write, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads a value from one line.
///
/// # Errors
/// When the line is too long, ends early or is something else.
pub fn receive<T: for<'de> Deserialize<'de>>(stream: impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    io::BufRead::read_until(&mut io::BufReader::new(stream.take(MAX_LINE)), b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other end said nothing"));
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line has no end"));
    }
    Ok(serde_json::from_slice(&line)?)
}
