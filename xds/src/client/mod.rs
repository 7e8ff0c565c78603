//! The client end of delta discovery: what is subscribed, what is held, what is answered.
//!
//! [`Session`] is a state machine without I/O; [`Backoff`] says when to try again. What a resource
//! means, and whether it can be used, is the caller's to say.

mod backoff;
mod session;

pub use backoff::Backoff;
pub use session::{Interest, Received, Rejection, Session, Update};
