//! What workers share: where their counters are found when somebody scrapes, and the log files.
//!
//! Each worker has a shard that only it adds to; locks are taken when a label set is new and when
//! metrics are read, never while counting.

use super::access_log::LogFiles;
use super::exposition;
use super::gauges::Gauge;
use super::labels::Local;
use super::series::{Counter, HttpSeries, TcpSeries};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// Most label sets of one worker, HTTP and TCP each.
const MAX_SERIES: usize = 20_000;

/// What the running program says of itself.
#[derive(Debug, Clone)]
pub struct Build {
    /// Version, for `istio_build`.
    pub version: String,
}

/// Telemetry of the whole process.
#[derive(Debug)]
pub struct Hub {
    local: Local,
    build: Build,
    started: Instant,
    shards: Mutex<Vec<Arc<Shard>>>,
    texts: Mutex<HashSet<Arc<str>>>,
    listeners: Mutex<BTreeMap<String, Arc<Gauge>>>,
    facts: Mutex<BTreeMap<String, f64>>,
    overflow: Counter,
    logs: LogFiles,
}

/// Counters of one worker, by label text.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) http: Mutex<HashMap<Arc<str>, Arc<HttpSeries>>>,
    pub(super) tcp: Mutex<HashMap<Arc<str>, Arc<TcpSeries>>>,
}

type Found = (Option<Arc<HttpSeries>>, Option<Arc<TcpSeries>>);

impl Shard {
    /// Counters of a label set; `None` when there are too many sets.
    pub(super) fn series(&self, hub: &Hub, labels: &str, http: bool) -> Option<Found> {
        if http {
            let found = of(&mut self.http.lock(), hub, labels)?;
            return Some((Some(found), None));
        }
        let found = of(&mut self.tcp.lock(), hub, labels)?;
        Some((None, Some(found)))
    }
}

fn of<S: Default>(all: &mut HashMap<Arc<str>, Arc<S>>, hub: &Hub, labels: &str) -> Option<Arc<S>> {
    if let Some(known) = all.get(labels) {
        return Some(Arc::clone(known));
    }
    if all.len() >= MAX_SERIES {
        return None;
    }
    Some(Arc::clone(all.entry(hub.intern(labels)).or_default()))
}

impl Hub {
    /// Telemetry of a process that runs for this workload.
    #[must_use]
    pub fn new(local: Local, build: Build) -> Arc<Self> {
        Arc::new(Self {
            local,
            build,
            started: Instant::now(),
            shards: Mutex::default(),
            texts: Mutex::default(),
            listeners: Mutex::default(),
            facts: Mutex::default(),
            overflow: Counter::default(),
            logs: LogFiles::default(),
        })
    }

    /// The workload this process runs for.
    #[must_use]
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// The gauge of a listener's downstream connections.
    #[must_use]
    pub fn listener(&self, name: &str) -> Arc<Gauge> {
        let mut listeners = self.listeners.lock();
        if let Some(known) = listeners.get(name) {
            return Arc::clone(known);
        }
        Arc::clone(listeners.entry(name.to_owned()).or_default())
    }

    /// Downstream connections of all listeners that live now.
    #[must_use]
    pub fn active_connections(&self) -> u64 {
        self.listeners.lock().values().map(|gauge| gauge.now()).sum()
    }

    /// Sets a gauge of the process under its full metric name, labels included.
    pub fn set(&self, metric: impl Into<String>, value: f64) {
        self.facts.lock().insert(metric.into(), value);
    }

    /// Log files of the process.
    #[must_use]
    pub fn logs(&self) -> &LogFiles {
        &self.logs
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let shards = self.shards.lock().clone();
        let mut text = String::with_capacity(64 << 10);
        exposition::istio(&mut text, &shards);
        self.process(&mut text);
        text
    }

    pub(super) fn new_shard(&self) -> Arc<Shard> {
        let shard = Arc::<Shard>::default();
        self.shards.lock().push(Arc::clone(&shard));
        shard
    }

    pub(super) fn count_overflow(&self) {
        self.overflow.add(1);
    }

    fn intern(&self, text: &str) -> Arc<str> {
        let mut texts = self.texts.lock();
        if let Some(known) = texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = Arc::from(text);
        texts.insert(Arc::clone(&text));
        text
    }

    fn process(&self, text: &mut String) {
        let mut build = String::new();
        super::labels::pair(&mut build, "component", "proxy");
        super::labels::pair(&mut build, "tag", &self.build.version);
        exposition::gauge(text, "istio_build", &[(build, 1.0)]);
        super::process::write(text, self.started.elapsed());
        let gauges = self.listeners.lock().clone();
        let of = |name: &str| {
            let mut labels = String::new();
            super::labels::pair(&mut labels, "listener_name", name);
            labels
        };
        #[expect(clippy::cast_precision_loss, reason = "Prometheus values are floating point")]
        let values = |value: fn(&Gauge) -> u64| -> Vec<(String, f64)> {
            gauges.iter().map(|(name, gauge)| (of(name), value(gauge) as f64)).collect()
        };
        exposition::gauge(text, "envoy_listener_downstream_cx_active", &values(Gauge::now));
        exposition::counter(text, "envoy_listener_downstream_cx_total", &values(Gauge::ever));
        for (metric, value) in self.facts.lock().iter() {
            exposition::line(text, metric, *value);
        }
        #[expect(clippy::cast_precision_loss, reason = "Prometheus values are floating point")]
        let lost = [
            ("lateen_metrics_overflow_total", self.overflow.get() as f64),
            ("lateen_access_log_dropped_total", self.logs.dropped() as f64),
        ];
        for (metric, value) in lost {
            exposition::counter(text, metric, &[(String::new(), value)]);
        }
    }
}
