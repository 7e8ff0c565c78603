//! The tonic shell around the client session: one stream, run until it ends.
//!
//! The caller brings the channel (so it brings its own TLS) and the metadata (its token), decides
//! when to reconnect, and applies updates. Nothing is decided here.

use crate::client::{Rejection, Session, Update};
use crate::discovery::DeltaDiscoveryRequest;
use crate::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use std::future::Future;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Largest response that is taken; a configuration of 100,000 services fits.
const MAX_RESPONSE: usize = 512 << 20;
/// Requests on their way to the transport.
const QUEUE: usize = 16;

/// Applies what the control plane sends.
pub trait Subscriber: Send {
    /// Takes an update, and says which of its resources cannot be used. Interests may be changed
    /// on the session; the answer is sent first.
    fn apply(&mut self, session: &mut Session, update: &Update) -> Vec<Rejection>;

    /// Resolves when interests should be looked at although nothing was received; then
    /// [`Subscriber::refresh`] is called. By default never.
    fn wake(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Changes interests after [`Subscriber::wake`].
    fn refresh(&mut self, _session: &mut Session) {}

    /// The stream was opened.
    fn opened(&mut self) {}
}

/// Runs one delta stream until the server, the network or an error ends it.
///
/// # Errors
/// The status the stream ended with; `Ok` when the server closed it in order.
pub async fn run_stream(
    channel: Channel,
    metadata: MetadataMap,
    session: &mut Session,
    subscriber: &mut impl Subscriber,
) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel::<DeltaDiscoveryRequest>(QUEUE);
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
    let mut request = Request::new(ReceiverStream::new(receiver));
    *request.metadata_mut() = metadata;
    session.connected();
    // The first requests go out before the response headers are waited for: servers may hold
    // their headers back until they have heard something.
    while let Some(first) = session.next_request() {
        if sender.try_send(first).is_err() {
            return Err(Status::internal("more first requests than the queue holds"));
        }
    }
    let mut stream = client.delta_aggregated_resources(request).await?.into_inner();
    subscriber.opened();
    loop {
        while let Some(next) = session.next_request() {
            if sender.send(next).await.is_err() {
                return Err(Status::unavailable("the discovery stream was closed"));
            }
        }
        let response = tokio::select! {
            response = stream.message() => response?,
            () = subscriber.wake() => {
                subscriber.refresh(session);
                continue;
            }
        };
        let Some(response) = response else { return Ok(()) };
        let update = session.receive(response);
        let rejections = subscriber.apply(session, &update);
        session.conclude(&update, &rejections);
    }
}
