//! What `lateend` writes to a real API server, and how its replicas agree: each test has an API
//! server of its own and runs the real program.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

mod authority;
mod daemon;
mod front;
mod leader;
mod outage;
mod refusals;
mod repair;
mod rotation;
