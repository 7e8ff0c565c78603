//! The discovery service: the tonic shell around [`ProxyStream`], for both variants of the protocol.
//!
//! One task serves one proxy: it reads requests, hears of new generations, and writes responses as
//! fast as the proxy takes them. While responses wait to be taken no further generation is looked
//! at, so a slow proxy costs one set of responses and then gets the latest; while many wait none of
//! its requests is read either. Streams that do not say who they are are few at a time, and not for
//! long.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::Stream;
use lateen_xds::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use lateen_xds::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use lateen_xds::server::{Contents, Session, Variant, WorldSession};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::caller::{Callers, VerifiedPeer, refusal};
use crate::serve::generation::Generation;
use crate::serve::listen::PeerAddress;
use crate::serve::metrics::{Metrics, ResourceType};
use crate::serve::proxies::{Proxies, ProxyStatus};
use crate::serve::stream::{ProxyStream, Reaction, short_name};
use crate::token::ServiceAccount;
use crate::translate::Resources;
use crate::translate::view::{NodeError, ProxyView};

/// Responses between the proxy's task and the transport.
const IN_FLIGHT: usize = 4;
/// Responses that may wait to be taken while the proxy is still listened to.
const WAITING: usize = 32;
/// Streams at once that have not said yet which proxy they serve.
const NEWCOMERS: usize = 4096;
/// How long a stream may take to say it.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// What all streams share.
#[derive(Debug)]
pub struct Discovery {
    generations: watch::Receiver<Arc<Generation>>,
    proxies: Arc<Proxies>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
    next_connection: AtomicU64,
    newcomers: Arc<Semaphore>,
}

impl Discovery {
    /// A service that serves these generations; its tasks belong to `tasks` and end with `stop`.
    #[must_use]
    pub fn new(
        generations: watch::Receiver<Arc<Generation>>,
        proxies: Arc<Proxies>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let next_connection = AtomicU64::new(1);
        let newcomers = Arc::new(Semaphore::new(NEWCOMERS));
        Self { generations, proxies, metrics, tasks, stop, next_connection, newcomers }
    }
}

/// The service on one port.
#[derive(Debug, Clone)]
pub struct DiscoveryService {
    discovery: Arc<Discovery>,
    /// Who may connect; `None` asks nobody (the plaintext port, which is for this machine).
    callers: Option<Arc<Callers>>,
}

impl DiscoveryService {
    /// The service for callers that `callers` believes, or for everybody.
    #[must_use]
    pub fn new(discovery: Arc<Discovery>, callers: Option<Arc<Callers>>) -> Self {
        Self { discovery, callers }
    }

    /// Opens a stream for a caller that is believed; it has still to say for which proxy.
    async fn open<V: Variant>(
        &self,
        request: Request<Streaming<V::Request>>,
    ) -> Result<Response<ResponseStream<V::Message>>, Status> {
        let identified = self.callers.as_ref().map(|callers| {
            callers.identify(request.metadata(), request.extensions().get::<VerifiedPeer>())
        });
        let account = match identified {
            Some(identified) => Some(identified.await.map_err(|error| {
                tracing::warn!(%error, "discovery stream refused");
                refusal(&error)
            })?),
            None => None,
        };
        let account = account.map(|caller| caller.account);
        let newcomer = Arc::clone(&self.discovery.newcomers).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{NEWCOMERS} streams have not said yet which proxy they serve: try again later"
            ))
        })?;
        let address = request.extensions().get::<PeerAddress>().map(ToString::to_string);
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let connection = Connection::<V> {
            id: self.discovery.next_connection.fetch_add(1, Ordering::Relaxed),
            discovery: Arc::clone(&self.discovery),
            account,
            peer: address.unwrap_or_default(),
            sender,
            waiting: VecDeque::new(),
        };
        let requests = request.into_inner();
        self.discovery.tasks.spawn(connection.run(requests, newcomer));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type StreamAggregatedResourcesStream = ResponseStream<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = ResponseStream<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<WorldSession>(request).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Session>(request).await
    }
}

/// One proxy's connection.
struct Connection<V: Variant> {
    id: u64,
    discovery: Arc<Discovery>,
    account: Option<ServiceAccount>,
    peer: String,
    sender: mpsc::Sender<Result<V::Message, Status>>,
    waiting: VecDeque<V::Response>,
}

impl<V: Variant> Connection<V> {
    async fn run(mut self, requests: Streaming<V::Request>, newcomer: OwnedSemaphorePermit) {
        let discovery = Arc::clone(&self.discovery);
        discovery.metrics.connected.inc();
        let ended = self.serve(requests, newcomer).await;
        discovery.proxies.remove(self.id);
        discovery.metrics.connected.dec();
        if let Err(status) = ended {
            discovery.metrics.internal_errors.inc();
            tracing::warn!(connection = self.id, peer = self.peer, %status, "discovery ended");
            // The proxy may be gone already; then there is nobody to tell.
            drop(self.sender.try_send(Err(status)));
        }
    }

    async fn serve(
        &mut self,
        mut requests: Streaming<V::Request>,
        newcomer: OwnedSemaphorePermit,
    ) -> Result<(), Status> {
        let Some(first) = self.first(&mut requests).await? else { return Ok(()) };
        let view = self.view(&first)?;
        drop(newcomer);
        let mut generations = self.discovery.generations.clone();
        let mut generation = Arc::clone(&generations.borrow_and_update());
        let mut stream = ProxyStream::<V>::new(self.resources(&generation, &view).await?);
        let mut status = ProxyStatus {
            cluster_id: view.cluster_id.clone(),
            proxy: format!("{}.{}", view.name, view.namespace),
            istio_version: view.version.clone(),
            peer: self.peer.clone(),
            view: view.clone(),
            ..ProxyStatus::default()
        };
        tracing::info!(connection = self.id, proxy = status.proxy, "proxy connected");
        self.take(&mut stream, &first, &status.proxy)?;
        loop {
            status.update(stream.subscriptions(), generation.number);
            self.discovery.proxies.set(self.id, status.clone());
            let idle = self.waiting.is_empty();
            tokio::select! {
                () = self.discovery.stop.cancelled() => return Ok(()),
                permit = self.sender.clone().reserve_owned(), if !idle => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(response) = self.waiting.pop_front() {
                        permit.send(Ok(response.into()));
                    }
                    if self.waiting.is_empty() {
                        let elapsed = generation.since.elapsed();
                        self.discovery.metrics.convergence.observe(elapsed.as_secs_f64());
                    }
                }
                request = requests.message(), if self.waiting.len() < WAITING => {
                    let Some(request) = request? else { return Ok(()) };
                    self.take(&mut stream, &request, &status.proxy)?;
                }
                changed = generations.changed(), if idle => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    generation = Arc::clone(&generations.borrow_and_update());
                    let wanted = self.resources(&generation, &view).await?;
                    self.send(stream.on_resources(wanted));
                }
            }
        }
    }

    /// The first request, unless the server stops before it comes.
    async fn first(
        &self,
        requests: &mut Streaming<V::Request>,
    ) -> Result<Option<V::Request>, Status> {
        tokio::select! {
            () = self.discovery.stop.cancelled() => Ok(None),
            request = requests.message() => request,
            () = tokio::time::sleep(FIRST_WORD) => Err(Status::deadline_exceeded(format!(
                "nothing was asked for within {} s", FIRST_WORD.as_secs()
            ))),
        }
    }

    fn view(&self, first: &V::Request) -> Result<ProxyView, Status> {
        let node = V::node(first).ok_or(NodeError::Missing);
        let view = node
            .and_then(ProxyView::from_node)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        match &self.account {
            Some(account) => view.owned_by(account).map_err(|error| {
                tracing::warn!(connection = self.id, peer = self.peer, %error, "node refused");
                Status::permission_denied(error.to_string())
            }),
            None => Ok(view),
        }
    }

    fn take(
        &mut self,
        stream: &mut ProxyStream<V>,
        request: &V::Request,
        proxy: &str,
    ) -> Result<(), Status> {
        let Reaction { responses, refused } = stream
            .on_request(request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some((type_url, reason)) = refused {
            let kind = short_name(&type_url);
            tracing::warn!(connection = self.id, proxy, kind, reason, "configuration refused");
            self.discovery.metrics.rejects.get_or_create(&label(kind)).inc();
        }
        self.send(responses);
        Ok(())
    }

    /// The resources of a proxy; made off the event loop, because a large mesh takes a while.
    async fn resources(
        &self,
        generation: &Arc<Generation>,
        view: &ProxyView,
    ) -> Result<Arc<Resources>, Status> {
        if let Some(ready) = generation.ready(view) {
            return Ok(ready);
        }
        let since = Instant::now();
        let (generation, view) = (Arc::clone(generation), view.clone());
        let made = tokio::task::spawn_blocking(move || generation.resources(&view)).await;
        self.discovery.metrics.generation_time.observe(since.elapsed().as_secs_f64());
        made.map_err(|error| Status::internal(format!("the translation failed: {error}")))
    }

    fn send(&mut self, responses: Vec<V::Response>) {
        for response in responses {
            let Contents { type_url, changed, removed } = V::contents(&response);
            let kind = short_name(type_url);
            self.discovery.metrics.pushes.get_or_create(&label(kind)).inc();
            let resources = changed.len();
            tracing::debug!(connection = self.id, kind, resources, removed, "push");
            self.waiting.push_back(response);
        }
    }
}

fn label(kind: &str) -> ResourceType {
    ResourceType { r#type: kind.to_owned() }
}
