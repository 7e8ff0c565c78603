//! Proxyless gRPC, simple: the application speaks to the control plane itself.
//!
//! An init container writes the bootstrap file that gRPC libraries read. Must not know pods that
//! exist.

use std::collections::BTreeMap;

use lateen_api::names::{annotation, env, port};
use serde_json::json;

use super::facts::Facts;
use super::templates::Fragment;
use crate::kube::{Container, EnvVar, VolumeMount, to_value, to_values};

const VOLUME: &str = "grpc-io-proxyless-bootstrap";
const FOLDER: &str = "/var/lib/grpc/data/";
const FILE: &str = "/var/lib/grpc/data/bootstrap.json";
/// Any image with a shell; the one Istio uses here.
const INIT_IMAGE: &str = "busybox:1.28";
/// Text goes through the environment, so that nothing of it is read by the shell.
const SCRIPT: &str = r#"printf '%s\n' "$BOOTSTRAP" > "$BOOTSTRAP_FILE""#;

/// What the template `grpc-simple` adds.
pub(crate) fn fragment(facts: &Facts<'_>) -> Fragment {
    let mount =
        VolumeMount { name: VOLUME.to_owned(), mount_path: FOLDER.to_owned(), read_only: false };
    let environment = [
        EnvVar::value(env::GRPC_XDS_BOOTSTRAP, FILE),
        EnvVar::value("GRPC_GO_LOG_VERBOSITY_LEVEL", "99"),
        EnvVar::value("GRPC_GO_LOG_SEVERITY_LEVEL", "info"),
    ];
    let apps = facts.app_containers.iter().map(|name| {
        json!({
            "name": name, "env": to_values(&environment),
            "volumeMounts": [to_value(&mount)],
        })
    });
    let apps = apps.collect();
    let server = format!(
        "dns:///{}.{}.svc:{}",
        facts.settings.control_plane_service(),
        facts.settings.values.global.istio_namespace,
        port::DISCOVERY
    );
    let init = Container {
        name: "grpc-bootstrap-init".to_owned(),
        image: INIT_IMAGE.to_owned(),
        command: ["sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
        env: vec![
            EnvVar::field(env::INSTANCE_IP, "status.podIP"),
            EnvVar::field(env::POD_NAME, "metadata.name"),
            EnvVar::field(env::POD_NAMESPACE, "metadata.namespace"),
            EnvVar::value("XDS_SERVER", server),
            EnvVar::value("BOOTSTRAP", bootstrap()),
            EnvVar::value("BOOTSTRAP_FILE", FILE),
        ],
        volume_mounts: vec![mount],
        ..Container::default()
    };
    let no_rewrite: BTreeMap<String, String> =
        [(annotation::REWRITE_PROBES.to_owned(), "false".to_owned())].into();
    Fragment {
        init: Some(to_value(&init)),
        apps,
        volumes: vec![json!({"name": VOLUME, "emptyDir": {}})],
        annotations: no_rewrite,
        ..Fragment::default()
    }
}

/// The bootstrap file; the kubelet fills in the variables.
fn bootstrap() -> String {
    json!({
        "xds_servers": [{
            "server_uri": "$(XDS_SERVER)",
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {
            "id": "sidecar~$(INSTANCE_IP)~$(POD_NAME).$(POD_NAMESPACE)~cluster.local",
            "metadata": {"GENERATOR": "grpc"},
        },
    })
    .to_string()
}
