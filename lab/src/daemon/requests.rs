//! What the daemon does for each request.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::attend::{Attended, Back};
use super::{CONTROL_PLANE, Lab, sync, up};
use crate::api_server::manifest::{self, ManifestText};
use crate::kubelet::Exec;
use crate::protocol::{Reply, Request};

/// Longest capture.
const LONGEST_CAPTURE: Duration = Duration::from_secs(3600);
/// Time between looks at a growing log.
const LOOK: Duration = Duration::from_millis(100);
/// How long a component may take to come up.
const COME_UP: Duration = Duration::from_secs(20);
/// Part of a log that is sent at once.
const CHUNK: usize = 64 << 10;

/// The inner result is the request's, the outer one the connection's.
type Answered = io::Result<Result<(), Vec<String>>>;

/// Answers a request.
pub(super) async fn answer(lab: &Lab, attended: Attended) {
    let Attended { request, files, mut back } = attended;
    let done = match request {
        Request::Up { texts, detach } => return up::up(lab, &texts, detach, back).await,
        Request::Apply { texts } => apply(lab, &texts, &mut back).await,
        Request::List => list(lab, &mut back).await,
        Request::Exec { namespace, pod, container, root, command } => {
            match place(lab, namespace.as_deref(), &pod) {
                Ok(namespace) => {
                    let exec = Exec { namespace, pod, container, root, command };
                    run(lab, exec, files, &mut back).await
                }
                Err(reason) => Ok(Err(vec![reason])),
            }
        }
        Request::Logs { namespace, pod, container, follow } => {
            match log_of(lab, namespace.as_deref(), &pod, container.as_deref()) {
                Ok(path) => return logs(lab, &path, follow, &mut back).await,
                Err(reason) => Ok(Err(vec![reason])),
            }
        }
        Request::Capture { milliseconds } => capture(lab, milliseconds, files, &mut back).await,
        Request::Component { name, start } => component(lab, &name, start).await,
        Request::Down => {
            // Whoever asked waits for the end of this process.
            lab.end.cancel();
            Ok(Ok(()))
        }
    };
    let last = match done {
        Ok(Ok(())) => Reply::Done,
        Ok(Err(reasons)) => Reply::Failed(reasons),
        Err(error) => {
            tracing::info!(%error, "whoever asked is gone");
            return;
        }
    };
    if let Err(error) = back.say(&last).await {
        tracing::info!(%error, "whoever asked is gone");
    }
}

/// Applies texts and tells what happened.
pub(super) async fn apply(lab: &Lab, texts: &[ManifestText], back: &mut Back) -> Answered {
    let said = |findings: Vec<lateen_api::Finding>| {
        findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let batch = match manifest::read(texts) {
        Ok(batch) => batch,
        Err(findings) => return Ok(Err(said(findings))),
    };
    let applied = match lab.controller.apply(&batch).await {
        Ok(applied) => applied,
        Err(findings) => return Ok(Err(said(findings))),
    };
    for warning in said(applied.warnings) {
        back.say(&Reply::Warning(warning)).await?;
    }
    for change in applied.changes {
        back.say(&Reply::Changed(format!("{} {}", change.key.object, change.verb))).await?;
    }
    for warning in sync::wait(lab).await {
        back.say(&Reply::Warning(warning)).await?;
    }
    Ok(Ok(()))
}

async fn list(lab: &Lab, back: &mut Back) -> Answered {
    back.say(&Reply::Pods(lab.cluster.rows())).await?;
    Ok(Ok(()))
}

async fn run(lab: &Lab, exec: Exec, files: Vec<OwnedFd>, back: &mut Back) -> Answered {
    let Ok(stdio) = <[OwnedFd; 3]>::try_from(files) else {
        return Ok(Err(vec!["standard input, output and error must come with exec".to_owned()]));
    };
    let running = lab.kubelet.exec(exec, stdio);
    tokio::select! {
        exit = running => match exit {
            Ok(code) => {
                back.say(&Reply::Exit(code)).await?;
                Ok(Ok(()))
            }
            Err(error) => {
                let lab = &lab.settings.name;
                let hint = format!("{error}; look: lateen lab ls --name {lab}");
                Ok(Err(vec![hint]))
            }
        },
        // The command ends with whoever asked for it.
        () = back.gone() => Err(io::ErrorKind::BrokenPipe.into()),
        () = lab.end.cancelled() => Ok(Err(vec!["the lab is going down".to_owned()])),
    }
}

/// The namespace of a pod: the one that was named, else `default`, else the only one with a pod
/// of that name.
fn place(lab: &Lab, namespace: Option<&str>, name: &str) -> Result<String, String> {
    let rows = lab.cluster.rows();
    let all: Vec<&str> =
        rows.iter().filter(|row| row.name == name).map(|row| row.namespace.as_str()).collect();
    let wanted = namespace.unwrap_or("default");
    match all.as_slice() {
        found if found.contains(&wanted) => Ok(wanted.to_owned()),
        [only] if namespace.is_none() => Ok((*only).to_owned()),
        [] => Err(format!(
            "there is no pod {name}; list them: lateen lab ls --name {}",
            lab.settings.name
        )),
        others => Err(format!(
            "there is no pod {name} in namespace {wanted}, but in {}: use -n",
            others.join(", ")
        )),
    }
}

/// Sends a log; the connection ends with it.
async fn logs(lab: &Lab, path: &Path, follow: bool, back: &mut Back) {
    let mut position = 0;
    let mut sent = back.say(&Reply::Raw).await;
    while sent.is_ok() {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_from(&path, position)).await;
        let (bytes, end) = read.unwrap_or_default();
        position = end;
        if !bytes.is_empty() {
            sent = back.raw(&bytes).await;
            continue;
        }
        if !follow {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = back.gone() => return,
            () = lab.end.cancelled() => return,
        }
    }
}

/// The file with what is wanted: of a component where the name is one, else of a container.
fn log_of(
    lab: &Lab,
    namespace: Option<&str>,
    name: &str,
    container: Option<&str>,
) -> Result<PathBuf, String> {
    let component = lab.components.iter().find(|it| it.name() == name);
    if let Some(component) = component {
        return Ok(component.log().clone());
    }
    let namespace = place(lab, namespace, name)?;
    let gone = || format!("pod {namespace}/{name} is gone");
    let key = lab.cluster.pod(&namespace, name).ok_or_else(gone)?;
    let rows = lab.cluster.rows();
    let row = rows.iter().find(|row| row.name == name && row.namespace == namespace);
    let containers = row.map(|row| row.all_containers.clone()).unwrap_or_default();
    let container = match container {
        Some(container) => container,
        None => containers.first().ok_or("the pod has no container")?,
    };
    if !containers.iter().any(|it| it == container) {
        let all = containers.join(", ");
        return Err(format!("pod {namespace}/{name} has no container `{container}`: {all}"));
    }
    Ok(lab.kubelet.log(&key, container))
}

/// The next part of a file; one that became shorter is read from its start.
fn read_from(path: &Path, position: u64) -> (Vec<u8>, u64) {
    let read = || -> io::Result<(Vec<u8>, u64)> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let from = if length < position { 0 } else { position };
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = vec![0; CHUNK];
        let count = file.read(&mut bytes)?;
        bytes.truncate(count);
        Ok((bytes, from + u64::try_from(count).unwrap_or(u64::MAX)))
    };
    // No file yet: nothing was said yet.
    read().unwrap_or((Vec::new(), position))
}

/// The last lines of a file.
pub(super) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let length = std::fs::metadata(path).map(|it| it.len()).unwrap_or_default();
    let chunk = u64::try_from(CHUNK).unwrap_or(u64::MAX);
    let (bytes, _) = read_from(path, length.saturating_sub(chunk));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let all: Vec<&str> = text.lines().collect();
    let last = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
    last.iter().map(|line| format!("  {line}")).collect()
}

async fn capture(lab: &Lab, milliseconds: u64, files: Vec<OwnedFd>, back: &mut Back) -> Answered {
    let Some(file) = files.into_iter().next() else {
        return Ok(Err(vec!["a file must come with capture".to_owned()]));
    };
    let time = Duration::from_millis(milliseconds).min(LONGEST_CAPTURE);
    tokio::select! {
        packets = lab.node.capture(time, file) => match packets {
            Ok(packets) => {
                back.say(&Reply::Packets(packets)).await?;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(vec![error.to_string()])),
        },
        () = back.gone() => Err(io::ErrorKind::BrokenPipe.into()),
        () = lab.end.cancelled() => Ok(Err(vec!["the lab is going down".to_owned()])),
    }
}

async fn component(lab: &Lab, name: &str, start: bool) -> Answered {
    let Some(component) = lab.components.iter().find(|it| it.name() == name) else {
        let names: Vec<&str> =
            lab.components.iter().map(super::components::Component::name).collect();
        let known = names.join(", ");
        return Ok(Err(vec![format!("there is no component `{name}`; there are: {known}")]));
    };
    if !start {
        component.kill().await;
        return Ok(Ok(()));
    }
    if *component.running().borrow() {
        return Ok(Ok(()));
    }
    component.start().await;
    if name == CONTROL_PLANE {
        let speaks = lab.cluster.published().until(super::Published::status);
        if tokio::time::timeout(COME_UP, speaks).await.is_err() {
            let mut reasons = vec![format!("{name} did not come up; the end of its log:")];
            reasons.extend(tail(component.log(), 8));
            return Ok(Err(reasons));
        }
    }
    Ok(Ok(()))
}
