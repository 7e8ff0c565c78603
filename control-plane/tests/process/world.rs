//! Streams of the state of the world: served, refused and ended as the others.

use lateen_xds::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use lateen_xds::discovery::{DiscoveryRequest, DiscoveryResponse};
use lateen_xds::envoy::cluster::Cluster;
use lateen_xds::envoy::core::Node;
use lateen_xds::pb::google::rpc::Status as Refusal;
use lateen_xds::type_url::CLUSTER;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::client::plaintext;
use crate::daemon::{Daemon, Home, PATIENCE};

const NODE: &str = "sidecar~10.0.0.9~web-1.shop~shop.svc.cluster.local";

struct Proxy {
    sender: mpsc::Sender<DiscoveryRequest>,
    answers: Streaming<DiscoveryResponse>,
}

impl Proxy {
    async fn open(daemon: &Daemon, node: &str, names: &[String]) -> Self {
        let (sender, receiver) = mpsc::channel(16);
        let node = Some(Node { id: node.to_owned(), ..Node::default() });
        sender.send(DiscoveryRequest { node, ..ask(names, "") }).await.unwrap();
        let channel = plaintext(daemon.plaintext).await;
        let answers = AggregatedDiscoveryServiceClient::new(channel)
            .stream_aggregated_resources(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Self { sender, answers }
    }

    async fn next(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer")
    }

    async fn response(&mut self) -> DiscoveryResponse {
        self.next().await.unwrap().expect("a response, not the end")
    }

    async fn send(&self, request: DiscoveryRequest) {
        self.sender.send(request).await.unwrap();
    }
}

fn ask(names: &[String], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: CLUSTER.to_owned(),
        resource_names: names.to_vec(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: 10.96.0.{port}, ports: [{{name: http, port: {port}}}]}}\n"
    )
}

fn cluster(name: &str, port: u16) -> String {
    format!("outbound|{port}||{name}.shop.svc.cluster.local")
}

fn names(response: &DiscoveryResponse) -> Vec<String> {
    let decode = |value: &[u8]| Cluster::decode(value).unwrap().name;
    response.resources.iter().map(|it| decode(&it.value)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_world_is_served_whole_or_by_name() {
    let home = Home::new();
    home.put("a.yaml", &service("cart", 80));
    let mut daemon = home.start().await;
    let mut all = Proxy::open(&daemon, NODE, &[]).await;
    let (cart, till) = (cluster("cart", 80), cluster("till", 81));
    let mut some = Proxy::open(&daemon, NODE, std::slice::from_ref(&till)).await;
    let first = all.response().await;
    assert!(names(&first).contains(&cart) && names(&first).len() > 1, "{:?}", names(&first));
    all.send(ask(&[], &first.nonce)).await;
    let nothing = some.response().await;
    assert_eq!(names(&nothing), Vec::<String>::new(), "told that it is not there");
    some.send(ask(std::slice::from_ref(&till), &nothing.nonce)).await;

    home.put("b.yaml", &service("till", 81));
    let second = all.response().await;
    assert_eq!(names(&second).len(), names(&first).len() + 1);
    let came = some.response().await;
    assert_eq!(names(&came), std::slice::from_ref(&till));
    let error = Refusal { code: 3, message: "no such policy".to_owned(), ..Refusal::default() };
    let refused = DiscoveryRequest {
        error_detail: Some(error),
        ..ask(std::slice::from_ref(&till), &came.nonce)
    };
    some.send(refused).await;
    let line = daemon.logged("configuration refused").await;
    assert!(line.contains("web-1.shop") && line.contains("no such policy"), "{line}");
    let metrics = daemon.page("/metrics").await;
    assert!(metrics.contains("pilot_total_xds_rejects{type=\"cds\"} 1\n"), "{metrics}");
    daemon.page_with("/debug/syncz", "\"refused\": \"no such policy\"").await;

    some.send(ask(&[cart.clone(), till.clone()], &came.nonce)).await;
    assert_eq!(names(&some.response().await), [cart, till], "all that is named");
    daemon.terminate();
    while let Ok(Some(_more)) = all.next().await {}
    assert!(daemon.ended().await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_is_served_in_neither_variant() {
    let home = Home::new();
    let daemon = home.start().await;
    let refused = Proxy::open(&daemon, "nonsense", &[]).await.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
}
