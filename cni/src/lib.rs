//! The chained CNI plugin and the node agent behind it.
//!
//! The plugin decides what it can from its own input and asks the agent, over a Unix socket, for
//! the rest; the agent knows the node's pods and sets the rules. Neither executes another program.

#![forbid(unsafe_code)]

pub mod agent;
pub mod decision;
pub mod error;
pub mod netconf;
pub mod plugin;
pub mod protocol;
pub mod settings;
