//! One endpoint as a worker sees it: its data, the load all workers put on it, and this
//! worker's connections to it.

use super::balance::Backend;
use super::outlier::Ejection;
use super::pool::Pool;
use crate::config::{Endpoint, Health};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// State of an endpoint that all workers share.
#[derive(Debug, Default)]
pub(super) struct HostShared {
    pub(super) active: AtomicU32,
    pub(super) ejection: Ejection,
}

/// An endpoint with this worker's connections.
#[derive(Debug)]
pub struct Host {
    /// What the control plane says.
    pub endpoint: Arc<Endpoint>,
    pub(super) shared: Arc<HostShared>,
    pub(super) pool: Rc<Pool>,
}

/// Counts one request on an endpoint while it lives.
#[derive(Debug)]
pub struct Busy(Arc<HostShared>);

impl Host {
    /// Notes that a request is in flight.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.shared.active.fetch_add(1, Relaxed);
        Busy(Arc::clone(&self.shared))
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.shared.ejection.is_set() && self.shared.ejection.is_ejected(now_ms())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

impl Backend for Rc<Host> {
    fn weight(&self) -> u32 {
        self.endpoint.weight
    }

    fn active(&self) -> u32 {
        self.shared.active.load(Relaxed)
    }

    fn priority(&self) -> u32 {
        self.endpoint.priority
    }

    fn is_available(&self) -> bool {
        self.endpoint.health == Health::Healthy && !self.is_ejected()
    }

    fn hash_key(&self) -> String {
        self.endpoint.address.to_string()
    }
}

/// Milliseconds since the process first asked; at least 1.
pub(super) fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}
