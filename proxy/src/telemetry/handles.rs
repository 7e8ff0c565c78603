//! From a request to its counters without making label text.
//!
//! A worker remembers which counters belong to which combination of cluster, peer, status and so
//! on, compared by identity; label text is made only when a combination is new. What is remembered
//! is bounded, and so is the number of label sets: hosts and peers are chosen by others.

use super::RequestRecord;
use super::hub::{Hub, Shard};
use super::labels::{self, Facts, HttpFacts};
use super::series::{HttpSeries, TcpSeries};
use crate::config::{Cluster, WorkloadLabels};
use crate::http::Flags;
use crate::tcp::TcpRecord;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh64::Xxh64;

/// Most combinations a worker remembers.
const MAX_REMEMBERED: usize = 8192;

#[derive(Debug, Clone)]
enum Series {
    Http(Arc<HttpSeries>),
    Tcp(Arc<TcpSeries>),
}

/// One combination. What it was made from is kept alive, so that an address means one thing.
#[derive(Debug)]
struct Remembered {
    inbound: bool,
    cluster: Option<Arc<Cluster>>,
    peer: Option<Arc<WorkloadLabels>>,
    client: Box<str>,
    host: Option<Box<str>>,
    upstream_tls: bool,
    flags: Flags,
    http: Option<HttpFacts>,
    series: Series,
}

impl Remembered {
    fn is(&self, facts: &Facts<'_>) -> bool {
        fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
            a.map(Arc::as_ptr) == b.map(Arc::as_ptr)
        }
        self.inbound == facts.is_inbound()
            && same(self.cluster.as_ref(), facts.cluster)
            && same(self.peer.as_ref(), facts.peer)
            && self.http == facts.http
            && self.flags == facts.flags
            && self.upstream_tls == facts.upstream_tls
            && *self.client == *facts.client()
            && self.host.as_deref() == facts.host
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0; 8];
        let length = bytes.len().min(8);
        word[..length].copy_from_slice(&bytes[..length]);
        self.0 = u64::from_ne_bytes(word);
    }
}

type Buckets = HashMap<u64, Vec<Remembered>, BuildHasherDefault<Already>>;

/// Counters of one worker.
#[derive(Debug)]
pub(super) struct Handles {
    hub: Arc<Hub>,
    shard: Arc<Shard>,
    known: RefCell<Buckets>,
}

impl Handles {
    pub(super) fn new(hub: &Arc<Hub>) -> Self {
        Self { hub: Arc::clone(hub), shard: hub.new_shard(), known: RefCell::default() }
    }

    pub(super) fn http(&self, record: &RequestRecord) {
        let facts = Facts::of_request(record);
        let Series::Http(series) = self.series(&facts) else { return };
        series.requests.add(1);
        series.duration.record(micros(record.duration));
        series.request_bytes.record(record.bytes_received.saturating_mul(1000));
        series.response_bytes.record(record.bytes_sent.saturating_mul(1000));
        if record.grpc {
            series.request_messages.add(record.request_messages);
            series.response_messages.add(record.response_messages);
        }
    }

    pub(super) fn tcp(&self, record: &TcpRecord) -> Arc<TcpSeries> {
        match self.series(&Facts::of_connection(record, &record.outcome())) {
            Series::Tcp(series) => series,
            // Facts of a connection have no HTTP part, so this cannot be; count to nowhere.
            Series::Http(_) => Arc::default(),
        }
    }

    fn series(&self, facts: &Facts<'_>) -> Series {
        let key = key(facts);
        let mut known = self.known.borrow_mut();
        let bucket = known.get(&key);
        if let Some(found) = bucket.and_then(|bucket| bucket.iter().find(|r| r.is(facts))) {
            return found.series.clone();
        }
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        let series = self.lookup(facts);
        known.entry(key).or_default().push(Remembered {
            inbound: facts.is_inbound(),
            cluster: facts.cluster.cloned(),
            peer: facts.peer.cloned(),
            client: facts.client().into(),
            host: facts.host.map(Into::into),
            upstream_tls: facts.upstream_tls,
            flags: facts.flags,
            http: facts.http,
            series: series.clone(),
        });
        series
    }

    fn lookup(&self, facts: &Facts<'_>) -> Series {
        let text = labels::render(facts, self.hub.local());
        let found = self.shard.series(&self.hub, &text, facts.http.is_some());
        let found = found.or_else(|| {
            // Too many label sets: give up what others choose, then the peer.
            let coarse = Facts { host: None, peer: None, ..*facts };
            let text = labels::render(&coarse, self.hub.local());
            self.shard.series(&self.hub, &text, facts.http.is_some())
        });
        match found {
            Some((Some(http), _)) => Series::Http(http),
            Some((None, Some(tcp))) => Series::Tcp(tcp),
            _ => {
                self.hub.count_overflow();
                if facts.http.is_some() {
                    Series::Http(Arc::default())
                } else {
                    Series::Tcp(Arc::default())
                }
            }
        }
    }
}

fn key(facts: &Facts<'_>) -> u64 {
    let mut hasher = Xxh64::new(0);
    facts.cluster.map(Arc::as_ptr).hash(&mut hasher);
    facts.peer.map(Arc::as_ptr).hash(&mut hasher);
    facts.http.hash(&mut hasher);
    facts.client().hash(&mut hasher);
    facts.host.hash(&mut hasher);
    hasher.finish()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
