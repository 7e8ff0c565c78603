//! Every flag and environment variable of the proxy, read here and nowhere else.
//!
//! Names and defaults are those of Istio's agent, so that its injection template works unchanged.
//! What is asked for and cannot be honoured is refused when it changes security, and reported
//! otherwise. [`Settings::new`] is pure; only [`environment`] touches the process.

mod cli;
mod environment;
mod metadata;
mod proxy_config;
mod proxyless;

pub use cli::{Cli, Command, ProxyArgs, RequestArgs, Role, WaitArgs};
pub use environment::{Environment, environment};
pub use proxy_config::ProxyConfig;
pub use proxyless::{CertificateFolder, Proxyless};

use lateen_api::names::{env, path, port};
use serde_json::{Map, Value};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Version reported as `ISTIO_VERSION`, in the form that tools parse.
pub const VERSION: &str = concat!("1.30.0-lateen-", env!("CARGO_PKG_VERSION"));
/// Workers when neither concurrency nor a CPU limit is given.
const DEFAULT_WORKERS: usize = 2;

/// Why the proxy cannot start as asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// A value cannot be read.
    #[error("{name}: `{value}` is not {expected}")]
    Value {
        /// Variable or flag.
        name: String,
        /// What it holds.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// Something is asked for that is not supported and cannot be left out safely.
    #[error("{name}={value} is not supported: {advice}")]
    Unsupported {
        /// Variable or field.
        name: String,
        /// What it holds.
        value: String,
        /// What to do.
        advice: &'static str,
    },
}

/// Where the control plane is, and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// `host:port` of discovery.
    pub discovery: String,
    /// `host:port` of the certificate authority.
    pub authority: String,
    /// DNS name the server must prove; `None`: the host of the address.
    pub server_name: Option<String>,
    /// No TLS, no token and no certificates: for tests and measurements on one machine.
    pub plaintext: bool,
    /// Root certificate file.
    pub roots: PathBuf,
    /// Service account token file, read anew for every connection.
    pub token: PathBuf,
    /// Additional headers for discovery.
    pub discovery_headers: Vec<(String, String)>,
    /// Additional headers for the certificate authority.
    pub authority_headers: Vec<(String, String)>,
}

/// The pod and its place in the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Sidecar or gateway.
    pub role: Role,
    /// Pod name.
    pub pod: String,
    /// Namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// Addresses given by the environment; the first is the pod's main one.
    pub addresses: Vec<IpAddr>,
    /// Trust domain.
    pub trust_domain: String,
    /// Cluster.
    pub cluster: String,
    /// DNS domain of the node id.
    pub domain: String,
    /// Labels file (downward API).
    pub labels: PathBuf,
    /// Node metadata from the environment.
    pub metadata: Map<String, Value>,
}

/// Certificates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certificates {
    /// Lifetime that is asked for.
    pub lifetime: Duration,
    /// Share of the lifetime left at renewal.
    pub grace_ratio: f64,
    /// Deviation of that share.
    pub grace_jitter: f64,
}

/// The DNS proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Where it listens; empty: not at all.
    pub addresses: Vec<SocketAddr>,
    /// How long upstream servers have.
    pub timeout: Duration,
    /// Ask all upstream servers at once.
    pub parallel: bool,
}

/// Ports of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Status, merged metrics, probes.
    pub status: u16,
    /// Health.
    pub health: u16,
    /// Metrics of the proxy alone.
    pub prometheus: u16,
    /// Admin, loopback only.
    pub admin: u16,
}

/// End of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Longest wait for connections after the signal to end.
    pub termination: Duration,
    /// How long connections of removed listeners and chains may go on.
    pub listeners: Duration,
    /// With [`Drain::until_idle`]: shortest wait.
    pub minimum: Duration,
    /// Wait until no connection is left, however long that takes.
    pub until_idle: bool,
}

/// Application probes and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Application {
    /// `ISTIO_KUBE_APP_PROBERS`.
    pub probers: String,
    /// Probes go to loopback instead of the pod's address.
    pub probe_loopback: bool,
    /// `ISTIO_PROMETHEUS_ANNOTATIONS`.
    pub prometheus: String,
}

/// Everything the proxy is told when it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The pod.
    pub workload: Workload,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// Certificates.
    pub certificates: Certificates,
    /// Where certificates are written to besides; `None`: nowhere.
    pub certificate_folder: Option<CertificateFolder>,
    /// There is no data path; applications speak xDS themselves.
    pub proxyless: Option<Proxyless>,
    /// DNS proxy.
    pub dns: Dns,
    /// Ports.
    pub ports: Ports,
    /// End of the process.
    pub drain: Drain,
    /// Application probes and metrics.
    pub application: Application,
    /// Number of data path threads, at least 1.
    pub workers: usize,
    /// What was asked for and is not honoured; for the log.
    pub remarks: Vec<String>,
}

impl Settings {
    /// Settings of a proxy without control plane: one worker for each CPU, everything else as it
    /// is by default.
    ///
    /// # Errors
    /// None that defaults could cause.
    pub fn fixed(cores: usize) -> Result<Self, SettingsError> {
        let args = ProxyArgs { concurrency: Some(0), ..ProxyArgs::default() };
        Self::new(&args, &Environment::default(), cores)
    }

    /// Settings from flags and environment. `cores` is the number of CPUs of the machine.
    ///
    /// # Errors
    /// When a value cannot be read, or something is asked for that cannot be left out safely.
    pub fn new(args: &ProxyArgs, env: &Environment, cores: usize) -> Result<Self, SettingsError> {
        let (config, mut remarks) = ProxyConfig::parse(env.text(env::PROXY_CONFIG))?;
        refuse_unsupported(env)?;
        remarks.extend(remarks_on(args, env));
        let workload = workload(args, env, &config)?;
        Ok(Self {
            control_plane: control_plane(env, &config)?,
            certificates: certificates(env)?,
            certificate_folder: CertificateFolder::read(env),
            proxyless: Proxyless::read(env, workload.role)?,
            dns: dns(env, &workload)?,
            ports: Ports {
                status: config.status_port.unwrap_or(port::STATUS),
                health: env.number("ENVOY_STATUS_PORT", port::HEALTH)?,
                prometheus: env.number("ENVOY_PROMETHEUS_PORT", port::PROMETHEUS)?,
                admin: config.admin_port.unwrap_or(port::PROXY_ADMIN),
            },
            drain: Drain {
                termination: config.termination_drain.unwrap_or(Duration::from_secs(5)),
                listeners: config.drain.unwrap_or(Duration::from_secs(45)),
                minimum: env.duration("MINIMUM_DRAIN_DURATION", Duration::from_secs(5))?,
                until_idle: env.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")?,
            },
            application: Application {
                probers: env.text(env::APP_PROBERS).to_owned(),
                probe_loopback: env.flag("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION")?,
                prometheus: env.text(env::PROMETHEUS_ANNOTATIONS).to_owned(),
            },
            workers: workers(args, env, &config, cores)?,
            workload,
            remarks,
        })
    }
}

fn workload(
    args: &ProxyArgs,
    env: &Environment,
    config: &ProxyConfig,
) -> Result<Workload, SettingsError> {
    let namespace = env.or(env::POD_NAMESPACE, "default");
    let mut addresses = Vec::new();
    for list in [env.text(env::INSTANCE_IP), env.text(env::INSTANCE_IPS)] {
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let address = text.parse().map_err(|_| SettingsError::Value {
                name: env::INSTANCE_IP.to_owned(),
                value: text.to_owned(),
                expected: "an IP address",
            })?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    Ok(Workload {
        role: args.role.unwrap_or_default(),
        pod: env.text(env::POD_NAME).to_owned(),
        service_account: env.or(env::SERVICE_ACCOUNT, "default").to_owned(),
        addresses,
        trust_domain: env.or(env::TRUST_DOMAIN, "cluster.local").to_owned(),
        cluster: env.or(env::META_CLUSTER_ID, "Kubernetes").to_owned(),
        domain: match args.domain.as_deref() {
            // Outside of Kubernetes nobody expands the variable.
            Some(domain) if !domain.is_empty() && !domain.contains("$(") => domain.to_owned(),
            _ => format!("{namespace}.svc.cluster.local"),
        },
        namespace: namespace.to_owned(),
        labels: PathBuf::from(path::POD_LABELS),
        metadata: metadata::from_environment(env, config),
    })
}

fn control_plane(env: &Environment, config: &ProxyConfig) -> Result<ControlPlane, SettingsError> {
    let discovery = config.discovery_address.clone();
    let discovery = discovery.unwrap_or_else(|| "istiod.istio-system.svc:15012".to_owned());
    let plaintext = config.plaintext;
    let insecure_port = discovery.ends_with(&format!(":{}", port::DISCOVERY));
    if insecure_port && !plaintext {
        return Err(SettingsError::Unsupported {
            name: "PROXY_CONFIG.discoveryAddress".to_owned(),
            value: discovery,
            advice: "port 15010 is plaintext: set controlPlaneAuthPolicy NONE, or use port 15012",
        });
    }
    let authority = env.or(env::CA_ADDR, &discovery).to_owned();
    let roots = ["CA_ROOT_CA", "XDS_ROOT_CA"].iter().map(|name| env.text(name));
    let roots = roots.into_iter().find(|path| !path.is_empty()).unwrap_or(path::ROOT_CERT);
    let server_name = env.text("ISTIOD_SAN");
    Ok(ControlPlane {
        discovery,
        authority,
        server_name: (!server_name.is_empty()).then(|| server_name.to_owned()),
        plaintext,
        roots: PathBuf::from(roots),
        token: PathBuf::from(path::TOKEN),
        discovery_headers: env.headers("XDS_HEADER_"),
        authority_headers: env.headers("CA_HEADER_"),
    })
}

fn certificates(env: &Environment) -> Result<Certificates, SettingsError> {
    Ok(Certificates {
        lifetime: env.duration(env::SECRET_TTL, Duration::from_secs(24 * 3600))?,
        grace_ratio: env.share(env::SECRET_GRACE_PERIOD_RATIO, 0.5)?,
        grace_jitter: env.share("SECRET_GRACE_PERIOD_RATIO_JITTER", 0.01)?,
    })
}

fn dns(env: &Environment, workload: &Workload) -> Result<Dns, SettingsError> {
    let wanted = env.flag(env::META_DNS_CAPTURE)? && workload.role == Role::Sidecar;
    let mut addresses = Vec::new();
    if wanted {
        let text = env.or("DNS_PROXY_ADDR", "localhost:15053");
        let bad = || SettingsError::Value {
            name: "DNS_PROXY_ADDR".to_owned(),
            value: text.to_owned(),
            expected: "localhost:PORT or an address with port",
        };
        match text.strip_prefix("localhost:") {
            Some(port) => {
                let port: u16 = port.parse().map_err(|_| bad())?;
                addresses.push(SocketAddr::from(([127, 0, 0, 1], port)));
                addresses.push(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
            }
            None => addresses.push(text.parse().map_err(|_| bad())?),
        }
    }
    Ok(Dns {
        addresses,
        timeout: env.duration("DNS_FORWARD_TIMEOUT", Duration::from_secs(5))?,
        parallel: env.flag("DNS_FORWARD_PARALLEL")?,
    })
}

/// Concurrency as given, else the CPU limit, else two; 0 means every core.
fn workers(
    args: &ProxyArgs,
    env: &Environment,
    config: &ProxyConfig,
    cores: usize,
) -> Result<usize, SettingsError> {
    let cores = cores.max(1);
    if let Some(given) = args.concurrency.or(config.concurrency) {
        return Ok(if given == 0 { cores } else { given.min(cores.max(DEFAULT_WORKERS)) });
    }
    match env.number::<usize>(env::CPU_LIMIT, 0)? {
        0 => Ok(DEFAULT_WORKERS),
        limit => Ok(limit.min(cores)),
    }
}

/// What cannot be left out without weakening security or changing who the workload is.
fn refuse_unsupported(env: &Environment) -> Result<(), SettingsError> {
    let rules: [(&str, &[&str], &str); 5] = [
        ("FILE_MOUNTED_CERTS", &["", "false"], "let the certificate authority issue certificates"),
        ("CA_PROVIDER", &["", "Citadel"], "use the mesh's certificate authority"),
        ("JWT_POLICY", &["", "third-party-jwt"], "mount a projected service account token"),
        ("COMPLIANCE_POLICY", &[""], "leave it empty"),
        ("PROV_CERT", &[""], "mount a projected service account token"),
    ];
    for (name, accepted, advice) in rules {
        let value = env.text(name);
        if !accepted.contains(&value) {
            let (name, value) = (name.to_owned(), value.to_owned());
            return Err(SettingsError::Unsupported { name, value, advice });
        }
    }
    Ok(())
}

fn remarks_on(args: &ProxyArgs, env: &Environment) -> Vec<String> {
    const WITHOUT_EFFECT: [&str; 6] = [
        "ISTIO_BOOTSTRAP_OVERRIDE",
        "ENVOY_SECURE_METRICS_PORT",
        "ENVOY_SECURE_MERGED_METRICS_PORT",
        "PROXY_XDS_VIA_AGENT",
        "WORKLOAD_RSA_KEY_SIZE",
        "ECC_CURVE",
    ];
    let set = WITHOUT_EFFECT.iter().filter(|name| !["", "0"].contains(&env.text(name)));
    let mut remarks: Vec<_> = set.map(|name| format!("{name} has no effect")).collect();
    let proxyless = env.flag(env::DISABLE_ENVOY).unwrap_or_default();
    if !(proxyless || env.text(env::GRPC_XDS_BOOTSTRAP).is_empty()) {
        remarks.push("GRPC_XDS_BOOTSTRAP has no effect without DISABLE_ENVOY".to_owned());
    }
    if args.log_as_json {
        remarks.push("--log_as_json has no effect: logs are text".to_owned());
    }
    if args.sts_port.is_some_and(|port| port != 0) {
        remarks.push("--stsPort has no effect: there is no token exchange".to_owned());
    }
    remarks
}

#[cfg(test)]
mod tests;
