//! What the tasks of one pod share: facts, records, running containers, and the status made of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use lateen_api::core::{Container, PodStatus};
use parking_lot::{Mutex, RwLock};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use super::facts::Facts;
use super::process::Handle;
use super::status::{Known, Record, Records, status};
use super::volumes::Volumes;
use super::{ApiServer, PodKey};
use crate::node::NodeContext;

/// One pod on this node.
#[derive(Debug)]
pub(super) struct PodContext {
    pub(super) node: Arc<NodeContext>,
    pub(super) api: Arc<dyn ApiServer>,
    /// Folder of the pod on the node's own file system.
    pub(super) folder: PathBuf,
    pub(super) volumes: Mutex<Volumes>,
    /// Network namespace, once there is one.
    pub(super) network: OnceLock<PathBuf>,
    /// Running containers by name.
    pub(super) running: Mutex<BTreeMap<String, Arc<Handle>>>,
    facts: RwLock<Arc<Facts>>,
    records: watch::Sender<Records>,
    published: Mutex<PodStatus>,
    start: String,
}

impl PodContext {
    pub(super) fn new(node: Arc<NodeContext>, api: Arc<dyn ApiServer>, facts: Facts) -> Self {
        let folder = node.inner().join("pods").join(&facts.key.uid);
        let volumes = Volumes::new(folder.join("volumes"), &facts, Arc::clone(&api));
        let spec = &facts.pod.spec;
        let all = spec.init_containers.iter().chain(&spec.containers);
        let records: Records = all.map(|it| (it.name.clone(), Record::default())).collect();
        Self {
            node,
            api,
            folder,
            volumes: Mutex::new(volumes),
            network: OnceLock::new(),
            running: Mutex::default(),
            facts: RwLock::new(Arc::new(facts)),
            records: watch::Sender::new(records),
            published: Mutex::default(),
            start: now(),
        }
    }

    pub(super) fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.facts.read())
    }

    pub(super) fn key(&self) -> PodKey {
        self.facts().key.clone()
    }

    /// Notes the addresses the network gave.
    pub(super) fn set_addresses(&self, addresses: &[IpAddr]) {
        let mut facts = self.facts.write();
        let mut changed = Facts::clone(&facts);
        changed.addresses = addresses.to_vec();
        *facts = Arc::new(changed);
    }

    pub(super) fn event(&self, reason: &str, message: &str) {
        self.api.event(&self.key(), reason, message);
    }

    /// A record, as it is now.
    pub(super) fn record(&self, name: &str) -> Record {
        self.records.borrow().get(name).cloned().unwrap_or_default()
    }

    /// Changes a record and tells the API server.
    pub(super) fn update(&self, name: &str, change: impl FnOnce(&mut Record)) {
        self.records.send_modify(|records| change(records.entry(name.to_owned()).or_default()));
        self.publish();
    }

    /// Waits until a record is as wanted.
    pub(super) async fn wait_for(&self, name: &str, wanted: impl Fn(&Record) -> bool) {
        let mut records = self.records.subscribe();
        let found = records.wait_for(|records| records.get(name).is_some_and(&wanted));
        // The sender lives as long as this pod.
        drop(found.await);
    }

    /// Waits until all of these will not be started again.
    pub(super) async fn wait_for_end(&self, containers: &[Container]) {
        for container in containers {
            self.wait_for(&container.name, |record| record.finished).await;
        }
    }

    /// Tells the API server how the pod is, when that has changed.
    pub(super) fn publish(&self) {
        // Held until it is told, so that no older status comes after a newer one.
        let mut published = self.published.lock();
        let facts = self.facts();
        let records = self.records.borrow().clone();
        let made = status(&Known {
            spec: &facts.pod.spec,
            records: &records,
            addresses: &facts.addresses,
            host: &facts.node_addresses,
            start: &self.start,
            previous: &published,
            now: &now(),
        });
        if made != *published {
            published.clone_from(&made);
            self.api.pod_status(&facts.key, made);
        }
    }
}

/// The time, as the API has it.
pub(super) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let seconds = now.replace_nanosecond(0).unwrap_or(now);
    seconds.format(&Rfc3339).unwrap_or_default()
}
