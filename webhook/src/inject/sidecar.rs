//! The sidecar: container, init container, volumes.
//!
//! Builds the parts; where they go in the pod is decided by the assembly. Must not know pods that
//! exist.

use lateen_api::names::{annotation, container, port};
use serde_json::{Map, Value, json};

use super::annotations::number;
use super::environment::{self, Role};
use super::facts::Facts;
use super::proxy_config::Mode;
use super::templates::Fragment;
use super::{InjectError, identity, images, metadata, redirect, resources, volumes};
use crate::kube::{Container, ContainerPort, HttpGet, Probe, to_value};

const PROBE_TIMEOUT_SECONDS: u32 = 3;
/// Page that says whether the proxy is ready.
pub(crate) const READY: &str = "/healthz/ready";
/// Program of the proxy in the image.
pub(crate) const PROXY_PROGRAM: &str = "lateen-proxy";

/// What the template `sidecar` adds.
pub(crate) fn fragment(facts: &Facts<'_>) -> Result<Fragment, InjectError> {
    let mut proxy = container(facts);
    proxy.args.splice(0..0, ["proxy".to_owned(), "sidecar".to_owned()]);
    let init = (facts.mode != Mode::None).then(|| to_value(&redirect::container(facts)));
    let volumes = volumes::volumes(facts, Role::Sidecar)?;
    let mut value = to_value(&proxy);
    value["volumeMounts"] = Value::Array(volumes::mounts(facts, Role::Sidecar)?);
    Ok(Fragment {
        proxy: Some(value),
        proxy_is_native: facts.native,
        init,
        volumes,
        labels: metadata::sidecar_labels(facts),
        annotations: metadata::sidecar_annotations(facts),
        image_pull_secrets: facts.settings.values.global.image_pull_secrets.clone(),
        ..Fragment::default()
    })
}

fn container(facts: &Facts<'_>) -> Container {
    let global = &facts.settings.values.global;
    Container {
        name: container::PROXY.to_owned(),
        image: images::proxy(facts),
        image_pull_policy: global.image_pull_policy.clone(),
        args: arguments(facts),
        ports: vec![prometheus_port()],
        env: environment::variables(facts, Role::Sidecar),
        resources: resources::resources(facts),
        startup_probe: startup(facts),
        readiness_probe: readiness(facts, port::HEALTH),
        lifecycle: lifecycle(facts),
        security_context: Some(identity::proxy(facts)),
        restart_policy: facts.native.then_some("Always"),
        ..Container::default()
    }
}

/// Arguments after the kind of proxy.
pub(crate) fn arguments(facts: &Facts<'_>) -> Vec<String> {
    let global = &facts.settings.values.global;
    let annotated = |key: &str, default: &str| {
        facts.annotations.get(key).cloned().unwrap_or_else(|| default.to_owned())
    };
    let level = annotated(annotation::LOG_LEVEL, &global.proxy.log_level);
    let components = annotated(annotation::COMPONENT_LOG_LEVEL, &global.proxy.component_log_level);
    let mut arguments = vec![
        "--domain".to_owned(),
        format!("$(POD_NAMESPACE).svc.{}", global.proxy.cluster_domain),
        format!("--proxyLogLevel={level}"),
    ];
    if !components.is_empty() {
        arguments.push(format!("--proxyComponentLogLevel={components}"));
    }
    arguments.push(format!("--log_output_level={}", redirect::log_level(facts)));
    if global.sts.service_port != 0 {
        arguments.push(format!("--stsPort={}", global.sts.service_port));
    }
    if global.log_as_json {
        arguments.push("--log_as_json".to_owned());
    }
    if !global.proxy.outlier_log_path.is_empty() {
        arguments.push(format!("--outlierLogPath={}", global.proxy.outlier_log_path));
    }
    arguments
}

/// The port of the proxy's own metrics.
pub(crate) fn prometheus_port() -> ContainerPort {
    ContainerPort {
        name: container::PROMETHEUS_PORT_NAME,
        container_port: port::PROMETHEUS,
        protocol: "TCP",
    }
}

fn startup(facts: &Facts<'_>) -> Option<Probe> {
    let probe = &facts.settings.values.global.proxy.startup_probe;
    (probe.enabled && facts.status_port.is_some()).then(|| Probe {
        http_get: health(port::HEALTH),
        initial_delay_seconds: 0,
        period_seconds: 1,
        timeout_seconds: PROBE_TIMEOUT_SECONDS,
        failure_threshold: probe.failure_threshold,
    })
}

/// Readiness of the proxy, as annotations and settings want it.
pub(crate) fn readiness(facts: &Facts<'_>, port: u16) -> Option<Probe> {
    let proxy = &facts.settings.values.global.proxy;
    let value = |key, default| number(&facts.annotations, key, default);
    facts.status_port.map(|_| Probe {
        http_get: health(port),
        initial_delay_seconds: value(
            annotation::READINESS_INITIAL_DELAY,
            proxy.readiness_initial_delay_seconds,
        ),
        period_seconds: value(annotation::READINESS_PERIOD, proxy.readiness_period_seconds),
        timeout_seconds: PROBE_TIMEOUT_SECONDS,
        failure_threshold: value(annotation::READINESS_FAILURE, proxy.readiness_failure_threshold),
    })
}

fn health(port: u16) -> HttpGet {
    HttpGet { path: READY, port }
}

/// Hooks: a native sidecar drains when the pod ends; a classic one that is waited for says when
/// it is there.
fn lifecycle(facts: &Facts<'_>) -> Map<String, Value> {
    let given = &facts.settings.values.global.proxy.lifecycle;
    if !given.is_empty() {
        return given.clone();
    }
    let mut hooks = Map::new();
    let mut exec = |hook: &str, command: &[&str]| {
        hooks.insert(hook.to_owned(), json!({"exec": {"command": command}}));
    };
    if facts.native {
        let port = facts.status_port.unwrap_or_else(|| facts.config.status_port());
        let port = format!("--debug-port={port}");
        exec("preStop", &[PROXY_PROGRAM, "request", &port, "POST", "drain"]);
    } else if facts.holds {
        exec("postStart", &[PROXY_PROGRAM, "wait"]);
    }
    hooks
}
