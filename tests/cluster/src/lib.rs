//! A real Kubernetes on this machine, for tests: the API server alone, or a whole cluster.
//!
//! It must not know the mesh; only `e2e` does.

pub mod api_server;
pub mod binaries;
mod certificates;
pub mod cluster;
mod components;
pub mod e2e;
mod error;
mod kubeconfig;
mod kubectl;
mod process;
mod progress;
pub mod settings;

pub use error::ClusterError;
pub use kubectl::Kubectl;
