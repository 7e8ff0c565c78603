//! The data plane: so far its configuration model, HTTP and the upstream half
//! (endpoints, balancing, pools, TLS); listeners, discovery, telemetry and the agent come next.

pub mod config;
pub mod http;
pub mod upstream;
