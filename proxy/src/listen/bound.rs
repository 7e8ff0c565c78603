//! What stands and what does not, for readiness and for people who ask.

use crate::config::Snapshot;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;

/// The addresses all workers listen on.
#[derive(Debug, Default)]
pub struct Bound(Mutex<HashMap<SocketAddr, State>>);

#[derive(Debug, Default)]
struct State {
    workers: usize,
    error: Option<String>,
    skipped: bool,
}

impl Bound {
    fn with(&self, address: SocketAddr, change: impl FnOnce(&mut State)) {
        change(self.0.lock().entry(address).or_default());
    }

    pub(super) fn opened(&self, address: SocketAddr) {
        self.with(address, |state| {
            state.workers += 1;
            state.error = None;
        });
    }

    pub(super) fn closed(&self, address: SocketAddr) {
        let mut all = self.0.lock();
        if let Some(state) = all.get_mut(&address) {
            state.workers = state.workers.saturating_sub(1);
            if state.workers == 0 {
                all.remove(&address);
            }
        }
    }

    pub(super) fn skipped(&self, address: SocketAddr) {
        self.with(address, |state| state.skipped = true);
    }

    pub(super) fn failed(&self, address: SocketAddr, error: String) {
        self.with(address, |state| state.error = Some(error));
    }

    /// All `workers` listen on every address that `snapshot` asks for. False without listeners.
    #[must_use]
    pub fn stands(&self, snapshot: &Snapshot, workers: usize) -> bool {
        let all = self.0.lock();
        let mut bound = snapshot.listeners.values().filter(|listener| listener.bind).peekable();
        bound.peek().is_some()
            && bound.all(|listener| {
                listener.additional_addresses.iter().chain([&listener.address]).all(|address| {
                    all.get(address).is_some_and(|state| state.skipped || state.workers >= workers)
                })
            })
    }

    /// Addresses that cannot be listened on, with the reason.
    #[must_use]
    pub fn errors(&self) -> Vec<(SocketAddr, String)> {
        let all = self.0.lock();
        let mut list: Vec<_> = all
            .iter()
            .filter_map(|(address, state)| Some((*address, state.error.clone()?)))
            .collect();
        list.sort();
        list
    }
}
