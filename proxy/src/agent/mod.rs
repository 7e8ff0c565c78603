//! The agent half of the process: identity, discovery, health, DNS, admin.
//!
//! Runs on one control runtime beside the workers. It puts certificates and configuration in
//! force by swapping pointers ([`materials`], [`discovery`]); the data path never waits for it.
//! Knows nothing of how a connection is carried.

pub mod authority;
pub mod certificate_files;
pub mod connector;
pub mod discovery;
pub mod dns;
mod files;
pub mod identity;
pub mod materials;
pub mod node;
pub mod proxyless;
pub mod state;
pub mod status;

#[cfg(test)]
mod tests;
