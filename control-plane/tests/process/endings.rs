//! The end, with streams open; and the start after it, with the same authority.

use std::time::Duration;

use lateen_xds::discovery::DeltaDiscoveryRequest;
use lateen_xds::type_url::CLUSTER;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{Proxy, certificate, plaintext, secure, try_secure};
use crate::daemon::Home;

const NODE: &str = "sidecar~10.0.0.9~cart-1.shop~shop.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_in_two_seconds_with_streams_open() {
    let home = Home::new();
    let mut daemon = home.start().await;
    let (roots, token) = (home.roots(), home.token(&Home::claims()));
    let mut streams = Vec::new();
    for _ in 0..20 {
        let open = plaintext(daemon.plaintext).await;
        let mut proxy = Proxy::open(open, None, NODE, CLUSTER).await.unwrap();
        proxy.response().await;
        streams.push(proxy);
        let closed = secure(daemon.secure, &roots, None).await;
        let mut proxy = Proxy::open(closed, Some(&token), NODE, CLUSTER).await.unwrap();
        proxy.response().await;
        streams.push(proxy);
    }
    // One that never says what it wants, on each port; and one stream that says nothing.
    let mut mute = Vec::new();
    for address in [daemon.plaintext, daemon.secure, daemon.monitoring] {
        mute.push(TcpStream::connect(address).await.unwrap());
    }
    streams.push(Proxy::silent(plaintext(daemon.plaintext).await, None).await.unwrap());
    daemon.terminate();
    let (status, took) = daemon.ended().await;
    let log = daemon.log();
    assert!(status.success(), "{status}\n{log}");
    assert!(took < Duration::from_secs(2), "it took {took:?}\n{log}");
    assert!(!log.contains("did not end in time"), "{log}");
    for mut stream in streams {
        // The end of the stream, or of its connection; never another response.
        assert!(!matches!(stream.next().await, Ok(Some(_))));
    }
    for mut connection in mute {
        assert!(matches!(connection.read(&mut [0; 64]).await, Ok(_) | Err(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_is_not_heard_for_ever() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut proxy =
        Proxy::open(plaintext(daemon.plaintext).await, None, NODE, CLUSTER).await.unwrap();
    proxy.response().await;
    // Each of these has an answer as long as itself; the windows of the connection hold some.
    let asked = async {
        for number in 0..8192_usize {
            let request = DeltaDiscoveryRequest {
                type_url: CLUSTER.to_owned(),
                resource_names_subscribe: vec![format!("{number:0>1000}")],
                ..DeltaDiscoveryRequest::default()
            };
            let sent = tokio::time::timeout(Duration::from_secs(5), proxy.send(request)).await;
            if sent.is_err() {
                return number;
            }
        }
        8192
    };
    let heard = asked.await;
    assert!(heard < 8192, "everything was read, and every answer kept");
    // It is heard again once it takes what waits.
    for _ in 0..heard {
        assert_eq!(proxy.response().await.removed_resources.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_over_the_authority() {
    let home = Home::new();
    let mut daemon = home.start().await;
    let roots = home.roots();
    let token = home.token(&Home::claims());
    let channel = secure(daemon.secure, &roots, None).await;
    let held = certificate(channel, Some(&token), None).await.unwrap();
    daemon.terminate();
    let (status, _) = daemon.ended().await;
    assert!(status.success(), "{status}");
    std::fs::remove_dir_all(home.path("published")).unwrap();
    let daemon = home.start().await;
    assert_eq!(home.roots(), roots, "the same root");
    // What was signed before proves who it is, without a token.
    let channel = secure(daemon.secure, &roots, Some(&held)).await;
    assert!(certificate(channel.clone(), None, None).await.is_ok());
    let mut proxy = Proxy::open(channel, None, NODE, CLUSTER).await.unwrap();
    assert!(!proxy.response().await.resources.is_empty());
    // Another authority's certificate does not.
    let other = Home::new();
    let stranger = other.start().await;
    let channel = secure(stranger.secure, &other.roots(), None).await;
    let foreign = certificate(channel, Some(&other.token(&Home::claims())), None).await.unwrap();
    let refused = match try_secure(daemon.secure, &roots, Some(&foreign)).await {
        Err(_) => true,
        Ok(channel) => certificate(channel, None, None).await.is_err(),
    };
    assert!(refused, "a certificate of a stranger is believed");
}
