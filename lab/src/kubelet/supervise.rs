//! One container from its first start to its last end: starts, hooks, probes, restarts.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use lateen_api::core::{Container, Probe};
use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::action::{Action, Target};
use super::create::{create, last_words};
use super::judge::{Judge, Verdict, backoff};
use super::logs;
use super::pod::{PodContext, now};
use super::process::{self, Handle};
use super::status::{Progress, State, state_json};
use crate::launch::kill_signal;

/// A container that ran this long may fail anew.
const LONG: Duration = Duration::from_secs(60);
/// Hooks have no time of their own; one that takes longer hangs.
const HOOK: Duration = Duration::from_secs(300);

/// Whether a container that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Always,
    OnFailure,
    Never,
}

/// When a container must have ended, once it is to end.
pub(super) type End = watch::Receiver<Option<Instant>>;

/// How a run ended.
enum Outcome {
    /// It could not be started.
    NotStarted,
    /// It ended by itself, or was unhealthy.
    Ended(i32),
    /// It was to end.
    Wanted,
}

/// Runs a container until it has ended for good or is to end.
pub(super) async fn supervise(
    pod: Arc<PodContext>,
    container: Container,
    policy: Policy,
    mut end: End,
) {
    let (mut failures, mut started) = (0_u32, false);
    while end.borrow().is_none() {
        let began = Instant::now();
        if started {
            pod.update(&container.name, |record| record.restarts += 1);
        }
        let outcome = run(&pod, &container, &mut end).await;
        let again = match outcome {
            Outcome::Wanted => false,
            Outcome::NotStarted => true,
            Outcome::Ended(code) => {
                started = true;
                policy == Policy::Always || (policy == Policy::OnFailure && code != 0)
            }
        };
        if !again {
            pod.update(&container.name, |record| record.finished = true);
            return;
        }
        failures = if began.elapsed() >= LONG { 1 } else { failures.saturating_add(1) };
        if let Outcome::Ended(code) = outcome {
            wait_again(&pod, &container, code);
        }
        tokio::select! {
            () = sleep(backoff(failures)) => {}
            _ = end.wait_for(Option::is_some) => {}
        }
    }
    pod.update(&container.name, |record| record.finished = true);
}

/// Says that the container will be started again, and what it said last.
fn wait_again(pod: &PodContext, container: &Container, code: i32) {
    let facts = pod.facts();
    let log = logs::path(&pod.node.state, &facts.key, &container.name);
    let line = logs::last_line(&log);
    let message = format!("container {} ended with {code}; its log ends: {line}", container.name);
    pod.event("BackOff", &message);
    pod.update(&container.name, |record| {
        record.state = State::Waiting { reason: "CrashLoopBackOff", message };
    });
}

/// One run.
async fn run(pod: &Arc<PodContext>, container: &Container, end: &mut End) -> Outcome {
    let name = &container.name;
    let failed = |reason: &'static str, message: String| {
        pod.event("Failed", &format!("container {name}: {message}"));
        pod.update(name, |record| record.state = State::Waiting { reason, message });
        Outcome::NotStarted
    };
    let launch = match create(pod, container) {
        Ok(launch) => launch,
        Err(text) => return failed("CreateContainerConfigError", text),
    };
    let work = launch.work.clone();
    let log = logs::path(&pod.node.state, &pod.key(), name);
    let (mut child, handle) = match process::start(&pod.node, launch, &log).await {
        Ok(started) => started,
        Err(text) => return failed("RunContainerError", text),
    };
    let (handle, since) = (Arc::new(handle), now());
    pod.running.lock().insert(name.clone(), Arc::clone(&handle));
    pod.update(name, |record| record.state = State::Running { since: since.clone() });
    let live = live(pod, container, &handle);
    let deadline = tokio::select! {
        _ = child.wait() => None,
        why = live => {
            pod.event("Unhealthy", &format!("container {name}: {why}; it is started again"));
            Some((Instant::now() + grace(pod), false))
        }
        at = wanted(end) => Some((at, true)),
    };
    if let Some((at, _)) = deadline {
        stop(pod, container, (&mut child, &handle), at).await;
    }
    let code = child.wait().await.map_or(255, process::code);
    pod.running.lock().remove(name);
    ended(pod, container, code, since);
    // Its layers are of no use any more; they end with the node at the latest.
    drop(std::fs::remove_dir_all(work));
    match deadline {
        Some((_, true)) => Outcome::Wanted,
        _ => Outcome::Ended(code),
    }
}

/// Waits until the container is to end, and tells when it must have.
async fn wanted(end: &mut End) -> Instant {
    let at = end.wait_for(Option::is_some).await.map(|at| *at);
    // Without a sender nobody waits for a clean end.
    at.ok().flatten().unwrap_or_else(Instant::now)
}

fn grace(pod: &PodContext) -> Duration {
    Duration::from_secs(pod.facts().pod.spec.termination_grace_period_seconds.unwrap_or(30))
}

fn ended(pod: &PodContext, container: &Container, code: i32, since: String) {
    let reason = if code == 0 { "Completed" } else { "Error" };
    let message = last_words(pod, container);
    let state = State::Terminated { code, reason, message, since, at: now() };
    pod.update(&container.name, |record| {
        record.last = Some(state_json(&state));
        record.state = state;
        record.progress = Progress::Starting;
        record.ready = false;
    });
}

/// Hook, SIGTERM, and SIGKILL when it is time.
async fn stop(
    pod: &PodContext,
    container: &Container,
    (child, handle): (&mut Child, &Handle),
    at: Instant,
) {
    let hook = container.lifecycle.as_ref().and_then(|it| it.pre_stop.as_ref());
    if let Some(hook) = hook {
        let target = target(pod, container, handle);
        let left = at.saturating_duration_since(Instant::now());
        let done = tokio::select! {
            done = target.act(Action::from(hook), left) => done,
            _ = child.wait() => Ok(()),
        };
        if let Err(text) = done {
            pod.event("FailedPreStopHook", &format!("container {}: {text}", container.name));
        }
    }
    process::signal(child, Signal::SIGTERM);
    if timeout_at(at, child.wait()).await.is_err() {
        process::signal(child, kill_signal());
        // The caller reads the status.
        drop(child.wait().await);
    }
}

fn target<'a>(pod: &'a PodContext, container: &'a Container, handle: &'a Handle) -> Target<'a> {
    let address = pod.facts().addresses.first().copied();
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Target { node: &pod.node, container, handle, address }
}

/// Hook and probes of a running container; returns why it must be started again.
async fn live(pod: &PodContext, container: &Container, handle: &Handle) -> String {
    let (target, name) = (target(pod, container, handle), &container.name);
    let hook = container.lifecycle.as_ref().and_then(|it| it.post_start.as_ref());
    if let Some(hook) = hook
        && let Err(text) = target.act(Action::from(hook), HOOK).await
    {
        return format!("its postStart hook failed: {text}");
    }
    pod.update(name, |record| record.progress = Progress::Hooked);
    if let Some(probe) = &container.startup_probe
        && let Err(text) = until_success(target, probe).await
    {
        return format!("its startup probe failed: {text}");
    }
    pod.update(name, |record| {
        record.progress = Progress::Started;
        record.ready = container.readiness_probe.is_none();
    });
    let readiness = async {
        if let Some(probe) = &container.readiness_probe {
            watch_readiness(pod, target, probe).await;
        }
        std::future::pending::<()>().await;
    };
    let liveness = async {
        match &container.liveness_probe {
            Some(probe) => until_failure(target, probe).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = readiness => String::new(),
        text = liveness => format!("its liveness probe failed: {text}"),
    }
}

fn limits(probe: &Probe) -> (Duration, Duration) {
    let seconds = |seconds: Option<u32>, default: u32| {
        Duration::from_secs(u64::from(seconds.unwrap_or(default)))
    };
    (
        seconds(probe.initial_delay_seconds, 0),
        seconds(probe.timeout_seconds.filter(|it| *it > 0), 1),
    )
}

async fn until_success(target: Target<'_>, probe: &Probe) -> Result<(), String> {
    let (delay, time) = limits(probe);
    sleep(delay).await;
    let (mut judge, mut last) = (Judge::new(probe, true), Instant::now());
    loop {
        let answer = target.act(Action::from(probe), time).await;
        let after = last.elapsed();
        last = Instant::now();
        match (judge.answer(answer.is_ok(), after), answer) {
            (Verdict::Success, _) => return Ok(()),
            (Verdict::Failure, answer) => return Err(answer.err().unwrap_or_default()),
            (Verdict::Open, _) => sleep(judge.pause()).await,
        }
    }
}

async fn until_failure(target: Target<'_>, probe: &Probe) -> String {
    let (delay, time) = limits(probe);
    sleep(delay).await;
    let mut judge = Judge::new(probe, false);
    loop {
        let answer = target.act(Action::from(probe), time).await;
        if judge.answer(answer.is_ok(), judge.pause()) == Verdict::Failure {
            return answer.err().unwrap_or_default();
        }
        sleep(judge.pause()).await;
    }
}

/// Follows readiness for ever. The first failures are those of a start and told to nobody.
async fn watch_readiness(pod: &PodContext, target: Target<'_>, probe: &Probe) {
    let (delay, time) = limits(probe);
    let name = &target.container.name;
    sleep(delay).await;
    let (mut judge, mut last) = (Judge::new(probe, true), Instant::now());
    loop {
        let answer = target.act(Action::from(probe), time).await;
        let after = last.elapsed();
        last = Instant::now();
        let (verdict, ready) = (judge.answer(answer.is_ok(), after), pod.record(name).ready);
        match (verdict, ready, answer) {
            (Verdict::Success, false, _) => pod.update(name, |record| record.ready = true),
            (Verdict::Failure, true, Err(text)) => {
                pod.event("Unhealthy", &format!("container {name}: readiness probe: {text}"));
                pod.update(name, |record| record.ready = false);
            }
            _ => {}
        }
        sleep(judge.pause()).await;
    }
}

/// The policy of a pod's own containers.
pub(super) fn policy(pod: &PodContext) -> Policy {
    match pod.facts().pod.spec.restart_policy.as_deref() {
        Some("Never") => Policy::Never,
        Some("OnFailure") => Policy::OnFailure,
        _ => Policy::Always,
    }
}
