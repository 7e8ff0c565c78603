//! Gauges that go up and down with what lives: connections of a listener, for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of living things.
#[derive(Debug, Default)]
pub struct Gauge {
    now: AtomicU64,
    ever: AtomicU64,
}

impl Gauge {
    /// Counts one more until the guard is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> GaugeGuard {
        self.now.fetch_add(1, Ordering::Relaxed);
        self.ever.fetch_add(1, Ordering::Relaxed);
        GaugeGuard(Arc::clone(self))
    }

    /// How many live now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// How many ever lived.
    #[must_use]
    pub fn ever(&self) -> u64 {
        self.ever.load(Ordering::Relaxed)
    }
}

/// One living thing of a [`Gauge`].
#[derive(Debug)]
pub struct GaugeGuard(Arc<Gauge>);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}
