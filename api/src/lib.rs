//! Resource kinds, names and validation of a Lateen mesh.
//!
//! This crate says what the mesh's configuration means: the Istio kinds and the slices of the
//! Kubernetes kinds that are read, mesh configuration, the names, labels, annotations and ports
//! that are part of the contract with users, hosts and how they match, and the findings that
//! validation gives. It reads no files and opens no sockets: text and values come in, typed
//! resources and findings go out.

pub mod core;
pub mod duration;
pub mod extensions;
pub mod finding;
pub mod host;
pub mod kind;
pub mod mesh;
pub mod meta;
pub mod names;
pub mod networking;
pub mod object;
pub mod port;
mod proto_enum;
pub mod security;
pub mod stream;
mod strict;
pub mod string_match;
pub mod target;
pub mod telemetry;
mod url;
pub mod validate;

pub use finding::{Finding, Severity};
pub use host::Host;
pub use meta::{ObjectMeta, ObjectRef};
pub use object::{Object, Origin, Resource};
