//! Is the agent that ends being uninstalled, or only replaced?
//!
//! A replaced one leaves plugin and configuration, so that no pod starts uncaptured in between. The
//! DaemonSet tells: gone or being deleted means uninstall. It is watched all along, because with
//! the DaemonSet the permission to ask for it goes too.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::denied::{Access, explain, explain_watch};

/// A last question must leave time to take things away.
const ANSWER: Duration = Duration::from_secs(2);
const RESOURCE: &str = "daemonsets.apps";

/// What is known of the DaemonSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: the API server never told.
    Never,
    /// It is there.
    There,
    /// It is gone, or going.
    Gone,
}

/// The answer to the last question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    There,
    /// It is gone, or going.
    Gone,
    /// The question is not permitted, or the token no longer known.
    Refused(String),
    /// No answer.
    Silence(String),
}

/// Whether everything of ours leaves the node. Pure.
#[must_use]
pub fn is_uninstall(seen: Seen, answer: &Answer) -> bool {
    match answer {
        Answer::Gone => true,
        Answer::There => false,
        // What was permitted before is not taken away by an upgrade.
        Answer::Refused(_) => seen != Seen::Never,
        Answer::Silence(_) => seen == Seen::Gone,
    }
}

/// The agent's DaemonSet.
#[derive(Debug, Clone)]
pub struct Own {
    api: Api<DaemonSet>,
    namespace: String,
    name: String,
}

impl Own {
    /// The DaemonSet of this name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Follows it until `stop`.
    pub async fn follow(self, seen: watch::Sender<Seen>, stop: CancellationToken) {
        let states = watch_object(self.api, &self.name).default_backoff();
        let mut states = pin!(states);
        let mut said = String::new();
        loop {
            let state = tokio::select! {
                () = stop.cancelled() => return,
                state = states.next() => state,
            };
            match state {
                None => return,
                Some(Ok(found)) => {
                    seen.send_replace(if is_staying(found.as_ref()) {
                        Seen::There
                    } else {
                        Seen::Gone
                    });
                }
                Some(Err(error)) => {
                    let text = explain_watch(RESOURCE, Some(&self.namespace), &error);
                    if text != said {
                        tracing::warn!(
                            "{text}; without it an uninstall may be taken for an upgrade"
                        );
                        said = text;
                    }
                }
            }
        }
    }

    /// Asks for it, once.
    pub async fn ask(&self) -> Answer {
        let access = Access { verb: "get", resource: RESOURCE, namespace: Some(&self.namespace) };
        match timeout(ANSWER, self.api.get_opt(&self.name)).await {
            Ok(Ok(found)) if is_staying(found.as_ref()) => Answer::There,
            Ok(Ok(_)) => Answer::Gone,
            Ok(Err(error)) => {
                let text = explain(access, &error);
                match error {
                    kube::Error::Api(status) if [401, 403].contains(&status.code) => {
                        Answer::Refused(text)
                    }
                    _ => Answer::Silence(text),
                }
            }
            Err(_) => Answer::Silence("the API server does not answer".to_owned()),
        }
    }
}

fn is_staying(found: Option<&DaemonSet>) -> bool {
    found.is_some_and(|found| found.metadata.deletion_timestamp.is_none())
}

#[cfg(test)]
mod tests {
    use super::{Answer, Seen, is_uninstall};

    #[test]
    fn only_a_daemonset_that_is_gone_is_an_uninstall() {
        let refused = Answer::Refused(String::new());
        let silence = Answer::Silence(String::new());
        for seen in [Seen::Never, Seen::There, Seen::Gone] {
            assert!(is_uninstall(seen, &Answer::Gone));
            assert!(!is_uninstall(seen, &Answer::There));
            assert_eq!(is_uninstall(seen, &refused), seen != Seen::Never);
            assert_eq!(is_uninstall(seen, &silence), seen == Seen::Gone);
        }
    }
}
