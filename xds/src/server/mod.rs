//! The server end of delta discovery: who asked for what, who has what, what is to be sent.
//!
//! [`Session`] is a state machine without I/O for one stream. It compares what a client should
//! have with what it has; in which order types are sent, and what a client should have, is the
//! caller's to say.

mod session;

pub use session::{Outcome, ProtocolError, Resource, ResourceMap, Session, Taken};
