//! The bootstrap file of gRPC libraries.
//!
//! Its content is that of Istio's agent (`pkg/istio-agent/grpcxds/grpc_bootstrap.go`). Pure, but for
//! [`write()`].

use crate::agent::certificate_files;
use crate::agent::files::Staged;
use crate::agent::node::Identity;
use crate::settings::Certificates;
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// Name of the listener resource that a gRPC server asks for; the library puts its address in.
const SERVER_LISTENER: &str = "xds.istio.io/grpc/lds/inbound/%s";
/// Longest time between two looks of a library at the certificate files. Istio's is 900 s, but libraries read
/// this before there is a certificate, and the authority may give a shorter one than is asked for.
const LONGEST_REFRESH: u64 = 60;
/// For the applications, whatever user they are. It names the pod, its labels and metadata of the proxy; of
/// keys and tokens there are paths at most.
const MODE: u32 = 0o644;

/// The document: discovery is at `socket`; certificates are in a folder, if there are any.
#[must_use]
pub fn document(
    identity: &Identity,
    socket: &Path,
    certificates: Option<(&Path, &Certificates)>,
) -> Value {
    let mut metadata = identity.metadata.clone();
    metadata.insert("GENERATOR".to_owned(), Value::from("grpc"));
    let mut node = json!({"id": identity.node.id, "metadata": metadata});
    if let Some(locality) = &identity.node.locality {
        node["locality"] = json!({
            "region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone,
        });
    }
    let mut document = json!({
        "xds_servers": [{
            "server_uri": format!("unix://{}", socket.display()),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": node,
        "server_listener_resource_name_template": SERVER_LISTENER,
    });
    if let Some((folder, times)) = certificates {
        let [chain, key, roots] =
            certificate_files::paths(folder).map(|path| path.display().to_string());
        document["certificate_providers"] = json!({"default": {
            "plugin_name": "file_watcher",
            "config": {
                "certificate_file": chain,
                "private_key_file": key,
                "ca_certificate_file": roots,
                "refresh_interval": format!("{}s", refresh(times)),
            },
        }});
    }
    document
}

/// Seconds between two looks at the files. A library must look between a renewal and the end of the
/// certificate before, however soon that is.
fn refresh(times: &Certificates) -> u64 {
    let left = times.lifetime.mul_f64(times.grace_ratio);
    (left / 2).as_secs().clamp(1, LONGEST_REFRESH)
}

/// Writes the document, whole, for every user of the pod.
///
/// # Errors
/// When it cannot be written.
pub fn write(document: &Value, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Staged::new(to, format!("{document:#}\n").as_bytes(), MODE)?.put()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Environment, ProxyArgs, Settings};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    fn settings() -> Settings {
        let env = Environment::from([
            ("POD_NAME", "echo-1"),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", "echo"),
            ("INSTANCE_IP", "10.0.0.7"),
            ("ISTIO_META_CLUSTER_ID", "c1"),
            ("ISTIO_METAJSON_X", "{\"a\":[1,true]}"),
        ]);
        Settings::new(&ProxyArgs::default(), &env, 1).unwrap()
    }

    fn identity(labels: &Value) -> Identity {
        Identity::new(&settings(), labels.as_object().unwrap(), &[])
    }

    #[test]
    fn it_is_what_istios_agent_writes() {
        let identity = identity(&json!({"app": "echo", "istio-locality": "eu.eu-1.rack-2"}));
        let folder = Path::new("/var/lib/istio/data");
        let certificates = Some((folder, &settings().certificates));
        let document = document(&identity, Path::new("/etc/istio/proxy/XDS"), certificates);
        let version = crate::settings::VERSION;
        let expected = json!({
            "xds_servers": [{
                "server_uri": "unix:///etc/istio/proxy/XDS",
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }],
            "node": {
                "id": "sidecar~10.0.0.7~echo-1.shop~shop.svc.cluster.local",
                "metadata": {
                    "CLUSTER_ID": "c1", "GENERATOR": "grpc", "INSTANCE_IPS": "10.0.0.7",
                    "INTERCEPTION_MODE": "REDIRECT", "ISTIO_VERSION": version, "LATEEN": "1",
                    "LABELS": {"app": "echo", "istio-locality": "eu.eu-1.rack-2"},
                    "NAME": "echo-1", "NAMESPACE": "shop", "SERVICE_ACCOUNT": "echo",
                    "WORKLOAD_NAME": "echo-1", "X": {"a": [1, true]},
                },
                "locality": {"region": "eu", "zone": "eu-1", "sub_zone": "rack-2"},
            },
            "certificate_providers": {"default": {
                "plugin_name": "file_watcher",
                "config": {
                    "certificate_file": "/var/lib/istio/data/cert-chain.pem",
                    "private_key_file": "/var/lib/istio/data/key.pem",
                    "ca_certificate_file": "/var/lib/istio/data/root-cert.pem",
                    "refresh_interval": "60s",
                },
            }},
            "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn libraries_look_at_files_before_a_certificate_ends() {
        for (lifetime, grace_ratio, expected) in
            [(86_400, 0.5, 60), (240, 0.5, 60), (120, 0.5, 30), (8, 0.5, 2), (2, 0.1, 1)]
        {
            let lifetime = Duration::from_secs(lifetime);
            let times = Certificates { lifetime, grace_ratio, grace_jitter: 0.01 };
            assert_eq!(refresh(&times), expected, "{lifetime:?}");
        }
    }

    #[test]
    fn without_certificates_no_provider_is_named() {
        let document = document(&identity(&json!({})), Path::new("/x/XDS"), None);
        assert!(document.get("certificate_providers").is_none(), "{document}");
        assert!(document["node"].get("locality").is_none(), "{document}");
    }

    #[test]
    fn everybody_can_read_the_file_and_the_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy/grpc-bootstrap.json");
        write(&json!({"a": 1}), &path).unwrap();
        write(&json!({"a": 2}), &path).unwrap();
        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, json!({"a": 2}));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
