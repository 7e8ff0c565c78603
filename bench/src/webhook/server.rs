//! The webhook's server alone in a process: this program, started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use lateen_webhook::InjectionSettings;
use lateen_webhook::admission::Injector;
use lateen_webhook::server::{Limits, Webhook, serve};
use lateen_webhook::settings::Options;
use lateen_webhook::stats::Counters;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{NAME, provider};
use crate::process::{Process, until};

/// Files by which the server says where it is.
const ROOT: &str = "root.der";
const ADDRESS: &str = "address";

/// The process, on the last core that this one may use; it ends with this value.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) root: CertificateDer<'static>,
    process: Process,
    _folder: TempDir,
}

impl Server {
    pub(super) fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bin").arg(folder.path()).arg("--webhook").arg(folder.path());
        let log = folder.path().join("log");
        let process = Process::start(&mut command, &log)?;
        let address = folder.path().join(ADDRESS);
        until("the webhook's start", Duration::from_secs(10), || address.exists())
            .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Self {
            address: std::fs::read_to_string(&address)?.parse()?,
            root: CertificateDer::from(std::fs::read(folder.path().join(ROOT))?),
            process,
            _folder: folder,
        })
    }

    /// What it holds now, in MiB.
    pub(super) fn resident_mib(&self) -> anyhow::Result<f64> {
        self.process.resident_mib()
    }

    /// The most it has held, in MiB.
    pub(super) fn peak_mib(&self) -> anyhow::Result<f64> {
        self.process.peak_mib()
    }
}

/// Serves until it is killed, and says in `folder` where.
pub(crate) fn serve_alone(folder: &Path) -> anyhow::Result<ExitCode> {
    stay_on_one_core()?;
    let (root, tls) = certificates()?;
    std::fs::write(folder.join(ROOT), &root)?;
    let settings = InjectionSettings::from_sources(None, None, Options::default())?;
    let injector = Injector { settings, namespaces: BTreeMap::new() };
    let webhook = Webhook {
        injector: Arc::new(ArcSwap::from_pointee(injector)),
        counters: Arc::new(Counters::default()),
        limits: Limits::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let whole = folder.join("address.new");
        std::fs::write(&whole, listener.local_addr()?.to_string())?;
        std::fs::rename(&whole, folder.join(ADDRESS))?;
        serve(webhook, listener, Arc::new(tls), CancellationToken::new()).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn stay_on_one_core() -> anyhow::Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rev().find(|core| allowed.is_set(*core).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("this process may use no core")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

fn certificates() -> anyhow::Result<(CertificateDer<'static>, rustls::ServerConfig)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let root = params.self_signed(&key)?.der().clone();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate()?;
    let leaf =
        CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&leaf_key, &issuer)?.der().clone();
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).map_err(|e| anyhow!(e))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((root, config))
}
