//! Requests that fail: what the client sees, what the record says, what is tried again.

use super::*;
use crate::config::{Retry, RetryOn};
use ::http::StatusCode;

fn retry(on: RetryOn) -> Option<Arc<Retry>> {
    Some(Arc::new(Retry {
        headers: Vec::new(),
        on,
        retries: 2,
        per_try_timeout: None,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        status_codes: vec![StatusCode::SERVICE_UNAVAILABLE],
        avoid_previous_hosts: true,
    }))
}

#[test]
fn each_failure_has_its_words_and_flags() {
    local(async {
        let closed = unused_port();
        let clusters = || vec![cluster("closed", &[closed]), cluster("empty", &[])];
        for (target, extra, status, body, flags) in [
            ("closed", "", 503, "upstream connect error or disconnect/reset before headers", "UF"),
            ("empty", "", 503, "no healthy upstream", "UH"),
            ("unknown", "", 503, "", "NC"),
        ] {
            let proxy = Proxy::start(clusters(), route_to(forward_to(target))).await;
            let answer = proxy.get(extra).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(body_of(&answer).starts_with(body), "{answer}");
            assert_eq!(answer.contains("x-not-delivered: true"), flags == "UF", "{answer}");
            assert_eq!(proxy.record().await.flags, flags, "{target}");
        }
    });
}

#[test]
fn no_route_is_404() {
    local(async {
        let proxy = Proxy::start(Vec::new(), route_to(forward_to("c"))).await;
        let answer = proxy.talk("GET / HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let seen = proxy.record().await;
        assert_eq!((seen.flags.as_str(), seen.details.as_str()), ("NR", "route_not_found"));
    });
}

#[test]
fn requests_that_could_smuggle_are_refused() {
    local(async {
        let upstream = Upstream::echo().await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        for (request, status) in [
            ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", "400"),
            ("CONNECT reviews:80 HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n", "403"),
            (
                "POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 1\r\ncontent-length: 2\r\n\
              connection: close\r\n\r\nab",
                "400",
            ),
        ] {
            let answer = proxy.talk(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer}");
        }
        assert_eq!(upstream.requests.borrow().len(), 0);
        let both = "POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 50\r\n\
            transfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let answer = proxy.talk(both).await;
        if answer.starts_with("HTTP/1.1 200") {
            let (headers, body, _) = upstream.requests.borrow()[0].clone();
            assert!(!headers.contains_key("content-length"), "one framing only: {headers:?}");
            assert_eq!(body, "abc");
        } else {
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
    });
}

#[test]
fn a_status_is_tried_again_with_its_body() {
    local(async {
        let upstream = Upstream::start(|nth, body| async move {
            let mut response = Response::new(Full::new(body));
            if nth < 2 {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        })
        .await;
        let mut forward = forward_to("c");
        forward.retry = retry(RetryOn { status_codes: true, ..RetryOn::default() });
        let proxy = Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward)).await;
        let request = "POST / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\
            content-length: 5\r\n\r\nabcde";
        let answer = proxy.talk(request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(body_of(&answer), "abcde");
        assert!(upstream.requests.borrow().iter().all(|(_, body, _)| body == "abcde"));
        assert_eq!(upstream.requests.borrow()[2].0["x-envoy-attempt-count"], "3");
        let seen = proxy.record().await;
        assert_eq!((seen.attempts, seen.flags.as_str(), seen.received), (3, "-", 5));
    });
}

#[test]
fn retries_end_and_the_last_answer_is_passed_on() {
    local(async {
        let upstream = Upstream::start(|_, _| async {
            let mut response = ok("down");
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        })
        .await;
        let mut forward = forward_to("c");
        forward.retry = retry(RetryOn { status_codes: true, ..RetryOn::default() });
        let proxy = Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward)).await;
        let answer = proxy.get("").await;
        assert!(answer.starts_with("HTTP/1.1 503") && body_of(&answer) == "down", "{answer}");
        assert_eq!(upstream.requests.borrow().len(), 3);
        assert_eq!(proxy.record().await.flags, "URX");
    });
}

#[test]
fn a_dead_endpoint_is_left_for_a_live_one() {
    local(async {
        let upstream = Upstream::start(|_, _| async { ok("alive") }).await;
        let mut forward = forward_to("c");
        forward.retry = retry(RetryOn { connect_failure: true, ..RetryOn::default() });
        let both = cluster("c", &[unused_port(), upstream.address]);
        let proxy = Proxy::start(vec![both], route_to(forward)).await;
        for _ in 0..6 {
            assert_eq!(body_of(&proxy.get("").await), "alive");
        }
    });
}

#[test]
fn a_route_timeout_is_504() {
    local(async {
        let upstream = Upstream::start(|_, _| async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            ok("late")
        })
        .await;
        let mut forward = forward_to("c");
        forward.timeout = Some(Duration::from_millis(50));
        let proxy = Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward)).await;
        let answer = proxy.get("").await;
        assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
        assert_eq!(body_of(&answer), "upstream request timeout");
        let seen = proxy.record().await;
        assert_eq!((seen.flags.as_str(), seen.details.as_str()), ("UT", "response_timeout"));
        assert_eq!(upstream.requests.borrow()[0].0["x-envoy-expected-rq-timeout-ms"], "50");
    });
}

#[test]
fn a_per_try_timeout_is_tried_again() {
    local(async {
        let upstream = Upstream::start(|nth, _| async move {
            if nth == 0 {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            ok("in time")
        })
        .await;
        let mut policy =
            Retry::clone(&retry(RetryOn { status_5xx: true, ..Default::default() }).unwrap());
        policy.per_try_timeout = Some(Duration::from_millis(50));
        let mut forward = forward_to("c");
        forward.retry = Some(Arc::new(policy));
        let proxy = Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward)).await;
        assert_eq!(body_of(&proxy.get("").await), "in time");
        assert_eq!(proxy.record().await.attempts, 2);
    });
}

#[test]
fn a_connection_closed_while_idle_is_replaced() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((mut io, _)) = listener.accept().await {
                let mut request = [0; 4096];
                assert_ne!(io.read(&mut request).await.unwrap(), 0);
                // Says keep-alive, then closes all the same.
                io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
            }
        });
        let proxy = Proxy::start(vec![cluster("c", &[address])], route_to(forward_to("c"))).await;
        for _ in 0..10 {
            let answer = proxy.get("").await;
            assert_eq!(body_of(&answer), "hi", "{answer}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
}

#[test]
fn an_upstream_that_leaves_before_answering_is_uc() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((mut io, _)) = listener.accept().await {
                let mut request = [0; 4096];
                assert_ne!(io.read(&mut request).await.unwrap(), 0);
            }
        });
        let proxy = Proxy::start(vec![cluster("c", &[address])], route_to(forward_to("c"))).await;
        let answer = proxy.get("").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("reset reason: connection termination"), "{answer}");
        assert_eq!(proxy.record().await.flags, "UC");
    });
}

#[test]
fn a_client_that_leaves_is_recorded() {
    local(async {
        let upstream = Upstream::start(|_, _| async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            ok("late")
        })
        .await;
        let proxy =
            Proxy::start(vec![cluster("c", &[upstream.address])], route_to(forward_to("c"))).await;
        let mut io = TcpStream::connect(proxy.address).await.unwrap();
        io.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
        while upstream.requests.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(io);
        let seen = proxy.record().await;
        assert_eq!((seen.status, seen.flags.as_str()), (None, "DC"));
    });
}

#[test]
fn an_open_circuit_breaker_refuses() {
    local(async {
        let upstream = Upstream::start(|_, _| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            ok("done")
        })
        .await;
        let mut limited = cluster("c", &[upstream.address]);
        limited.limits.max_requests = 1;
        let proxy = Proxy::start(vec![limited], route_to(forward_to("c"))).await;
        let (first, second) = tokio::join!(proxy.get(""), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            proxy.get("").await
        });
        assert_eq!(body_of(&first), "done");
        assert!(second.starts_with("HTTP/1.1 503") && second.contains("overflow"), "{second}");
        assert_eq!(proxy.record().await.flags, "UO");
        assert_eq!(body_of(&proxy.get("").await), "done", "the slot came back");
    });
}
