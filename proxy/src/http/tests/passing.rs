//! Requests that pass: headers, bodies, connections.

use super::*;

#[test]
fn a_request_passes_and_is_recorded() {
    local(async {
        let upstream = Upstream::start(|_, _| async { ok("hello") }).await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let answer = proxy.get("x-secret: 1\r\nkeep-alive: 5\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("server: istio-envoy\r\n"), "{answer}");
        assert!(answer.contains("x-envoy-upstream-service-time: "), "{answer}");
        assert_eq!(body_of(&answer), "hello");
        let (headers, _, uri) = upstream.requests.borrow()[0].clone();
        assert_eq!((uri.as_str(), &headers["host"]), ("/x", &"reviews".parse().unwrap()));
        assert_eq!(headers["x-envoy-attempt-count"], "1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-request-id"].len(), 36);
        assert!(!headers.contains_key("keep-alive") && !headers.contains_key("connection"));
        assert!(!headers.contains_key("x-envoy-peer-metadata"), "not a cluster of the mesh");
        let seen = proxy.record().await;
        assert_eq!((seen.status, seen.flags.as_str(), seen.sent), (Some(200), "-", 5));
        assert_eq!((seen.details.as_str(), seen.attempts), ("via_upstream", 1));
        assert_eq!(seen.endpoint, Some(upstream.address));
    });
}

#[test]
fn connections_are_kept_on_both_sides() {
    local(async {
        let upstream = Upstream::start(|_, _| async { ok("hi") }).await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let mut io = TcpStream::connect(proxy.address).await.unwrap();
        for _ in 0..5 {
            io.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
            let mut text = String::new();
            while !text.ends_with("\r\n\r\nhi") {
                let mut chunk = [0; 4096];
                let count = io.read(&mut chunk).await.unwrap();
                assert_ne!(count, 0, "closed: {text}");
                text.push_str(&String::from_utf8_lossy(&chunk[..count]));
            }
        }
        assert_eq!(upstream.connections.get(), 1);
        assert_eq!(upstream.requests.borrow().len(), 5);
    });
}

#[test]
fn bodies_pass_with_length_and_chunked() {
    local(async {
        let upstream = Upstream::echo().await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let sized = "POST / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\
            content-length: 5\r\n\r\nabcde";
        assert_eq!(body_of(&proxy.talk(sized).await), "abcde");
        let chunked = "POST / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\
            transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(body_of(&proxy.talk(chunked).await), "abcde");
        for nth in 0..2 {
            let seen = proxy.nth_record(nth).await;
            assert_eq!((seen.received, seen.sent), (5, 5));
        }
    });
}

#[test]
fn a_large_body_passes_both_ways() {
    local(async {
        let upstream = Upstream::echo().await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let body = "x".repeat(3_000_000);
        let request = format!(
            "POST / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(body_of(&proxy.talk(&request).await).len(), body.len());
    });
}

#[test]
fn head_and_no_content_have_no_body() {
    local(async {
        let upstream = Upstream::start(|nth, _| async move {
            let mut response = ok(if nth == 0 { "hello" } else { "" });
            if nth == 1 {
                *response.status_mut() = ::http::StatusCode::NO_CONTENT;
            }
            response
        })
        .await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let head =
            proxy.talk("HEAD / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n").await;
        assert!(head.contains("content-length: 5\r\n") && body_of(&head).is_empty(), "{head}");
        let none = proxy.get("").await;
        assert!(none.starts_with("HTTP/1.1 204") && body_of(&none).is_empty(), "{none}");
        assert_eq!(proxy.record().await.flags, "-");
    });
}

#[test]
fn expect_continue_is_answered_by_the_proxy() {
    local(async {
        let upstream = Upstream::echo().await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let mut io = TcpStream::connect(proxy.address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: reviews\r\nexpect: 100-continue\r\n\
            connection: close\r\ncontent-length: 3\r\n\r\n";
        io.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 25];
        io.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
        io.write_all(b"abc").await.unwrap();
        let mut rest = String::new();
        io.read_to_string(&mut rest).await.unwrap();
        assert_eq!(body_of(&rest), "abc");
        assert!(!upstream.requests.borrow()[0].0.contains_key("expect"));
    });
}

#[test]
fn peers_learn_each_others_labels() {
    local(async {
        let upstream = Upstream::start(|_, _| async { ok("hi") }).await;
        let inner = Proxy::start_as(
            vec![cluster("c", &[upstream.address])],
            route_to(forward_to("c")),
            manager(),
            Direction::Inbound,
        )
        .await;
        let mut mesh = cluster("c", &[inner.address]);
        mesh.service = Some(crate::config::ServiceLabels::default());
        let outer = Proxy::start(vec![mesh], route_to(forward_to("c"))).await;
        let answer = outer.get("").await;
        assert!(!answer.contains("x-envoy-peer-metadata"), "{answer}");
        assert!(!upstream.requests.borrow()[0].0.contains_key("x-envoy-peer-metadata"));
        assert_eq!(inner.record().await.peer.as_deref(), Some("reviews-v1"));
        assert_eq!(outer.record().await.peer.as_deref(), Some("reviews-v1"));
    });
}

#[test]
fn a_change_of_endpoints_fails_no_request() {
    local(async {
        let first = Upstream::start(|_, _| async { ok("1") }).await;
        let second = Upstream::start(|_, _| async { ok("2") }).await;
        let route = || route_to(forward_to("c"));
        let proxy = Proxy::start(vec![cluster("c", &[first.address])], route()).await;
        for epoch in 2..40_u64 {
            assert!(proxy.get("").await.starts_with("HTTP/1.1 200"));
            let address = if epoch % 2 == 0 { second.address } else { first.address };
            let clusters = vec![cluster("c", &[address])];
            proxy.config.store(Arc::new(snapshot(epoch, clusters, route())));
            let answer = proxy.get("").await;
            let wanted = if epoch % 2 == 0 { "2" } else { "1" };
            assert_eq!(body_of(&answer), wanted, "{answer}");
        }
    });
}
