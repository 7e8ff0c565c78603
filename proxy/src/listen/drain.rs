//! Which connections must end because the chain that serves them is gone.
//!
//! A connection keeps the chain it began with. When a new configuration no longer holds an equal
//! chain in the same listener, the connections of that chain drain; all others stay.

use crate::config::{FilterChain, Listener, Name, Snapshot};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

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

/// The end of a drain: some time after it began.
///
/// It is asked every time its connection moves, so that must cost nothing: the task is registered
/// for the beginning of the drain once, and only the token is looked at afterwards.
pub(super) struct Deadline {
    drain: CancellationToken,
    time: Duration,
    state: Waiting,
}

enum Waiting {
    Unregistered,
    Registered(#[expect(dead_code, reason = "wakes the task")] Registration),
    Draining(Pin<Box<Sleep>>),
}

type Registration = Pin<Box<WaitForCancellationFutureOwned>>;

impl Deadline {
    pub(super) fn new(drain: CancellationToken, time: Duration) -> Self {
        Self { drain, time, state: Waiting::Unregistered }
    }

    /// Ready when the drain has lasted long enough. Always asked by the same task.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Waiting::Draining(timer) = &mut self.state {
            return timer.as_mut().poll(cx);
        }
        let begun = match &self.state {
            Waiting::Unregistered => {
                let mut registration = Box::pin(self.drain.clone().cancelled_owned());
                let begun = registration.as_mut().poll(cx).is_ready();
                self.state = Waiting::Registered(registration);
                begun
            }
            Waiting::Registered(_) | Waiting::Draining(_) => self.drain.is_cancelled(),
        };
        if !begun {
            return Poll::Pending;
        }
        let mut timer = Box::pin(tokio::time::sleep(self.time));
        let over = timer.as_mut().poll(cx);
        self.state = Waiting::Draining(timer);
        over
    }
}

/// The listener has this chain or an equal one.
fn holds(listener: &Listener, chain: &Arc<FilterChain>) -> bool {
    let mut chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.any(|own| Arc::ptr_eq(own, chain) || own == chain)
}
