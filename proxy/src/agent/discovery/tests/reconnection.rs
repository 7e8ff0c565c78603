//! The stream and its configuration across a control plane that goes and comes.

use super::super::*;
use super::resources::*;
use super::server;
use crate::agent::state::AgentState;
use crate::config::Snapshot;
use crate::settings::{Environment, ProxyArgs, Settings};
use crate::telemetry::{Build, Hub, Local};
use arc_swap::ArcSwap;
use lateen_xds::envoy::core::Node;
use lateen_xds::pb::google::protobuf::Any;
use lateen_xds::type_url;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn wanted(
    kind: &'static str,
    list: &[(&str, Any)],
) -> (&'static str, lateen_xds::server::ResourceMap) {
    let resource = |body: &Any| lateen_xds::server::Resource {
        version: format!("{:x}", body.value.iter().map(|b| u64::from(*b)).sum::<u64>()).into(),
        body: body.value.clone().into(),
    };
    (kind, list.iter().map(|(name, body)| (Arc::from(*name), resource(body))).collect())
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen");
}

/// Follows a plaintext control plane at `address`.
fn start(
    address: std::net::SocketAddr,
    (config, summary): (&Arc<ArcSwap<Snapshot>>, &Arc<ArcSwap<Summary>>),
    end: &CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let mut settings = Settings::new(&ProxyArgs::default(), &Environment::default(), 1).unwrap();
    settings.control_plane.plaintext = true;
    settings.control_plane.discovery = address.to_string();
    let publisher = Publisher {
        config: Arc::clone(config),
        summary: Arc::clone(summary),
        changes: watch::channel(0).0,
        state: AgentState::new(false, true),
        materials: Arc::default(),
        hub: Hub::new(Local::default(), Build { version: String::new() }),
    };
    let node = Node { id: "me".to_owned(), ..Node::default() };
    tokio::spawn(follow(Arc::new(settings), node, publisher, end.clone()))
}

#[tokio::test]
async fn configuration_follows_the_control_plane_across_reconnections() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let first = [
        wanted(type_url::CLUSTER, &[("a", eds_cluster("a", 1))]),
        wanted(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))]),
    ];
    let (push, all) = watch::channel(first.into());
    let seen = Arc::default();
    let ads = |seen: &Arc<_>| server::Ads { wanted: all.clone(), seen: Arc::clone(seen) };
    let running = tokio::spawn(server::serve(ads(&seen), listener));
    let (config, summary) = (Arc::default(), Arc::default());
    let end = CancellationToken::new();
    let following = start(address, (&config, &summary), &end);
    until("the first cluster", || config.load().endpoints.contains_key("a")).await;

    let broken = Any { type_url: type_url::CLUSTER.to_owned(), value: vec![0xff, 1] };
    let second = [
        wanted(type_url::CLUSTER, &[("a", broken), ("b", eds_cluster("b", 1))]),
        wanted(
            type_url::ENDPOINTS,
            &[("a", endpoints("a", "10.0.0.1")), ("b", endpoints("b", "10.0.0.2"))],
        ),
    ];
    push.send_replace(second.into());
    until("the second cluster", || config.load().endpoints.contains_key("b")).await;
    assert!(config.load().clusters.contains_key("a"), "the last good one stays");
    assert_eq!(&*summary.load().refused[0].name, "a");
    let seen_now =
        || -> Vec<lateen_xds::discovery::DeltaDiscoveryRequest> { seen.lock().unwrap().clone() };
    until("the refusal", || {
        seen_now()
            .iter()
            .any(|r| r.error_detail.as_ref().is_some_and(|e| e.message.starts_with("a: ")))
    })
    .await;
    assert_eq!(seen_now()[0].node.as_ref().unwrap().id, "me");

    running.abort();
    let _cancelled = running.await;
    let third = [
        wanted(type_url::CLUSTER, &[("b", eds_cluster("b", 1))]),
        wanted(type_url::ENDPOINTS, &[("b", endpoints("b", "10.0.0.3"))]),
    ];
    push.send_replace(third.into());
    assert!(config.load().clusters.contains_key("a"), "nothing is lost while it is away");
    let again = Arc::default();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let running = tokio::spawn(server::serve(ads(&again), listener));
    until("the change made meanwhile", || {
        let snapshot = config.load();
        let moved = snapshot
            .endpoints
            .get("b")
            .is_some_and(|set| set.endpoints[0].address.ip().to_string() == "10.0.0.3");
        moved && !snapshot.clusters.contains_key("a")
    })
    .await;
    let first_request = again.lock().unwrap()[0].clone();
    assert!(first_request.initial_resource_versions.contains_key("b"), "what is held is told");
    end.cancel();
    following.await.unwrap();
    running.abort();
}
