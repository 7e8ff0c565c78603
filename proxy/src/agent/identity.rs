//! Keeps the workload's certificate alive: the first one, then each before the last one ends.
//!
//! While the authority is away the certificate in force is used to its last second; a due renewal
//! is tried again and again, so it happens as soon as the authority is back. Where settings name a
//! folder, each certificate is written there too.

use super::authority::{Issued, certify};
use super::certificate_files::CertificateFiles;
use super::connector::BACKOFF;
use super::materials::Materials;
use super::state::AgentState;
use crate::settings::{CertificateFolder, Settings};
use lateen_identity::{Credential, Rotation, SpiffeError, SpiffeId, TrustDomain};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Longest sleep before clocks are compared again: they may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The SPIFFE ID this workload asks for.
///
/// # Errors
/// When trust domain, namespace or service account cannot stand in one.
pub fn own_id(settings: &Settings) -> Result<SpiffeId, SpiffeError> {
    let workload = &settings.workload;
    let domain = TrustDomain::parse(&workload.trust_domain)?;
    SpiffeId::workload(&domain, &workload.namespace, &workload.service_account)
}

/// Renews the certificate until cancelled.
pub async fn keep(
    settings: Arc<Settings>,
    id: SpiffeId,
    materials: Arc<Materials>,
    state: Arc<AgentState>,
    end: CancellationToken,
) {
    let rotation = Rotation {
        grace_ratio: settings.certificates.grace_ratio,
        jitter: settings.certificates.grace_jitter,
    };
    let mut failures = 0;
    loop {
        let lifetime = settings.certificates.lifetime;
        let to = &settings.control_plane;
        let mut files: Option<Files<'_>> = None;
        let wait = match certify(to, &settings.workload.cluster, &id, lifetime).await {
            Ok(issued) => {
                failures = 0;
                let now = SystemTime::now();
                let not_after = issued.credential.leaf().not_after;
                let due = rotation.renew_at(now, not_after, rand::random());
                announce(&issued.credential, &id, due);
                files = settings.certificate_folder.as_ref().map(|to| Files::of(&issued, to, due));
                materials.set(issued.credential, issued.bundle, due);
                // Without data path the files are all that anybody has of it.
                if files.is_none() || settings.proxyless.is_none() {
                    state.identity_issued();
                }
                Until::Due(due)
            }
            Err(error) => {
                failures += 1;
                let left = materials.credential().map(|own| remaining(&own));
                tracing::warn!(%error, failures, ?left, "no certificate, trying again");
                state.failed(error.to_string());
                Until::After(retry(failures, left))
            }
        };
        let then = async {
            if let Some(files) = files {
                files.put(&state).await;
            }
            wait.over().await;
        };
        tokio::select! {
            () = then => {}
            () = end.cancelled() => return,
        }
    }
}

/// A certificate that shall be in files.
struct Files<'a> {
    files: CertificateFiles,
    to: &'a CertificateFolder,
    /// From then on there is a newer one to be had.
    due: SystemTime,
}

impl<'a> Files<'a> {
    fn of(issued: &Issued, to: &'a CertificateFolder, due: SystemTime) -> Self {
        Self { files: CertificateFiles::of(issued), to, due }
    }

    /// Writes the files, again and again until it is done or of no use any more.
    async fn put(self, state: &AgentState) {
        let mut failures = 0;
        while let Err(error) = self.files.write(self.to) {
            failures += 1;
            if is_told(failures) {
                tracing::warn!(%error, failures, "certificate is not written to files, trying again");
            }
            state.failed(error.to_string());
            if SystemTime::now() >= self.due {
                return;
            }
            tokio::time::sleep(BACKOFF.wait(failures, rand::random())).await;
        }
        state.identity_issued();
    }
}

/// Whether the log tells of this failure in a row: of the first, then of one in about five minutes.
fn is_told(failures: u32) -> bool {
    failures % 60 == 1
}

enum Until {
    Due(SystemTime),
    After(Duration),
}

impl Until {
    async fn over(self) {
        match self {
            Self::After(time) => tokio::time::sleep(time).await,
            Self::Due(due) => {
                while let Ok(left) = due.duration_since(SystemTime::now()) {
                    if left.is_zero() {
                        return;
                    }
                    tokio::time::sleep(left.min(LOOK_AGAIN)).await;
                }
            }
        }
    }
}

/// Shorter the less of the certificate in force is left.
fn retry(failures: u32, left: Option<Duration>) -> Duration {
    let wait = BACKOFF.wait(failures, rand::random());
    match left {
        Some(left) if !left.is_zero() => wait.min((left / 4).max(Duration::from_millis(200))),
        _ => wait,
    }
}

fn remaining(credential: &Credential) -> Duration {
    credential.leaf().not_after.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO)
}

fn announce(credential: &Credential, asked: &SpiffeId, due: SystemTime) {
    let seconds = |left: Duration| left.as_secs();
    let ends_in = seconds(remaining(credential));
    let renewed_in = due.duration_since(SystemTime::now()).map_or(0, seconds);
    match credential.leaf().spiffe_id() {
        Ok(id) if id == *asked => {
            tracing::info!(%id, ends_in, renewed_in, "certificate issued");
        }
        Ok(id) => {
            tracing::warn!(%id, %asked, ends_in, "certificate issued for another identity");
        }
        Err(error) => tracing::warn!(%error, %asked, "certificate issued without identity"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_told;

    #[test]
    fn the_first_failure_is_told_and_few_others() {
        let told: Vec<u32> = (1..=150).filter(|failures| is_told(*failures)).collect();
        assert_eq!(told, [1, 61, 121]);
    }
}
