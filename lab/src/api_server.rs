//! The API server of a lab, and the controllers that belong to it.
//!
//! [`manifest`] reads what is to be applied, [`objects`] decides what becomes of it, [`cluster`]
//! holds what is in force and puts it before the control plane, [`controller`] makes and ends
//! pods, [`admission`] asks webhooks about them. Must not know how pods are run.

pub mod admission;
pub mod builtin;
mod checks;
pub mod cluster;
pub mod config_file;
pub mod controller;
pub mod deployments;
pub mod endpoints;
pub mod manifest;
pub mod names;
pub mod objects;
mod pod_table;
pub mod pods;
pub mod published;
pub mod services;
pub mod token;
pub mod view;
mod writer;
