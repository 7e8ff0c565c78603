//! The process without data path: certificates as files, a bootstrap file, a socket for discovery.
//!
//! As Istio's agent with `DISABLE_ENVOY` (`pkg/istio-agent/agent.go`), but that at the end it waits for
//! the applications' streams as a proxy does for its connections: they end together with the pod.

use super::{AppError, Shared, drain, end, start_identity, until_told};
use crate::agent::connector::{BACKOFF, reach};
use crate::agent::node::Identity;
use crate::agent::proxyless::relay::Relay;
use crate::agent::proxyless::{bootstrap, socket};
use crate::agent::state::AgentState;
use crate::settings::{Proxyless, Settings, VERSION};
use lateen_identity::SpiffeId;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs the agent alone until it is told to end.
pub(super) async fn run(
    shared: &Shared,
    places: &Proxyless,
    identity: &Identity,
    id: SpiffeId,
) -> Result<(), AppError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| AppError::Proxyless { what, path, source }
    };
    let settings = &shared.settings;
    let relay = Relay::new(Arc::clone(settings), Arc::clone(&shared.hub), shared.end.clone());
    let listener =
        socket::bind(&places.socket).map_err(failed("discovery socket", &places.socket))?;
    let (tasks, stop) = (shared.tasks.clone(), shared.end.clone());
    shared.tasks.spawn(socket::serve(listener, Arc::clone(&relay), tasks, stop));
    let with_certificates = !settings.control_plane.plaintext;
    let folder = settings.certificate_folder.as_ref().filter(|_| with_certificates);
    let certificates = folder.map(|to| (to.folder.as_path(), &settings.certificates));
    let document = bootstrap::document(identity, &places.socket, certificates);
    bootstrap::write(&document, &places.bootstrap)
        .map_err(failed("bootstrap file", &places.bootstrap))?;
    start_identity(shared, id);
    let (state, stop) = (Arc::clone(&shared.state), shared.end.clone());
    shared.tasks.spawn(until_reached(Arc::clone(settings), state, stop));
    let socket = places.socket.display();
    tracing::info!(version = VERSION, %socket, "running without data path");
    until_told(&shared.state).await?;
    drain(shared, || u64::from(relay.open_streams())).await;
    end(shared).await;
    Ok(())
}

/// Tries until the control plane is there: before, applications have nobody to ask.
async fn until_reached(settings: Arc<Settings>, state: Arc<AgentState>, stop: CancellationToken) {
    let to = &settings.control_plane;
    let mut failures = 0;
    loop {
        match reach(&to.discovery, to).await {
            Ok(()) => return state.set_configured(),
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, failures, "the control plane is not reached, trying again");
                state.failed(error.to_string());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(BACKOFF.wait(failures, rand::random())) => {}
            () = stop.cancelled() => return,
        }
    }
}
