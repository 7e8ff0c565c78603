//! Filters, direct answers, mirrors, upgrades, drain.

use super::*;
use crate::config::{
    Abort, DirectResponse, Fault, HeaderEdit, HeaderOps, Mirror, PathRewrite, RbacAction, Redirect,
};
use ::http::{HeaderName, HeaderValue, StatusCode};

#[test]
fn faults_delay_and_answer() {
    local(async {
        let mut route = route_to(forward_to("c"));
        route.fault = Some(Arc::new(Fault {
            delay: Some((Duration::from_millis(80), 1_000_000)),
            abort: Some((Abort::Http(StatusCode::IM_A_TEAPOT), 1_000_000)),
        }));
        let proxy = Proxy::start(Vec::new(), route).await;
        let started = std::time::Instant::now();
        let answer = proxy.get("").await;
        assert!(started.elapsed() >= Duration::from_millis(80));
        assert!(answer.starts_with("HTTP/1.1 418"), "{answer}");
        assert_eq!(body_of(&answer), "fault filter abort");
        let seen = proxy.record().await;
        assert_eq!((seen.flags.as_str(), seen.details.as_str()), ("DI,FI", "fault_filter_abort"));
    });
}

#[test]
fn authorization_refuses() {
    local(async {
        let upstream = Upstream::start(|_, _| async { ok("in") }).await;
        let rbac = Rbac {
            action: RbacAction::Deny,
            policies: Vec::new(),
            shadow: false,
            stat_prefix: "".into(),
        };
        let manager = HttpManager { filters: vec![HttpFilter::Rbac(Arc::new(rbac))], ..manager() };
        let proxy = Proxy::start_as(
            vec![cluster("c", &[upstream.address])],
            route_to(forward_to("c")),
            manager,
            Direction::Inbound,
        )
        .await;
        assert_eq!(body_of(&proxy.get("").await), "in");
        let answer = proxy.get("x-deny: 1\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert_eq!(body_of(&answer), "RBAC: access denied");
        let details = proxy.nth_record(1).await.details;
        assert_eq!(details, "rbac_access_denied_matched_policy[ns[shop]-policy[deny]-rule[0]]");
    });
}

#[test]
fn routes_answer_and_redirect_by_themselves() {
    local(async {
        let mut route = route_to(forward_to("c"));
        route.action = RouteAction::Respond(DirectResponse {
            status: StatusCode::BAD_GATEWAY,
            body: Bytes::from_static(b"blocked"),
        });
        let proxy = Proxy::start(Vec::new(), route).await;
        let answer = proxy.get("").await;
        assert!(answer.starts_with("HTTP/1.1 502") && body_of(&answer) == "blocked", "{answer}");
        let mut route = route_to(forward_to("c"));
        route.action = RouteAction::Redirect(Redirect {
            strip_query: false,
            host: Some("new.test".into()),
            path: None,
            prefix_rewrite: None,
            scheme: None,
            port: None,
            status: StatusCode::FOUND,
        });
        let proxy = Proxy::start(Vec::new(), route).await;
        let answer = proxy.get("").await;
        assert!(answer.contains("location: http://new.test/x\r\n"), "{answer}");
    });
}

#[test]
fn routes_change_path_host_and_headers() {
    local(async {
        let upstream = Upstream::start(|_, _| async { ok("hi") }).await;
        let edit = |name, value| HeaderEdit {
            set: vec![(HeaderName::from_static(name), HeaderValue::from_static(value))],
            ..HeaderEdit::default()
        };
        let mut forward = forward_to("c");
        forward.rewrite = Some(PathRewrite::Prefix("/api/".into()));
        forward.host_rewrite = Some(HeaderValue::from_static("inner"));
        let mut route = route_to(forward);
        route.headers = HeaderOps { request: edit("x-in", "1"), response: edit("x-out", "2") };
        let proxy = Proxy::start(vec![cluster("c", &[upstream.address])], route).await;
        let answer = proxy.get("").await;
        assert!(answer.contains("x-out: 2\r\n"), "{answer}");
        let (headers, _, uri) = upstream.requests.borrow()[0].clone();
        assert_eq!((uri.as_str(), &headers["host"]), ("/api/x", &"inner".parse().unwrap()));
        assert_eq!(headers["x-in"], "1");
        assert_eq!(headers["x-envoy-original-path"], "/x");
    });
}

#[test]
fn mirrors_get_a_copy() {
    local(async {
        let main = Upstream::echo().await;
        let shadow = Upstream::echo().await;
        let mut forward = forward_to("main");
        forward.mirrors =
            vec![Mirror { cluster: "shadow".into(), fraction_ppm: 1_000_000, keeps_host: false }];
        let clusters = vec![cluster("main", &[main.address]), cluster("shadow", &[shadow.address])];
        let proxy = Proxy::start(clusters, route_to(forward)).await;
        let request = "POST /m HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\
            content-length: 5\r\n\r\nabcde";
        assert_eq!(body_of(&proxy.talk(request).await), "abcde");
        while shadow.requests.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (headers, body, uri) = shadow.requests.borrow()[0].clone();
        assert_eq!((body.as_ref(), uri.as_str()), (b"abcde".as_slice(), "/m"));
        assert_eq!(headers["host"], "reviews-shadow");
    });
}

#[test]
fn websockets_carry_bytes() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (mut io, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = io.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..count]).to_ascii_lowercase();
            assert!(text.contains("upgrade: websocket"), "{text}");
            assert!(text.contains("connection: upgrade"), "{text}");
            let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                upgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";
            io.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = io.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        let proxy = Proxy::start(vec![cluster("c", &[address])], route_to(forward_to("c"))).await;
        let mut io = TcpStream::connect(proxy.address).await.unwrap();
        let request = "GET /ws HTTP/1.1\r\nhost: reviews\r\nconnection: Upgrade\r\n\
            upgrade: websocket\r\nsec-websocket-key: k\r\n\r\n";
        io.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(io.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("sec-websocket-accept: x"), "{head}");
        io.write_all(b"ping").await.unwrap();
        let mut echoed = [0; 4];
        io.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"ping");
        drop(io);
        let seen = proxy.record().await;
        assert_eq!((seen.status, seen.received, seen.sent), (Some(101), 4, 4));
    });
}

#[test]
fn upgrades_that_are_not_configured_are_refused() {
    local(async {
        let proxy = Proxy::start(Vec::new(), route_to(forward_to("c"))).await;
        let request = "GET / HTTP/1.1\r\nhost: reviews\r\nconnection: Upgrade, close\r\n\
            upgrade: other\r\n\r\n";
        let answer = proxy.talk(request).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    });
}

#[test]
fn a_drain_ends_connections_after_their_requests() {
    local(async {
        let upstream = Upstream::start(|_, _| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            ok("done")
        })
        .await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let mut busy = TcpStream::connect(proxy.address).await.unwrap();
        busy.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
        let mut idle = TcpStream::connect(proxy.address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.drain.cancel();
        let mut nothing = Vec::new();
        idle.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty());
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close"), "{answer}");
        assert_eq!(body_of(&answer), "done");
    });
}

/// The connection stands, its first request is still on the way when the drain begins; or the drain
/// had begun before the client came.
#[test]
fn a_first_request_that_meets_a_drain_is_answered() {
    local(async {
        let upstream = Upstream::start(|_, _| async { ok("done") }).await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let request = b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n";
        let mut before = TcpStream::connect(proxy.address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.drain.cancel();
        let mut after = TcpStream::connect(proxy.address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        for client in [&mut before, &mut after] {
            client.write_all(request).await.unwrap();
        }
        for client in [&mut before, &mut after] {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
            assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
        }
    });
}

#[test]
fn a_request_that_meets_a_drain_is_answered() {
    local(async {
        let upstream = Upstream::start(|_, _| async { ok("done") }).await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut first = [0; 15];
        client.read_exact(&mut first).await.unwrap();
        proxy.drain.cancel();
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.write_all(request).await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        let (_, second) = rest.split_once("HTTP/1.1 200").unwrap();
        assert!(second.contains("connection: close") && second.ends_with("done"), "{rest}");
    });
}

/// Nor does a client that agreed on HTTP/2 and says nothing hold a drain, or its connection.
#[test]
fn a_silent_client_of_http2_is_let_go() {
    local(async {
        for drains in [true, false] {
            let agreed = DownstreamTls { alpn: Some(b"h2".to_vec()), ..DownstreamTls::default() };
            let idle_timeout = (!drains).then_some(Duration::from_millis(100));
            let proxy = Proxy::start_over(
                Some(agreed),
                Vec::new(),
                route_to(forward_to("c")),
                HttpManager { idle_timeout, ..manager() },
                Direction::Inbound,
            )
            .await;
            let mut silent = TcpStream::connect(proxy.address).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            if drains {
                proxy.drain.cancel();
            }
            let mut nothing = Vec::new();
            let end = silent.read_to_end(&mut nothing);
            tokio::time::timeout(Duration::from_secs(10), end).await.unwrap().unwrap();
            assert!(nothing.is_empty(), "drains: {drains}");
        }
    });
}

#[test]
fn an_idle_connection_is_closed() {
    local(async {
        let upstream = Upstream::start(|_, _| async { ok("hi") }).await;
        let manager = HttpManager { idle_timeout: Some(Duration::from_millis(100)), ..manager() };
        let proxy = Proxy::start_as(
            vec![cluster("c", &[upstream.address])],
            route_to(forward_to("c")),
            manager,
            Direction::Outbound,
        )
        .await;
        let request = "GET / HTTP/1.1\r\nhost: reviews\r\n\r\n";
        assert_eq!(body_of(&proxy.talk(request).await), "hi", "closed without being asked");
    });
}
