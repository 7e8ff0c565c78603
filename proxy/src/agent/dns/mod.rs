//! The DNS proxy: mesh names from the control plane's name table, all others from upstream.
//!
//! [`answer`] decides over plain messages; [`serve`] is the shell with its sockets. Packets come
//! from the application: sizes, connections and queries in flight are bounded.

mod answer;
mod forward;
mod resolv_conf;
mod serve;

#[cfg(test)]
mod tests;

pub use answer::{Answer, answer};
pub use forward::Upstream;
pub use resolv_conf::ResolvConf;
pub use serve::{Server, serve};
