//! HTTP filters that run before the router, in the order of the connection manager.

use super::cors::{self, Verdict};
use super::downstream::Downstream;
use super::flags::Flags;
use super::local_reply::{FAULT_ABORT, LocalReply, RBAC_DENIED, http_of_grpc};
use super::outgoing::request_head;
use super::peer_metadata::Taken;
use super::record::Exchange;
use super::respond::Wanted;
use super::route::falls_under;
use super::session::{Judgement, Session};
use crate::config::{Abort, Cors, Direction, Fault, HttpFilter, Rbac, Route};
use http::StatusCode;
use http::request::Parts;
use std::sync::Arc;
use std::time::Duration;

/// Runs the filters; an answer ends the request here.
pub(super) async fn run(
    session: &Session,
    parts: &mut Parts,
    route: Option<&Route>,
    exchange: &mut Exchange,
    wanted: &mut Wanted,
) -> Result<(), LocalReply> {
    for filter in &session.manager.filters {
        match filter {
            HttpFilter::PeerMetadata => peer_metadata(session, parts, exchange, wanted),
            HttpFilter::Rbac(rbac) => authorize(session, rbac, parts, exchange)?,
            HttpFilter::Fault => {
                if let Some(fault) = route.and_then(|route| route.fault.as_deref()) {
                    inject(fault, exchange).await?;
                }
            }
            HttpFilter::Cors => {
                if let Some(policy) = route.and_then(|route| route.cors.as_ref()) {
                    share(policy, parts, exchange, wanted)?;
                }
            }
            // What these need is done where the upstream is known or by the sink of records.
            HttpFilter::Stats | HttpFilter::GrpcStats | HttpFilter::Alpn => {}
        }
    }
    Ok(())
}

/// Answers preflights, and remembers to mark the response.
fn share(
    policy: &Arc<Cors>,
    parts: &Parts,
    exchange: &mut Exchange,
    wanted: &mut Wanted,
) -> Result<(), LocalReply> {
    let falls = |share| falls_under(share, rand::random());
    match cors::judge(policy, &parts.method, &parts.headers, falls) {
        Verdict::Unconcerned => Ok(()),
        Verdict::Admitted(admitted) => {
            wanted.cors = Some(Box::new(admitted));
            Ok(())
        }
        Verdict::Answered(headers) => {
            exchange.note(Flags::default(), "cors_response");
            Err(LocalReply {
                headers: Some(Box::new(headers)),
                ..LocalReply::new(StatusCode::OK, "")
            })
        }
    }
}

/// Inbound: the peer's labels are read and kept from the application. Outbound: ours are added
/// once the cluster is known to be in the mesh (see [`super::forward`]).
fn peer_metadata(
    session: &Session,
    parts: &mut Parts,
    exchange: &mut Exchange,
    wanted: &mut Wanted,
) {
    let Taken { labels, both } = session.worker.peers.take(&mut parts.headers);
    if session.downstream.direction == Direction::Inbound {
        exchange.record.downstream_peer = labels;
        wanted.peer_metadata = both;
    }
}

fn authorize(
    session: &Session,
    rbac: &Rbac,
    parts: &Parts,
    exchange: &mut Exchange,
) -> Result<(), LocalReply> {
    let downstream: &Downstream = &session.downstream;
    let head = request_head(parts, downstream.scheme());
    match session.worker.authorizer.judge(rbac, &head, downstream) {
        Judgement::Pass => Ok(()),
        Judgement::Denied(policy) => {
            let policy = policy.as_deref().unwrap_or("none");
            exchange.note(Flags::default(), format!("rbac_access_denied_matched_policy[{policy}]"));
            Err(LocalReply::new(StatusCode::FORBIDDEN, RBAC_DENIED))
        }
    }
}

/// What a fault does to one request; chosen before anything is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Injection {
    delay: Option<Duration>,
    abort: Option<Abort>,
}

fn choose(fault: &Fault, first: u64, second: u64) -> Injection {
    Injection {
        delay: fault.delay.filter(|(_, share)| falls_under(*share, first)).map(|(time, _)| time),
        abort: fault.abort.filter(|(_, share)| falls_under(*share, second)).map(|(kind, _)| kind),
    }
}

async fn inject(fault: &Fault, exchange: &mut Exchange) -> Result<(), LocalReply> {
    let injection = choose(fault, rand::random(), rand::random());
    if let Some(delay) = injection.delay {
        exchange.note(Flags::DELAY_INJECTED, "");
        tokio::time::sleep(delay).await;
    }
    let Some(abort) = injection.abort else { return Ok(()) };
    exchange.note(Flags::FAULT_INJECTED, "fault_filter_abort");
    let (status, grpc_status) = match abort {
        Abort::Http(status) => (status, None),
        Abort::Grpc(code) => (http_of_grpc(code), Some(code)),
    };
    Err(LocalReply { grpc_status, ..LocalReply::new(status, FAULT_ABORT) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_fall_on_their_share() {
        let time = Duration::from_secs(7);
        let fault = Fault {
            delay: Some((time, 500_000)),
            abort: Some((Abort::Http(StatusCode::BAD_GATEWAY), 0)),
        };
        assert_eq!(choose(&fault, 499_999, 0), Injection { delay: Some(time), abort: None });
        assert_eq!(choose(&fault, 500_000, 0), Injection { delay: None, abort: None });
    }
}
