//! The router: sends a request to the route's cluster, again if the policy says so, within its
//! time limits, and passes the answer on.

use super::attempt::{self, Answer, Failure, Target, attempt};
use super::flags::Flags;
use super::hash::RequestHash;
use super::headers::{apply, grpc_status, strip_hop_by_hop};
use super::local_reply::LocalReply;
use super::mirror;
use super::outgoing::{Head, request_head, rewrite};
use super::overrides;
use super::record::Exchange;
use super::respond::{self, ATTEMPT_COUNT, Edits, Wanted};
use super::response_body::{BodyLimits, IdleLimit, ResponseBody};
use super::retry::{AttemptEnd, backoff, is_marked, wants_retry};
use super::route::{choose_cluster, falls_under};
use super::session::Session;
use super::upgrade;
use crate::config::{Forward, Retry, Route, VirtualHost, WeightedCluster};
use crate::upstream::{Breaker, ClusterRuntime, Meter, PickRequest, Replayable, RequestBody, Slot};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Sleep};

const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// How much of a request body is kept for another attempt.
const RETRY_BUFFER: usize = 64 * 1024;
/// How much is kept for mirrors.
const MIRROR_BUFFER: usize = 1024 * 1024;

/// A request that has passed all filters and found its route.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) parts: Parts,
    pub(super) incoming: Incoming,
    pub(super) exchange: Exchange,
    pub(super) wanted: Wanted,
    /// The connection changes its protocol, if the upstream agrees.
    pub(super) upgrade: Option<(OnUpgrade, HeaderValue)>,
}

/// The route taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken<'r> {
    pub(super) host: &'r VirtualHost,
    pub(super) route: &'r Route,
    pub(super) forward: &'r Forward,
}

/// The body, in the form its attempts need.
#[derive(Debug)]
enum Source {
    Empty,
    Once(Option<(Incoming, Rc<Meter>)>),
    Kept(Replayable),
}

impl Source {
    fn next(&mut self) -> RequestBody {
        match self {
            Self::Empty => RequestBody::Empty,
            Self::Once(body) => body
                .take()
                .map_or(RequestBody::Empty, |(body, meter)| RequestBody::Stream(body, meter)),
            Self::Kept(kept) => kept.attempt(),
        }
    }

    fn can_repeat(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(_) => false,
            Self::Kept(kept) => kept.can_repeat(),
        }
    }
}

/// Attempts made and left.
struct Attempts<'r> {
    policy: Option<&'r Retry>,
    left: u32,
    made: u32,
    tried: Vec<SocketAddr>,
    slot: Option<Slot>,
}

/// Forwards a request and gives the answer for downstream.
pub(super) async fn forward(
    session: &Rc<Session>,
    job: Job,
    taken: Taken<'_>,
) -> Response<ResponseBody> {
    let Job { mut parts, incoming, mut exchange, mut wanted, upgrade } = job;
    let changed = overrides::take(&mut parts.headers, taken.forward);
    let taken = Taken { forward: changed.as_ref().unwrap_or(taken.forward), ..taken };
    wanted.attempt_count = taken.host.attempt_count_in_response;
    let Some(chosen) = choose_cluster(taken.forward, rand::random) else {
        return no_cluster(session, exchange, &wanted);
    };
    let Some(cluster) = session.worker.upstreams.cluster(&chosen.cluster) else {
        return no_cluster(session, exchange, &wanted);
    };
    let mut hash = prepare(session, &mut parts, &upgrade, taken, chosen);
    tell_peer(session, &cluster, &mut parts);
    exchange.record.cluster = Some(cluster.config());
    let mut source = body_source(incoming, taken.forward, upgrade.is_some(), &mut exchange);
    if matches!(source, Source::Empty) && upgrade.is_none() {
        say_empty(&mut parts);
    }
    plan_mirrors(session, &parts, taken.forward, &source, &mut exchange);
    let mut deadline = taken.forward.timeout.map(|limit| Box::pin(tokio::time::sleep(limit)));
    let plan =
        Plan { session, cluster: &cluster, taken, hash: hash.value, upgrade: upgrade.is_some() };
    let head = Head { method: parts.method, uri: parts.uri, headers: parts.headers };
    let meter = exchange.meter.clone();
    let run = plan.run(head, &mut source, &mut exchange, &mut deadline);
    let got = match idle_limit(session, taken.forward) {
        None => run.await,
        Some(limit) => tokio::select! {
            biased;
            got = run => got,
            ended = quiet(meter, limit) => Err(attempt::idle_timeout(ended)),
        },
    };
    let edits = Edits { cluster: Some(chosen), route: Some(taken.route), host: Some(taken.host) };
    match got {
        Ok((mut answer, slot)) => {
            hash.add_cookie(answer.response.headers_mut());
            if let Some((client, _)) = upgrade
                && answer.response.status() == StatusCode::SWITCHING_PROTOCOLS
            {
                return upgrade::switch(session, client, answer, (exchange, wanted), edits);
            }
            let limits = body_limits(session, taken.forward, deadline);
            let (response, held) = answer.split(slot);
            respond::upstream(session, exchange, &wanted, (response, held, limits), edits)
        }
        Err(failure) => {
            exchange.note(failure.flags, failure.details);
            exchange.record.failure = failure.reason;
            respond::local(session, exchange, &wanted, failure.reply)
        }
    }
}

fn no_cluster(
    session: &Session,
    mut exchange: Exchange,
    wanted: &Wanted,
) -> Response<ResponseBody> {
    exchange.note(Flags::NO_CLUSTER, "cluster_not_found");
    let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "");
    respond::local(session, exchange, wanted, reply)
}

/// Makes the head ready for upstream; gives the request's hash.
fn prepare(
    session: &Session,
    parts: &mut Parts,
    upgrade: &Option<(OnUpgrade, HeaderValue)>,
    taken: Taken<'_>,
    chosen: &WeightedCluster,
) -> RequestHash {
    strip_hop_by_hop(&mut parts.headers);
    if let Some((_, protocol)) = upgrade {
        parts.headers.insert(UPGRADE, protocol.clone());
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let hash = if taken.forward.hash_policy.is_empty() {
        RequestHash::default()
    } else {
        let head = request_head(parts, session.downstream.scheme());
        RequestHash::new(&taken.forward.hash_policy, &head, &session.downstream, rand::random())
    };
    apply(&chosen.headers.request, &mut parts.headers);
    apply(&taken.route.headers.request, &mut parts.headers);
    apply(&taken.host.headers.request, &mut parts.headers);
    rewrite(parts, taken.forward, taken.route);
    if let Some(timeout) = taken.forward.timeout {
        let value = super::forwarded::milliseconds(timeout.as_millis());
        parts.headers.insert(EXPECTED_TIMEOUT, value);
    }
    hash
}

/// Peers in the mesh learn who we are; anyone else does not.
fn tell_peer(session: &Session, cluster: &ClusterRuntime, parts: &mut Parts) {
    if !session.traits.tells_peers {
        return;
    }
    let in_mesh = cluster.config().service.as_ref().is_some_and(|service| !service.external);
    if let Some(local) = &session.worker.local
        && in_mesh
    {
        local.add_to(&mut parts.headers);
    }
}

fn body_source(
    incoming: Incoming,
    forward: &Forward,
    upgrade: bool,
    exchange: &mut Exchange,
) -> Source {
    if upgrade || incoming.is_end_stream() {
        return Source::Empty;
    }
    let meter = Rc::new(Meter::default());
    meter.grpc.set(exchange.grpc);
    exchange.meter = Some(Rc::clone(&meter));
    let limit = if forward.mirrors.is_empty() {
        forward.retry.as_ref().filter(|retry| retry.retries > 0).map(|_| RETRY_BUFFER)
    } else {
        Some(MIRROR_BUFFER)
    };
    match limit {
        Some(limit) => Source::Kept(Replayable::new(incoming, meter, limit)),
        None => Source::Once(Some((incoming, meter))),
    }
}

/// A method that usually has a body says so when it has none.
fn say_empty(parts: &mut Parts) {
    let bodiless = [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE, Method::CONNECT];
    if parts.version < Version::HTTP_2 && !bodiless.contains(&parts.method) {
        parts.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
}

fn plan_mirrors(
    session: &Session,
    parts: &Parts,
    forward: &Forward,
    source: &Source,
    exchange: &mut Exchange,
) {
    let clusters: Vec<(Arc<str>, bool)> = forward
        .mirrors
        .iter()
        .filter(|mirror| falls_under(mirror.fraction_ppm, rand::random()))
        .map(|mirror| (Arc::clone(&mirror.cluster), mirror.keeps_host))
        .collect();
    if clusters.is_empty() || parts.method == Method::CONNECT {
        return;
    }
    let body = match source {
        Source::Kept(kept) => Some(kept.clone()),
        Source::Empty | Source::Once(_) => None,
    };
    exchange.after = Some(mirror::Pending {
        upstreams: Rc::clone(&session.worker.upstreams),
        clusters,
        address: session.worker.address,
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        headers: parts.headers.clone(),
        body,
    });
}

fn body_limits(
    session: &Session,
    forward: &Forward,
    deadline: Option<Pin<Box<Sleep>>>,
) -> BodyLimits {
    BodyLimits { deadline, idle: idle_limit(session, forward).map(IdleLimit::new) }
}

/// How long nothing may pass; the route's word counts before the manager's.
fn idle_limit(session: &Session, forward: &Forward) -> Option<Duration> {
    let limit = forward.idle_timeout.or(session.manager.stream_idle_timeout);
    limit.filter(|limit| !limit.is_zero())
}

/// Ends when nothing of the request has passed for `limit`; tells whether all of it had.
async fn quiet(meter: Option<Rc<Meter>>, limit: Duration) -> bool {
    let mut last = std::time::Instant::now();
    loop {
        tokio::time::sleep_until(Instant::from_std(last + limit)).await;
        let Some(meter) = &meter else { return true };
        match meter.last.get() {
            Some(moved) if moved > last => last = moved,
            _ => return meter.is_ended(),
        }
    }
}

/// Everything about a request that its attempts share.
struct Plan<'r> {
    session: &'r Rc<Session>,
    cluster: &'r Rc<ClusterRuntime>,
    taken: Taken<'r>,
    hash: Option<u64>,
    upgrade: bool,
}

type Deadline = Option<Pin<Box<Sleep>>>;

impl Plan<'_> {
    async fn run(
        &self,
        head: Head,
        source: &mut Source,
        exchange: &mut Exchange,
        deadline: &mut Deadline,
    ) -> Result<(Answer, Option<Slot>), Failure> {
        let policy = self.taken.forward.retry.as_deref().filter(|retry| retry.retries > 0);
        let left = policy.map_or(0, |retry| retry.retries);
        let mut attempts = Attempts { policy, left, made: 0, tried: Vec::new(), slot: None };
        let mut kept = None;
        let mut request = Self::fresh(head, source, &attempts, &mut kept);
        loop {
            attempts.made += 1;
            exchange.record.attempts = attempts.made;
            if self.taken.host.attempt_count {
                request.headers_mut().insert(ATTEMPT_COUNT, HeaderValue::from(attempts.made));
            }
            let mut ended = self.once(request, exchange, deadline, &mut attempts).await;
            let unsent = ended.as_mut().err().and_then(|failure| failure.unsent.take());
            let repeatable = unsent.is_some() || (kept.is_some() && source.can_repeat());
            let Some(pause) = self.pause(&ended, &mut attempts, repeatable, exchange) else {
                return ended.map(|answer| (answer, attempts.slot));
            };
            drop(ended);
            if !sleep_within(pause, deadline).await {
                return Err(attempt::route_timeout());
            }
            request = match (unsent, kept.take()) {
                (Some(unsent), head) => {
                    kept = head;
                    *unsent
                }
                (None, Some(head)) => Self::fresh(head, source, &attempts, &mut kept),
                (None, None) => return Err(attempt::route_timeout()),
            };
        }
    }

    /// A request from its head; the head is kept where another may be made.
    fn fresh(
        head: Head,
        source: &mut Source,
        attempts: &Attempts<'_>,
        kept: &mut Option<Head>,
    ) -> Request<RequestBody> {
        *kept = (attempts.left > 0 && source.can_repeat()).then(|| head.clone());
        head.request(source.next())
    }

    async fn once(
        &self,
        request: Request<RequestBody>,
        exchange: &mut Exchange,
        deadline: &mut Deadline,
        attempts: &mut Attempts<'_>,
    ) -> Result<Answer, Failure> {
        let downstream = &self.session.downstream;
        let avoids = attempts.policy.is_some_and(|policy| policy.avoid_previous_hosts);
        let mut tried = None;
        let pick = PickRequest {
            hash: self.hash,
            avoid: if avoids { &attempts.tried } else { &[] },
            original_dst: Some(downstream.destination()),
        };
        let configured = self.cluster.config().http;
        let target = Target {
            cluster: self.cluster,
            pick,
            version: attempt::version(configured, exchange.record.version, self.upgrade),
            mesh_alpn: self.session.traits.mesh_alpn,
            per_try: attempts.policy.and_then(|policy| policy.per_try_timeout),
        };
        let meter = exchange.meter.clone();
        let work = attempt(target, request, &mut exchange.record, &mut tried);
        let ended = match deadline {
            None => work.await,
            Some(timer) => {
                let limit = self.taken.forward.timeout.unwrap_or_default();
                tokio::select! {
                    ended = work => ended,
                    () = expire(timer, meter.as_deref(), limit) => Err(attempt::route_timeout()),
                }
            }
        };
        attempts.tried.extend(tried);
        ended
    }

    /// Decides about another attempt: how long to wait for it, or `None` to take what is there.
    fn pause(
        &self,
        ended: &Result<Answer, Failure>,
        attempts: &mut Attempts<'_>,
        repeatable: bool,
        exchange: &mut Exchange,
    ) -> Option<Duration> {
        let policy = attempts.policy?;
        let end = match ended {
            Ok(answer) if is_marked(policy, answer.response.headers()) => AttemptEnd::Marked,
            Ok(answer) => AttemptEnd::Answer {
                status: answer.response.status(),
                grpc_status: grpc_status(answer.response.headers()),
            },
            Err(failure) => failure.end?,
        };
        if !wants_retry(policy, end) {
            return None;
        }
        if attempts.left == 0 {
            exchange.record.flags.add(Flags::RETRY_LIMIT);
            return None;
        }
        if !repeatable {
            return None;
        }
        attempts.slot = None;
        match self.cluster.take(Breaker::Retries) {
            Ok(slot) => attempts.slot = Some(slot),
            Err(_) => {
                exchange.record.flags.add(Flags::UPSTREAM_OVERFLOW);
                return None;
            }
        }
        let nth = policy.retries - attempts.left + 1;
        attempts.left -= 1;
        Some(backoff(policy, nth, rand::random()))
    }
}

/// Ends when the route's time is up; it runs from the end of the request body.
async fn expire(timer: &mut Pin<Box<Sleep>>, meter: Option<&Meter>, limit: Duration) {
    loop {
        timer.as_mut().await;
        let Some(meter) = meter else { return };
        let end = match meter.ended_at.get() {
            Some(ended) => Instant::from_std(ended) + limit,
            None => Instant::now() + limit,
        };
        if end <= Instant::now() {
            return;
        }
        timer.as_mut().reset(end);
    }
}

async fn sleep_within(pause: Duration, deadline: &mut Deadline) -> bool {
    match deadline {
        None => {
            tokio::time::sleep(pause).await;
            true
        }
        Some(timer) => tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = timer.as_mut() => false,
        },
    }
}
