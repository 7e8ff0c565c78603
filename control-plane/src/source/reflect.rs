//! Follows one topic of an API server: lists it, watches it, and begins anew when that breaks.
//!
//! Every failure is retried for ever, and none takes back what is known. Knows nothing of what
//! objects mean.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::{GroupVersionKind, PartialObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use super::served::Served;
use super::store::Change;
use super::topics::Topic;
use super::trim::trim;

/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Pause after the API server said that we may not.
const FORBIDDEN: Duration = Duration::from_secs(5);
/// Time between looks for a kind that is not installed.
const NOT_SERVED: Duration = Duration::from_secs(2);
/// How long a kind that was installed must be missing before its objects are.
const REALLY_GONE: Duration = Duration::from_secs(30);
/// Seconds after which the API server ends a watch that we then take up again.
const WATCH_SECONDS: u32 = 120;

/// Answers that have other reasons than that lists come as streams.
const OTHER_REASONS: [u16; 5] = [401, 403, 404, 429, 503];

/// What a reflector says.
#[derive(Debug)]
pub(super) enum Report {
    /// Something changed.
    Change(Change),
    /// It cannot be followed.
    Trouble(Trouble),
    /// It is followed, or waited for, as it should be.
    Well,
    /// The kind is not installed.
    NotServed,
}

/// Why a topic cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// We may not.
    Forbidden(String),
    /// The API server does not answer, or not what it should.
    Away(String),
}

/// Follows one topic.
pub(super) struct Reflector {
    pub(super) place: usize,
    pub(super) topic: Topic,
    pub(super) client: Client,
    pub(super) served: Arc<Served>,
    pub(super) reports: Sender<(usize, Report)>,
}

/// How following ended.
struct Ended {
    error: watcher::Error,
    /// Whether everything had been listed.
    listed: bool,
}

/// What is done after an end.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Begin anew at once.
    Again,
    /// Begin anew with lists instead of streams.
    WithoutStreams,
    /// Find out whether the kind is served.
    Look,
    /// Say it and wait.
    Trouble(Trouble),
}

impl Reflector {
    /// Follows until nobody listens any more.
    pub(super) async fn run(self) {
        let (mut streams, mut pause) = (true, PAUSES.0);
        let mut missing: Option<Instant> = None;
        loop {
            let version = match self.version().await {
                Ok(Some(version)) => version,
                Ok(None) => {
                    let since = *missing.get_or_insert_with(Instant::now);
                    self.not_served(since.elapsed()).await;
                    tokio::time::sleep(NOT_SERVED).await;
                    continue;
                }
                Err(error) => {
                    self.report(Report::Trouble(trouble(&error))).await;
                    pause = self.wait(pause).await;
                    continue;
                }
            };
            missing = None;
            let Some(ended) = self.follow(version, streams).await else { return };
            if ended.listed {
                pause = PAUSES.0;
            }
            match next(&ended, streams, self.topic.optional) {
                Next::Again | Next::Look => {}
                Next::WithoutStreams => {
                    streams = false;
                    continue;
                }
                Next::Trouble(trouble) => {
                    let forbidden = matches!(trouble, Trouble::Forbidden(_));
                    self.report(Report::Trouble(trouble)).await;
                    if forbidden {
                        tokio::time::sleep(FORBIDDEN).await;
                        continue;
                    }
                }
            }
            pause = self.wait(pause).await;
        }
    }

    async fn version(&self) -> kube::Result<Option<&'static str>> {
        if self.topic.optional {
            return self.served.version(&self.topic).await;
        }
        Ok(self.topic.versions.first().copied())
    }

    /// At first a kind that is not served has no objects. One that was keeps them for a while: it may
    /// be on its way back.
    async fn not_served(&self, elapsed: Duration) {
        self.report(Report::NotServed).await;
        if elapsed >= REALLY_GONE {
            self.report(Report::Change(Change::Gone)).await;
        }
    }

    /// Follows until the first error; `None` when nobody listens any more.
    async fn follow(&self, version: &'static str, streams: bool) -> Option<Ended> {
        let mut events = self.events(version, streams);
        let mut listed = false;
        while let Some(event) = events.next().await {
            let change = match event {
                Ok(Event::Init) => Change::Listing,
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    match self.read(version, object) {
                        Some(change) => change,
                        None => continue,
                    }
                }
                Ok(Event::Delete(object)) => {
                    let meta = object.metadata;
                    let namespace = meta.namespace.unwrap_or_default();
                    Change::Deleted((namespace, meta.name.unwrap_or_default()))
                }
                Ok(Event::InitDone) => {
                    listed = true;
                    self.report(Report::Well).await;
                    Change::Listed
                }
                Err(error) => return Some(Ended { error, listed }),
            };
            if !self.report(Report::Change(change)).await {
                return None;
            }
        }
        None
    }

    fn read(&self, version: &str, object: DynamicObject) -> Option<Change> {
        let trimmed = whole(object)
            .map_err(|error| error.to_string())
            .and_then(|it| trim(&self.topic, version, it).map_err(|finding| finding.to_string()));
        match trimmed {
            Ok(it) => Some(Change::Applied(Box::new(it))),
            // The API server gives metadata this shape; an object without it has no name to hold.
            Err(error) => {
                tracing::error!(topic = %self.topic, error, "an object cannot be read");
                None
            }
        }
    }

    fn events(&self, version: &str, streams: bool) -> Events {
        let kind = GroupVersionKind::gvk(self.topic.group, version, self.topic.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, self.topic.plural);
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
        let client = self.client.clone();
        if streams {
            config = config.streaming_lists();
        }
        if self.topic.metadata_only {
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
            return watcher(api, config).map(|event| event.map(of_metadata)).boxed();
        }
        let api: Api<DynamicObject> = match &self.topic.only {
            Some((namespace, name)) => {
                config = config.fields(&format!("metadata.name={name}"));
                Api::namespaced_with(client, namespace, &resource)
            }
            None => Api::all_with(client, &resource),
        };
        watcher(api, config).boxed()
    }

    /// Says something; whether somebody listens.
    async fn report(&self, report: Report) -> bool {
        self.reports.send((self.place, report)).await.is_ok()
    }

    /// Waits and gives the next pause.
    async fn wait(&self, pause: Duration) -> Duration {
        // Twenty topics that failed together do not come back together.
        let share = u32::try_from(self.place % 8).unwrap_or_default();
        tokio::time::sleep(pause + pause * share / 16).await;
        (pause * 2).min(PAUSES.1)
    }
}

type Events = BoxStream<'static, watcher::Result<Event<DynamicObject>>>;

fn of_metadata(event: Event<PartialObjectMeta<DynamicObject>>) -> Event<DynamicObject> {
    let object = |it: PartialObjectMeta<DynamicObject>| DynamicObject {
        types: None,
        metadata: it.metadata,
        data: Value::Object(serde_json::Map::new()),
    };
    match event {
        Event::Apply(it) => Event::Apply(object(it)),
        Event::Delete(it) => Event::Delete(object(it)),
        Event::Init => Event::Init,
        Event::InitApply(it) => Event::InitApply(object(it)),
        Event::InitDone => Event::InitDone,
    }
}

/// An object as the API server wrote it, but for its bookkeeping.
fn whole(mut object: DynamicObject) -> serde_json::Result<Value> {
    object.metadata.managed_fields = None;
    let metadata = serde_json::to_value(object.metadata)?;
    let mut value = object.data;
    if let Some(members) = value.as_object_mut() {
        members.insert("metadata".to_owned(), metadata);
    }
    Ok(value)
}

fn next(ended: &Ended, streams: bool, optional: bool) -> Next {
    let (status, error) = match &ended.error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => match error {
            kube::Error::Api(status) => (Some(status), Some(error)),
            other => (None, Some(other)),
        },
        watcher::Error::WatchError(status) => (Some(status), None),
        watcher::Error::NoResourceVersion => (None, None),
    };
    match status.map(|status| status.code) {
        Some(410) => Next::Again,
        // Not every API server lists by streams: it needs a feature, and an etcd that has one too.
        Some(code) if streams && !ended.listed && !OTHER_REASONS.contains(&code) => {
            Next::WithoutStreams
        }
        Some(404) if optional => Next::Look,
        Some(403) => Next::Trouble(Trouble::Forbidden(
            status.map(|status| status.message.clone()).unwrap_or_default(),
        )),
        _ => Next::Trouble(match error {
            Some(error) => trouble(error),
            None => Trouble::Away(ended.error.to_string()),
        }),
    }
}

fn trouble(error: &kube::Error) -> Trouble {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            Trouble::Forbidden(status.message.clone())
        }
        kube::Error::Api(status) => Trouble::Away(format!("{} {}", status.code, status.message)),
        other => Trouble::Away(chain(other)),
    }
}

/// An error with its causes: the outermost alone says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        let more = it.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = it.source();
    }
    text
}
