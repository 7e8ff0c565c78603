//! A mesh on one machine without Kubernetes.
//!
//! Pods run as processes in namespaces: a [`kubelet`] on a [`node`]. [`echo`] is the sample application.

pub mod api_server;
mod clock;
pub mod echo;
pub mod kubelet;
pub mod launch;
pub mod node;
pub mod runtime;
