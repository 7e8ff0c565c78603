//! A discovery server over the protocol crate's own server session.

use lateen_xds::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use lateen_xds::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use lateen_xds::server::{ResourceMap, Session};
use lateen_xds::type_url::PUSH_ORDER;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

pub(super) type Wanted = HashMap<&'static str, ResourceMap>;

pub(super) struct Ads {
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) seen: Arc<Mutex<Vec<DeltaDiscoveryRequest>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let (mut wanted, seen) = (self.wanted.clone(), Arc::clone(&self.seen));
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let mut session = Session::new();
            loop {
                tokio::select! {
                    request = requests.next() => {
                        let Some(Ok(request)) = request else { return };
                        session.request(&request).unwrap();
                        seen.lock().unwrap().push(request);
                    }
                    changed = wanted.changed() => if changed.is_err() { return },
                }
                let answers: Vec<_> = PUSH_ORDER
                    .iter()
                    .filter_map(|kind| {
                        let all = wanted.borrow().get(kind).cloned().unwrap_or_default();
                        session.response(kind, &all)
                    })
                    .collect();
                for answer in answers {
                    if sender.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Serves over plaintext HTTP/2 until the task is aborted.
pub(super) async fn serve(ads: Ads, listener: tokio::net::TcpListener) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::service::TowerToHyperService;
    let service = AggregatedDiscoveryServiceServer::new(ads);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _): (_, SocketAddr) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(service.clone());
        connections.spawn(async move {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
