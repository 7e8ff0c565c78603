//! Assembly: makes the parts of `lateend` from settings, runs them, and ends them in order.
//!
//! Order of the start: the ports are taken and readiness is answered; the objects are read, all of
//! them; the authority is opened; everything serves; then it is ready.
//!
//! Order of the end: readiness is taken back; configuration is no longer followed; the webhook ends
//! its open admissions; discovery streams are closed, so that proxies turn to another instance; the
//! gRPC servers end; monitoring ends last. Then every task is waited for.

mod authority;
pub(crate) mod configuration;
mod injection;
mod keys;
mod writers;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use lateen_identity::TrustDomain;
use lateen_identity::tls::{ClientAuth, ClientVerifier, server_config};
use lateen_webhook::admission::Injector;
use lateen_webhook::server::{Limits, Webhook};
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
use crate::cluster::{Cluster, ClusterError};
use crate::kubernetes::webhooks::Bundles;
use crate::review::Reviewer;
use crate::serve::discovery::{Discovery, DiscoveryService};
use crate::serve::listen::{bind, incoming, with_peer};
use crate::serve::monitor::{self, Monitor};
use crate::serve::readiness::Readiness;
use crate::settings::Settings;
use crate::source::{Source, SourceError, Watched};

use authority::Authority;
use configuration::Configuration;

/// Time between pings on a quiet gRPC connection.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long one of the stages of the end may take.
const STAGE: Duration = Duration::from_secs(6);

/// What readiness calls the servers.
const SERVERS: &str = "servers";
/// What readiness calls the mesh configuration.
const MESH_CONFIGURATION: &str = "mesh configuration";

/// Why the control plane cannot run.
#[derive(Debug, Error)]
pub enum AppError {
    /// The configuration directory cannot be followed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
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

/// The ports of what serves when everything is there, taken.
#[derive(Debug)]
struct Listeners {
    plaintext: TcpListener,
    secure: TcpListener,
    webhook: TcpListener,
}

impl Listeners {
    async fn bind(settings: &Settings) -> Result<Self, AppError> {
        let address = settings.listen_address();
        Ok(Self {
            plaintext: take(settings.plaintext_address(), settings.grpc_port).await?,
            secure: take(address, settings.secure_port).await?,
            webhook: take(address, settings.webhook_port).await?,
        })
    }
}

async fn take(address: std::net::IpAddr, port: u16) -> Result<TcpListener, AppError> {
    bind(address, port).await.map_err(|source| AppError::Port { port, source })
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
    /// The cluster it runs in; `None` where a directory holds the objects.
    cluster: Option<Cluster>,
    source: Option<Source>,
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
        let cluster = match settings.config_dir {
            Some(_) => None,
            None => Some(Cluster::of(settings).await?),
        };
        let listeners = Listeners::bind(settings).await?;
        let pages = take(settings.listen_address(), settings.monitoring_port).await?;
        let mut app = Self {
            monitor: Arc::new(monitor()),
            cluster,
            source: None,
            configuration: Stage::default(),
            webhook: Stage::default(),
            discovery: Stage::default(),
            servers: Stage::default(),
            monitoring: Stage::default(),
            addresses: addresses(&listeners, &pages),
        };
        app.serve_pages(pages);
        match app.begin(settings, listeners).await {
            Ok(()) => {
                app.monitor.readiness.met(SERVERS);
                Ok(app)
            }
            Err(error) => {
                app.shutdown().await;
                Err(error)
            }
        }
    }

    /// Reads what there is, then serves.
    async fn begin(&mut self, settings: &Settings, ports: Listeners) -> Result<(), AppError> {
        let monitor = Arc::clone(&self.monitor);
        let (metrics, proxies) = (Arc::clone(&monitor.metrics), Arc::clone(&monitor.proxies));
        let source = self.follow_objects(settings).await?;
        let first = first_configuration(settings, source, &monitor.readiness).await?;
        let loads = source.loads();
        let trust_domain = TrustDomain::parse(first.trust_domain())
            .map_err(|error| AppError::Setting(error.to_string()))?;
        let cluster = self.cluster.as_ref();
        let authority = Authority::open(settings, cluster, &trust_domain, &monitor).await?;
        let callers = self.callers(settings, &trust_domain)?;
        let injector = Arc::new(ArcSwap::from_pointee(first.injector(&loads.borrow())));
        let follow = configuration::Follow {
            proxies: Arc::clone(&proxies),
            settings: settings.clone(),
            loads,
            injector: Arc::clone(&injector),
            roots: authority.ca.load().roots_pem().to_owned(),
            metrics: Arc::clone(&metrics),
        };
        let (follower, generations) = follow.begin(first).await;
        let stop = self.configuration.stop.clone();
        self.configuration.tasks.spawn(follower.run(stop));
        let _first = monitor.generations.set(generations.clone());
        let discovery = Arc::new(Discovery::new(
            generations,
            proxies,
            Arc::clone(&metrics),
            self.discovery.tasks.clone(),
            self.discovery.stop.clone(),
        ));
        let certificates = Arc::new(CertificateService::new(
            Arc::clone(&authority.ca),
            Arc::clone(&callers),
            trust_domain.clone(),
            settings.max_cert_ttl,
            metrics,
        ));
        let (counters, limits) = (Arc::clone(&monitor.injections), Limits::default());
        let webhook = Webhook { injector: Arc::clone(&injector), counters, limits };
        let services = Services { discovery, certificates, callers, webhook };
        self.serve(ports, services, &authority, trust_domain)?;
        self.write(settings, authority, injector);
        Ok(())
    }

    /// Keeps the authority; in a cluster, writes what others must know of it.
    fn write(&self, settings: &Settings, authority: Authority, injector: Arc<ArcSwap<Injector>>) {
        let stage = &self.configuration;
        let bundles = match &self.cluster {
            None => watch::channel(Bundles::default()).1,
            Some(cluster) => {
                let Monitor { readiness, metrics, injections, .. } = &*self.monitor;
                let watched = injection::Watched {
                    injector: Arc::clone(&injector),
                    counters: Arc::clone(injections),
                    metrics: Arc::clone(metrics),
                    readiness: Arc::clone(readiness),
                };
                let contents = writers::Contents { roots: authority.published(), injector };
                let begun = writers::begin(cluster, settings, contents, readiness, stage);
                injection::begin(cluster, settings, watched, &begun.leads, stage);
                begun.bundles
            }
        };
        stage.tasks.spawn(authority.keep(bundles, stage.stop.clone()));
    }

    /// Believes tokens that are signed with the keys of a file, which is followed; else those that
    /// the API server believes.
    fn callers(
        &self,
        settings: &Settings,
        trust_domain: &TrustDomain,
    ) -> Result<Arc<Callers>, AppError> {
        let (tasks, stop) = (&self.configuration.tasks, self.configuration.stop.clone());
        if let Some(file) = &settings.token_jwks {
            let callers = Arc::new(Callers::new(trust_domain.clone(), None));
            let keys = keys::Keys::new(file.clone(), settings.token_issuer.clone());
            tasks.spawn(keys.load(&callers)?.follow(Arc::clone(&callers), stop));
            return Ok(callers);
        }
        let reviewer = self.cluster.as_ref().map(|cluster| {
            let Monitor { metrics, readiness, .. } = &*self.monitor;
            let (metrics, readiness) = (Arc::clone(metrics), Arc::clone(readiness));
            Arc::new(Reviewer::new(cluster.client.clone(), metrics, readiness))
        });
        if let Some(reviewer) = &reviewer {
            tasks.spawn(Arc::clone(reviewer).begin(stop));
        }
        Ok(Arc::new(Callers::new(trust_domain.clone(), reviewer)))
    }

    /// Follows the objects of the cluster, or those of a directory.
    async fn follow_objects(&mut self, settings: &Settings) -> Result<&Source, AppError> {
        let stop = self.configuration.stop.clone();
        let source = match (&self.cluster, &settings.config_dir) {
            (None, Some(folder)) => Source::follow(folder, stop).await?,
            (Some(cluster), _) => {
                let names = ["istio", "istio-sidecar-injector"].map(|name| settings.revised(name));
                let Monitor { readiness, metrics, .. } = &*self.monitor;
                let watched = Watched {
                    cluster: cluster.clone(),
                    config_maps: names.into(),
                    readiness: Arc::clone(readiness),
                    metrics: Arc::clone(metrics),
                };
                Source::watch(watched, stop)
            }
            (None, None) => return Err(AppError::Setting("there are no objects".to_owned())),
        };
        Ok(self.source.insert(source))
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Ends everything, in order.
    pub async fn shutdown(self) {
        self.monitor.readiness.waits(SERVERS, "lateend ends");
        self.configuration.end("configuration").await;
        if let Some(source) = self.source {
            source.stopped().await;
        }
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
        let roots = Arc::clone(&authority.clients);
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

fn monitor() -> Monitor {
    Monitor {
        readiness: Arc::new(Readiness::new(SERVERS, "starting")),
        metrics: Arc::default(),
        injections: Arc::default(),
        proxies: Arc::default(),
        generations: OnceLock::new(),
    }
}

/// The first configuration that can be used. In a cluster it is waited for: who repairs it must not
/// have to start us again.
async fn first_configuration(
    settings: &Settings,
    source: &Source,
    readiness: &Readiness,
) -> Result<Configuration, AppError> {
    source.listed().await;
    let mut loads = source.loads();
    loop {
        let load = Arc::clone(&loads.borrow_and_update());
        match Configuration::read(settings, &load) {
            Err(error) if settings.config_dir.is_none() => {
                tracing::error!(%error, "waiting for a mesh configuration that can be used");
                readiness.waits(MESH_CONFIGURATION, error.to_string());
            }
            result => {
                readiness.met(MESH_CONFIGURATION);
                return result;
            }
        }
        if loads.changed().await.is_err() {
            return Err(AppError::Setting("the objects are no longer followed".to_owned()));
        }
    }
}

/// What is served.
struct Services {
    discovery: Arc<Discovery>,
    certificates: Arc<CertificateService>,
    callers: Arc<Callers>,
    webhook: Webhook,
}

fn addresses(listeners: &Listeners, pages: &TcpListener) -> Addresses {
    Addresses {
        plaintext: listeners.plaintext.local_addr().ok(),
        secure: listeners.secure.local_addr().ok(),
        monitoring: pages.local_addr().ok(),
        webhook: listeners.webhook.local_addr().ok(),
    }
}

fn report<E: std::fmt::Display>(server: &str, ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::error!(server, %error, "ended with an error");
    }
}
