//! What an HTTP request is answered with. Headers of the request steer it:
//! `x-echo-status: 503`, `x-echo-delay-ms: 200`, `x-echo-bytes: 1000`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};

use super::{Called, Persona, Report, client, websocket};

/// Largest body that is read.
const MAX_BODY: usize = 16 << 20;
/// Largest body that is made for `x-echo-bytes`.
const MAX_MADE: usize = 64 << 20;
/// Request headers that applications hand on to the next hop.
const HANDED_ON: [&str; 6] =
    ["x-request-id", "traceparent", "tracestate", "end-user", "cookie", "x-echo-delay-ms"];

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// Answers one request.
pub(super) async fn answer(
    persona: &Persona,
    port: u16,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes() == b"websocket") {
        return Ok(websocket::accept(&mut request));
    }
    if let Some(delay) = number(request.headers(), "x-echo-delay-ms") {
        tokio::time::sleep(Duration::from_millis(delay.min(600_000))).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(text(StatusCode::PAYLOAD_TOO_LARGE, "request body is over 16 MiB or broken"));
    };
    let body = body.to_bytes();
    if is_grpc(&head.headers) {
        return Ok(grpc(head.uri.path(), body));
    }
    if let Some(size) = number(&head.headers, "x-echo-bytes") {
        let size = usize::try_from(size).unwrap_or(MAX_MADE).min(MAX_MADE);
        return Ok(Response::new(Full::new(Bytes::from(vec![b'x'; size])).boxed()));
    }
    let mut report = describe(persona, port, peer, &head);
    report.body_bytes = body.len() as u64;
    report.called = call(persona, &head).await;
    let status = number(&head.headers, "x-echo-status")
        .and_then(|code| u16::try_from(code).ok())
        .and_then(|code| StatusCode::from_u16(code).ok())
        .unwrap_or(StatusCode::OK);
    Ok(json(status, &report))
}

fn describe(persona: &Persona, port: u16, peer: SocketAddr, head: &http::request::Parts) -> Report {
    let authority = head.uri.authority().map(ToString::to_string);
    let mut headers = flatten(&head.headers);
    if let Some(authority) = authority {
        headers.entry("host".to_owned()).or_insert(authority);
    }
    Report {
        app: persona.app.clone(),
        version: persona.version.clone(),
        pod: persona.pod.clone(),
        namespace: persona.namespace.clone(),
        port,
        protocol: format!("{:?}", head.version),
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        peer: peer.to_string(),
        headers,
        body_bytes: 0,
        called: Vec::new(),
    }
}

fn flatten(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut flat: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        flat.entry(name.as_str().to_owned())
            .and_modify(|joined| {
                joined.push(',');
                joined.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    flat
}

/// Fetches what the persona calls for every request, and what `?call=URL` asks for.
async fn call(persona: &Persona, head: &http::request::Parts) -> Vec<Called> {
    let asked = head.uri.query().into_iter().flat_map(|query| query.split('&'));
    let asked = asked.filter_map(|pair| pair.strip_prefix("call=")).map(str::to_owned);
    let mut called = Vec::new();
    for url in persona.calls.iter().cloned().chain(asked) {
        let mut headers = HeaderMap::new();
        for name in HANDED_ON {
            if let Some(value) = head.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        called.push(match client::get(&url, headers, Duration::from_secs(10)).await {
            Ok(answer) => Called {
                url,
                status: answer.status,
                answer: serde_json::from_slice(&answer.body)
                    .unwrap_or_else(|_| String::from_utf8_lossy(&answer.body).into_owned().into()),
            },
            Err(error) => Called { url, status: 0, answer: error.to_string().into() },
        });
    }
    called
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Unary echo, and the health service.
fn grpc(path: &str, body: Bytes) -> Response<Body> {
    let serving = Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]);
    let message = if path == "/grpc.health.v1.Health/Check" { serving } else { body };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn json(status: StatusCode, report: &Report) -> Response<Body> {
    let body = serde_json::to_vec(report).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(message.as_bytes())).boxed());
    *response.status_mut() = status;
    response
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
