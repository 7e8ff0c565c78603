//! A mesh on one machine without Kubernetes.
//!
//! Pods run as processes in namespaces: a [`kubelet`] on a [`node`]. [`echo`] is the sample application.

pub mod api_server;
pub mod capture;
pub mod client;
mod clock;
pub mod daemon;
pub mod echo;
pub mod kubelet;
pub mod launch;
pub mod node;
pub mod protocol;
pub mod runtime;
pub mod settings;
pub mod state;
