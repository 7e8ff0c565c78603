//! Serving: discovery streams, who is connected, metrics and debug pages.
//!
//! [`generation`] turns a snapshot into the resources of each kind of proxy, once; [`stream`] is
//! one proxy's stream without I/O; [`discovery`] is its tonic shell. [`listen`] accepts
//! connections, [`monitor`] answers people. Nothing here knows what a resource means.

pub mod discovery;
pub mod generation;
mod lingering;
pub mod listen;
pub mod metrics;
pub mod monitor;
pub mod proxies;
pub mod readiness;
pub mod stream;
