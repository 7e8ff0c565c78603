//! A mesh on one machine without Kubernetes. So far only its sample application.

pub mod echo;
