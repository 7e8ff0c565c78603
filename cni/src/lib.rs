//! The chained CNI plugin and the node agent behind it.
//!
//! The plugin decides what it can from its own input and asks the agent, over a Unix socket, for
//! the rest; the agent knows the node's pods and sets the rules. Neither executes another program.
//! On Kubernetes the agent also keeps the plugin on the node ([`install`]), captures pods that
//! started without it ([`repair`]) and keeps their rules as they are ([`drift`]); `docs/cni.md` has
//! the picture.

#![forbid(unsafe_code)]

pub mod agent;
pub mod cluster;
pub mod counts;
pub mod decision;
pub mod drift;
pub mod error;
pub mod health;
pub mod install;
pub mod metrics;
pub mod netconf;
pub mod node;
pub mod plugin;
pub mod protocol;
pub mod repair;
pub mod settings;
pub mod taint;
