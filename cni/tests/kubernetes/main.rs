//! The node agent as a process on a node of a cluster: pods from the API server, repair, readiness,
//! update and uninstall. The API server is a small one; `tests/cluster` has the real one.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../stage/api.rs"]
mod api;
#[path = "../stage/mod.rs"]
mod stage;

mod counts;
mod drift;
mod leaving;
mod node;
mod reboot;
mod taint;
mod uncaptured;
mod watch;
