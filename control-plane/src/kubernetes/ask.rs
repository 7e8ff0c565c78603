//! One question to the API server, bounded in time; and what to do when the answer is no: say it
//! once, show it, and ask again later, less and less often.

use std::sync::Arc;
use std::time::Duration;

use kube::core::Status;
use kube::runtime::watcher;
use thiserror::Error;

use super::denied::{Tried, denied_by, explain};
use crate::serve::readiness::Readiness;

/// Longest wait for an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// First pause before the same is asked again.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// A question without a good answer.
#[derive(Debug, Error)]
pub enum Failure {
    /// There was no answer.
    #[error("{tried}: the API server did not answer in {} s", PATIENCE.as_secs())]
    Silence {
        /// What was asked.
        tried: Tried,
    },
    /// It was refused, or could not be asked.
    #[error("{}", explain(.error, .tried))]
    Refusal {
        /// What was asked.
        tried: Tried,
        /// The answer.
        error: Box<kube::Error>,
    },
}

impl Failure {
    /// The API server's own words, when it answered.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refusal { error, .. } => match error.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Silence { .. } => None,
        }
    }
}

/// Asks, for at most [`PATIENCE`].
///
/// # Errors
/// When the answer is none, or no.
pub async fn ask<T>(
    tried: Tried,
    question: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::Refusal { tried, error: Box::new(error) }),
        Err(_) => Err(Failure::Silence { tried }),
    }
}

/// What there is to say of a watch that failed; it is begun again by itself.
#[must_use]
pub fn explain_watch(error: &watcher::Error, resource: &Tried) -> String {
    let tried = |verb| Tried { verb, ..resource.clone() };
    match error {
        watcher::Error::InitialListFailed(error) => explain(error, &tried("list")),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            explain(error, &tried("watch"))
        }
        watcher::Error::WatchError(status) => match denied_by(status, &tried("watch")) {
            Some(denied) => denied.to_string(),
            None => format!("{}: {}", tried("watch"), status.message),
        },
        watcher::Error::NoResourceVersion => format!("{}: {error}", tried("watch")),
    }
}

/// Trouble with one part of the work: logged when its words change, shown with the readiness.
#[derive(Debug)]
pub struct Trouble {
    part: &'static str,
    readiness: Arc<Readiness>,
    said: Option<String>,
    pause: Duration,
}

impl Trouble {
    /// No trouble.
    #[must_use]
    pub fn none(part: &'static str, readiness: Arc<Readiness>) -> Self {
        Self { part, readiness, said: None, pause: FIRST }
    }

    /// It goes wrong; the pause before it is tried again.
    pub fn again(&mut self, text: String) -> Duration {
        if self.said.as_ref() != Some(&text) {
            tracing::error!(part = self.part, "{text}");
            self.readiness.remark(self.part, text.clone());
            self.said = Some(text);
        }
        let pause = self.pause;
        self.pause = (2 * pause).min(LONGEST);
        pause
    }

    /// It is no longer ours to do.
    pub fn forget(&mut self) {
        self.pause = FIRST;
        if self.said.take().is_some() {
            self.readiness.well(self.part);
        }
    }

    /// It goes well.
    pub fn over(&mut self) {
        self.pause = FIRST;
        if self.said.take().is_some() {
            tracing::info!(part = self.part, "works again");
            self.readiness.well(self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, LONGEST, Tried, Trouble, ask};
    use crate::serve::readiness::Readiness;
    use std::sync::Arc;

    #[tokio::test]
    async fn what_was_asked_is_said() {
        let tried = || Tried::new("get", "secrets").named("cacerts").within("mesh");
        let failure = Failure::Silence { tried: tried() };
        let text = failure.to_string();
        assert!(text.starts_with("get secrets `cacerts` in namespace `mesh`: the API"), "{text}");
        assert!(failure.status().is_none());
        let refused = async { Err::<(), _>(kube::Error::LinesCodecMaxLineLengthExceeded) };
        let failure = ask(tried(), refused).await.unwrap_err();
        assert!(failure.to_string().contains("the API server does not answer"), "{failure}");
        assert_eq!(ask(tried(), async { Ok(7) }).await.unwrap(), 7);
    }

    #[test]
    fn trouble_is_shown_until_it_is_over() {
        let readiness = Arc::new(Readiness::new("a", "b"));
        let mut trouble = Trouble::none("leader", Arc::clone(&readiness));
        let first = trouble.again("no".to_owned());
        assert_eq!(trouble.again("no".to_owned()), 2 * first);
        for _ in 0..20 {
            assert!(trouble.again("no".to_owned()) <= LONGEST);
        }
        assert_eq!(readiness.remarks(), "leader: no\n");
        trouble.over();
        assert_eq!(readiness.remarks(), "");
        assert_eq!(trouble.again("no".to_owned()), first);
        trouble.forget();
        assert_eq!(readiness.remarks(), "");
    }
}
