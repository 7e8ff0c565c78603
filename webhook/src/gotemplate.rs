//! Go's `text/template`: parsing once, rendering many times, within bounds.
//!
//! Texts come from the mesh's administrator, data from pods. Whatever they are, parsing and
//! rendering end, use bounded memory and stack, and say where they failed. No I/O, no clock, no
//! chance: the same data renders the same text. Must not know Kubernetes or injection; functions
//! beyond Go's and sprig's are given by the caller.

mod builtins;
mod encode;
mod exec;
mod format;
mod lexer;
mod limits;
mod number;
mod parser;
mod sprig;
mod syntax;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;

pub(crate) use limits::VALUE_BYTES;
pub(crate) use syntax::{ANY, At, Call, Entry, How, Made};
pub(crate) use value::{Dict, Kind, Record, Value};

/// Functions a template may call: Go's, sprig's, and the caller's, which win.
pub(crate) fn library(own: &'static [Entry], name: &str) -> Option<&'static Entry> {
    [own, builtins::ENTRIES]
        .into_iter()
        .chain(sprig::TABLES)
        .find_map(|table| table.iter().find(|entry| entry.name == name))
}

/// A template that cannot be read or rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {reason}", at.line, at.column)]
pub(crate) struct TemplateError {
    /// Where in the text.
    pub(crate) at: At,
    /// What is wrong.
    pub(crate) reason: String,
}

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    parsed: Arc<parser::Parsed>,
}

impl Template {
    /// Reads a text, with functions of the caller's besides the usual ones.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(crate) fn parse(text: &str, own: &'static [Entry]) -> Result<Self, TemplateError> {
        let tokens = lexer::tokens(text)?;
        let parsed = parser::parse(tokens, own)?;
        Ok(Self { parsed: Arc::new(parsed) })
    }

    /// Renders the template.
    ///
    /// # Errors
    /// What failed, and where.
    pub(crate) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        exec::run(&self.parsed, data)
    }
}
