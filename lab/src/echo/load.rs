//! Many requests, counted: what was answered, by whom, how fast, and what failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Report;
use super::client::{Answer, Call, ClientError, Connection};

/// How many failures are told in words.
const FAILURES_TOLD: usize = 10;

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests in all; 0 is without limit.
    pub count: u64,
    /// Time after which no more are sent.
    pub seconds: Option<Duration>,
    /// Requests at once.
    pub concurrency: usize,
    /// Pause between the requests of one connection.
    pub pause: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Requests sent.
    pub requests: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// The first failures, with the time (ms since the epoch).
    pub failures: Vec<String>,
    /// Answers by status code.
    pub status: BTreeMap<u16, u64>,
    /// Answers by version of the answering application.
    pub versions: BTreeMap<String, u64>,
    /// Answers by pod.
    pub pods: BTreeMap<String, u64>,
    /// When each version first answered, ms since the epoch.
    pub first_seen: BTreeMap<String, u64>,
    /// When each version last answered, ms since the epoch.
    pub last_seen: BTreeMap<String, u64>,
    /// Median latency in microseconds.
    pub p50_us: u64,
    /// 99th percentile in microseconds.
    pub p99_us: u64,
    /// Duration in milliseconds.
    pub millis: u64,
    /// Status of the last answer, 0 if there was none.
    pub last_status: u16,
    /// Headers of the last answer.
    pub last_headers: BTreeMap<String, String>,
    /// Body of the last answer, at most 4 MiB of it.
    pub last_body: String,
    #[serde(skip)]
    latencies: Vec<u64>,
}

impl Summary {
    fn answer(&mut self, answer: &Answer, latency: Duration) {
        *self.status.entry(answer.status).or_default() += 1;
        self.latencies.push(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        self.last_status = answer.status;
        if let Ok(report) = serde_json::from_slice::<Report>(&answer.body) {
            let now = epoch_millis();
            *self.versions.entry(report.version.clone()).or_default() += 1;
            *self.pods.entry(report.pod).or_default() += 1;
            self.first_seen.entry(report.version.clone()).or_insert(now);
            self.last_seen.insert(report.version, now);
        }
    }

    fn failure(&mut self, error: &ClientError) {
        self.failed += 1;
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(format!("{} {error}", epoch_millis()));
        }
    }

    fn remember(&mut self, answer: &Answer) {
        self.last_headers = answer
            .headers
            .iter()
            .chain(answer.trailers.iter())
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let shown = answer.body.get(..answer.body.len().min(4 << 20)).unwrap_or_default();
        self.last_body = String::from_utf8_lossy(shown).into_owned();
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_TOLD);
        for (status, count) in other.status {
            *self.status.entry(status).or_default() += count;
        }
        for (version, count) in other.versions {
            *self.versions.entry(version).or_default() += count;
        }
        for (pod, count) in other.pods {
            *self.pods.entry(pod).or_default() += count;
        }
        for (version, at) in other.first_seen {
            let first = self.first_seen.entry(version).or_insert(at);
            *first = at.min(*first);
        }
        for (version, at) in other.last_seen {
            let last = self.last_seen.entry(version).or_insert(at);
            *last = at.max(*last);
        }
        self.latencies.extend(other.latencies);
        if other.last_status != 0 {
            self.last_status = other.last_status;
            self.last_headers = other.last_headers;
            self.last_body = other.last_body;
        }
    }

    fn finish(&mut self, millis: u64) {
        self.latencies.sort_unstable();
        let at = |share: usize| {
            let index = self.latencies.len().saturating_sub(1) * share / 100;
            self.latencies.get(index).copied().unwrap_or_default()
        };
        (self.p50_us, self.p99_us, self.millis) = (at(50), at(99), millis);
    }
}

/// Sends `call` again and again until all is sent or `stop`, with one connection for each unit of
/// concurrency.
pub async fn run(call: Call, load: Load, stop: &CancellationToken) -> Summary {
    let started = Instant::now();
    let sent = Arc::new(AtomicU64::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..load.concurrency.max(1) {
        let more = More { load, sent: Arc::clone(&sent), started, stop: stop.clone() };
        senders.spawn(send(call.clone(), more));
    }
    let mut summary = Summary::default();
    while let Some(part) = senders.join_next().await {
        summary.add(part.unwrap_or_default());
    }
    summary.finish(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    summary
}

/// Whether there is more to send: one question for all connections.
struct More {
    load: Load,
    sent: Arc<AtomicU64>,
    started: Instant,
    stop: CancellationToken,
}

impl More {
    fn take(&self) -> bool {
        let sent = self.sent.fetch_add(1, Ordering::Relaxed);
        let more = self.load.count == 0 || sent < self.load.count;
        let in_time = self.load.seconds.is_none_or(|limit| self.started.elapsed() < limit);
        more && in_time && !self.stop.is_cancelled()
    }
}

async fn send(call: Call, more: More) -> Summary {
    let load = more.load;
    let mut summary = Summary::default();
    let mut connection: Option<Connection> = None;
    let mut last = None;
    while more.take() {
        summary.requests += 1;
        let begun = Instant::now();
        let exchange = one(&mut connection, &call);
        let limit =
            ClientError::Timeout { authority: call.authority().to_owned(), after: load.timeout };
        match tokio::time::timeout(load.timeout, exchange).await.unwrap_or(Err(limit)) {
            Ok(answer) => {
                summary.answer(&answer, begun.elapsed());
                last = Some(answer);
            }
            Err(error) => {
                summary.failure(&error);
                connection = None;
            }
        }
        if !load.pause.is_zero() {
            tokio::time::sleep(load.pause).await;
        }
    }
    if let Some(answer) = last {
        summary.remember(&answer);
    }
    summary
}

/// Sends on the connection that is open, or on a new one where the server has closed it.
async fn one(connection: &mut Option<Connection>, call: &Call) -> Result<Answer, ClientError> {
    if let Some(open) = connection.as_mut()
        && !open.ready().await
    {
        *connection = None;
    }
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(call).await?,
    };
    let answer = open.send(call).await?;
    *connection = Some(open);
    Ok(answer)
}

fn epoch_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
