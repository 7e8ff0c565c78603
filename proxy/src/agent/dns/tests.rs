//! The DNS proxy over real sockets on loopback, and its answers as pure values.

use super::*;
use crate::config::{NameTable, Snapshot};
use arc_swap::ArcSwap;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

fn table() -> NameTable {
    let hosts = [
        ("reviews.shop.svc.cluster.local", vec!["10.96.0.1", "fd00::1"]),
        ("only4.shop.svc.cluster.local", vec!["10.96.0.2"]),
        ("api.example.com", vec!["240.240.0.1"]),
        ("*.wild.example", vec!["240.240.0.2"]),
        ("headless.shop.svc.cluster.local", vec!["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ];
    let parse = |list: Vec<&str>| list.iter().map(|ip| ip.parse().unwrap()).collect();
    NameTable { hosts: hosts.into_iter().map(|(h, ips)| (h.to_owned(), parse(ips))).collect() }
}

fn search() -> Vec<String> {
    ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(ToOwned::to_owned).into()
}

fn query(id: u16, name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ours(name: &str, kind: RecordType) -> Option<Message> {
    match answer(&query(7, name, kind), &table(), &search()) {
        Answer::Ours(message) => Some(*message),
        Answer::Forward => None,
    }
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

#[test]
fn mesh_names_are_answered_in_both_families() {
    let name = "Reviews.shop.svc.cluster.local.";
    let v4 = ours(name, RecordType::A).unwrap();
    assert_eq!(addresses(&v4), ["10.96.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(v4.answers[0].ttl, 30);
    assert_eq!(v4.metadata.id, 7);
    let v6 = ours(name, RecordType::AAAA).unwrap();
    assert_eq!(addresses(&v6), ["fd00::1".parse::<IpAddr>().unwrap()]);
    let none = ours("only4.shop.svc.cluster.local.", RecordType::AAAA).unwrap();
    assert_eq!(none.metadata.response_code, ResponseCode::NoError);
    assert!(none.answers.is_empty(), "known name without such an address");
}

#[test]
fn short_names_and_wildcards_are_found() {
    for name in ["reviews.", "reviews.shop.", "reviews.shop.svc."] {
        assert_eq!(addresses(&ours(name, RecordType::A).unwrap()).len(), 1, "{name}");
    }
    assert_eq!(addresses(&ours("a.b.wild.example.", RecordType::A).unwrap()).len(), 1);
    assert_eq!(ours("wild.example.", RecordType::A), None);
}

#[test]
fn an_external_name_with_a_search_domain_is_answered_by_alias() {
    let message = ours("api.example.com.shop.svc.cluster.local.", RecordType::A).unwrap();
    let RData::CNAME(alias) = &message.answers[0].data else { panic!("{message:?}") };
    assert_eq!(alias.0.to_ascii(), "api.example.com.");
    assert_eq!(message.answers[1].name.to_ascii(), "api.example.com.");
    assert_eq!(addresses(&message), ["240.240.0.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn other_names_and_types_are_left_to_upstream() {
    assert_eq!(ours("www.example.org.", RecordType::A), None);
    assert_eq!(ours("reviews.shop.svc.cluster.local.", RecordType::MX), None);
}

#[test]
fn every_query_starts_with_another_address() {
    let name = "headless.shop.svc.cluster.local.";
    let first = |id| match answer(&query(id, name, RecordType::A), &table(), &[]) {
        Answer::Ours(message) => addresses(&message)[0],
        Answer::Forward => panic!(),
    };
    assert_ne!(first(0), first(1));
    assert_eq!(first(0), first(3));
}

#[test]
fn odd_queries_are_refused() {
    let mut two = query(1, "reviews.", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("b.").unwrap(), RecordType::A));
    let mut update = query(1, "reviews.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    for (message, code) in [(two, ResponseCode::FormErr), (update, ResponseCode::NotImp)] {
        let Answer::Ours(response) = answer(&message, &table(), &search()) else { panic!() };
        assert_eq!(response.metadata.response_code, code);
    }
}

#[test]
fn resolv_conf_is_read_as_resolvers_do() {
    let conf = ResolvConf::parse(
        "# comment\nnameserver 10.96.0.10\nnameserver fd00::a ; tail\nnameserver here\n\
         domain old.example\nsearch shop.svc.cluster.local. SVC.cluster.local\noptions ndots:5\n",
    );
    let servers: Vec<_> = conf.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.96.0.10:53", "[fd00::a]:53"]);
    assert_eq!(conf.search, ["shop.svc.cluster.local", "svc.cluster.local"]);
}

proptest! {
    #[test]
    fn hostile_packets_never_panic(packet in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::from_vec(&packet) {
            let _decided = answer(&message, &table(), &search());
        }
    }
}

/// A name server that answers every question with one address, after its id is as asked.
async fn upstream() -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let reply = |packet: &[u8]| {
        let query = Message::from_vec(packet).unwrap();
        let mut response = answer::respond(&query, ResponseCode::NXDomain, Vec::new());
        response.metadata.authoritative = true;
        response.to_vec().unwrap()
    };
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let mut forged = reply(&buffer[..length]);
            forged[0] ^= 0xff;
            udp.send_to(&forged, from).await.unwrap();
            udp.send_to(&reply(&buffer[..length]), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = usize::from(stream.read_u16().await.unwrap());
            let mut packet = vec![0; length];
            stream.read_exact(&mut packet).await.unwrap();
            let bytes = reply(&packet);
            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    });
    address
}

async fn start(servers: Vec<SocketAddr>) -> (SocketAddr, CancellationToken) {
    let config = Arc::new(ArcSwap::from_pointee(Snapshot {
        names: Arc::new(table()),
        ..Snapshot::default()
    }));
    let conf = ResolvConf { servers, search: search() };
    let upstream = Upstream::new(&conf, Duration::from_millis(300), false);
    let server = Server::new(config, conf.search, upstream, TaskTracker::new());
    // A port that is free now may be taken by another test before both sockets have it.
    for _ in 0..50 {
        let free = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let end = CancellationToken::new();
        let serving = tokio::spawn(serve(Arc::clone(&server), free, end.clone()));
        while !serving.is_finished() {
            if TcpStream::connect(free).await.is_ok() && !serving.is_finished() {
                return (free, end);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("no port could be had");
}

async fn ask_udp(server: SocketAddr, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(packet, server).await.unwrap();
    let mut buffer = [0; 4096];
    let wait = Duration::from_secs(5);
    let (length, _) =
        tokio::time::timeout(wait, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn ask_tcp(stream: &mut TcpStream, packet: &[u8]) -> Message {
    stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
    stream.write_all(packet).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test]
async fn queries_are_answered_and_forwarded_over_udp_and_tcp() {
    let (server, end) = start(vec![upstream().await]).await;
    let mesh = query(11, "reviews.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    let other = query(12, "nowhere.example.", RecordType::A).to_vec().unwrap();
    assert_eq!(addresses(&ask_udp(server, &mesh).await).len(), 1);
    let answer = ask_udp(server, &other).await;
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (12, ResponseCode::NXDomain));
    let mut stream = TcpStream::connect(server).await.unwrap();
    assert_eq!(addresses(&ask_tcp(&mut stream, &mesh).await).len(), 1);
    let answer = ask_tcp(&mut stream, &other).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    end.cancel();
}

#[tokio::test]
async fn without_upstream_the_client_is_told() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (server, end) = start(vec![silent.local_addr().unwrap()]).await;
    let other = query(13, "nowhere.example.", RecordType::A).to_vec().unwrap();
    let answer = ask_udp(server, &other).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let broken = [0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xff];
    let answer = ask_udp(server, &broken).await;
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (9, ResponseCode::FormErr));
    end.cancel();
}
