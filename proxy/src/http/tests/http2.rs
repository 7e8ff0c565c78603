//! HTTP/2 and gRPC: trailers, local answers, translation between versions.

use super::*;
use ::http::{StatusCode, Version};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::TokioExecutor;

/// One gRPC message of four bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x04ping";

/// An HTTP/2 upstream that answers like a gRPC server.
async fn grpc_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((io, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.version(), Version::HTTP_2);
                assert_eq!(request.headers()["te"], "trailers");
                assert_eq!(request.uri().authority().unwrap(), "reviews");
                let body = request.into_body().collect().await?.to_bytes();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "5".parse().unwrap());
                let frames: Vec<Result<_, hyper::Error>> =
                    vec![Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
                let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)));
                let grpc = "application/grpc".parse().unwrap();
                response.headers_mut().insert("content-type", grpc);
                Ok::<_, hyper::Error>(response)
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::task::spawn_local(async move {
                let _ended = server.serve_connection(TokioIo::new(io), service).await;
            });
        }
    });
    address
}

/// Sends one gRPC-like request over HTTP/2 by prior knowledge.
async fn call(proxy: &Proxy) -> (StatusCode, HeaderMap, Bytes, Option<HeaderMap>) {
    let io = TcpStream::connect(proxy.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
    tokio::task::spawn_local(async move {
        let _ended = connection.await;
    });
    let request = Request::post("http://reviews/shop.Reviews/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(MESSAGE)))
        .unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    (parts.status, parts.headers, collected.to_bytes(), trailers)
}

#[test]
fn grpc_passes_with_its_trailers() {
    local(async {
        let address = grpc_upstream().await;
        let proxy = Proxy::start(vec![cluster("c", &[address])], route_to(forward_to("c"))).await;
        for nth in 0..3 {
            let (status, _, body, trailers) = call(&proxy).await;
            assert_eq!((status, body.as_ref()), (StatusCode::OK, MESSAGE));
            assert_eq!(trailers.unwrap()["grpc-status"], "5");
            let seen = proxy.nth_record(nth).await;
            assert_eq!((seen.grpc, seen.flags.as_str()), (Some(5), "-"));
            assert_eq!((seen.received, seen.sent), (9, 9));
            assert_eq!(seen.messages, (1, 1));
        }
    });
}

#[test]
fn local_answers_to_grpc_carry_a_grpc_status() {
    local(async {
        let proxy =
            Proxy::start(vec![cluster("c", &[unused_port()])], route_to(forward_to("c"))).await;
        let (status, headers, _, _) = call(&proxy).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["grpc-status"], "14");
        assert!(headers["grpc-message"].to_str().unwrap().starts_with("upstream connect error"));
        assert_eq!(proxy.record().await.grpc, Some(14));
    });
}

#[test]
fn http2_goes_to_an_http1_upstream() {
    local(async {
        let upstream = Upstream::echo().await;
        let mut old = cluster("c", &[upstream.address]);
        old.http = UpstreamHttp::Http1;
        let proxy = Proxy::start(vec![old], route_to(forward_to("c"))).await;
        let (status, _, body, _) = call(&proxy).await;
        assert_eq!((status, body.as_ref()), (StatusCode::OK, MESSAGE));
        let (headers, _, uri) = upstream.requests.borrow()[0].clone();
        assert_eq!(
            (uri.as_str(), &headers["host"]),
            ("/shop.Reviews/Get", &"reviews".parse().unwrap())
        );
    });
}

#[test]
fn many_streams_share_few_upstream_connections() {
    local(async {
        let address = grpc_upstream().await;
        let proxy = Proxy::start(vec![cluster("c", &[address])], route_to(forward_to("c"))).await;
        let calls = (0..50).map(|_| call(&proxy));
        for (status, ..) in futures_util::future::join_all(calls).await {
            assert_eq!(status, StatusCode::OK);
        }
    });
}
