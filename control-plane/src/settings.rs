//! Flags and environment of `lateend`: the only place that reads them.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// The control plane of a Lateen mesh: injection, configuration, certificates.
#[derive(Debug, Clone, Parser)]
#[command(name = "lateend", version, about, max_term_width = 100)]
pub struct Settings {
    /// Directory with the mesh's objects: any Kubernetes YAML or JSON below it; watched.
    /// Without it they are those of the API server
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,

    /// How to reach the API server; else $KUBECONFIG, else the service account of this pod
    #[arg(long, value_name = "FILE", conflicts_with = "config_dir")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of this control plane
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system", value_name = "NAME")]
    pub namespace: String,

    /// Pod of this control plane; without it a name is made up
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,

    /// Mesh configuration; else key `mesh` of the ConfigMap `istio` in this namespace
    #[arg(long, value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,

    /// Injection values; else key `values` of the ConfigMap `istio-sidecar-injector`
    #[arg(long, value_name = "FILE")]
    pub injection_values: Option<PathBuf>,

    /// Address to listen on; without it every address, plaintext discovery on loopback only
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,

    /// Port of plaintext discovery
    #[arg(long, default_value_t = 15010, value_name = "PORT")]
    pub grpc_port: u16,

    /// Port of discovery and certificates over TLS
    #[arg(long, default_value_t = 15012, value_name = "PORT")]
    pub secure_port: u16,

    /// Port of readiness, metrics and debug pages
    #[arg(long, default_value_t = 15014, value_name = "PORT")]
    pub monitoring_port: u16,

    /// Port of the injection webhook
    #[arg(long, default_value_t = 15017, value_name = "PORT")]
    pub webhook_port: u16,

    /// Directory of the certificate authority: made when absent, taken over when present
    #[arg(long, default_value = "./etc/cacerts", value_name = "DIR")]
    pub ca_dir: PathBuf,

    /// How long the roots of an authority that takes another's place in its Secret are published
    /// before it signs
    #[arg(long, default_value = "2m", value_parser = lateen_api::duration::parse, value_name = "TIME")]
    pub root_overlap: Duration,

    /// JSON Web Key Set of the keys that sign service account tokens; read again when it changes.
    /// Without it the API server is asked
    #[arg(long, value_name = "FILE")]
    pub token_jwks: Option<PathBuf>,

    /// Issuer of service account tokens
    #[arg(
        long,
        default_value = "https://kubernetes.default.svc.cluster.local",
        value_name = "URL"
    )]
    pub token_issuer: String,

    /// Directory for what would be written to the API server
    #[arg(long, value_name = "DIR")]
    pub publish_dir: Option<PathBuf>,

    /// Name of this cluster
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes", value_name = "NAME")]
    pub cluster_id: String,

    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,

    /// Revision of this control plane
    #[arg(long, env = "REVISION", default_value = "default", value_name = "NAME")]
    pub revision: String,

    /// Longest lifetime of workload certificates
    #[arg(long, default_value = "24h", value_parser = lateen_api::duration::parse, value_name = "TIME")]
    pub max_cert_ttl: Duration,

    /// How often the leader looks for pods without their sidecar or with a stale one; 0s: never
    #[arg(long, default_value = "5m", value_parser = lateen_api::duration::parse, value_name = "TIME")]
    pub audit_every: Duration,

    /// How often the leader tries whether the API server reaches the webhook, by a dry run in this
    /// namespace; 0s: never
    #[arg(long, default_value = "0s", value_parser = lateen_api::duration::parse, value_name = "TIME")]
    pub self_test_every: Duration,

    /// What is logged: error, warn, info, debug or trace
    #[arg(long, env = "LATEEN_LOG", default_value = "info", value_name = "LEVEL")]
    pub log_level: tracing::Level,
}

impl Settings {
    /// Name of an object of this revision in our namespace, such as `istio` or `istio-canary`.
    #[must_use]
    pub fn revised(&self, name: &str) -> String {
        match self.revision.as_str() {
            "" | "default" => name.to_owned(),
            revision => format!("{name}-{revision}"),
        }
    }

    /// Time between audits of sidecars, if there are any.
    #[must_use]
    pub fn audit_period(&self) -> Option<Duration> {
        Some(self.audit_every).filter(|period| !period.is_zero())
    }

    /// Time between self-tests of the webhook, if there are any.
    #[must_use]
    pub fn self_test_period(&self) -> Option<Duration> {
        Some(self.self_test_every).filter(|period| !period.is_zero())
    }

    /// Where TLS discovery, monitoring and the webhook listen.
    #[must_use]
    pub fn listen_address(&self) -> IpAddr {
        self.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    /// Where plaintext discovery listens: it asks nobody who they are, so it is for this machine
    /// alone unless an address is named.
    #[must_use]
    pub fn plaintext_address(&self) -> IpAddr {
        self.address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use clap::{CommandFactory, Parser};
    use std::time::Duration;

    #[test]
    fn the_flags_are_consistent() {
        Settings::command().debug_assert();
    }

    #[test]
    fn plaintext_stays_on_the_machine() {
        let settings = Settings::parse_from(["lateend", "--config-dir", "x"]);
        assert!(settings.plaintext_address().is_loopback());
        assert!(settings.listen_address().is_unspecified());
        assert_eq!(settings.max_cert_ttl, Duration::from_secs(86_400));
    }

    #[test]
    fn objects_of_a_revision_carry_its_name() {
        let named = |revision: &str| {
            Settings::parse_from(["lateend", "--revision", revision]).revised("istio")
        };
        assert_eq!(named("default"), "istio");
        assert_eq!(named("canary"), "istio-canary");
    }

    #[test]
    fn objects_come_from_one_place() {
        let both = ["lateend", "--config-dir", "x", "--kubeconfig", "y"];
        assert!(Settings::try_parse_from(both).is_err());
    }
}
