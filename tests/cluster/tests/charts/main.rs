//! The Helm charts, by the real Helm: what they render, which values they take, what they leave in
//! an API server of each version.
//!
//! Files of others (`LATEEN_CONFORMANCE`) are read where a test says so.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

mod conformance;
mod granted;
mod helm;
mod hooks;
mod installed;
mod permissions;
mod platforms;
mod security;
mod values;
