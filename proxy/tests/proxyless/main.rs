//! The agent without data path: what an application that speaks xDS itself has of it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod certificates;
mod google;
#[path = "../running/mod.rs"]
mod running;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use lateen_xds::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use lateen_xds::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use lateen_xds::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use lateen_xds::istio::IstioCertificateRequest;
use lateen_xds::istio::ca_client::CertificateClient;
use lateen_xds::pb::google::protobuf::Any;
use lateen_xds::type_url;
use running::{ask, free, loopback, signal, until_ready};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// More than fits the windows of a connection.
const LARGE: usize = 3 << 20;
/// Longest wait for what must happen at once.
const SOON: Duration = Duration::from_secs(10);

/// A control plane that answers each request with what was asked, and notes who asked.
#[derive(Clone, Default)]
struct ControlPlane(Arc<Mutex<Vec<(String, String)>>>);

impl ControlPlane {
    fn note(&self, metadata: &MetadataMap) {
        let text = |name: &str| {
            let value = metadata.get(name).map(|value| value.to_str().unwrap());
            value.unwrap_or_default().to_owned()
        };
        self.0.lock().unwrap().push((text("clusterid"), text("authorization")));
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().clone()
    }
}

/// One answer for each request of a stream.
fn each<T, U>(mut requests: Streaming<T>, answer: fn(T) -> U) -> Answers<U>
where
    T: Send + 'static,
    U: Send + 'static,
{
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(Ok(request)) = requests.next().await {
            if sender.send(Ok(answer(request))).await.is_err() {
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for ControlPlane {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.note(request.metadata());
        let answer = |request: DiscoveryRequest| DiscoveryResponse {
            version_info: request.resource_names.join(","),
            resources: vec![Any { type_url: request.type_url, value: vec![7; LARGE] }],
            nonce: request.response_nonce,
            ..DiscoveryResponse::default()
        };
        Ok(Response::new(each(request.into_inner(), answer)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.note(request.metadata());
        let answer = |request: DeltaDiscoveryRequest| DeltaDiscoveryResponse {
            type_url: request.type_url,
            resources: request
                .resource_names_subscribe
                .into_iter()
                .map(|name| Resource { name, ..Resource::default() })
                .collect(),
            nonce: request.response_nonce,
            ..DeltaDiscoveryResponse::default()
        };
        Ok(Response::new(each(request.into_inner(), answer)))
    }
}

/// Serves one gRPC service until aborted, and its connections with it.
fn serve<S>(listener: TcpListener, tls: Option<TlsAcceptor>, service: S) -> JoinHandle<()>
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, service) = (tls.clone(), TowerToHyperService::new(service.clone()));
            connections.spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                match tls {
                    None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        drop(builder.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            });
        }
    })
}

async fn control_plane(at: SocketAddr, control_plane: &ControlPlane) -> JoinHandle<()> {
    let listener = TcpListener::bind(at).await.unwrap();
    serve(listener, None, AggregatedDiscoveryServiceServer::new(control_plane.clone()))
}

async fn gone(server: JoinHandle<()>) {
    server.abort();
    let _aborted = server.await;
}

/// The program, in a folder of its own.
struct Agent {
    child: Child,
    health: u16,
    folder: TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.child.kill();
    }
}

impl Agent {
    fn start(discovery: SocketAddr, termination: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let health = free().port();
        let config = json!({
            "discoveryAddress": discovery.to_string(), "controlPlaneAuthPolicy": "NONE",
            "statusPort": free().port(), "proxyAdminPort": free().port(),
            "terminationDrainDuration": termination,
        });
        let child = Command::new(env!("CARGO_BIN_EXE_lateen-proxy"))
            .args(["proxy", "sidecar", "--log_output_level=default:error"])
            .env_clear()
            .env("DISABLE_ENVOY", "true")
            .env("GRPC_XDS_BOOTSTRAP", folder.path().join("proxy/bootstrap.json"))
            .env("PROXY_CONFIG", config.to_string())
            .env("ENVOY_STATUS_PORT", health.to_string())
            .env("ENVOY_PROMETHEUS_PORT", free().port().to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, health, folder }
    }

    /// Discovery as a gRPC library comes to it: by the bootstrap file.
    fn discovery(&self) -> Channel {
        let path = self.folder.path().join("proxy/bootstrap.json");
        let text = std::fs::read_to_string(path).unwrap();
        let bootstrap: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(bootstrap["node"]["metadata"]["GENERATOR"], "grpc");
        channel(bootstrap["xds_servers"][0]["server_uri"].as_str().unwrap())
    }

    async fn ended(&mut self) -> bool {
        let told = Instant::now();
        while told.elapsed() < SOON {
            if let Some(ended) = self.child.try_wait().unwrap() {
                return ended.success();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

async fn readiness(port: u16) -> String {
    ask(loopback(port), "GET", "/healthz/ready").await.unwrap_or_default()
}

/// Waits for a reason not to be ready.
async fn until_unready(port: u16, reason: &str) -> String {
    let mut said = String::new();
    for _ in 0..250 {
        said = readiness(port).await;
        if said.contains(reason) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(said.starts_with("HTTP/1.1 503") && said.contains(reason), "{reason}: {said}");
    said
}

fn channel(uri: &str) -> Channel {
    Endpoint::from_shared(uri.to_owned()).unwrap().connect_lazy()
}

/// An application's stream, with what it must not be able to say.
struct Application<T, U> {
    requests: mpsc::Sender<T>,
    answers: Streaming<U>,
}

impl<T, U> Application<T, U> {
    async fn says(&mut self, request: T) -> Result<U, Status> {
        self.requests.send(request).await.map_err(|_| Status::cancelled("closed"))?;
        self.hears().await
    }

    async fn hears(&mut self) -> Result<U, Status> {
        let answer = timeout(SOON, self.answers.message()).await.expect("an answer or an end");
        answer?.ok_or_else(|| Status::ok("ended without an error"))
    }
}

fn pretending<T: Send + 'static>(requests: mpsc::Receiver<T>) -> Request<ReceiverStream<T>> {
    let mut request = Request::new(ReceiverStream::new(requests));
    request.metadata_mut().insert("authorization", "Bearer theirs".parse().unwrap());
    request.metadata_mut().insert("clusterid", "theirs".parse().unwrap());
    request
}

async fn of_the_world(
    channel: &Channel,
) -> Result<Application<DiscoveryRequest, DiscoveryResponse>, Status> {
    let (requests, receiver) = mpsc::channel(4);
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel.clone()).max_decoding_message_size(2 * LARGE);
    let answers = client.stream_aggregated_resources(pretending(receiver)).await?.into_inner();
    Ok(Application { requests, answers })
}

async fn delta(
    channel: &Channel,
) -> Result<Application<DeltaDiscoveryRequest, DeltaDiscoveryResponse>, Status> {
    let (requests, receiver) = mpsc::channel(4);
    let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
    let answers = client.delta_aggregated_resources(pretending(receiver)).await?.into_inner();
    Ok(Application { requests, answers })
}

fn listener_request(nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: type_url::LISTENER.to_owned(),
        resource_names: vec!["a:80".to_owned(), "b:80".to_owned()],
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

#[tokio::test(flavor = "current_thread")]
async fn both_kinds_of_streams_pass_and_end_with_the_way_to_the_control_plane() {
    let at = free();
    let agent = Agent::start(at, "5s");
    let readiness = until_unready(agent.health, "refused").await;
    assert!(readiness.contains("waiting for the control plane"), "{readiness}");
    let asked = ControlPlane::default();
    let server = control_plane(at, &asked).await;
    until_ready(agent.health).await;
    let mode = std::fs::metadata(agent.folder.path().join("proxy/XDS")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o666, "applications are other users");

    let channel = agent.discovery();
    let mut world = of_the_world(&channel).await.unwrap();
    let mut differences = delta(&channel).await.unwrap();
    for nonce in ["", "n1"] {
        let answer = world.says(listener_request(nonce)).await.unwrap();
        assert_eq!((answer.version_info.as_str(), answer.nonce.as_str()), ("a:80,b:80", nonce));
        assert_eq!(answer.resources[0].type_url, type_url::LISTENER);
        assert!(answer.resources[0].value == vec![7; LARGE], "it passes as it is");
        let request = DeltaDiscoveryRequest {
            type_url: type_url::CLUSTER.to_owned(),
            resource_names_subscribe: vec!["c".to_owned()],
            response_nonce: nonce.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let answer = differences.says(request).await.unwrap();
        assert_eq!((answer.resources[0].name.as_str(), answer.nonce.as_str()), ("c", nonce));
    }
    let own = ("Kubernetes".to_owned(), String::new());
    assert_eq!(asked.seen(), [own.clone(), own], "what applications say of themselves is dropped");
    let other = CertificateClient::new(channel.clone())
        .create_certificate(Request::new(IstioCertificateRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(other.code(), Code::Unimplemented, "{other}");

    gone(server).await;
    assert_eq!(world.hears().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(differences.hears().await.unwrap_err().code(), Code::Unavailable);
    let away = of_the_world(&channel).await.map(drop).unwrap_err();
    assert_eq!(away.code(), Code::Unavailable, "{away}");
    assert!(away.message().contains("refused"), "{away}");

    let server = control_plane(at, &asked).await;
    let mut world = of_the_world(&channel).await.unwrap();
    assert!(world.says(listener_request("")).await.is_ok(), "the agent needs no restart");
    gone(server).await;
}

#[tokio::test(flavor = "current_thread")]
async fn every_target_of_an_application_has_a_stream_and_a_connection() {
    let at = free();
    let server = control_plane(at, &ControlPlane::default()).await;
    let agent = Agent::start(at, "1s");
    until_ready(agent.health).await;
    let mut targets = Vec::new();
    for number in 0..100 {
        let mut target = delta(&agent.discovery()).await.unwrap();
        let request = DeltaDiscoveryRequest {
            type_url: type_url::LISTENER.to_owned(),
            resource_names_subscribe: vec![format!("target-{number}")],
            ..DeltaDiscoveryRequest::default()
        };
        let answer = target.says(request).await.unwrap();
        assert_eq!(answer.resources[0].name, format!("target-{number}"));
        targets.push(target);
    }
    gone(server).await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_agent_ends_after_the_applications() {
    let at = free();
    let server = control_plane(at, &ControlPlane::default()).await;
    let mut agent = Agent::start(at, "60s");
    until_ready(agent.health).await;
    let mut world = of_the_world(&agent.discovery()).await.unwrap();
    world.says(listener_request("")).await.unwrap();
    signal(agent.child.id(), "-TERM");
    until_unready(agent.health, "draining").await;
    assert!(world.says(listener_request("n1")).await.is_ok(), "and still passes on");
    drop(world);
    assert!(agent.ended().await);
    gone(server).await;
}

#[tokio::test(flavor = "current_thread")]
async fn applications_that_stay_are_waited_for_as_long_as_is_asked() {
    let at = free();
    let server = control_plane(at, &ControlPlane::default()).await;
    let mut agent = Agent::start(at, "1s");
    until_ready(agent.health).await;
    let mut world = of_the_world(&agent.discovery()).await.unwrap();
    world.says(listener_request("")).await.unwrap();
    signal(agent.child.id(), "-TERM");
    let told = Instant::now();
    let status = world.hears().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(told.elapsed() >= Duration::from_millis(900), "{:?}", told.elapsed());
    assert!(agent.ended().await);
    gone(server).await;
}
