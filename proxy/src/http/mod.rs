//! HTTP: serving downstream connections, filters, routes, and the way to upstreams and back.
//!
//! Everything here runs on one worker and is not `Send`. The decisions (routes, retries, header
//! and path changes, hashes) are pure functions; [`serve`] is the shell around them. Metrics and
//! logs are made by whoever implements [`Sink`]; authorization by whoever implements
//! [`Authorizer`].

mod attempt;
mod cors;
mod downstream;
mod filters;
mod flags;
mod forward;
pub mod forwarded;
mod handle;
mod hash;
pub mod headers;
mod local_reply;
mod mirror;
mod normalize;
mod outgoing;
mod overrides;
mod peer_metadata;
mod record;
mod respond;
mod response_body;
pub mod retry;
pub mod route;
mod serve;
mod session;
mod sniff;
mod upgrade;

#[cfg(test)]
mod tests;

pub use downstream::{Downstream, DownstreamTls, PeerCertificate};
pub use flags::Flags;
pub use normalize::normalize;
pub use peer_metadata::{LocalPeer, decode as decode_peer_metadata};
pub use record::{RequestRecord, Sink};
pub use response_body::{ResponseBody, ResponseError};
pub use serve::{ServeError, serve};
pub use session::{Authorizer, HttpWorker, Judgement};
