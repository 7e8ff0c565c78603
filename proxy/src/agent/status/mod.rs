//! The agent's own HTTP ports: health, status with application probes and merged metrics,
//! metrics alone, admin.
//!
//! [`pages`] says what is answered; [`server`] is the shell with its sockets. Health, status and
//! metrics ports are open to the network, so what changes anything is taken from loopback only.

mod client;
mod dump;
mod pages;
mod probe;
mod scrape;
mod server;

#[cfg(test)]
mod tests;

pub use pages::{Pages, PagesParts, Site};
pub use probe::{ProberError, Probers};
pub use scrape::Targets;
pub use server::{bind, serve};
