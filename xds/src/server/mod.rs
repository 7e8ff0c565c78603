//! The server end of discovery: who asked for what, who has what, what is to be sent.
//!
//! A session is a state machine without I/O for one stream: [`Session`] of the delta variant,
//! [`WorldSession`] of the state of the world. Both compare what a client should have with what it
//! has; in which order types are sent, and what a client should have, is the caller's to say. What
//! callers need of either is [`Variant`].

mod delta;
mod subscriptions;
mod world;

pub use delta::Session;
pub use subscriptions::{Outcome, ProtocolError, Resource, ResourceMap, Subscriptions, Taken};
pub use world::{World, WorldSession};

use std::fmt;
use std::sync::Arc;

use crate::pb::envoy::config::core::v3::Node;

/// One variant of the protocol, as the server speaks it on one stream.
pub trait Variant: fmt::Debug + Default + Send + Sync + 'static {
    /// What clients send.
    type Request: Send + Sync + 'static;
    /// What is to be sent, and what of it is new to the client.
    type Response: Send + Sync + 'static;
    /// What goes over the wire.
    type Message: From<Self::Response> + Send + 'static;

    /// Who says that it asks.
    fn node(request: &Self::Request) -> Option<&Node>;

    /// What a response brings.
    fn contents(response: &Self::Response) -> Contents<'_>;

    /// Takes a request.
    ///
    /// # Errors
    /// When the client breaks the protocol or asks beyond all measure.
    fn request(&mut self, request: &Self::Request) -> Result<Taken, ProtocolError>;

    /// What is to be sent of a type so that the client comes to hold `wanted` (as far as it is
    /// subscribed); `None` when there is nothing to say. What is returned counts as sent.
    fn response(&mut self, type_url: &str, wanted: &ResourceMap) -> Option<Self::Response>;

    /// The same, where only `changed` can differ from what was wanted at the last response of the
    /// type: nothing else is looked at.
    fn response_for(
        &mut self,
        type_url: &str,
        wanted: &ResourceMap,
        changed: &[Arc<str>],
    ) -> Option<Self::Response>;

    /// What the client asked for, has and answered.
    fn subscriptions(&self) -> &Subscriptions;

    /// The same, to be changed.
    fn subscriptions_mut(&mut self) -> &mut Subscriptions;
}

/// What a response brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents<'a> {
    /// Its type.
    pub type_url: &'a str,
    /// Names of the resources that the client does not hold yet.
    pub changed: Vec<&'a str>,
    /// Number of those that it is to forget.
    pub removed: usize,
}
