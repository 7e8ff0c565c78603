//! What is right comes into force, what is wrong is named and changes nothing, and what a proxy
//! refuses is seen.

use std::time::{Duration, Instant};

use lateen_xds::type_url::{CLUSTER, LISTENER};

use crate::client::{Proxy, names, plaintext};
use crate::daemon::Home;

const NODE: &str = "sidecar~10.0.0.9~web-1.shop~shop.svc.cluster.local";

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: 10.96.0.{port}, ports: [{{name: http, port: {port}}}]}}\n"
    )
}

const WRONG: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, trafficPolicy: {tls: {mode: SOMETIMES}}}
";

fn cluster(name: &str, port: u16) -> String {
    format!("outbound|{port}||{name}.shop.svc.cluster.local")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_is_in_force_and_what_is_wrong_is_named() {
    let home = Home::new();
    home.put("a.yaml", &service("cart", 80));
    home.put("wrong.yaml", &format!("# a comment\n{WRONG}"));
    let daemon = home.start().await;
    assert_eq!(daemon.page("/ready").await, "ready\n");
    let status = home.published("status.json");
    assert_eq!((status["version"].as_u64(), status["refused"].as_u64()), (Some(1), Some(1)));
    let finding = &status["findings"][0];
    assert_eq!(finding["file"], "wrong.yaml");
    assert_eq!(finding["line"], 2);
    assert_eq!(finding["path"], "spec.trafficPolicy.tls.mode");
    assert_eq!(finding["object"]["name"], "cart");
    assert!(daemon.log().contains("wrong.yaml:2: DestinationRule shop/cart"), "{}", daemon.log());
    assert!(daemon.page("/metrics").await.contains("pilot_services 1\n"));

    let mut proxy =
        Proxy::open(plaintext(daemon.plaintext).await, None, NODE, CLUSTER).await.unwrap();
    let first = proxy.response().await;
    assert!(names(&first).contains(&cluster("cart", 80).as_str()), "{:?}", names(&first));
    proxy.answer(&first, None).await;

    let begun = Instant::now();
    home.put("b.yaml", &service("till", 81));
    let second = proxy.response().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    assert_eq!(names(&second), [cluster("till", 81)]);
    assert!(second.removed_resources.is_empty());
    proxy.answer(&second, None).await;

    home.put("a.yaml", "kind: [");
    daemon.page_with("/metrics", "lateen_config_errors 2\n").await;
    home.put("c.yaml", &service("shelf", 82));
    let third = proxy.response().await;
    assert_eq!(names(&third), [cluster("shelf", 82)]);
    assert!(third.removed_resources.is_empty(), "the broken file took something away");
    let status = home.published("status.json");
    let named = status["findings"].as_array().unwrap().iter().any(|it| it["file"] == "a.yaml");
    assert!(named, "{status:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_refuses_is_seen_and_the_others_go_on() {
    let home = Home::new();
    home.put("a.yaml", &service("cart", 80));
    let mut daemon = home.start().await;
    let channel = plaintext(daemon.plaintext).await;
    let mut refusing = Proxy::open(channel.clone(), None, NODE, LISTENER).await.unwrap();
    let mut good = Proxy::open(channel, None, NODE, LISTENER).await.unwrap();
    let first = refusing.response().await;
    refusing.answer(&first, Some("no such filter: x.y")).await;
    good.response().await;
    let line = daemon.logged("configuration refused").await;
    assert!(line.contains("web-1.shop") && line.contains("no such filter: x.y"), "{line}");
    let metrics = daemon.page("/metrics").await;
    assert!(metrics.contains("pilot_total_xds_rejects{type=\"lds\"} 1\n"), "{metrics}");
    let page = daemon.page_with("/debug/syncz", "\"refused\": \"no such filter: x.y\"").await;
    assert_eq!(page.matches("\"refused\"").count(), 1, "{page}");
    home.put("b.yaml", &service("till", 81));
    assert_eq!(names(&good.response().await), ["0.0.0.0_81"]);
    assert_eq!(names(&refusing.response().await), ["0.0.0.0_81"], "not again what was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trust_domain_does_not_change_under_certificates() {
    let home = Home::new();
    let mesh = |domain: &str, file: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data: {{mesh: 'trustDomain: {domain}\n\n    accessLogFile: {file}'}}\n"
        )
    };
    home.put("mesh.yaml", &mesh("one.example", "/dev/null"));
    let mut daemon = home.start().await;
    home.put("mesh.yaml", &mesh("two.example", "/dev/null"));
    let line = daemon.logged("cannot become `two.example`").await;
    assert!(line.contains("ERROR"), "{line}");
    home.put("mesh.yaml", &mesh("one.example", "/dev/stdout"));
    daemon.page_with("/metrics", "lateen_config_errors 0\n").await;
}
