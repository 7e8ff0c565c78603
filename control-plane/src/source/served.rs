//! Which versions of a kind an API server serves, asked of its discovery.
//!
//! Answers are kept for a moment, so that many kinds ask as one. That something is not served is
//! believed only from an API server that says it is ready: one that has just started does not know
//! its custom resource definitions yet.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kube::Client;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::topics::Topic;

/// How long an answer holds.
const FRESH: Duration = Duration::from_millis(900);

/// Asks and remembers for a moment.
pub(super) struct Served {
    client: Client,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    ready: Option<Instant>,
    /// Plural names by group and version.
    kinds: HashMap<String, (Instant, HashSet<String>)>,
}

impl Served {
    pub(super) fn new(client: Client) -> Self {
        Self { client, answers: Mutex::default() }
    }

    /// The first version of a topic that is served; `None` when none is.
    ///
    /// # Errors
    /// When the API server does not say.
    pub(super) async fn version(&self, topic: &Topic) -> kube::Result<Option<&'static str>> {
        let mut answers = self.answers.lock().await;
        let is_fresh = |since: Instant| since.elapsed() < FRESH;
        if !answers.ready.is_some_and(is_fresh) {
            self.ready().await?;
            answers.ready = Some(Instant::now());
        }
        for version in topic.versions {
            let key = format!("{}/{version}", topic.group);
            let known = answers.kinds.get(&key).filter(|(since, _)| is_fresh(*since));
            if known.is_none() {
                let kinds = self.kinds(&key).await?;
                answers.kinds.insert(key.clone(), (Instant::now(), kinds));
            }
            if answers.kinds.get(&key).is_some_and(|(_, kinds)| kinds.contains(topic.plural)) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    async fn ready(&self) -> kube::Result<()> {
        let request = http::Request::get("/readyz").body(Vec::new());
        self.client.request_text(request.map_err(kube::Error::HttpError)?).await.map(drop)
    }

    /// Plural names of the kinds of a group and version; none when it is not served.
    async fn kinds(&self, version: &str) -> kube::Result<HashSet<String>> {
        match self.client.list_api_group_resources(version).await {
            Ok(list) => Ok(list.resources.into_iter().map(|it| it.name).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(HashSet::new()),
            Err(error) => Err(error),
        }
    }
}
