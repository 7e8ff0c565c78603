//! How far the agent is: what readiness, status pages and the end of the process are decided from.

use crate::config::Snapshot;
use crate::listen::ListenShared;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// State of the agent, shared by its tasks.
#[derive(Debug)]
pub struct AgentState {
    needs_identity: bool,
    needs_listeners: bool,
    /// What the control plane is waited for with.
    first: &'static str,
    identity: AtomicBool,
    configured: AtomicBool,
    was_ready: AtomicBool,
    last_error: Mutex<Option<String>>,
    /// Cancelled when connections shall finish.
    pub drain: CancellationToken,
    /// Cancelled when the process shall end at once.
    pub quit: CancellationToken,
}

impl AgentState {
    /// Nothing is there yet. Without `needs_identity` readiness does not wait for a certificate;
    /// without `needs_listeners` it is enough that those stand which there are.
    #[must_use]
    pub fn new(needs_identity: bool, needs_listeners: bool) -> Arc<Self> {
        Self::waiting(needs_identity, needs_listeners, "configuration from the control plane")
    }

    /// As [`Self::new`], of an agent without data path: it has no listeners, and instead of configuration
    /// in force it needs a control plane that can be reached.
    #[must_use]
    pub fn proxyless(needs_identity: bool) -> Arc<Self> {
        Self::waiting(needs_identity, false, "the control plane")
    }

    fn waiting(needs_identity: bool, needs_listeners: bool, first: &'static str) -> Arc<Self> {
        Arc::new(Self {
            needs_identity,
            needs_listeners,
            first,
            identity: AtomicBool::new(false),
            configured: AtomicBool::new(false),
            was_ready: AtomicBool::new(false),
            last_error: Mutex::default(),
            drain: CancellationToken::new(),
            quit: CancellationToken::new(),
        })
    }

    /// A certificate is in force.
    pub fn identity_issued(&self) {
        self.identity.store(true, Ordering::Release);
        *self.last_error.lock() = None;
    }

    /// What is waited for could not be had.
    pub fn failed(&self, error: String) {
        *self.last_error.lock() = Some(error);
    }

    /// The first configuration is in force, whole; without data path, there is something to read.
    pub fn set_configured(&self) {
        self.configured.store(true, Ordering::Release);
    }

    /// Whether traffic can be sent here; the error says what is missing.
    ///
    /// # Errors
    /// What is missing. Once ready, only draining makes it unready again.
    pub fn ready(
        &self,
        config: &ArcSwap<Snapshot>,
        listen: &ListenShared,
        workers: usize,
    ) -> Result<(), String> {
        if self.drain.is_cancelled() {
            return Err("draining".to_owned());
        }
        if self.was_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.needs_identity && !self.identity.load(Ordering::Acquire) {
            let why = self.last_error.lock().clone().unwrap_or_default();
            return Err(format!("waiting for a certificate {why}"));
        }
        if !self.configured.load(Ordering::Acquire) {
            let why = self.last_error.lock().clone().unwrap_or_default();
            return Err(format!("waiting for {} {why}", self.first).trim_end().to_owned());
        }
        let config = config.load();
        let waits = self.needs_listeners || config.listeners.values().any(|it| it.bind);
        if waits && !listen.bound.stands(&config, workers) {
            let errors: Vec<_> =
                listen.bound.errors().iter().map(|(at, e)| format!("{at}: {e}")).collect();
            return Err(format!("waiting for listeners {}", errors.join(", ")));
        }
        self.was_ready.store(true, Ordering::Release);
        Ok(())
    }
}
