//! What is in force, behind one lock: objects and pods. Everything that waits for a change waits
//! for its revision.
//!
//! The kubelet asks and tells it through [`ApiServer`]; nothing here waits for anybody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use lateen_api::core::{ConfigMap, Deployment, Pod, PodStatus, Secret};
use parking_lot::Mutex;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::admission::{Admitted, Resolve};
use super::deployments;
use super::objects::{Key, Objects, Role, bare_pods};
use super::pod_table::{Owner, PodTable, Stage};
use super::pods::{self, Birth, CLUSTER_ROOT};
use super::published::Published;
use super::token::Signer;
use super::view::PodRow;
use super::{builtin, config_file, names};
use crate::clock;
use crate::kubelet::{ApiServer, PodKey, TokenRequest};

/// ConfigMap with the mesh's root certificate, in every namespace.
const MESH_ROOT: &str = "istio-ca-root-cert";

/// The cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    signer: Signer,
    published: Arc<Published>,
    revision: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// What was taken.
    objects: Objects,
    /// What is before the control plane, but not taken yet.
    pending: Option<Objects>,
    pods: PodTable,
}

/// What a pod needs to be admitted.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) pod: Value,
    pub(super) namespace_labels: BTreeMap<String, String>,
}

impl Cluster {
    /// A cluster with these objects.
    #[must_use]
    pub fn new(objects: Objects, signer: Signer, published: Arc<Published>) -> Self {
        let state = State { objects, pending: None, pods: PodTable::default() };
        let revision = watch::channel(0).0;
        Self(Arc::new(Shared { state: Mutex::new(state), signer, published, revision }))
    }

    /// Counts up with every change.
    #[must_use]
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.0.revision.subscribe()
    }

    /// What the control plane publishes.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.0.published
    }

    /// All pods, for people.
    #[must_use]
    pub fn rows(&self) -> Vec<PodRow> {
        self.0.state.lock().pods.all().map(super::pod_table::PodRecord::row).collect()
    }

    /// Whether every pod that is wanted is there and ready, and no other.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let state = self.0.state.lock();
        let deployments = state.objects.typed::<Deployment>(Role::Deployment);
        let mut wanted = deployments.zip(state.objects.of(Role::Deployment));
        let all_there = wanted.all(|(deployment, (_, value))| {
            let hash = names::template_hash(&value["spec"]["template"]);
            let namespace = deployment.metadata.namespace_or_empty();
            let replicas = state.pods.replicas(namespace, &deployment.metadata.name);
            deployments::is_settled(replica_count(&deployment), &hash, &replicas)
        });
        let bare = state
            .objects
            .of(Role::Pod)
            .all(|(key, _)| state.pods.named(&key.object.namespace, &key.object.name).is_some());
        let calm = state.pods.all().all(|pod| pod.is_settled() && pod.stage != Stage::Ending);
        all_there && bare && calm
    }

    /// Pods that a webhook refused, with its words.
    #[must_use]
    pub fn denied(&self) -> Vec<PodRow> {
        let state = self.0.state.lock();
        state.pods.all().filter(|pod| pod.denied).map(super::pod_table::PodRecord::row).collect()
    }

    /// What was taken so far.
    #[must_use]
    pub fn objects(&self) -> Objects {
        self.0.state.lock().objects.clone()
    }

    /// Puts objects before the control plane without taking them; gives the revision.
    pub(super) fn propose(&self, objects: Objects) -> u64 {
        self.change(|state| state.pending = Some(objects))
    }

    /// Takes what was proposed.
    pub(super) fn accept(&self) {
        self.change(|state| {
            if let Some(objects) = state.pending.take() {
                state.objects = objects;
            }
        });
    }

    /// Takes back what was proposed.
    pub(super) fn withdraw(&self) {
        self.change(|state| state.pending = None);
    }

    /// The text for the control plane, and the revision it is of.
    pub(super) fn snapshot(&self) -> (String, u64) {
        let state = self.0.state.lock();
        let revision = *self.0.revision.borrow();
        let objects = state.pending.as_ref().unwrap_or(&state.objects).clone();
        let pods = state.stored_pods();
        drop(state);
        (config_file::render(&objects, &pods), revision)
    }

    /// Decides what is to be done next, and gives the pods that were added for it.
    pub(super) fn advance(&self) -> Vec<PodKey> {
        let mut added = Vec::new();
        let mut state = self.0.state.lock();
        let changed = state.advance(&mut added);
        drop(state);
        if changed {
            self.0.revision.send_modify(|revision| *revision += 1);
        }
        added
    }

    /// What a pod wants to be admitted with; `None` when it is to end.
    pub(super) fn wish(&self, key: &PodKey) -> Option<Result<Wish, String>> {
        let state = self.0.state.lock();
        let record = state.pods.get(key).filter(|record| record.stage == Stage::Admitting)?;
        let mut pod = record.value.clone();
        pods::complete(&mut pod);
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        if !state.objects.has_service_account(&key.namespace, account) {
            let message = format!(
                "there is no ServiceAccount `{account}` in namespace `{}`: apply one",
                key.namespace
            );
            return Some(Err(message));
        }
        let labels = state.objects.namespace_labels(&key.namespace).unwrap_or_default();
        Some(Ok(Wish { pod, namespace_labels: labels }))
    }

    /// Stores an admitted pod and gives its object; `None` when it is to end.
    pub(super) fn admitted(&self, key: &PodKey, admitted: Admitted) -> Option<Value> {
        let mut object = None;
        self.change(|state| {
            let Some(record) = state.pods.get_mut(key) else { return };
            if record.stage != Stage::Admitting {
                return;
            }
            let mut pod = admitted.pod;
            let birth = Birth {
                name: key.name.clone(),
                uid: key.uid.clone(),
                time: clock::now(),
                node: builtin::NODE.to_owned(),
            };
            pods::store(&mut pod, &birth);
            record.value = pod;
            record.stage = Stage::Running;
            record.reason = admitted.reason;
            record.hooks = admitted.hooks;
            for warning in admitted.warnings {
                record.event("Warning", &warning, &clock::now());
            }
            object = record.object();
        });
        object
    }

    /// Keeps why a pod could not be admitted.
    pub(super) fn refused(&self, key: &PodKey, reason: &str, message: &str) {
        self.change(|state| {
            if let Some(record) = state.pods.get_mut(key) {
                reason.clone_into(&mut record.reason);
                record.denied = reason.starts_with("denied.");
                record.event("FailedCreate", message, &clock::now());
            }
        });
    }

    /// Whether a pod is to end, or gone.
    pub(super) fn is_ending(&self, key: &PodKey) -> bool {
        let state = self.0.state.lock();
        state.pods.get(key).is_none_or(|record| record.stage == Stage::Ending)
    }

    /// Forgets a pod of which nothing is left.
    pub(super) fn gone(&self, key: &PodKey) {
        self.change(|state| state.pods.remove(key));
    }

    /// The key of the pod of a name.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodKey> {
        self.0.state.lock().pods.named(namespace, name).map(|record| record.key.clone())
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> u64 {
        let mut state = self.0.state.lock();
        change(&mut state);
        // Under the lock, so that a snapshot and its revision belong together.
        self.0.revision.send_modify(|revision| *revision += 1);
        *self.0.revision.borrow()
    }

    fn object<T: DeserializeOwned>(&self, role: Role, kind: &str, at: (&str, &str)) -> Option<T> {
        let state = self.0.state.lock();
        let value = state.objects.get(&Key::core(role, kind, at.0, at.1))?;
        T::deserialize(value).ok()
    }
}

fn replica_count(deployment: &Deployment) -> usize {
    usize::try_from(deployment.spec.replicas.unwrap_or(1)).unwrap_or(usize::MAX)
}

impl State {
    fn stored_pods(&self) -> Vec<Value> {
        self.pods.all().filter_map(super::pod_table::PodRecord::object).collect()
    }

    /// One step towards what is wanted; whether anything changed.
    fn advance(&mut self, added: &mut Vec<PodKey>) -> bool {
        let mut changed = false;
        let deployments: Vec<(Deployment, Arc<Value>)> = self
            .objects
            .of(Role::Deployment)
            .filter_map(|(_, value)| {
                Some((Deployment::deserialize(value.as_ref()).ok()?, Arc::clone(value)))
            })
            .collect();
        for (deployment, value) in deployments {
            let name = &deployment.metadata.name;
            let namespace = deployment.metadata.namespace_or_empty();
            let hash = names::template_hash(&value["spec"]["template"]);
            let replicas = self.pods.replicas(namespace, name);
            let plan = deployments::plan(replica_count(&deployment), &hash, &replicas);
            for name in &plan.remove {
                changed |= self.end(namespace, name);
            }
            for _ in 0..plan.create {
                let pod = pods::from_template(&value, &deployment, &hash);
                let key = self.fresh_key(namespace, &format!("{name}-{hash}-"));
                let owner = Owner { deployment: Some(name.clone()), hash: hash.clone() };
                self.pods.add(key.clone(), owner, pod);
                added.push(key);
                changed = true;
            }
        }
        self.advance_bare(added) || changed
    }

    /// The same for pods that were applied themselves: a changed one is ended and made again.
    fn advance_bare(&mut self, added: &mut Vec<PodKey>) -> bool {
        let mut changed = false;
        for (key, pod) in bare_pods(&self.objects) {
            let Some(value) = self.objects.get(&key).cloned() else { continue };
            let (namespace, name) = (&key.object.namespace, &key.object.name);
            let hash = names::template_hash(&value);
            match self.pods.named(namespace, name) {
                Some(record) if record.owner.hash == hash => {}
                Some(_) => changed |= self.end(namespace, name),
                None => {
                    let key = PodKey {
                        namespace: namespace.clone(),
                        name: name.clone(),
                        uid: names::uid(),
                    };
                    let owner = Owner { deployment: None, hash };
                    let mut value = value;
                    if let Some(metadata) = value["metadata"].as_object_mut() {
                        // They belong to the object that was applied, not to the pod made of it.
                        metadata.remove("uid");
                        metadata.remove("creationTimestamp");
                    }
                    drop(pod);
                    self.pods.add(key.clone(), owner, value);
                    added.push(key);
                    changed = true;
                }
            }
        }
        changed
    }

    /// Marks a pod to be ended; false when it is already.
    fn end(&mut self, namespace: &str, name: &str) -> bool {
        let Some(key) = self.pods.named(namespace, name).map(|record| record.key.clone()) else {
            return false;
        };
        let Some(record) = self.pods.get_mut(&key) else { return false };
        if record.stage == Stage::Ending {
            return false;
        }
        if record.stage == Stage::Running {
            record.value["metadata"]["deletionTimestamp"] = clock::now().into();
        }
        record.stage = Stage::Ending;
        true
    }

    fn fresh_key(&self, namespace: &str, prefix: &str) -> PodKey {
        loop {
            let name = names::generated(prefix);
            if self.pods.named(namespace, &name).is_none() {
                return PodKey { namespace: namespace.to_owned(), name, uid: names::uid() };
            }
        }
    }
}

impl ApiServer for Cluster {
    fn config_map(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, String>> {
        let found = self.object(Role::ConfigMap, "ConfigMap", (namespace, name));
        if let Some(ConfigMap { data, .. }) = found {
            return Some(data);
        }
        match name {
            MESH_ROOT => self.0.published.root_certificate(),
            CLUSTER_ROOT => {
                let data = self.0.published.root_certificate()?;
                let root = data.into_values().next()?;
                Some([("ca.crt".to_owned(), root)].into())
            }
            _ => None,
        }
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        use base64::Engine as _;
        let secret: Secret = self.object(Role::Secret, "Secret", (namespace, name))?;
        let bytes = |(key, text): (String, String)| {
            let text: String = text.split_whitespace().collect();
            Some((key, base64::engine::general_purpose::STANDARD.decode(text).ok()?))
        };
        Some(secret.data.into_iter().filter_map(bytes).collect())
    }

    fn token(&self, request: &TokenRequest) -> Result<String, String> {
        let (namespace, name) = (&request.pod.namespace, &request.service_account);
        let account: Value = self
            .object(Role::ServiceAccount, "ServiceAccount", (namespace, name))
            .ok_or_else(|| format!("there is no ServiceAccount {namespace}/{name}"))?;
        let uid = account["metadata"]["uid"].as_str().unwrap_or_default();
        self.0.signer.sign(request, uid, clock::seconds()).map_err(|error| error.to_string())
    }

    fn pod_status(&self, key: &PodKey, status: PodStatus) {
        let mut state = self.0.state.lock();
        let Some(record) = state.pods.get_mut(key) else { return };
        if record.status == status {
            return;
        }
        record.status = status;
        self.0.revision.send_modify(|revision| *revision += 1);
    }

    fn event(&self, key: &PodKey, reason: &str, message: &str) {
        tracing::info!(namespace = key.namespace, pod = key.name, reason, "{message}");
        self.change(|state| {
            if let Some(record) = state.pods.get_mut(key) {
                record.event(reason, message, &clock::now());
            }
        });
    }
}

impl Resolve for Cluster {
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, String> {
        let state = self.0.state.lock();
        let (objects, pods) = (state.objects.clone(), state.stored_pods());
        drop(state);
        let pods: Vec<Pod> = pods.iter().filter_map(|pod| Pod::deserialize(pod).ok()).collect();
        config_file::resolve(&objects, &pods, (namespace, name, port))
    }
}
