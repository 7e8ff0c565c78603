//! Access logs: formats compiled once, lines made on the worker, written elsewhere.
//!
//! [`check`] says whether a format can be honoured; configuration that cannot is refused before
//! it gets here. Should one get here all the same, its lines are `-`.

mod format;
mod json;
mod operator;
mod time;
mod writer;

pub use format::FormatError;
pub use writer::LogFiles;

use super::RequestRecord;
use crate::config::{AccessLog, Listener, LogFormat, Terminal};
use crate::http::{Downstream, Flags};
use crate::tcp::TcpRecord;
use format::Template;
use std::sync::Arc;
use writer::LogFile;

/// Whether every operator of a format is known.
///
/// # Errors
/// Which is not, or what is malformed.
pub fn check(format: &LogFormat) -> Result<(), FormatError> {
    Form::new(format).map(|_form| ())
}

/// Every access log format of a listener must be one that can be written.
///
/// # Errors
/// As [`check`].
pub fn check_listener(listener: &Listener) -> Result<(), FormatError> {
    let all = |logs: &[AccessLog]| logs.iter().try_for_each(|log| check(&log.format));
    all(&listener.access_log)?;
    for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
        match &chain.terminal {
            Terminal::Tcp(proxy) => all(&proxy.access_log)?,
            Terminal::Http(manager) => all(&manager.access_log)?,
        }
    }
    Ok(())
}

/// What a line is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry<'r> {
    Request(&'r RequestRecord),
    Connection(&'r TcpRecord),
}

impl<'r> Entry<'r> {
    pub(super) fn flags(&self) -> Flags {
        match self {
            Self::Request(record) => record.flags,
            Self::Connection(record) => record.outcome().flags,
        }
    }

    fn server_name(&self) -> Option<&'r str> {
        let terminated = self.downstream().tls.as_deref().and_then(|tls| tls.sni.as_deref());
        match self {
            Self::Request(_) => terminated,
            Self::Connection(record) => terminated.or(record.server_name.as_deref()),
        }
    }

    fn downstream(&self) -> &'r Downstream {
        match self {
            Self::Request(record) => &record.downstream,
            Self::Connection(record) => &record.downstream,
        }
    }
}

#[derive(Debug)]
enum Form {
    Text(Template),
    Json(Vec<(String, Template)>),
}

impl Form {
    fn new(format: &LogFormat) -> Result<Self, FormatError> {
        Ok(match format {
            LogFormat::Text(text) => Self::Text(Template::parse(text)?),
            LogFormat::Json(fields) => {
                let field =
                    |(key, text): &(String, String)| Ok((key.clone(), Template::parse(text)?));
                Self::Json(fields.iter().map(field).collect::<Result<_, FormatError>>()?)
            }
        })
    }
}

/// An access log ready to write.
#[derive(Debug)]
pub(super) struct Compiled {
    path: String,
    source: LogFormat,
    form: Option<Form>,
    file: Arc<LogFile>,
}

impl Compiled {
    pub(super) fn new(log: &AccessLog, files: &LogFiles) -> Self {
        Self {
            path: log.path.clone(),
            source: log.format.clone(),
            form: Form::new(&log.format).ok(),
            file: files.open(&log.path),
        }
    }

    pub(super) fn is_for(&self, log: &AccessLog) -> bool {
        self.path == log.path
            && match (&self.source, &log.format) {
                (LogFormat::Text(a), LogFormat::Text(b)) => a == b,
                (LogFormat::Json(a), LogFormat::Json(b)) => a == b,
                _ => false,
            }
    }

    pub(super) fn file(&self) -> &LogFile {
        &self.file
    }

    pub(super) fn write(&self, entry: &Entry<'_>, line: &mut String) {
        match &self.form {
            Some(Form::Text(template)) => template.write(entry, line),
            Some(Form::Json(fields)) => json::write(fields, entry, line),
            None => line.push_str("-\n"),
        }
    }
}
