//! The whole mesh, over the shipped binaries. `make test-mesh` runs these with `LATEEN_BIN` naming the
//! folder of the release binaries; they make their own namespaces and leave nothing behind.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

mod bookinfo;
mod demo;
mod endings;
mod gateway;
mod gateway_tls;
mod lab;
mod rules;
mod wrong_input;
