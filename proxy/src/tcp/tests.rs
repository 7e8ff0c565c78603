//! Shares of weighted clusters, and relays under small buffers, half-closes and time limits.

use super::relay::{Ended, Limits, Traffic, relay};
use super::{Name, pick};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

#[test]
fn shares_follow_weights() {
    let clusters: Vec<(Name, u32)> = vec![("a".into(), 3), ("off".into(), 0), ("b".into(), 1)];
    let count = |name: &str| (0..400).filter(|n| &**pick(&clusters, *n).unwrap() == name).count();
    assert_eq!((count("a"), count("off"), count("b")), (300, 0, 100));
    assert!(pick(&[], 1).is_none());
}

#[tokio::test]
async fn slow_readers_lose_nothing() {
    // Buffers of 7 bytes: nearly every write is taken in part only.
    let (mut client, near) = duplex(7);
    let (mut far, mut server) = duplex(7);
    let sent: Vec<u8> = (0..50_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let wanted = sent.clone();
    let traffic = Traffic::default();
    let talk = async {
        let writing = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let reading = async {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.unwrap();
            // The server still answers after the client has said all.
            server.write_all(b"bye").await.unwrap();
            drop(server);
            all
        };
        tokio::join!(writing, reading).1
    };
    let (ended, read) = tokio::join!(relay(near, &mut far, &traffic, Limits::default()), talk);
    assert_eq!(ended.unwrap(), Ended::Both);
    assert_eq!(read, wanted);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "bye");
    assert_eq!((traffic.received.get(), traffic.sent.get()), (50_000, 3));
}

#[tokio::test]
async fn idle_connections_end_and_busy_ones_do_not() {
    let (mut client, near) = duplex(64);
    let (mut far, _server) = duplex(64);
    let traffic = Traffic::default();
    let limits = Limits { idle: Some(Duration::from_millis(200)), whole: None };
    let began = tokio::time::Instant::now();
    let speaking = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            client.write_all(b"x").await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = relay(near, &mut far, &traffic, limits) => ended.unwrap(),
        () = speaking => Ended::Both,
    };
    assert_eq!(ended, Ended::Idle);
    assert!(began.elapsed() >= Duration::from_millis(560), "{:?}", began.elapsed());
}

#[tokio::test]
async fn no_connection_outlasts_its_time() {
    let (_client, near) = duplex(64);
    let (mut far, _server) = duplex(64);
    let limits = Limits { idle: None, whole: Some(Duration::from_millis(50)) };
    let ended = relay(near, &mut far, &Traffic::default(), limits).await.unwrap();
    assert_eq!(ended, Ended::TooLong);
}
