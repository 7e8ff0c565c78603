//! One request from its arrival to its answer: sanity, route, filters, action.

use super::filters;
use super::flags::Flags;
use super::forward::{Job, Taken, forward};
use super::forwarded::{REQUEST_ID, client_address, client_cert, origin_of, request_id};
use super::headers::{is_grpc, upgrade_of};
use super::local_reply::{LocalReply, NO_ROUTE};
use super::normalize::normalize;
use super::outgoing::{canonical, request_head};
use super::overrides;
use super::record::{Exchange, RequestRecord};
use super::respond::{self, Edits, Wanted};
use super::response_body::ResponseBody;
use super::route::{Decision, choose, location};
use super::session::Session;
use crate::config::{DirectResponse, Redirect, Route, RouteAction, VirtualHost};
use crate::upstream::FrameCounter;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Answers one request.
pub(super) async fn handle(
    session: Rc<Session>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let upgrade = upgrade_of(request.headers())
        .filter(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
        .map(|protocol| (hyper::upgrade::on(&mut request), protocol));
    let (mut parts, incoming) = request.into_parts();
    let mut exchange = open(&session, &parts);
    exchange.unread = upgrade.is_some() || !incoming.is_end_stream();
    let mut wanted = Wanted { grpc: exchange.record.grpc, ..Wanted::default() };
    if let Err(reply) = check(&session, &mut parts, &mut exchange) {
        return respond::local(&session, exchange, &wanted, reply);
    }
    describe_client(&session, &mut parts, &mut exchange);
    let table = session.table();
    let head = request_head(&parts, session.downstream.scheme());
    let decision = table.as_ref().map_or(Decision::NotFound, |table| choose(table, &head));
    let taken = match decision {
        Decision::NotFound => None,
        Decision::Route(host, route) => {
            exchange.record.route = Some(Arc::clone(route));
            Some((Arc::clone(host), Arc::clone(route)))
        }
    };
    let route = taken.as_ref().map(|(_, route)| &**route);
    let passed = filters::run(&session, &mut parts, route, &mut exchange, &mut wanted).await;
    if let Err(reply) = passed {
        return respond::local(&session, exchange, &wanted, reply);
    }
    let Some((host, route)) = taken else {
        exchange.note(Flags::NO_ROUTE, "route_not_found");
        let reply = LocalReply::new(StatusCode::NOT_FOUND, NO_ROUTE);
        return respond::local(&session, exchange, &wanted, reply);
    };
    let job = Job { parts, incoming, exchange, wanted, upgrade };
    act(&session, job, &host, &route).await
}

/// Does what the route says.
async fn act(
    session: &Rc<Session>,
    job: Job,
    host: &VirtualHost,
    route: &Route,
) -> Response<ResponseBody> {
    let edits = Edits { cluster: None, route: Some(route), host: Some(host) };
    match &route.action {
        RouteAction::Forward(forwarding) => {
            if !upgrade_allowed(session, &forwarding.upgrades, job.upgrade.as_ref()) {
                return refuse_upgrade(session, job);
            }
            let taken = Taken { host, route, forward: forwarding };
            Box::pin(forward(session, job, taken)).await
        }
        RouteAction::Redirect(redirect) => redirected(session, job, redirect, (route, edits)),
        RouteAction::Respond(response) => responded(session, job, response, edits),
    }
}

fn upgrade_allowed(
    session: &Session,
    of_route: &[(String, bool)],
    upgrade: Option<&(OnUpgrade, HeaderValue)>,
) -> bool {
    let Some((_, protocol)) = upgrade else { return true };
    let is = |name: &str| protocol.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    match of_route.iter().find(|(name, _)| is(name)) {
        Some((_, enabled)) => *enabled,
        None => session.manager.upgrades.iter().any(|name| is(name)),
    }
}

fn refuse_upgrade(session: &Session, job: Job) -> Response<ResponseBody> {
    let Job { mut exchange, wanted, .. } = job;
    exchange.note(Flags::default(), "upgrade_failed");
    respond::local(session, exchange, &wanted, LocalReply::new(StatusCode::FORBIDDEN, ""))
}

fn redirected(
    session: &Session,
    job: Job,
    redirect: &Redirect,
    (route, edits): (&Route, Edits<'_>),
) -> Response<ResponseBody> {
    let Job { parts, mut exchange, wanted, .. } = job;
    let head = request_head(&parts, session.downstream.scheme());
    let mut headers = HeaderMap::with_capacity(8);
    if let Ok(value) = HeaderValue::try_from(location(redirect, route, &head)) {
        headers.insert(LOCATION, value);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    edits.apply(&mut headers);
    exchange.note(Flags::default(), "direct_response");
    respond::direct(session, exchange, &wanted, (redirect.status, headers, Bytes::new()))
}

fn responded(
    session: &Session,
    job: Job,
    response: &DirectResponse,
    edits: Edits<'_>,
) -> Response<ResponseBody> {
    let Job { mut exchange, wanted, .. } = job;
    exchange.note(Flags::default(), "direct_response");
    if wanted.grpc {
        let text = String::from_utf8_lossy(&response.body).into_owned();
        return respond::local(session, exchange, &wanted, LocalReply::new(response.status, text));
    }
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(response.body.len()));
    if !response.body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    edits.apply(&mut headers);
    let answer = (response.status, headers, response.body.clone());
    respond::direct(session, exchange, &wanted, answer)
}

/// Starts the record of a request.
fn open(session: &Rc<Session>, parts: &Parts) -> Exchange {
    let grpc = is_grpc(&parts.headers);
    let counts = grpc && session.traits.counts_messages;
    let keeps_headers = !session.manager.access_log.is_empty();
    let authority = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    };
    let record = RequestRecord {
        downstream: Rc::clone(&session.downstream),
        manager: Arc::clone(&session.manager),
        start: SystemTime::now(),
        started: Instant::now(),
        duration: Duration::ZERO,
        request_duration: None,
        response_duration: None,
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        authority,
        version: parts.version,
        grpc,
        request_headers: keeps_headers.then(|| Box::new(parts.headers.clone())),
        response_headers: None,
        status: None,
        grpc_status: None,
        flags: Flags::default(),
        details: Cow::Borrowed("via_upstream"),
        failure: None,
        bytes_received: 0,
        bytes_sent: 0,
        request_messages: 0,
        response_messages: 0,
        route: None,
        cluster: None,
        endpoint: None,
        upstream_local: None,
        upstream_tls: false,
        attempts: 0,
        downstream_peer: None,
        upstream_peer: None,
    };
    Exchange {
        record: Box::new(record),
        sink: Rc::clone(&session.worker.sink),
        _active: session.enter(),
        meter: None,
        grpc: counts.then(FrameCounter::default),
        unread: false,
        complete: false,
        after: None,
    }
}

/// Refuses what no route should see, and brings host and path into their normal form.
fn check(session: &Session, parts: &mut Parts, exchange: &mut Exchange) -> Result<(), LocalReply> {
    let mut refuse = |status: StatusCode, details: &'static str| {
        // Whoever breaks the rules here may have broken them elsewhere.
        exchange.unread = true;
        exchange.note(Flags::default(), details);
        Err(LocalReply::new(status, ""))
    };
    if parts.method == Method::CONNECT {
        return refuse(StatusCode::FORBIDDEN, "upgrade_failed");
    }
    if !canonical(parts) {
        return refuse(StatusCode::BAD_REQUEST, "invalid_or_missing_host_header");
    }
    let path = parts.uri.path();
    let whole_server = path == "*" && parts.method == Method::OPTIONS;
    if !path.starts_with('/') && !whole_server {
        return refuse(StatusCode::BAD_REQUEST, "absolute_path_rejected");
    }
    let manager = &session.manager;
    let dots = manager.normalize_path;
    let new = match normalize(path, dots, manager.merge_slashes) {
        None => return refuse(StatusCode::BAD_REQUEST, "path_normalization_failed"),
        Some(Cow::Borrowed(_)) => return Ok(()),
        Some(Cow::Owned(new)) => match parts.uri.query() {
            Some(query) => format!("{new}?{query}"),
            None => new,
        },
    };
    match PathAndQuery::try_from(new) {
        Ok(new) => {
            parts.uri = Uri::from(new);
            Ok(())
        }
        Err(_) => refuse(StatusCode::BAD_REQUEST, "path_normalization_failed"),
    }
}

/// The address by which a host knows itself; others of 127.0.0.0/8 may stand for anybody.
fn is_localhost(address: IpAddr) -> bool {
    address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST
}

/// What the upstream is told about the client, and the request's id.
fn describe_client(session: &Session, parts: &mut Parts, exchange: &mut Exchange) {
    let (manager, downstream) = (&session.manager, &session.downstream);
    client_cert(manager.client_cert, downstream, &mut parts.headers);
    let client = downstream.peer.ip();
    let shown = session.worker.address.filter(|_| is_localhost(client)).unwrap_or(client);
    let edge = manager.use_remote_address.then_some(shown);
    client_address(edge, downstream.scheme(), &mut parts.headers);
    if manager.use_remote_address {
        let internal = manager.internal_networks.iter().any(|network| network.contains(&client));
        if !internal {
            overrides::silence(&mut parts.headers);
        }
        origin_of(client, internal, &mut parts.headers);
    }
    if manager.generate_request_id && !parts.headers.contains_key(REQUEST_ID) {
        let id = request_id(rand::random());
        if let Some(kept) = &mut exchange.record.request_headers {
            kept.insert(REQUEST_ID, id.clone());
        }
        parts.headers.insert(REQUEST_ID, id);
    }
}
