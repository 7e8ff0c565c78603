//! Proxyless gRPC with an agent: the application speaks xDS, `istio-proxy` is its way to the mesh.
//!
//! The agent writes certificates, their key and a bootstrap file into volumes that it shares with the
//! application, and passes discovery on over a socket there. Nothing is redirected. Must not know pods
//! that exist. Source of behaviour: Istio's `istio-discovery/files/grpc-agent.yaml`.

use lateen_api::names::{annotation, container, env, path, volume};
use serde_json::{Map, Value, json};

use super::environment::{self, Role};
use super::facts::Facts;
use super::templates::Fragment;
use super::{InjectError, identity, images, metadata, resources, sidecar, volumes};
use crate::kube::{Container, ContainerPort, EnvVar, to_value, to_values};

/// What the template `grpc-agent` adds.
pub(crate) fn fragment(facts: &Facts<'_>) -> Result<Fragment, InjectError> {
    let mut agent = to_value(&container(facts));
    agent["volumeMounts"] = Value::Array(volumes::mounts(facts, Role::Agent)?);
    let mut annotations = metadata::application_annotations(facts);
    // Traffic is not redirected: the kubelet reaches the application itself.
    annotations.insert(annotation::REWRITE_PROBES.to_owned(), "false".to_owned());
    Ok(Fragment {
        proxy: Some(agent),
        apps: facts.app_containers.iter().map(|name| application(name)).collect(),
        volumes: volumes::volumes(facts, Role::Agent)?,
        labels: metadata::common_labels(facts),
        annotations,
        image_pull_secrets: facts.settings.values.global.image_pull_secrets.clone(),
        ..Fragment::default()
    })
}

fn container(facts: &Facts<'_>) -> Container {
    let mut args = sidecar::arguments(facts);
    args.splice(0..0, ["proxy".to_owned(), "sidecar".to_owned()]);
    let status = facts.config.status_port();
    Container {
        name: container::PROXY.to_owned(),
        image: images::proxy(facts),
        image_pull_policy: facts.settings.values.global.image_pull_policy.clone(),
        args,
        ports: vec![ContainerPort {
            name: container::AGENT_PORT_NAME,
            container_port: status,
            protocol: "TCP",
        }],
        env: environment::variables(facts, Role::Agent),
        resources: resources::resources(facts),
        readiness_probe: sidecar::readiness(facts, status),
        lifecycle: lifecycle(status),
        security_context: Some(identity::agent(facts)),
        ..Container::default()
    }
}

/// The kubelet starts no container of the list before this hook of the one before it has ended. So the
/// applications wait where the agent is put first (`holdApplicationUntilProxyStarts`), else nobody does.
fn lifecycle(status: u16) -> Map<String, Value> {
    let url = format!("--url=http://localhost:{status}{}", sidecar::READY);
    let command = [sidecar::PROXY_PROGRAM, "wait", &url];
    let mut hooks = Map::new();
    hooks.insert("postStart".to_owned(), json!({"exec": {"command": command}}));
    hooks
}

/// What an application gets: where its bootstrap is, and the volumes that it names.
fn application(name: &str) -> Value {
    let environment = [
        EnvVar::value("GRPC_XDS_EXPERIMENTAL_SECURITY_SUPPORT", "true"),
        EnvVar::value(env::GRPC_XDS_BOOTSTRAP, path::GRPC_BOOTSTRAP),
    ];
    let mounts = [
        volumes::mount(volume::DATA, path::PROXY_DATA),
        volumes::mount(volume::XDS, volumes::SCRATCH_FOLDER),
        volumes::mount(volume::WORKLOAD_CERTS, volumes::WORKLOAD_CERTS_FOLDER),
    ];
    json!({"name": name, "env": to_values(&environment), "volumeMounts": to_values(&mounts)})
}
