//! Assembly: makes the parts of `lateend` from settings, runs them, and ends them in order.
//!
//! Order of the end: readiness is taken back; configuration is no longer followed; the webhook ends
//! its open admissions; discovery streams are closed, so that proxies turn to another instance; the
//! gRPC servers end; monitoring ends last. Then every task is waited for.

mod authority;
pub(crate) mod configuration;
mod keys;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use lateen_identity::TrustDomain;
use lateen_identity::tls::{ClientAuth, ClientVerifier, HotBundle, server_config};
use lateen_webhook::server::{Limits, Webhook};
use lateen_webhook::stats::Counters;
use lateen_xds::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use lateen_xds::istio::ca_server::CertificateServer;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;

use crate::ca::CertificateService;
use crate::caller::Callers;
use crate::serve::discovery::{Discovery, DiscoveryService};
use crate::serve::generation::Generation;
use crate::serve::listen::{bind, incoming, with_peer};
use crate::serve::metrics::Metrics;
use crate::serve::monitor::{self, Monitor};
use crate::serve::proxies::Proxies;
use crate::settings::Settings;
use crate::source::{Source, SourceError};

use authority::Authority;
use configuration::Configuration;

/// Time between pings on a quiet gRPC connection.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long one of the stages of the end may take.
const STAGE: Duration = Duration::from_secs(6);

/// Why the control plane cannot run.
#[derive(Debug, Error)]
pub enum AppError {
    /// The configuration directory cannot be followed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file given by a flag cannot be used.
    #[error("--{flag} {file}: {reason}")]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A setting of the mesh cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The certificate authority cannot be used.
    #[error("certificate authority: {0}")]
    Authority(String),
    /// A port cannot be had.
    #[error("port {port}: {source}; is another control plane running, or the port below 1024?")]
    Port {
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
}

/// The ports, taken.
#[derive(Debug)]
struct Listeners {
    plaintext: TcpListener,
    secure: TcpListener,
    monitoring: TcpListener,
    webhook: TcpListener,
}

impl Listeners {
    async fn bind(settings: &Settings) -> Result<Self, AppError> {
        let address = settings.listen_address();
        let take = |address, port| async move {
            bind(address, port).await.map_err(|source| AppError::Port { port, source })
        };
        Ok(Self {
            plaintext: take(settings.plaintext_address(), settings.grpc_port).await?,
            secure: take(address, settings.secure_port).await?,
            monitoring: take(address, settings.monitoring_port).await?,
            webhook: take(address, settings.webhook_port).await?,
        })
    }
}

/// One stage of the end: what is told to stop together, and what is waited for.
#[derive(Debug, Default)]
struct Stage {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    async fn end(&self, name: &str) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STAGE, self.tasks.wait()).await.is_err() {
            tracing::warn!(stage = name, open = self.tasks.len(), "did not end in time");
        }
    }
}

/// A running control plane.
#[derive(Debug)]
pub struct App {
    monitor: Arc<Monitor>,
    source: Source,
    configuration: Stage,
    webhook: Stage,
    discovery: Stage,
    servers: Stage,
    monitoring: Stage,
    addresses: Addresses,
}

/// Where a control plane listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Plaintext discovery.
    pub plaintext: Option<SocketAddr>,
    /// Discovery and certificates over TLS.
    pub secure: Option<SocketAddr>,
    /// Readiness, metrics, debug pages.
    pub monitoring: Option<SocketAddr>,
    /// The webhook.
    pub webhook: Option<SocketAddr>,
}

impl App {
    /// Starts everything; returns when it serves.
    ///
    /// # Errors
    /// What cannot be used, with what to do about it.
    pub async fn start(settings: &Settings) -> Result<Self, AppError> {
        let configuration = Stage::default();
        let source = Source::follow(&settings.config_dir, configuration.stop.clone()).await?;
        let (metrics, injections) = (Arc::new(Metrics::default()), Arc::new(Counters::default()));
        let proxies: Arc<Proxies> = Arc::default();
        let first = Configuration::read(settings, &source.loads().borrow())?;
        let trust_domain = TrustDomain::parse(first.trust_domain())
            .map_err(|error| AppError::Setting(error.to_string()))?;
        let listeners = Listeners::bind(settings).await?;
        let authority = Authority::open(settings, &trust_domain, &metrics).await?;
        let callers = Arc::new(Callers::new(trust_domain.clone()));
        let injector = Arc::new(ArcSwap::from_pointee(first.injector(&source.loads().borrow())));
        let follow = configuration::Follow {
            proxies: Arc::clone(&proxies),
            settings: settings.clone(),
            loads: source.loads(),
            injector: Arc::clone(&injector),
            roots: authority.ca.roots_pem().to_owned(),
            metrics: Arc::clone(&metrics),
        };
        let (follower, generations) = follow.begin(first).await;
        configuration.tasks.spawn(follower.run(configuration.stop.clone()));
        configuration.tasks.spawn(authority.rotation(configuration.stop.clone()));
        follow_keys(settings, &callers, &configuration)?;
        let (pages, counters) = (generations.clone(), Arc::clone(&injections));
        let monitor = monitor(&metrics, counters, &proxies, pages);
        let app = Self {
            monitor,
            source,
            configuration,
            webhook: Stage::default(),
            discovery: Stage::default(),
            servers: Stage::default(),
            monitoring: Stage::default(),
            addresses: addresses(&listeners),
        };
        let discovery = Arc::new(Discovery::new(
            generations,
            proxies,
            Arc::clone(&metrics),
            app.discovery.tasks.clone(),
            app.discovery.stop.clone(),
        ));
        let certificates = Arc::new(CertificateService::new(
            Arc::clone(&authority.ca),
            Arc::clone(&callers),
            trust_domain.clone(),
            settings.max_cert_ttl,
            metrics,
        ));
        let (counters, limits) = (injections, Limits::default());
        let webhook = Webhook { injector, counters, limits };
        let services = Services { discovery, certificates, callers, webhook };
        app.serve(listeners, services, &authority, trust_domain)?;
        app.monitor.ready.store(true, Ordering::Relaxed);
        Ok(app)
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Ends everything, in order.
    pub async fn shutdown(self) {
        self.monitor.ready.store(false, Ordering::Relaxed);
        self.configuration.end("configuration").await;
        self.source.stopped().await;
        self.webhook.end("webhook").await;
        self.discovery.end("discovery").await;
        self.servers.end("gRPC servers").await;
        self.monitoring.end("monitoring").await;
    }

    fn serve(
        &self,
        listeners: Listeners,
        services: Services,
        authority: &Authority,
        trust_domain: TrustDomain,
    ) -> Result<(), AppError> {
        let refused =
            |error: lateen_identity::tls::TlsError| AppError::Authority(error.to_string());
        let roots = Arc::new(HotBundle::new(authority.ca.bundle().clone()));
        let clients = Arc::new(ClientVerifier::new(roots, [trust_domain], false));
        let credential = Arc::clone(&authority.serving);
        let secure =
            server_config(credential, ClientAuth::Verify(clients), &["h2"]).map_err(refused)?;
        let credential = Arc::clone(&authority.serving);
        let webhook =
            server_config(credential, ClientAuth::None, &["h2", "http/1.1"]).map_err(refused)?;
        let stage = &self.servers;
        let connect = |listener, tls| incoming(listener, tls, &stage.tasks, stage.stop.clone());
        let plain = connect(listeners.plaintext, None);
        let tls = connect(listeners.secure, Some(Arc::new(secure)));
        let Services { discovery, certificates, callers, webhook: injection } = services;
        let open = DiscoveryService::new(Arc::clone(&discovery), None);
        let checked = DiscoveryService::new(discovery, Some(callers));
        let stop = stage.stop.clone();
        stage.tasks.spawn(async move {
            let server = Server::builder()
                .http2_keepalive_interval(Some(KEEPALIVE))
                .layer(InterceptorLayer::new(with_peer))
                .add_service(AggregatedDiscoveryServiceServer::new(open));
            report(
                "plaintext gRPC",
                server.serve_with_incoming_shutdown(plain, stop.cancelled_owned()).await,
            );
        });
        let stop = stage.stop.clone();
        stage.tasks.spawn(async move {
            let server = Server::builder()
                .http2_keepalive_interval(Some(KEEPALIVE))
                .layer(InterceptorLayer::new(with_peer))
                .add_service(AggregatedDiscoveryServiceServer::new(checked))
                .add_service(CertificateServer::new(certificates));
            report("gRPC", server.serve_with_incoming_shutdown(tls, stop.cancelled_owned()).await);
        });
        self.serve_webhook(listeners.webhook, injection, webhook);
        self.serve_pages(listeners.monitoring);
        Ok(())
    }

    fn serve_webhook(&self, listener: TcpListener, webhook: Webhook, tls: rustls::ServerConfig) {
        let stop = self.webhook.stop.clone();
        self.webhook.tasks.spawn(async move {
            let tls = Arc::new(tls);
            report("webhook", lateen_webhook::server::serve(webhook, listener, tls, stop).await);
        });
    }

    fn serve_pages(&self, listener: TcpListener) {
        let (tasks, stop) = (self.monitoring.tasks.clone(), self.monitoring.stop.clone());
        let monitor = Arc::clone(&self.monitor);
        self.monitoring.tasks.spawn(monitor::serve(monitor, listener, tasks, stop));
    }
}

fn monitor(
    metrics: &Arc<Metrics>,
    injections: Arc<Counters>,
    proxies: &Arc<Proxies>,
    generations: watch::Receiver<Arc<Generation>>,
) -> Arc<Monitor> {
    let (metrics, proxies) = (Arc::clone(metrics), Arc::clone(proxies));
    Arc::new(Monitor { ready: false.into(), metrics, injections, proxies, generations })
}

/// What is served.
struct Services {
    discovery: Arc<Discovery>,
    certificates: Arc<CertificateService>,
    callers: Arc<Callers>,
    webhook: Webhook,
}

/// Believes tokens that are signed with the keys of a file, and follows it.
fn follow_keys(settings: &Settings, callers: &Arc<Callers>, stage: &Stage) -> Result<(), AppError> {
    let Some(file) = &settings.token_jwks else { return Ok(()) };
    let keys = keys::Keys::new(file.clone(), settings.token_issuer.clone()).load(callers)?;
    stage.tasks.spawn(keys.follow(Arc::clone(callers), stage.stop.clone()));
    Ok(())
}

fn addresses(listeners: &Listeners) -> Addresses {
    Addresses {
        plaintext: listeners.plaintext.local_addr().ok(),
        secure: listeners.secure.local_addr().ok(),
        monitoring: listeners.monitoring.local_addr().ok(),
        webhook: listeners.webhook.local_addr().ok(),
    }
}

fn report<E: std::fmt::Display>(server: &str, ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::error!(server, %error, "ended with an error");
    }
}
