//! The certificate authority of this process, and the certificate its own servers show.
//!
//! It is kept in a directory or, in a cluster, in a Secret. What takes its place there is put in
//! force without a restart: first its roots are published, and it signs when they have been for a
//! while.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use lateen_identity::ca::directory::open_or_create;
use lateen_identity::tls::{HotBundle, HotCredential};
use lateen_identity::{Ca, Credential, Rotation, Subject, TrustDomain};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::cluster::Cluster;
use crate::kubernetes::ask::Trouble;
use crate::kubernetes::roots::Roots;
use crate::kubernetes::secret::Taken;
use crate::kubernetes::succession::Succession;
use crate::kubernetes::vault::{PART, Vault};
use crate::kubernetes::webhooks::Bundles;
use crate::serve::metrics::Metrics;
use crate::serve::monitor::Monitor;
use crate::settings::Settings;

/// Lifetime of the certificate of the servers.
const SERVING_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_secs(30);
/// An authority that ends sooner is warned of.
const NEAR: Duration = Duration::from_secs(90 * 86_400);
/// Time between looks at the Secret.
const LOOK: Duration = Duration::from_secs(5);

/// The authority and what it made for us.
#[derive(Debug)]
pub(super) struct Authority {
    /// The one that signs.
    pub(super) ca: Arc<ArcSwap<Ca>>,
    /// Certificate of our servers.
    pub(super) serving: Arc<HotCredential>,
    /// Roots by which workloads' certificates are believed.
    pub(super) clients: Arc<HotBundle>,
    /// Roots that are to be published.
    published: watch::Sender<Roots>,
    names: Vec<String>,
    overlap: Duration,
    metrics: Arc<Metrics>,
    kept: Option<Kept>,
}

/// An authority that is kept in a Secret.
#[derive(Debug)]
struct Kept {
    vault: Vault,
    /// What is in force.
    current: Taken,
    /// What waits for its turn.
    next: Option<(Taken, Succession)>,
    trouble: Trouble,
    begun: Instant,
}

impl Authority {
    /// Opens or makes the authority, and makes the servers' certificate. In a cluster it waits until
    /// there is one that can be used.
    pub(super) async fn open(
        settings: &Settings,
        cluster: Option<&Cluster>,
        trust_domain: &TrustDomain,
        monitor: &Monitor,
    ) -> Result<Self, AppError> {
        let Monitor { readiness, metrics, .. } = monitor;
        let (ca, kept) = match cluster {
            None => (Arc::new(from_directory(&settings.ca_dir, trust_domain).await?), None),
            Some(cluster) => {
                let vault = Vault::new(cluster);
                let current = vault.open(trust_domain, readiness).await;
                readiness.met(PART);
                let trouble = Trouble::none("the authority's Secret", Arc::clone(readiness));
                let ca = Arc::clone(&current.ca);
                let begun = Instant::now();
                (ca, Some(Kept { vault, current, next: None, trouble, begun }))
            }
        };
        let names = names(settings);
        let credential =
            serving(&ca, &names).map_err(|error| AppError::Authority(error.to_string()))?;
        let authority = Self {
            serving: Arc::new(HotCredential::new(credential)),
            clients: Arc::new(HotBundle::new(ca.bundle().clone())),
            published: watch::Sender::new(Roots::of_bundle(ca.bundle())),
            ca: Arc::new(ArcSwap::new(ca)),
            names,
            overlap: settings.root_overlap,
            metrics: Arc::clone(metrics),
            kept,
        };
        authority.count();
        Ok(authority)
    }

    /// The roots that are to be published, as they change.
    pub(super) fn published(&self) -> watch::Receiver<Roots> {
        self.published.subscribe()
    }

    /// Renews the servers' certificate at half of its lifetime, and follows the Secret, until
    /// `stop`. `bundles`: what the webhooks' callers trust.
    pub(super) async fn keep(mut self, bundles: watch::Receiver<Bundles>, stop: CancellationToken) {
        let mut bundles = bundles;
        let mut look = Instant::now() + LOOK;
        let mut renewal = self.renewal();
        loop {
            let turn = self.turn(&bundles.borrow_and_update().clone());
            if turn.is_some_and(|pause| pause.is_zero()) {
                self.succeed();
                renewal = self.renewal();
                continue;
            }
            let turn = Instant::now() + turn.unwrap_or(RETRY);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(turn) => {}
                Ok(()) = bundles.changed() => {}
                () = tokio::time::sleep_until(renewal) => {
                    self.renew();
                    renewal = self.renewal();
                }
                () = tokio::time::sleep_until(look), if self.kept.is_some() => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.look() => {}
                    }
                    look = Instant::now() + LOOK;
                }
            }
        }
    }

    fn renewal(&self) -> Instant {
        let now = SystemTime::now();
        let due = self.serving.get().map_or(now, |credential| {
            Rotation::default().renew_at(now, credential.leaf().not_after, 0.5)
        });
        Instant::now() + due.duration_since(now).unwrap_or_default().max(RETRY)
    }

    fn renew(&self) {
        self.count();
        match serving(&self.ca.load(), &self.names) {
            Ok(credential) => self.serving.set(credential),
            Err(error) => tracing::error!(%error, "the serving certificate is not renewed"),
        }
    }

    /// The pause until the next authority signs, if there is one and it is known.
    fn turn(&mut self, bundles: &Bundles) -> Option<Duration> {
        let kept = self.kept.as_mut()?;
        let (next, succession) = kept.next.as_mut()?;
        let now = kept.begun.elapsed();
        succession.step(now, bundles.hold(&next.roots()).is_ok())
    }

    /// Looks what is in the Secret.
    async fn look(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        match kept.vault.look().await {
            Ok(Some(taken)) => {
                kept.trouble.over();
                self.found(taken);
            }
            Ok(None) => {
                let secret = kept.current.secret;
                let _pause = kept.trouble.again(format!(
                    "Secret `{secret}` is gone; its authority stays in force here, but whoever \
                     starts next makes a new one, which no workload trusts: put the Secret back"
                ));
            }
            Err(text) => {
                let text = format!("{text}; the authority of before stays in force");
                let _pause = kept.trouble.again(text);
            }
        }
    }

    /// An authority is in the Secret; publishes its roots when it is another.
    fn found(&mut self, taken: Taken) {
        let Some(kept) = &mut self.kept else { return };
        if kept.current.is_same(&taken) {
            if kept.next.take().is_some() {
                tracing::info!("the authority in force is back in its Secret");
                self.published.send_replace(kept.current.roots());
            }
            return;
        }
        if kept.next.as_ref().is_some_and(|(next, _)| next.is_same(&taken)) {
            return;
        }
        let (current, next) = (kept.current.roots(), taken.roots());
        tracing::info!(
            secret = taken.secret, root = %taken.ca.certificate().hash,
            "another authority: it signs when its roots have been published for a while"
        );
        if !next.holds(&current) {
            tracing::warn!(
                "the roots of the new authority lack those in force: workloads whose certificates \
                 are of different authorities refuse each other until all are renewed"
            );
        }
        kept.next = Some((taken, Succession::new(self.overlap)));
        let both = current.and(&next);
        self.published.send_replace(both.clone());
        self.believe(&both);
    }

    /// The next authority signs from now on.
    fn succeed(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        let Some((next, _)) = kept.next.take() else { return };
        match serving(&next.ca, &self.names) {
            Ok(credential) => {
                self.ca.store(Arc::clone(&next.ca));
                self.serving.set(credential);
                self.published.send_replace(next.roots());
                tracing::info!(
                    secret = next.secret, root = %next.ca.certificate().hash,
                    "the new authority signs"
                );
                kept.current = next;
                self.count();
            }
            Err(error) => tracing::error!(%error, "the new authority cannot sign"),
        }
    }

    /// Believes workloads' certificates of `roots` too: other replicas may sign with them already,
    /// and what was signed with former ones is not over.
    fn believe(&self, roots: &Roots) {
        let all = Roots::of_bundle(&self.clients.get()).and(roots).lasting(SystemTime::now());
        match all.bundle() {
            Ok(bundle) => self.clients.set(bundle),
            Err(error) => tracing::error!(%error, "the roots of clients stay as they were"),
        }
    }

    fn count(&self) {
        let end = self.ca.load().certificate().not_after;
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        if left < NEAR {
            tracing::warn!(
                "the authority ends in {} days, and all certificates with it: put another in its \
                 place",
                left.as_secs() / 86_400
            );
        }
        let end = end.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.root_expiry.set(i64::try_from(end.as_secs()).unwrap_or(i64::MAX));
    }
}

async fn from_directory(directory: &Path, trust_domain: &TrustDomain) -> Result<Ca, AppError> {
    let (directory, domain) = (directory.to_owned(), trust_domain.clone());
    let opened =
        tokio::task::spawn_blocking(move || open_or_create(&directory, &domain, SystemTime::now()));
    let opened = opened.await.map_err(|error| AppError::Authority(error.to_string()))?;
    opened.map_err(|error| AppError::Authority(error.to_string()))
}

fn serving(ca: &Ca, names: &[String]) -> Result<Credential, lateen_identity::ca::CaError> {
    ca.issue(&Subject::Server(names.to_vec()), SERVING_LIFETIME, SystemTime::now())
}

/// The names under which proxies and the API server call us.
fn names(settings: &Settings) -> Vec<String> {
    let mut services = vec!["istiod".to_owned()];
    if settings.revision != "default" {
        services.push(format!("istiod-{}", settings.revision));
    }
    let (namespace, domain) = (&settings.namespace, &settings.cluster_domain);
    let all = services.iter().flat_map(|name| {
        [
            name.clone(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.{domain}"),
        ]
    });
    all.collect()
}
