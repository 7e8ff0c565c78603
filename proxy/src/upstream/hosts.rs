//! The endpoints of a cluster on one worker, and how they survive a change of configuration.
//!
//! An endpoint that stays keeps its load, its ejection and its connections; one that goes is
//! retired: requests in flight end in peace, idle connections close.

use super::balance::{Balancer, Wish};
use super::host::{Host, HostShared, now_ms};
use super::outlier::{Outcome, Share};
use super::pool::Pool;
use crate::config::{Cluster, Endpoint, Outlier};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};

/// Endpoint states of one cluster, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct HostRegistry(Mutex<HashMap<SocketAddr, Weak<HostShared>>>);

impl HostRegistry {
    pub(super) fn get(&self, address: SocketAddr) -> Arc<HostShared> {
        let mut known = self.0.lock();
        if let Some(shared) = known.get(&address).and_then(Weak::upgrade) {
            return shared;
        }
        if known.len() > 1024 {
            known.retain(|_, weak| weak.strong_count() > 0);
        }
        let shared = Arc::new(HostShared::default());
        known.insert(address, Arc::downgrade(&shared));
        shared
    }
}

/// Endpoints with the balancer over them; replaced as a whole.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) list: Vec<Rc<Host>>,
    balancer: Balancer,
}

impl Hosts {
    /// Builds the set for `endpoints`, taking over what stays of `old`.
    pub(super) fn build(
        config: &Cluster,
        endpoints: &[Arc<Endpoint>],
        old: Option<&Self>,
        registry: &HostRegistry,
    ) -> Self {
        let known: HashMap<(SocketAddr, bool), &Rc<Host>> = old
            .into_iter()
            .flat_map(|old| old.list.iter())
            .map(|host| ((host.endpoint.address, host.endpoint.mtls), host))
            .collect();
        let list: Vec<Rc<Host>> = endpoints
            .iter()
            .map(|endpoint| match known.get(&(endpoint.address, endpoint.mtls)) {
                Some(host) => Rc::new(Host {
                    endpoint: Arc::clone(endpoint),
                    shared: Arc::clone(&host.shared),
                    pool: Rc::clone(&host.pool),
                }),
                None => new_host(Arc::clone(endpoint), registry),
            })
            .collect();
        if let Some(old) = old {
            old.retire_except(&list);
        }
        let balancer = Balancer::new(config.balance, config.panic_threshold, &list);
        Self { list, balancer }
    }

    fn retire_except(&self, kept: &[Rc<Host>]) {
        let kept: std::collections::HashSet<*const Pool> =
            kept.iter().map(|host| Rc::as_ptr(&host.pool)).collect();
        for host in &self.list {
            if !kept.contains(&Rc::as_ptr(&host.pool)) {
                host.pool.retire();
            }
        }
    }

    /// Closes what is idle for good.
    pub(super) fn retire(&self) {
        self.retire_except(&[]);
    }

    pub(super) fn pick(&self, hash: Option<u64>, avoid: &[SocketAddr]) -> Option<Rc<Host>> {
        let mut random = rand::random::<u64>;
        let picked = if avoid.is_empty() {
            self.balancer.pick(&self.list, Wish { hash, avoid: &[] }, &mut random)
        } else {
            let avoid: Vec<usize> = self
                .list
                .iter()
                .enumerate()
                .filter(|(_, host)| avoid.contains(&host.endpoint.address))
                .map(|(index, _)| index)
                .collect();
            self.balancer.pick(&self.list, Wish { hash, avoid: &avoid }, &mut random)
        };
        self.list.get(picked?).cloned()
    }

    /// Counts an outcome for outlier detection; true if the endpoint is set aside by it.
    pub(super) fn record(&self, host: &Host, rules: &Outlier, outcome: Outcome) -> bool {
        let share = || Share {
            hosts: self.list.len(),
            ejected: self.list.iter().filter(|host| host.is_ejected()).count(),
        };
        host.shared.ejection.record(rules, outcome, now_ms(), share)
    }
}

pub(super) fn new_host(endpoint: Arc<Endpoint>, registry: &HostRegistry) -> Rc<Host> {
    let shared = registry.get(endpoint.address);
    Rc::new(Host { endpoint, shared, pool: Rc::default() })
}
