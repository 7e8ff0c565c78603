//! Counters and histograms: plain atomics, written by one worker, read by whoever scrapes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of all histograms (milliseconds or bytes); one more bucket is without bound.
pub(super) const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
/// Number of buckets.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A distribution. Values are given in thousandths, so that sums stay whole numbers.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// Counts a value of `thousandths` / 1000.
    pub(super) fn record(&self, thousandths: u64) {
        #[expect(clippy::cast_precision_loss, reason = "only compared with coarse bounds")]
        let value = thousandths as f64 / 1000.0;
        let bucket = BOUNDS.partition_point(|bound| value > *bound);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(thousandths, Ordering::Relaxed);
    }

    /// Adds what was counted to a sum over workers.
    pub(super) fn add_to(&self, total: &mut HistogramTotal) {
        for (bucket, into) in self.buckets.iter().zip(&mut total.buckets) {
            *into += bucket.load(Ordering::Relaxed);
        }
        total.sum += self.sum.load(Ordering::Relaxed);
    }
}

/// A distribution summed over workers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct HistogramTotal {
    pub(super) buckets: [u64; BUCKETS],
    /// In thousandths.
    pub(super) sum: u64,
}

/// All HTTP metrics of one label set on one worker.
#[derive(Debug, Default)]
pub(super) struct HttpSeries {
    pub(super) requests: Counter,
    pub(super) duration: Histogram,
    pub(super) request_bytes: Histogram,
    pub(super) response_bytes: Histogram,
    pub(super) request_messages: Counter,
    pub(super) response_messages: Counter,
}

/// All TCP metrics of one label set on one worker.
#[derive(Debug, Default)]
pub(super) struct TcpSeries {
    pub(super) opened: Counter,
    pub(super) closed: Counter,
    pub(super) sent: Counter,
    pub(super) received: Counter,
}
