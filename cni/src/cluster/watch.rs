//! Follows the pods of this node into [`NodePods`].
//!
//! While the API server is away the pods that are known stay known; the reason is kept, for those
//! who wait for one that is not.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::denied::{explain_watch, pods};
use super::trim::trim;
use super::within;
use crate::agent::node_pods::{Key, NodePods, key};

/// Follows until `stop`. `report` is told when the pods are known, and why they are not.
pub async fn follow(
    client: Client,
    node: &str,
    store: Arc<NodePods>,
    mut report: impl FnMut(Result<(), String>),
    stop: CancellationToken,
) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let events = watcher(Api::<Pod>::all(client), config).default_backoff();
    let mut events = pin!(events);
    let mut fresh: HashMap<Key, Value> = HashMap::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Ok(Event::Init)) => fresh.clear(),
            Some(Ok(Event::InitApply(pod))) => {
                let pod = trim(pod);
                fresh.insert(key(&pod), pod);
            }
            Some(Ok(Event::InitDone)) => {
                store.replace(std::mem::take(&mut fresh));
                report(Ok(()));
            }
            Some(Ok(Event::Apply(pod))) => {
                store.put(trim(pod));
                report(Ok(()));
            }
            Some(Ok(Event::Delete(pod))) => store.delete(&trim(pod)),
            Some(Err(error)) => {
                let text = explain_watch("pods", None, &error);
                store.trouble(&text);
                report(Err(text));
            }
        }
    }
}

/// One pod from the API server itself; `Ok(None)` when it has none of that name.
///
/// # Errors
/// Why it was not answered.
pub async fn get(client: &Client, key: &Key) -> Result<Option<Value>, String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    Ok(within(pods("get"), api.get_opt(&key.name)).await?.map(trim))
}
