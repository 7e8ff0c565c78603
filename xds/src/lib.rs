//! Envoy v3 messages and the discovery protocol: delta at both ends, the state of the world at the
//! server's.
//!
//! The sessions of [`client`] and [`server`] are state machines without I/O; [`transport`] is the
//! thin shell over tonic. What the resources mean is not known here.

pub mod any;
pub mod client;
pub mod istio;
pub mod server;
pub mod transport;
pub mod type_url;

pub use envoy_types::pb;

/// Envoy's resource messages by their short paths.
pub mod envoy {
    pub use crate::pb::envoy::config::{
        cluster::v3 as cluster, core::v3 as core, endpoint::v3 as endpoint,
        listener::v3 as listener, route::v3 as route,
    };
}

/// The discovery service (`envoy.service.discovery.v3`).
pub use crate::pb::envoy::service::discovery::v3 as discovery;
