//! Asking the running proxy over HTTP: `request` and `wait`, as hooks and probes call them.
//!
//! Blocking and small, because these run as short processes beside the application.

use crate::settings::{RequestArgs, WaitArgs};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Longest answer that is shown.
const MAX_ANSWER: u64 = 256 << 20;
/// Longest wait for an answer to `request`.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the proxy could not be asked.
#[derive(Debug, Error)]
pub enum AskError {
    /// It does not answer.
    #[error("{url}: {source}")]
    Io {
        /// What was asked.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// It answers no.
    #[error("{url}: status {status}: {body}")]
    Status {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it says.
        body: String,
    },
    /// The URL is malformed.
    #[error("`{0}` is not an http:// URL")]
    Url(String),
    /// The time is over.
    #[error("not ready after {0:?}: {1}")]
    Timeout(Duration, String),
}

/// Sends one request to loopback and prints the answer.
///
/// # Errors
/// When there is no answer, or not one of success.
pub fn request(args: &RequestArgs) -> Result<(), AskError> {
    let path = args.path.trim_start_matches('/');
    let url = format!("http://127.0.0.1:{}/{path}", args.debug_port);
    let body = ask(&args.method.to_ascii_uppercase(), &url, PATIENCE)?;
    io::stdout().write_all(body.as_bytes()).map_err(|source| AskError::Io { url, source })
}

/// Asks again and again until the answer is success.
///
/// # Errors
/// When it is none within the time.
pub fn wait(args: &WaitArgs) -> Result<(), AskError> {
    let limit = Duration::from_secs(args.timeout_seconds);
    let patience = Duration::from_millis(args.request_timeout_millis.max(1));
    let period = Duration::from_millis(args.period_millis.max(1));
    let started = Instant::now();
    loop {
        match ask("GET", &args.url, patience) {
            Ok(_) => return Ok(()),
            Err(AskError::Url(url)) => return Err(AskError::Url(url)),
            Err(error) if started.elapsed() + period >= limit => {
                return Err(AskError::Timeout(limit, error.to_string()));
            }
            #[expect(clippy::disallowed_methods, reason = "a process that does nothing but wait")]
            Err(_) => std::thread::sleep(period),
        }
    }
}

fn ask(method: &str, url: &str, patience: Duration) -> Result<String, AskError> {
    let rest = url.strip_prefix("http://").ok_or_else(|| AskError::Url(url.to_owned()))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let answer = exchange(method, authority, path, patience)
        .map_err(|source| AskError::Io { url: url.to_owned(), source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    if (200..300).contains(&status) {
        return Ok(body.to_owned());
    }
    Err(AskError::Status { url: url.to_owned(), status, body: body.trim_end().to_owned() })
}

fn exchange(method: &str, authority: &str, path: &str, patience: Duration) -> io::Result<String> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in authority.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        // HTTP/1.0: the body ends with the connection, so there are no chunks to take apart.
        write!(stream, "{method} /{path} HTTP/1.0\r\nHost: {authority}\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    Err(last)
}
