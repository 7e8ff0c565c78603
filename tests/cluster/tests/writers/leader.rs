//! One replica writes; when it goes, another does.

use std::time::{Duration, Instant};

use crate::daemon::{Bench, Lateend};

const LEADS: &str = "this replica leads: it writes";

async fn replicas(bench: &Bench) -> (Lateend, Lateend) {
    let first = bench.lateend("lateend-first", &[]);
    first.until_ready().await;
    first.logged(LEADS).await;
    let second = bench.lateend("lateend-second", &[]);
    second.until_ready().await;
    (first, second)
}

async fn holder(bench: &Bench) -> String {
    let lease = bench.object("lease lateend-leader -n istio-system").await.unwrap();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn a_leader_that_ends_hands_over_at_once() {
    let bench = Bench::start().await;
    let (mut first, second) = replicas(&bench).await;
    assert_eq!(holder(&bench).await, "lateend-first");
    assert!(!second.log().contains(LEADS), "both are ready, one leads");
    first.end().await;
    let begun = Instant::now();
    second.logged(LEADS).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(holder(&bench).await, "lateend-second");
    bench.kubectl("create namespace shop").await;
    bench.until("configmap istio-ca-root-cert -n shop", |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn a_leader_that_dies_is_followed_when_its_time_is_over() {
    let bench = Bench::start().await;
    let (mut first, second) = replicas(&bench).await;
    first.kill();
    let begun = Instant::now();
    bench.kubectl("create namespace shop").await;
    second.logged(LEADS).await;
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(9), "it was not sure yet: {took:?}");
    assert!(took < Duration::from_secs(25), "{took:?}");
    bench.until("configmap istio-ca-root-cert -n shop", |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn a_leader_without_an_api_server_leads_no_more_and_nobody_stops_serving() {
    let mut bench = Bench::start().await;
    let first = bench.lateend("lateend-first", &[]);
    first.until_ready().await;
    first.logged(LEADS).await;
    bench.server.pause().await;
    first.logged("this replica leads no more").await;
    let (status, text) = first.ready().await;
    assert_eq!(status, 200, "{text}");
    bench.server.resume().await.unwrap();
    bench.kubectl("create namespace shop").await;
    bench.until("configmap istio-ca-root-cert -n shop", |_| true).await;
}
