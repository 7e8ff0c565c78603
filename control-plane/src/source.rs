//! Where configuration comes from: a directory of Kubernetes YAML or JSON.
//!
//! `files` reads the directory, `load` decides what is in force (a pure function of texts and of
//! what was in force before), `watch` repeats both when something changes. What is refused never
//! gets further; what was good before stays. Nothing here knows services or routes.

mod files;
mod load;
mod objects;
mod watch;

pub use files::{Files, ReadFailure};
pub use load::{Load, State};
pub use objects::{Objects, Sourced};
pub use watch::{Source, SourceError, read_once};
