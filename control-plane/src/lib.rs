//! The control plane: objects in, configuration and certificates for proxies out.
//!
//! [`source`] says which objects are in force, [`registry`] which services there are, [`model`] what
//! of it each proxy sees, [`translate`] turns that into Envoy resources, [`serve`] carries them to
//! proxies. [`ca`] signs certificates for callers that [`token`], [`review`] and `caller` believe; [`publish`]
//! holds what an API server would be told. [`cluster`] is the cluster we run in, if any. [`app`] puts
//! the parts together, [`offline`] reads a directory once, for commands that explain.

pub mod app;
pub mod ca;
pub mod caller;
pub mod cluster;
pub mod kubernetes;
pub mod model;
pub mod offline;
pub mod publish;
pub mod registry;
pub mod review;
pub mod serve;
pub mod settings;
pub mod source;
pub mod token;
pub mod translate;
