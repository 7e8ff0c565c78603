//! The data plane: agent and proxy in one process.
//!
//! Configuration arrives as xDS ([`config`]), connections are taken by [`listen`] and carried by
//! [`tcp`] or [`http`] to what [`upstream`] picks, if [`authz`] lets them.

pub mod agent;
pub mod app;
pub mod ask;
pub mod authz;
pub mod bootstrap;
pub mod config;
pub mod http;
pub mod listen;
pub mod settings;
pub mod tcp;
pub mod telemetry;
pub mod upstream;
