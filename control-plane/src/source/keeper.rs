//! Puts in force what the reflectors report: the first change of a quiet moment at once, the rest in
//! batches; and says what cannot be followed.
//!
//! Secrets are asked for when something in force refers to them, and no longer than that. Nothing is put
//! in force until every topic has been listed: rules that have not arrived yet must
//! not look like rules that are not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Source;
use super::load::Load;
use super::referenced::referenced;
use super::reflect::{Reflector, Report, Trouble};
use super::served::Served;
use super::store::{Change, Name, Store};
use super::topics::{Topic, secret, topics};
use crate::cluster::Cluster;
use crate::serve::metrics::Metrics;
use crate::serve::readiness::Readiness;

/// Shortest time between two loads.
const BATCH: Duration = Duration::from_millis(20);
/// Reports on their way.
const REPORTS: usize = 1024;
/// What readiness calls the objects.
const OBJECTS: &str = "objects";

/// What is followed in a cluster, and whom it is told.
#[derive(Debug)]
pub struct Watched {
    /// The cluster.
    pub cluster: Cluster,
    /// Names of the config maps of our namespace that are read.
    pub config_maps: Vec<String>,
    /// Is told what has not been listed yet, and what cannot be followed.
    pub readiness: Arc<Readiness>,
    /// Counts what cannot be followed.
    pub metrics: Arc<Metrics>,
}

impl Source {
    /// Follows the objects of a cluster until `stop`.
    #[must_use]
    pub fn watch(watched: Watched, stop: CancellationToken) -> Self {
        let topics = topics(&watched.cluster.namespace, &watched.config_maps);
        let (reports_in, reports) = mpsc::channel(REPORTS);
        let (send, loads) = watch::channel(Arc::default());
        let listed = CancellationToken::new();
        let mut keeper = Keeper {
            store: Store::new(topics.len()),
            topics: Vec::new(),
            secrets: BTreeMap::new(),
            troubles: BTreeMap::new(),
            not_served: BTreeSet::new(),
            send,
            listed: listed.clone(),
            served: Arc::new(Served::new(watched.cluster.client.clone())),
            reports: reports_in,
            reflectors: JoinSet::new(),
            watched,
        };
        for topic in topics {
            keeper.reflect(topic);
        }
        let task = tokio::spawn(keeper.run(reports, stop));
        Self::new(loads, listed, task)
    }
}

/// Holds what is in force.
struct Keeper {
    store: Store,
    topics: Vec<Topic>,
    /// Secrets that are followed, by namespace and name.
    secrets: BTreeMap<Name, (usize, AbortHandle)>,
    troubles: BTreeMap<usize, Trouble>,
    /// Kinds of which was said that they are not installed.
    not_served: BTreeSet<usize>,
    send: watch::Sender<Arc<Load>>,
    listed: CancellationToken,
    served: Arc<Served>,
    /// For reflectors to come.
    reports: mpsc::Sender<(usize, Report)>,
    reflectors: JoinSet<()>,
    watched: Watched,
}

impl Keeper {
    async fn run(mut self, mut reports: mpsc::Receiver<(usize, Report)>, stop: CancellationToken) {
        self.say_missing();
        let mut due: Option<Instant> = None;
        let mut last = Instant::now();
        loop {
            let report = tokio::select! {
                () = stop.cancelled() => break,
                report = reports.recv() => report,
                () = sleep_until(due.unwrap_or(last)), if due.is_some() => {
                    due = None;
                    last = Instant::now();
                    self.put_in_force();
                    continue;
                }
            };
            let Some((place, report)) = report else { break };
            let mut changed = self.take(place, report);
            // What has already arrived is of the same moment.
            while let Ok((place, report)) = reports.try_recv() {
                changed |= self.take(place, report);
            }
            if changed && due.is_none() && self.store.is_complete() {
                due = Some(Instant::now().max(last + BATCH));
            }
        }
        self.reflectors.shutdown().await;
    }

    /// Follows a topic, the next in order.
    fn reflect(&mut self, topic: Topic) -> AbortHandle {
        let reflector = Reflector {
            place: self.topics.len(),
            topic: topic.clone(),
            client: self.watched.cluster.client.clone(),
            served: Arc::clone(&self.served),
            reports: self.reports.clone(),
        };
        self.topics.push(topic);
        self.reflectors.spawn(reflector.run())
    }

    /// Follows the Secrets that are referred to, and no others.
    fn follow_secrets(&mut self, wanted: &BTreeSet<Name>) {
        let unwanted = self.secrets.extract_if(.., |name, _| !wanted.contains(name));
        for (_, (place, reflector)) in unwanted.collect::<Vec<_>>() {
            reflector.abort();
            self.store.close(place);
            self.say_well(place);
        }
        for name in wanted {
            if !self.secrets.contains_key(name) {
                let place = self.store.open();
                let reflector = self.reflect(secret(&name.0, &name.1));
                self.secrets.insert(name.clone(), (place, reflector));
            }
        }
    }

    /// Takes a report; says whether something else is in force now.
    fn take(&mut self, place: usize, report: Report) -> bool {
        if !self.store.is_open(place) {
            return false;
        }
        match report {
            Report::Change(change) => {
                let ends = matches!(change, Change::Listed | Change::Gone);
                let changed = self.store.apply(place, change);
                if ends && changed {
                    self.say_missing();
                }
                changed
            }
            Report::Trouble(trouble) => {
                self.say_trouble(place, trouble);
                false
            }
            Report::Well => {
                self.not_served.remove(&place);
                self.say_well(place);
                false
            }
            Report::NotServed => self.say_not_served(place),
        }
    }

    fn put_in_force(&mut self) {
        let mut load = self.store.load();
        let wanted = referenced(&load.objects);
        let held = load.objects.secrets.len();
        self.follow_secrets(&wanted);
        // What nothing refers to any more goes in the same moment.
        if held > 0 {
            load = self.store.load();
        }
        self.send.send_replace(Arc::new(load));
        if !self.listed.is_cancelled() {
            tracing::info!(topics = self.topics.len(), "every object has been listed");
            self.watched.readiness.met(OBJECTS);
            self.listed.cancel();
        }
    }

    /// Tells readiness what has not been listed yet.
    fn say_missing(&self) {
        if self.listed.is_cancelled() || self.store.is_complete() {
            return;
        }
        let missing =
            self.topics.iter().enumerate().filter(|(place, _)| !self.store.is_listed(*place));
        let (mut names, mut reasons) = (Vec::new(), BTreeSet::new());
        for (place, topic) in missing {
            names.push(topic.to_string());
            reasons.extend(self.troubles.get(&place).map(|it| it.text(topic)));
        }
        let mut text = format!("not listed yet: {}", names.join(", "));
        for reason in reasons {
            text = format!("{text}; {reason}");
        }
        self.watched.readiness.waits(OBJECTS, text);
    }

    fn say_trouble(&mut self, place: usize, trouble: Trouble) {
        let Some(topic) = self.topics.get(place) else { return };
        if self.troubles.get(&place) == Some(&trouble) {
            return;
        }
        let (text, topic) = (trouble.text(topic), topic.to_string());
        match &trouble {
            Trouble::Forbidden(_) => tracing::error!(%topic, "{text}"),
            // Once for all topics: they fail together.
            Trouble::Away(_) if self.troubles.values().any(Trouble::is_away) => {
                tracing::debug!(%topic, "{text}");
            }
            Trouble::Away(_) => {
                tracing::warn!(%topic, "{text}; what is known stays in force");
            }
        }
        self.watched.metrics.set_unfollowed(&topic, true);
        self.watched.readiness.remark(&topic, text);
        self.troubles.insert(place, trouble);
        self.say_missing();
    }

    fn say_well(&mut self, place: usize) {
        let Some(topic) = self.topics.get(place).map(ToString::to_string) else { return };
        if self.troubles.remove(&place).is_none() {
            return;
        }
        self.watched.metrics.set_unfollowed(&topic, false);
        self.watched.readiness.well(&topic);
        if self.troubles.is_empty() {
            tracing::info!("everything is followed again");
        }
    }

    /// Says once that a kind is not installed; at the start there is nothing of it to wait for.
    fn say_not_served(&mut self, place: usize) -> bool {
        self.say_well(place);
        let Some(topic) = self.topics.get(place) else { return false };
        if self.not_served.insert(place) {
            tracing::info!(%topic, "not installed: followed as soon as it is");
        }
        if self.store.is_listed(place) {
            return false;
        }
        let changed = self.store.apply(place, Change::Gone);
        self.say_missing();
        changed
    }
}

impl Trouble {
    fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    /// What is wrong and what to do.
    fn text(&self, topic: &Topic) -> String {
        match self {
            Self::Forbidden(text) => format!("{text}; {}", topic.granted_by()),
            Self::Away(text) => format!("the API server does not answer as it should: {text}"),
        }
    }
}
