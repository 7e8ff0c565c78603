//! Connections that change their protocol (WebSocket): after `101` both sides carry bytes.

use super::attempt::Answer;
use super::record::Exchange;
use super::respond::{self, Edits, Wanted};
use super::response_body::ResponseBody;
use super::session::Session;
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::rc::Rc;

/// Answers `101` and carries bytes until one side ends; the exchange ends with it.
pub(super) fn switch(
    session: &Rc<Session>,
    client: OnUpgrade,
    answer: Answer,
    request: (Exchange, Wanted),
    edits: Edits<'_>,
) -> Response<ResponseBody> {
    let (mut exchange, wanted) = request;
    let (mut response, held) = answer.split(None);
    let protocol = response.headers().get(UPGRADE).cloned();
    let server = hyper::upgrade::on(&mut response);
    let mut headers = std::mem::take(response.headers_mut());
    respond::upstream_headers(session, &mut exchange, &mut headers, edits);
    let status = StatusCode::SWITCHING_PROTOCOLS;
    respond::finish_headers(session, &mut exchange, &wanted, status, &mut headers);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
    }
    let tasks = session.worker.upstreams.tasks().clone();
    tasks.spawn_local(async move {
        let _held = held;
        let (client, server) = match futures_util::future::try_join(client, server).await {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "upgrade failed");
                return;
            }
        };
        carry(client, server, &mut exchange).await;
    });
    let mut response = Response::new(ResponseBody::bare(Bytes::new()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

async fn carry(client: Upgraded, server: Upgraded, exchange: &mut Exchange) {
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    match tokio::io::copy_bidirectional(&mut client, &mut server).await {
        Ok((up, down)) => {
            exchange.record.bytes_received = up;
            exchange.record.bytes_sent = down;
            exchange.complete = true;
        }
        Err(error) => tracing::debug!(%error, "upgraded connection ended"),
    }
}
