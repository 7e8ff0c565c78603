//! Redirects the traffic of a pod to its proxy.
//!
//! Settings (from flags or from a pod) become a pure [`plan`]; a renderer makes one nftables
//! transaction of it, which [`apply()`] gives to the kernel and [`verify()`] compares with what is
//! there, without executing any program. [`backend`] has a second one for kernels that cannot carry
//! it: iptables, which is executed. [`mod@trace`] says what a plan does to one packet. Must not know
//! Kubernetes clients, xDS or the proxy.

#![forbid(unsafe_code)]

pub mod apply;
pub mod backend;
pub mod counters;
mod iptables;
mod netlink;
pub mod netns;
pub mod notices;
pub mod plan;
pub mod render;
pub mod settings;
pub mod trace;
pub mod validate;
pub mod verify;

pub use apply::{ApplyError, apply, cleanup};
pub use iptables::IptablesError;
pub use plan::RedirectPlan;
pub use settings::Settings;
pub use verify::{State, verify};
