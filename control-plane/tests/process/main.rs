//! `lateend` as a process, alone with a directory: what it serves, refuses, publishes, survives, and
//! how it ends.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod callers;
mod client;
mod configuration;
mod daemon;
mod endings;
mod grpc;
mod injection;
mod peer;
mod scale;
mod world;

#[path = "../meshes/mod.rs"]
#[expect(
    dead_code,
    clippy::needless_pass_by_value,
    reason = "gateways are another test's, and literals are passed as they stand"
)]
mod meshes;
