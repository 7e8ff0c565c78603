//! Circuit breakers: counters that all workers share, and guards that give slots back.
//!
//! A limit of `u32::MAX` is no limit and is not counted, so a cluster without circuit breakers
//! pays nothing.

use crate::config::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What is in use of a cluster, over all workers.
#[derive(Debug, Default)]
pub(super) struct Usage {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
}

/// Which circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Connections.
    Connections,
    /// Requests waiting for a connection.
    Pending,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
}

impl Breaker {
    /// Name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Pending => "max_pending_requests",
            Self::Requests => "max_requests",
            Self::Retries => "max_retries",
        }
    }

    fn limit(self, limits: &Limits) -> u32 {
        match self {
            Self::Connections => limits.max_connections,
            Self::Pending => limits.max_pending,
            Self::Requests => limits.max_requests,
            Self::Retries => limits.max_retries,
        }
    }
}

/// A slot in use; dropping it gives it back.
#[derive(Debug)]
pub struct Slot {
    usage: Option<Arc<Usage>>,
    breaker: Breaker,
}

impl Usage {
    fn counter(&self, breaker: Breaker) -> &AtomicU32 {
        match breaker {
            Breaker::Connections => &self.connections,
            Breaker::Pending => &self.pending,
            Breaker::Requests => &self.requests,
            Breaker::Retries => &self.retries,
        }
    }

    /// Takes a slot, or `None` when the breaker is open.
    pub(super) fn take(self: &Arc<Self>, breaker: Breaker, limits: &Limits) -> Option<Slot> {
        let limit = breaker.limit(limits);
        if limit == u32::MAX {
            return Some(Slot { usage: None, breaker });
        }
        let counter = self.counter(breaker);
        counter.try_update(Relaxed, Relaxed, |used| (used < limit).then_some(used + 1)).ok()?;
        Some(Slot { usage: Some(Arc::clone(self)), breaker })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            usage.counter(self.breaker).fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_limited_and_come_back() {
        let usage = Arc::new(Usage::default());
        let limits = Limits { max_requests: 2, ..Limits::default() };
        let first = usage.take(Breaker::Requests, &limits);
        let second = usage.take(Breaker::Requests, &limits);
        assert!(first.is_some() && second.is_some());
        assert!(usage.take(Breaker::Requests, &limits).is_none());
        drop(first);
        assert!(usage.take(Breaker::Requests, &limits).is_some());
        assert!(usage.take(Breaker::Connections, &limits).is_some(), "another breaker");
    }
}
