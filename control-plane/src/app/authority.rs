//! The certificate authority of this process, and the certificate its own servers show.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lateen_identity::ca::directory::open_or_create;
use lateen_identity::tls::HotCredential;
use lateen_identity::{Ca, Rotation, Subject, TrustDomain};
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::serve::metrics::Metrics;
use crate::settings::Settings;

/// Lifetime of the certificate of the servers.
const SERVING_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_secs(30);

/// The authority and what it made for us.
#[derive(Debug)]
pub(super) struct Authority {
    /// The authority.
    pub(super) ca: Arc<Ca>,
    /// Certificate of our servers.
    pub(super) serving: Arc<HotCredential>,
    names: Vec<String>,
}

impl Authority {
    /// Opens or makes the authority, and makes the servers' certificate.
    pub(super) async fn open(
        settings: &Settings,
        trust_domain: &TrustDomain,
        metrics: &Metrics,
    ) -> Result<Self, AppError> {
        let directory = settings.ca_dir.clone();
        let domain = trust_domain.clone();
        let opened = tokio::task::spawn_blocking(move || {
            open_or_create(&directory, &domain, SystemTime::now())
        });
        let failed = |error: String| AppError::Authority(error);
        let ca = opened.await.map_err(|error| failed(error.to_string()))?;
        let ca = ca.map_err(|error| failed(error.to_string()))?;
        let end = ca.certificate().not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.root_expiry.set(i64::try_from(end.as_secs()).unwrap_or(i64::MAX));
        let names = names(settings);
        let credential = ca
            .issue(&Subject::Server(names.clone()), SERVING_LIFETIME, SystemTime::now())
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { ca: Arc::new(ca), serving: Arc::new(HotCredential::new(credential)), names })
    }

    /// Renews the servers' certificate at half of its lifetime, until `stop`.
    pub(super) fn rotation(
        &self,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (ca, serving) = (Arc::clone(&self.ca), Arc::clone(&self.serving));
        let names = self.names.clone();
        async move {
            loop {
                let now = SystemTime::now();
                let due = serving.get().map_or(now, |credential| {
                    Rotation::default().renew_at(now, credential.leaf().not_after, 0.5)
                });
                let wait = due.duration_since(now).unwrap_or_default().max(RETRY);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                let subject = Subject::Server(names.clone());
                match ca.issue(&subject, SERVING_LIFETIME, SystemTime::now()) {
                    Ok(credential) => serving.set(credential),
                    Err(error) => tracing::error!(%error, "the serving certificate is not renewed"),
                }
            }
        }
    }
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
