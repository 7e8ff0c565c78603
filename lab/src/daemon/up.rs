//! Bringing up: applies, tells how far the pods are, and says why when they do not get ready.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::attend::Back;
use super::requests::{self, apply};
use super::{CONTROL_PLANE, Lab, sync};
use crate::api_server::manifest::ManifestText;
use crate::api_server::view::PodRow;
use crate::protocol::Reply;

/// How long everything may take to become ready.
const PATIENCE: Duration = Duration::from_secs(58);
/// How long the control plane may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(20);
/// Lines of a log that are shown with a failure.
const TAIL: usize = 8;

/// Brings up. The lab ends when it fails, or when whoever asked goes away before `detach`.
pub(super) async fn up(lab: &Lab, texts: &[ManifestText], detach: bool, mut back: Back) {
    let came_up = bring(lab, texts, &mut back).await;
    match came_up {
        Ok(Ok(())) => {
            let count = lab.cluster.rows().len();
            let ready = Reply::Ready(format!("{count} pods are ready"));
            if back.say(&ready).await.is_ok() && detach {
                return;
            }
            tokio::select! {
                () = follow(lab, &mut back) => {}
                () = lab.end.cancelled() => {}
            }
        }
        Ok(Err(reasons)) => {
            if detach {
                tell(&mut back, &Reply::Failed(reasons)).await;
            } else if reported(&mut back, reasons).await {
                tokio::select! {
                    () = follow(lab, &mut back) => {}
                    () = lab.end.cancelled() => {}
                }
            }
        }
        Err(error) => tracing::info!(%error, "whoever brought the lab up is gone"),
    }
    lab.end.cancel();
}

async fn tell(back: &mut Back, reply: &Reply) {
    if let Err(error) = back.say(reply).await {
        tracing::info!(%error, "nobody listens");
    }
}

/// Tells why it is not up to somebody who stays; false when it cannot stay.
async fn reported(back: &mut Back, reasons: Vec<String>) -> bool {
    let fatal = reasons.iter().any(|reason| !reason.starts_with("pod "));
    if fatal {
        tell(back, &Reply::Failed(reasons)).await;
        return false;
    }
    for reason in reasons {
        tell(back, &Reply::Warning(reason)).await;
    }
    true
}

type Outcome = Result<(), Vec<String>>;

/// The inner result is the lab's, the outer one the connection's.
async fn bring(lab: &Lab, texts: &[ManifestText], back: &mut Back) -> io::Result<Outcome> {
    let deadline = Instant::now() + PATIENCE;
    let speaks = lab
        .cluster
        .published()
        .until(|it| it.status().zip(it.webhooks()).zip(it.root_certificate()));
    if tokio::time::timeout(FIRST_WORD, speaks).await.is_err() {
        let mut reasons = vec![format!("{CONTROL_PLANE} did not come up; the end of its log:")];
        reasons.extend(requests::tail(lab.components[0].log(), TAIL));
        return Ok(Err(reasons));
    }
    back.say(&Reply::Progress(format!("{CONTROL_PLANE} is up"))).await?;
    if let Err(reasons) = apply(lab, texts, back).await? {
        return Ok(Err(reasons));
    }
    let mut told = BTreeMap::new();
    let mut revision = lab.cluster.revision();
    loop {
        revision.mark_unchanged();
        let rows = lab.cluster.rows();
        progress(&rows, &mut told, back).await?;
        if lab.cluster.is_settled() {
            lab.controller.followed().await;
            for warning in sync::wait(lab).await {
                back.say(&Reply::Warning(warning)).await?;
            }
            return Ok(Ok(()));
        }
        let denied = lab.cluster.denied();
        if !denied.is_empty() {
            return Ok(Err(denied.iter().map(why).collect()));
        }
        tokio::select! {
            changed = timeout_at(deadline, revision.changed()) => if changed.is_err() {
                let unready = rows.iter().filter(|row| !row.ready);
                return Ok(Err(unready.map(why).collect()));
            },
            () = back.gone() => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

fn why(row: &PodRow) -> String {
    format!("pod {}/{} is not ready: {}", row.namespace, row.name, row.why)
}

/// Tells what became of pods since the last time.
async fn progress(
    rows: &[PodRow],
    told: &mut BTreeMap<(String, String), String>,
    back: &mut Back,
) -> io::Result<()> {
    for row in rows {
        let text = match (row.ready, row.phase.as_str()) {
            (_, "Terminating") => "ending".to_owned(),
            (true, _) => format!("ready ({})", row.reason),
            (false, _) => row.why.clone(),
        };
        let key = (row.namespace.clone(), row.name.clone());
        if told.get(&key) != Some(&text) {
            back.say(&Reply::Progress(format!("{}/{}: {text}", row.namespace, row.name))).await?;
            told.insert(key, text);
        }
    }
    told.retain(|(namespace, name), _| {
        rows.iter().any(|row| row.namespace == *namespace && row.name == *name)
    });
    Ok(())
}

/// Tells what becomes of the pods until nobody listens.
async fn follow(lab: &Lab, back: &mut Back) {
    let mut told = BTreeMap::new();
    let mut revision = lab.cluster.revision();
    loop {
        revision.mark_unchanged();
        if progress(&lab.cluster.rows(), &mut told, back).await.is_err() {
            return;
        }
        tokio::select! {
            changed = revision.changed() => if changed.is_err() { return },
            () = back.gone() => return,
        }
    }
}
