//! HTTP of the data path, so far its pure part: route choice, retry conditions, response flags.
//!
//! Must not know sockets.

pub mod flags;
pub mod retry;
pub mod route;
