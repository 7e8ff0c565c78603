//! Findings: what validation and loading have to say about the user's configuration.
//!
//! A finding names the file, the object and the field, so that the reader knows where to go.
//! An `Error` means that the object was refused; `Warning` that it is in force but something in it
//! is not honoured or looks wrong; `Info` is a remark. This file knows no kinds.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::meta::ObjectRef;
use crate::object::{Object, Origin};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// A remark.
    Info,
    /// In force, but something is not as the author may think.
    Warning,
    /// Refused.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One remark about the configuration. Shown as `file:line: Kind ns/name: field: message`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Box<ObjectRef>>,
    /// The file it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Position of the document in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<usize>,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Path of the field, such as `spec.http[0].route[1].weight`; empty for the whole object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What was wrong and what to do.
    pub message: String,
}

impl Finding {
    /// A finding that is about no object yet.
    #[must_use]
    pub fn new(severity: Severity, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity,
            object: None,
            file: None,
            document: None,
            line: None,
            path: path.into(),
            message: message.into(),
        }
    }

    /// A refusal.
    #[must_use]
    pub fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, path, message)
    }

    /// A warning.
    #[must_use]
    pub fn warning(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, path, message)
    }

    /// A remark.
    #[must_use]
    pub fn info(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Severity::Info, path, message)
    }

    /// The same finding, about `object`.
    #[must_use]
    pub fn about(self, object: &Object) -> Self {
        let reference = Box::new(object.reference());
        Self { object: Some(reference), ..self.within(&object.origin) }
    }

    /// The same finding, about the object `reference` that stands at `origin`.
    #[must_use]
    pub fn on(self, reference: &ObjectRef, origin: &Origin) -> Self {
        Self { object: Some(Box::new(reference.clone())), ..self.within(origin) }
    }

    /// The same finding, at a place in a file; what is not from a file has no line.
    #[must_use]
    pub fn within(self, origin: &Origin) -> Self {
        let place = |number: usize| (number > 0).then_some(number);
        Self {
            file: Some(origin.file.to_string()),
            document: place(origin.document),
            line: place(origin.line),
            ..self
        }
    }

    /// Whether the object was refused.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            out.write_str(file)?;
            if let Some(line) = self.line {
                write!(out, ":{line}")?;
            }
            out.write_str(": ")?;
        }
        if let Some(object) = &self.object {
            write!(out, "{object}: ")?;
        }
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        out.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::Finding;
    use crate::meta::ObjectRef;
    use crate::object::Origin;

    #[test]
    fn a_finding_says_file_object_and_field() {
        let origin = Origin { file: "a.yaml".into(), document: 2, line: 7 };
        let finding = Finding::error("spec.hosts", "at least one host is needed")
            .on(&ObjectRef::new("VirtualService", "shop", "cart"), &origin);
        assert_eq!(
            finding.to_string(),
            "a.yaml:7: VirtualService shop/cart: spec.hosts: at least one host is needed"
        );
        assert!(finding.is_error());
        let origin = Origin { file: "cluster".into(), document: 0, line: 0 };
        let shown = Finding::error("spec.hosts", "none").within(&origin).to_string();
        assert_eq!(shown, "cluster: spec.hosts: none");
    }
}
