//! Keeps the workload's certificate alive: the first one, then each before the last one ends.
//!
//! While the authority is away the certificate in force is used to its last second; a due renewal
//! is tried again and again, so it happens as soon as the authority is back.

use super::authority::certify;
use super::materials::Materials;
use super::state::AgentState;
use crate::settings::Settings;
use lateen_identity::{Credential, Rotation, SpiffeError, SpiffeId, TrustDomain};
use lateen_xds::client::Backoff;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Longest sleep before clocks are compared again: they may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Between attempts.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(5) };

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
        let wait = match certify(to, &settings.workload.cluster, &id, lifetime).await {
            Ok((credential, bundle)) => {
                failures = 0;
                let now = SystemTime::now();
                let due = rotation.renew_at(now, credential.leaf().not_after, rand::random());
                announce(&credential, &id, due);
                materials.set(credential, bundle, due);
                state.identity_issued();
                Until::Due(due)
            }
            Err(error) => {
                failures += 1;
                let left = materials.credential().map(|own| remaining(&own));
                tracing::warn!(%error, failures, ?left, "no certificate, trying again");
                state.identity_failed(error.to_string());
                Until::After(retry(failures, left))
            }
        };
        tokio::select! {
            () = wait.over() => {}
            () = end.cancelled() => return,
        }
    }
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
