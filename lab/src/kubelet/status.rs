//! What is known of a pod's containers, and the status made of it.
//!
//! Pure: time comes in as text.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lateen_api::core::{Condition, Container, ContainerStatus, PodIp, PodSpec, PodStatus};
use serde_json::{Value, json};

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Not started, or to be started again.
    Waiting { reason: &'static str, message: String },
    /// Running since.
    Running { since: String },
    /// Ended.
    Terminated { code: i32, reason: &'static str, message: String, since: String, at: String },
}

/// How far the start of a running container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    /// Not running, or its hook has not ended.
    Starting,
    /// Its hook after the start has ended.
    Hooked,
    /// Its startup probe has succeeded.
    Started,
}

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) progress: Progress,
    pub(super) ready: bool,
    pub(super) restarts: u32,
    pub(super) last: Option<Value>,
    /// It will not be started again.
    pub(super) finished: bool,
}

impl Default for Record {
    fn default() -> Self {
        let state = State::Waiting { reason: "PodInitializing", message: String::new() };
        Self {
            state,
            progress: Progress::Starting,
            ready: false,
            restarts: 0,
            last: None,
            finished: false,
        }
    }
}

impl Record {
    /// Exit status of its last end.
    pub(super) fn code(&self) -> Option<i32> {
        match &self.state {
            State::Terminated { code, .. } => Some(*code),
            State::Waiting { .. } | State::Running { .. } => None,
        }
    }

    /// Whether its hook has ended.
    pub(super) fn is_hooked(&self) -> bool {
        self.progress >= Progress::Hooked
    }

    /// Whether it has started, by its startup probe where it has one.
    pub(super) fn has_started(&self) -> bool {
        self.progress == Progress::Started
    }

    fn has_run(&self) -> bool {
        self.restarts > 0 || !matches!(self.state, State::Waiting { .. })
    }
}

/// Containers by name.
pub(super) type Records = BTreeMap<String, Record>;

/// What a status is made of.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) spec: &'a PodSpec,
    pub(super) records: &'a Records,
    pub(super) addresses: &'a [IpAddr],
    pub(super) host: &'a [IpAddr],
    /// When the pod was taken.
    pub(super) start: &'a str,
    /// The status before.
    pub(super) previous: &'a PodStatus,
    pub(super) now: &'a str,
}

/// The state as the API has it.
pub(super) fn state_json(state: &State) -> Value {
    match state {
        State::Waiting { reason, message } if message.is_empty() => {
            json!({"waiting": {"reason": reason}})
        }
        State::Waiting { reason, message } => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        State::Running { since } => json!({"running": {"startedAt": since}}),
        State::Terminated { code, reason, message, since, at } => {
            let mut ended = json!({"exitCode": code, "reason": reason, "startedAt": since,
                "finishedAt": at});
            if !message.is_empty() {
                ended["message"] = message.as_str().into();
            }
            json!({"terminated": ended})
        }
    }
}

/// The status of a pod.
pub(super) fn status(known: &Known<'_>) -> PodStatus {
    let spec = known.spec;
    let record = |container: &Container| known.records.get(&container.name);
    let initialized = spec.init_containers.iter().all(|container| {
        record(container).is_some_and(|it| {
            if container.is_sidecar() {
                it.has_started()
            } else {
                it.finished && it.code() == Some(0)
            }
        })
    });
    // Sidecars count: a pod without its proxy is not ready.
    let sidecars = spec.init_containers.iter().filter(|container| container.is_sidecar());
    let mut all = spec.containers.iter().chain(sidecars);
    let ready = initialized && all.all(|container| record(container).is_some_and(|it| it.ready));
    let phase = phase(known);
    let ready = ready && phase == "Running";
    let conditions = [
        ("PodScheduled", true),
        ("PodReadyToStartContainers", !known.addresses.is_empty()),
        ("Initialized", initialized),
        ("ContainersReady", ready),
        ("Ready", ready),
    ];
    let containers = |list: &[Container]| {
        list.iter().map(|it| container_status(it, record(it))).collect::<Vec<_>>()
    };
    let text = |addresses: &[IpAddr]| addresses.first().map(ToString::to_string);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        pod_ip: text(known.addresses),
        pod_ips: known.addresses.iter().map(pod_ip).collect(),
        host_ip: text(known.host),
        conditions: conditions.map(|(kind, is)| condition(known, kind, is)).into(),
        init_container_statuses: containers(&spec.init_containers),
        container_statuses: containers(&spec.containers),
        ..PodStatus::default()
    };
    status.extra.insert("startTime".to_owned(), known.start.into());
    status
}

fn pod_ip(address: &IpAddr) -> PodIp {
    PodIp { ip: address.to_string() }
}

fn phase(known: &Known<'_>) -> &'static str {
    let spec = known.spec;
    let of = |list: &[Container]| -> Vec<Record> {
        list.iter().map(|it| known.records.get(&it.name).cloned().unwrap_or_default()).collect()
    };
    let failed = |records: &[Record]| {
        records.iter().any(|it| it.finished && it.code().is_some_and(|code| code != 0))
    };
    let (init, apps) = (of(&spec.init_containers), of(&spec.containers));
    if !apps.is_empty() && apps.iter().all(|it| it.finished) {
        return if failed(&apps) { "Failed" } else { "Succeeded" };
    }
    let plain = spec.init_containers.iter().zip(init).filter(|(it, _)| !it.is_sidecar());
    if failed(&plain.map(|(_, record)| record).collect::<Vec<_>>()) {
        return "Failed";
    }
    if apps.iter().any(Record::has_run) { "Running" } else { "Pending" }
}

fn condition(known: &Known<'_>, kind: &str, is: bool) -> Condition {
    let status = if is { "True" } else { "False" };
    let before = known.previous.conditions.iter().find(|it| it.kind == kind);
    let since = before
        .filter(|before| before.status == status)
        .and_then(|before| before.extra.get("lastTransitionTime").cloned());
    let mut condition =
        Condition { kind: kind.to_owned(), status: status.to_owned(), ..Condition::default() };
    let since = since.unwrap_or_else(|| known.now.into());
    condition.extra.insert("lastTransitionTime".to_owned(), since);
    if !is && ["Ready", "ContainersReady"].contains(&kind) {
        let unready = known.records.iter().filter(|(_, it)| !it.ready && !it.finished);
        let names: Vec<&str> = unready.map(|(name, _)| name.as_str()).collect();
        condition.reason = Some("ContainersNotReady".to_owned());
        condition.message = Some(format!("containers with unready status: [{}]", names.join(" ")));
    }
    condition
}

fn container_status(container: &Container, record: Option<&Record>) -> ContainerStatus {
    let unknown = Record::default();
    let record = record.unwrap_or(&unknown);
    let is_plain_init = record.finished && record.code() == Some(0);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        ready: record.ready || is_plain_init,
        started: Some(record.has_started()),
        restart_count: record.restarts,
        state: Some(state_json(&record.state)),
        ..ContainerStatus::default()
    };
    let image = container.image.clone().unwrap_or_default();
    status.extra.insert("image".to_owned(), image.into());
    if let Some(last) = &record.last {
        status.extra.insert("lastState".to_owned(), last.clone());
    }
    status
}

#[cfg(test)]
mod tests {
    use super::{Known, PodStatus, Progress, Record, Records, State, status};
    use serde_json::json;

    fn record(code: Option<i32>, ready: bool) -> Record {
        let state = match code {
            None => State::Running { since: "t".into() },
            Some(code) => State::Terminated {
                code,
                reason: "x",
                message: String::new(),
                since: "t".into(),
                at: "t".into(),
            },
        };
        let finished = code.is_some();
        let progress = if finished { Progress::Starting } else { Progress::Started };
        Record { state, progress, ready, finished, ..Record::default() }
    }

    fn of(records: &[(&str, Record)], previous: &PodStatus, now: &str) -> PodStatus {
        let spec = json!({"initContainers": [{"name": "init"},
            {"name": "proxy", "restartPolicy": "Always"}], "containers": [{"name": "app"}]});
        let records: Records =
            records.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect();
        status(&Known {
            spec: &serde_json::from_value(spec).unwrap(),
            records: &records,
            addresses: &["10.244.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            host: &["10.244.0.1".parse().unwrap()],
            start: "t0",
            previous,
            now,
        })
    }

    fn is(status: &PodStatus, kind: &str) -> (String, String) {
        let found = status.conditions.iter().find(|it| it.kind == kind).unwrap();
        let since = found.extra["lastTransitionTime"].as_str().unwrap();
        (found.status.clone(), since.to_owned())
    }

    #[test]
    fn a_pod_goes_from_pending_to_ready_and_back() {
        let none = PodStatus::default();
        let init = ("init", record(Some(0), false));
        let first = of(std::slice::from_ref(&init), &none, "t1");
        assert_eq!(first.phase.as_deref(), Some("Pending"));
        assert_eq!(is(&first, "Initialized").0, "False");
        assert_eq!(first.pod_ips.len(), 2);
        let proxy = ("proxy", record(None, true));
        let app = ("app", record(None, true));
        let second = of(&[init.clone(), proxy, app.clone()], &first, "t2");
        assert_eq!(second.phase.as_deref(), Some("Running"));
        assert_eq!(is(&second, "Ready"), ("True".into(), "t2".into()));
        assert_eq!(is(&second, "PodScheduled"), ("True".into(), "t1".into()));
        let proxy = ("proxy", record(None, false));
        let third = of(&[init, proxy, app], &second, "t3");
        assert_eq!(is(&third, "Ready"), ("False".into(), "t3".into()));
        assert_eq!(is(&third, "Initialized"), ("True".into(), "t2".into()));
        assert!(third.container_statuses[0].ready);
    }

    #[test]
    fn a_pod_ends_by_its_containers() {
        let none = PodStatus::default();
        let phase = |app: i32, init: i32| {
            let records = [
                ("init", record(Some(init), false)),
                ("proxy", record(None, true)),
                ("app", record(Some(app), false)),
            ];
            of(&records, &none, "t").phase.unwrap()
        };
        assert_eq!(phase(0, 0), "Succeeded");
        assert_eq!(phase(1, 0), "Failed");
        assert_eq!(of(&[("init", record(Some(2), false))], &none, "t").phase.unwrap(), "Failed");
    }
}
