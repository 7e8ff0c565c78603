//! The CA bundles of the webhooks that call us: every replica watches them, the leader mends them.
//!
//! Every replica must know what is in them: it is not ready, and does not show a certificate of a
//! new root, before the API server would believe it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::MANAGER;
use super::ask::{Failure, Trouble, ask, explain_watch};
use super::ca_bundle::{Callee, Former, Hook, patch};
use super::denied::Tried;
use super::mirror::Mirror;
use super::roots::Roots;
use crate::cluster::Cluster;
use crate::serve::readiness::Readiness;

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// A configuration with hooks that call us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// All its hooks, in order.
    names: Vec<String>,
    /// Those that call us.
    hooks: Vec<Hook>,
}

/// The hooks that call us and what they trust, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundles {
    /// Whether both kinds of configurations have been listed.
    pub known: bool,
    /// Configuration and hook, and the bundle.
    pub hooks: Vec<(String, Roots)>,
}

impl Bundles {
    /// Whether the API server would believe a certificate of any of `roots`.
    ///
    /// # Errors
    /// With the hook that lacks one, or what is not known.
    pub fn hold(&self, roots: &Roots) -> Result<(), String> {
        if !self.known {
            return Err("the webhook configurations are not known yet".to_owned());
        }
        match self.hooks.iter().find(|(_, bundle)| !bundle.holds(roots)) {
            None => Ok(()),
            Some((hook, _)) => Err(format!(
                "the caBundle of {hook} does not hold the root of our certificate; the replica \
                 that leads adds it"
            )),
        }
    }
}

/// The watcher and, in the leader, writer.
#[derive(Debug)]
pub struct Webhooks {
    cluster: Cluster,
    callee: Callee,
    wanted: watch::Receiver<Roots>,
    former: Former,
    begun: Instant,
    mutating: Mirror<Configuration>,
    validating: Mirror<Configuration>,
    seen: watch::Sender<Bundles>,
    writes: Trouble,
    /// With the watches of the two kinds.
    watches: [Trouble; 2],
}

impl Webhooks {
    /// One for hooks that call `callee`, and the channel that tells of their bundles. Former roots
    /// stay for `grace`.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        callee: Callee,
        wanted: watch::Receiver<Roots>,
        grace: Duration,
        readiness: &Arc<Readiness>,
    ) -> (Self, watch::Receiver<Bundles>) {
        let (seen, receiver) = watch::channel(Bundles::default());
        let webhooks = Self {
            cluster: cluster.clone(),
            callee,
            wanted,
            former: Former::new(grace),
            begun: Instant::now(),
            mutating: Mirror::default(),
            validating: Mirror::default(),
            seen,
            writes: Trouble::none("webhook CA bundle", Arc::clone(readiness)),
            watches: ["watch of mutating webhooks", "watch of validating webhooks"]
                .map(|part| Trouble::none(part, Arc::clone(readiness))),
        };
        (webhooks, receiver)
    }

    /// Watches, and writes while this replica leads, until `stop`.
    pub async fn run(mut self, mut leads: watch::Receiver<bool>, stop: CancellationToken) {
        let all = watcher::Config::default;
        let mutating = Api::<MutatingWebhookConfiguration>::all(self.cluster.client.clone());
        let mut mutating = watcher(mutating, all()).default_backoff().boxed();
        let validating = Api::<ValidatingWebhookConfiguration>::all(self.cluster.client.clone());
        let mut validating = watcher(validating, all()).default_backoff().boxed();
        let mut look = Instant::now() + self.former.look();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = mutating.next() => self.mutating(event),
                Some(event) = validating.next() => self.validating(event),
                changed = self.wanted.changed() => if changed.is_err() { return },
                changed = leads.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(look) => {}
            }
            look = Instant::now() + self.former.look();
            self.tell();
            if !*leads.borrow_and_update() {
                self.writes.forget();
                continue;
            }
            let mended = tokio::select! {
                () = stop.cancelled() => return,
                mended = self.mend() => mended,
            };
            match mended {
                Ok(()) => self.writes.over(),
                Err(failure) => look = Instant::now() + self.writes.again(failure.to_string()),
            }
            self.tell();
        }
    }

    fn mutating(&mut self, event: watcher::Result<watcher::Event<MutatingWebhookConfiguration>>) {
        match event {
            Ok(event) => {
                self.watches[0].over();
                let callee = &self.callee;
                self.mutating.feed(event, |it| (it.name_any(), of_mutating(callee, &it)));
            }
            Err(error) => unwatched(&mut self.watches[0], &error, MUTATING),
        }
    }

    fn validating(
        &mut self,
        event: watcher::Result<watcher::Event<ValidatingWebhookConfiguration>>,
    ) {
        match event {
            Ok(event) => {
                self.watches[1].over();
                let callee = &self.callee;
                self.validating.feed(event, |it| (it.name_any(), of_validating(callee, &it)));
            }
            Err(error) => unwatched(&mut self.watches[1], &error, VALIDATING),
        }
    }

    fn tell(&self) {
        let all = self.mutating.iter().chain(self.validating.iter());
        let hooks = all.flat_map(|(name, it)| {
            it.hooks
                .iter()
                .map(move |hook| (format!("{name}, hook {}", hook.name), hook.bundle.clone()))
        });
        let known = self.mutating.is_complete() && self.validating.is_complete();
        let bundles = Bundles { known, hooks: hooks.collect() };
        self.seen.send_if_modified(|seen| {
            let changed = *seen != bundles;
            *seen = bundles;
            changed
        });
    }

    /// Writes every bundle that is not as it should be; one that cannot be written holds up no other.
    async fn mend(&mut self) -> Result<(), Failure> {
        let wanted = self.wanted.borrow_and_update().clone();
        let now = (self.begun.elapsed(), SystemTime::now());
        let former = &mut self.former;
        let mut due = |mirror: &Mirror<Configuration>| -> Vec<_> {
            let all =
                mirror.iter().map(|(name, it)| (name.clone(), it.due(name, former, &wanted, now)));
            all.filter_map(|(name, patch)| Some((name, patch?))).collect()
        };
        let (mutating, validating) = (due(&self.mutating), due(&self.validating));
        let params =
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let mut failed = None;
        for (name, patch) in mutating {
            let api = Api::<MutatingWebhookConfiguration>::all(self.cluster.client.clone());
            let patch = Patch::Strategic(patch);
            let question = api.patch(&name, &params, &patch);
            match gone(ask(tried("patch", MUTATING).named(&name), question).await) {
                Ok(written) => {
                    tracing::info!(configuration = %name, "the CA bundle is written");
                    let read = written.and_then(|it| of_mutating(&self.callee, &it));
                    self.mutating.set(name, read);
                }
                Err(failure) => failed = Some(failure),
            }
        }
        for (name, patch) in validating {
            let api = Api::<ValidatingWebhookConfiguration>::all(self.cluster.client.clone());
            let patch = Patch::Strategic(patch);
            let question = api.patch(&name, &params, &patch);
            match gone(ask(tried("patch", VALIDATING).named(&name), question).await) {
                Ok(written) => {
                    tracing::info!(configuration = %name, "the CA bundle is written");
                    let read = written.and_then(|it| of_validating(&self.callee, &it));
                    self.validating.set(name, read);
                }
                Err(failure) => failed = Some(failure),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Configuration {
    /// One of hooks: of each its name, and itself when it calls us. `None` when none does.
    fn of(all: impl Iterator<Item = (String, Option<Hook>)>) -> Option<Self> {
        let (names, hooks): (Vec<_>, Vec<_>) = all.unzip();
        let hooks: Vec<_> = hooks.into_iter().flatten().collect();
        (!hooks.is_empty()).then_some(Self { names, hooks })
    }

    /// The patch that is due.
    fn due(
        &self,
        configuration: &str,
        former: &mut Former,
        wanted: &Roots,
        now: (Duration, SystemTime),
    ) -> Option<serde_json::Value> {
        let mut next = |hook: &Hook| {
            let name = format!("{configuration}/{}", hook.name);
            Some((hook.name.clone(), former.next(&name, wanted, &hook.bundle, now)?))
        };
        let bundles: Vec<_> = self.hooks.iter().filter_map(&mut next).collect();
        (!bundles.is_empty()).then(|| patch(&self.names, &bundles))
    }
}

fn of_mutating(callee: &Callee, object: &MutatingWebhookConfiguration) -> Option<Configuration> {
    let name = object.name_any();
    let hooks = object.webhooks.iter().flatten();
    Configuration::of(
        hooks.map(|it| (it.name.clone(), callee.hook(&name, &it.name, &it.client_config))),
    )
}

fn of_validating(
    callee: &Callee,
    object: &ValidatingWebhookConfiguration,
) -> Option<Configuration> {
    let name = object.name_any();
    let hooks = object.webhooks.iter().flatten();
    Configuration::of(
        hooks.map(|it| (it.name.clone(), callee.hook(&name, &it.name, &it.client_config))),
    )
}

/// The watch is begun again by itself; what was known stays.
fn unwatched(trouble: &mut Trouble, error: &watcher::Error, resource: &str) {
    let _pause = trouble.again(explain_watch(error, &tried("watch", resource)));
}

/// What was deleted meanwhile, or lost a hook, needs no bundle; the watch tells what is there now.
fn gone<K>(outcome: Result<K, Failure>) -> Result<Option<K>, Failure> {
    match outcome {
        Ok(object) => Ok(Some(object)),
        Err(failure) if failure.status().is_some_and(|it| it.code == 404) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn tried(verb: &'static str, resource: &str) -> Tried {
    Tried::new(verb, resource).of(GROUP)
}

#[cfg(test)]
mod tests {
    use super::super::ca_bundle::{Callee, Former};
    use super::super::roots::tests::root;
    use super::{Bundles, of_mutating};
    use base64::Engine as _;
    use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
    use serde_json::json;
    use std::time::{Duration, SystemTime};

    #[test]
    fn only_our_hooks_that_lack_a_root_are_patched() {
        let callee = Callee {
            service: "istiod".to_owned(),
            namespace: "mesh".to_owned(),
            configuration: "x".to_owned(),
        };
        let a = root();
        let bundle = base64::engine::general_purpose::STANDARD.encode(a.pem());
        let hook = |name: &str, namespace: &str, bundle: &str| {
            json!({"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"name": "istiod", "namespace": namespace},
                    "caBundle": bundle}})
        };
        let object: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": "y"},
            "webhooks": [hook("good", "mesh", &bundle), hook("other", "else", ""),
                hook("bare", "mesh", "")],
        }))
        .unwrap();
        let configuration = of_mutating(&callee, &object).unwrap();
        let mut former = Former::new(Duration::from_secs(1));
        let now = (Duration::ZERO, SystemTime::now());
        let patch = configuration.due("y", &mut former, &a, now).unwrap();
        let names = |field: &str| -> Vec<_> {
            let hooks = patch[field].as_array().unwrap().iter();
            hooks.map(|hook| hook["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("webhooks"), ["bare"]);
        assert_eq!(names("$setElementOrder/webhooks"), ["good", "other", "bare"]);
    }

    #[test]
    fn a_certificate_is_believed_when_every_hook_would() {
        let (a, b) = (root(), root());
        let mut bundles = Bundles::default();
        assert!(bundles.hold(&a).is_err(), "nothing is known");
        bundles.known = true;
        assert!(bundles.hold(&a).is_ok(), "nobody calls");
        bundles.hooks = vec![("x, hook y".to_owned(), a.and(&b)), ("x, hook z".to_owned(), b)];
        assert!(bundles.hold(&a).unwrap_err().contains("x, hook z"));
    }
}
