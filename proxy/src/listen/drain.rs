//! Which connections must end because the chain that serves them is gone.
//!
//! A connection keeps the chain it began with. When a new configuration no longer holds an equal
//! chain in the same listener, the connections of that chain drain; all others stay.

use crate::config::{FilterChain, Listener, Name, Snapshot};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A filter chain that serves connections.
#[derive(Debug)]
pub(super) struct ChainLife {
    listener: Name,
    chain: Arc<FilterChain>,
    /// Cancelled when its connections must finish.
    pub(super) drain: CancellationToken,
}

/// The chains that serve connections on one worker.
#[derive(Debug)]
pub(super) struct ChainLives {
    root: CancellationToken,
    lives: RefCell<HashMap<*const FilterChain, Rc<ChainLife>>>,
}

impl ChainLives {
    /// No chain yet; all drain when `root` is cancelled.
    #[must_use]
    pub(super) fn new(root: CancellationToken) -> Self {
        Self { root, lives: RefCell::default() }
    }

    /// A connection begins to be served by a chain; it holds what is given while it lives.
    pub(super) fn enter(&self, listener: &Listener, chain: &Arc<FilterChain>) -> Rc<ChainLife> {
        let mut lives = self.lives.borrow_mut();
        // The entry keeps its chain alive, so an address always means the same chain.
        let life = lives.entry(Arc::as_ptr(chain)).or_insert_with(|| {
            Rc::new(ChainLife {
                listener: Arc::clone(&listener.name),
                chain: Arc::clone(chain),
                drain: self.root.child_token(),
            })
        });
        Rc::clone(life)
    }

    /// Drains the connections of chains that `snapshot` no longer has.
    pub(super) fn reconcile(&self, snapshot: &Snapshot) {
        self.lives.borrow_mut().retain(|_, life| {
            if Rc::strong_count(life) == 1 {
                return false;
            }
            let stays = snapshot
                .listeners
                .get(&life.listener)
                .is_some_and(|listener| holds(listener, &life.chain));
            if !stays {
                life.drain.cancel();
            }
            stays
        });
    }
}

/// The listener has this chain or an equal one.
fn holds(listener: &Listener, chain: &Arc<FilterChain>) -> bool {
    let mut chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.any(|own| Arc::ptr_eq(own, chain) || own == chain)
}
