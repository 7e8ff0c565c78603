//! Who is connected, and how far each proxy is: what `/debug/syncz` shows.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;

use lateen_xds::server::Subscriptions;

use super::stream::{TYPES, short_name};
use crate::translate::view::ProxyView;

/// How far a proxy is with one resource type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TypeStatus {
    /// Whether the proxy asked for the type.
    pub subscribed: bool,
    /// Resources the proxy was sent.
    pub resources: usize,
    /// Responses it has not answered.
    pub unanswered: usize,
    /// Reason of the last refusal, until something is accepted again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// One connected proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProxyStatus {
    /// Cluster of the proxy.
    pub cluster_id: String,
    /// `pod.namespace`.
    pub proxy: String,
    /// Version the proxy says it has.
    pub istio_version: String,
    /// Address it connects from.
    pub peer: String,
    /// How it sees the mesh.
    #[serde(skip)]
    pub view: ProxyView,
    /// Number of the snapshot that was last sent.
    pub snapshot: u64,
    /// By short name of the type.
    pub types: BTreeMap<&'static str, TypeStatus>,
}

impl ProxyStatus {
    /// Takes the state of its stream.
    pub fn update(&mut self, books: &Subscriptions, snapshot: u64) {
        self.snapshot = snapshot;
        for type_url in TYPES {
            let status = TypeStatus {
                subscribed: books.is_subscribed(type_url),
                resources: books.held(type_url),
                unanswered: books.unanswered(type_url),
                refused: books.refusal(type_url).map(str::to_owned),
            };
            self.types.insert(short_name(type_url), status);
        }
    }
}

/// The connected proxies.
#[derive(Debug, Default)]
pub struct Proxies(Mutex<BTreeMap<u64, ProxyStatus>>);

impl Proxies {
    /// Notes how far the proxy of a connection is.
    pub fn set(&self, connection: u64, status: ProxyStatus) {
        self.0.lock().insert(connection, status);
    }

    /// Forgets a connection.
    pub fn remove(&self, connection: u64) {
        self.0.lock().remove(&connection);
    }

    /// How they see the mesh.
    #[must_use]
    pub fn views(&self) -> Vec<ProxyView> {
        self.0.lock().values().map(|it| it.view.clone()).collect()
    }

    /// All of them, in the order they connected.
    #[must_use]
    pub fn all(&self) -> Vec<ProxyStatus> {
        self.0.lock().values().cloned().collect()
    }
}
