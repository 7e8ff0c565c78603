//! The data plane: so far its configuration model, route choice and the upstream half
//! (endpoints, balancing, pools, TLS); listeners, discovery and the agent come next.

pub mod config;
pub mod http;
pub mod upstream;
