//! Follows what is in force: makes generations for proxies, settings for the webhook, and what is
//! published.
//!
//! Mesh configuration and injection values come from files named by flags, else from the
//! ConfigMaps of Istio among the objects in force, else they are the defaults. What cannot be
//! used is said, and what was in force before stays.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use lateen_api::mesh::MeshConfig;
use lateen_api::{Finding, Severity};
use lateen_webhook::InjectionSettings;
use lateen_webhook::admission::{Injector, NamespaceMetadata};
use lateen_webhook::hooks::webhook_configuration;
use lateen_webhook::settings::{Options, Sources};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::model::Model;
use crate::publish;
use crate::serve::generation::Generation;
use crate::serve::metrics::Metrics;
use crate::serve::proxies::Proxies;
use crate::settings::Settings;
use crate::source::{Load, Objects};

/// Settings of the mesh and of injection, as read.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    mesh: MeshConfig,
    injection: InjectionSettings,
    findings: Vec<Finding>,
}

impl Configuration {
    /// Reads what the flags and the directory say.
    ///
    /// # Errors
    /// When a file cannot be read, or what is given cannot be used.
    pub(crate) fn read(settings: &Settings, load: &Load) -> Result<Self, AppError> {
        let objects = &load.objects;
        let mesh = match settings.mesh_config.as_deref() {
            Some(file) => Some(Given::file("mesh-config", file)?),
            None => Given::object(settings, objects, ("istio", "mesh")),
        };
        // A file that a flag names stands for the whole ConfigMap.
        let (values, policy) = match settings.injection_values.as_deref() {
            Some(file) => (Some(Given::file("injection-values", file)?), None),
            None => {
                let part = |key| Given::object(settings, objects, ("istio-sidecar-injector", key));
                (part("values"), part("config"))
            }
        };
        let config = match &mesh {
            Some(given) => MeshConfig::parse(&given.file, &given.text)
                .map_err(|finding| AppError::Setting(finding.to_string()))?,
            None => MeshConfig::default(),
        };
        let mut findings =
            mesh.as_ref().map(|given| config.findings(&given.file)).unwrap_or_default();
        let options = Options {
            revision: settings.revision.clone(),
            cluster_id: settings.cluster_id.clone(),
            ..Options::default()
        };
        let document = |given: Option<Given>| given.map(|given| given.value()).transpose();
        let (values, policy, mesh) = (document(values)?, document(policy)?, document(mesh)?);
        let sources =
            Sources { values: values.as_ref(), config: policy.as_ref(), mesh: mesh.as_ref() };
        let injection = InjectionSettings::read(sources, options)
            .map_err(|error| AppError::Setting(format!("injection: {error}")))?;
        findings.extend(injection.warnings().map(|text| Finding::warning("", text)));
        Ok(Self { mesh: config, injection, findings })
    }

    /// Settings of the mesh.
    pub(crate) fn mesh(&self) -> &MeshConfig {
        &self.mesh
    }

    /// What there is to say about the settings.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Trust domain of the mesh.
    pub(super) fn trust_domain(&self) -> &str {
        self.mesh.trust_domain()
    }

    /// What the webhook answers from.
    pub(super) fn injector(&self, load: &Load) -> Injector {
        let namespaces = load.objects.namespaces.iter().map(|it| {
            let meta = &it.object.metadata;
            let known = NamespaceMetadata {
                labels: meta.labels.clone(),
                annotations: meta.annotations.clone(),
            };
            (meta.name.clone(), known)
        });
        Injector {
            settings: self.injection.clone(),
            namespaces: namespaces.collect::<BTreeMap<_, _>>(),
        }
    }
}

/// A text and where it is from.
struct Given {
    file: String,
    key: Option<&'static str>,
    text: String,
}

impl Given {
    /// The file of a flag.
    fn file(flag: &'static str, path: &Path) -> Result<Self, AppError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self { file, key: None, text }),
            Err(error) => Err(AppError::File { flag, file, reason: error.to_string() }),
        }
    }

    /// A key of a ConfigMap of this revision.
    fn object(
        settings: &Settings,
        objects: &Objects,
        (name, key): (&str, &'static str),
    ) -> Option<Self> {
        let (text, file) =
            objects.config_text(&settings.namespace, &settings.revised(name), key)?;
        Some(Self { file: file.to_owned(), key: Some(key), text: text.to_owned() })
    }

    fn value(&self) -> Result<Value, AppError> {
        lateen_api::stream::document(&self.file, &self.text).map_err(|finding| {
            let key = self.key.map(|key| format!("key {key}: ")).unwrap_or_default();
            AppError::Setting(format!("{key}{finding}"))
        })
    }
}

/// What following needs.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) settings: Settings,
    pub(super) loads: watch::Receiver<Arc<Load>>,
    pub(super) injector: Arc<ArcSwap<Injector>>,
    pub(super) roots: String,
    pub(super) metrics: Arc<Metrics>,
    pub(super) proxies: Arc<Proxies>,
}

/// Follows loads after the first.
#[derive(Debug)]
pub(super) struct Follower {
    follow: Follow,
    configuration: Configuration,
    generations: watch::Sender<Arc<Generation>>,
    current: (Arc<Model>, Arc<Generation>),
    said: Vec<Finding>,
}

impl Follow {
    /// Puts the first load in force.
    pub(super) async fn begin(
        mut self,
        first: Configuration,
    ) -> (Follower, watch::Receiver<Arc<Generation>>) {
        let load = Arc::clone(&self.loads.borrow_and_update());
        let since = Instant::now();
        let model = Arc::new(self.model(&load, &first));
        let generation = Arc::new(Generation::new(1, Arc::clone(&model) as _, since));
        let (generations, receiver) = watch::channel(Arc::clone(&generation));
        let mut follower = Follower {
            follow: self,
            configuration: first,
            generations,
            current: (model, Arc::clone(&generation)),
            said: Vec::new(),
        };
        follower.tell(&load, &generation, None).await;
        (follower, receiver)
    }

    fn model(&self, load: &Load, config: &Configuration) -> Model {
        let mesh = Model::new(&load.objects, &config.mesh, &self.settings);
        self.metrics.config_events.inc();
        let (all, empty) = mesh.services().counts();
        self.metrics.services.set(all);
        self.metrics.empty_services.set(empty);
        mesh
    }
}

impl Follower {
    /// Puts each further load in force, until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.follow.loads.changed() => if changed.is_err() { return },
            }
            let load = Arc::clone(&self.follow.loads.borrow_and_update());
            let mut failure = None;
            match Configuration::read(&self.follow.settings, &load) {
                // Certificates and trust are made for the one that held at the start.
                Ok(it) if it.trust_domain() != self.configuration.trust_domain() => {
                    let message = format!(
                        "the trust domain cannot become `{}` while lateend runs: the mesh \
                         configuration of before stays in force until it is started again",
                        it.trust_domain()
                    );
                    failure = Some(Finding::error("trustDomain", message));
                }
                Ok(configuration) => self.configuration = configuration,
                Err(error) => failure = Some(Finding::error("", error.to_string())),
            }
            let Some(generation) = self.next(&load).await else { continue };
            self.follow.injector.store(Arc::new(self.configuration.injector(&load)));
            // The proxies first: what is written and logged can wait.
            self.generations.send_replace(Arc::clone(&generation));
            self.tell(&load, &generation, failure).await;
        }
    }

    /// Makes the generation of a load, with the resources of the proxies that are connected: off the
    /// event loop, and once for all of them.
    async fn next(&mut self, load: &Arc<Load>) -> Option<Arc<Generation>> {
        let since = Instant::now();
        let mut model = self.follow.model(load, &self.configuration);
        let (before, generation) = self.current.clone();
        let views = self.follow.proxies.views();
        let made = tokio::task::spawn_blocking(move || {
            model.reuse(&before);
            let model = Arc::new(model);
            let next = Generation::after(&generation, Arc::clone(&model) as _, since);
            for view in views {
                let _made = next.resources(&view);
            }
            (model, Arc::new(next))
        });
        match made.await {
            Ok(current) => {
                let generation = Arc::clone(&current.1);
                self.current = current;
                Some(generation)
            }
            Err(error) => {
                tracing::error!(%error, "the translation failed; what was in force stays");
                None
            }
        }
    }

    /// Logs what is new to say, and publishes.
    async fn tell(&mut self, load: &Load, generation: &Generation, failure: Option<Finding>) {
        let mut findings = load.findings.clone();
        findings.extend(self.configuration.findings.iter().cloned());
        findings.extend(generation.mesh.findings().iter().cloned());
        findings.extend(failure);
        let said: HashSet<&Finding> = self.said.iter().collect();
        for finding in findings.iter().filter(|finding| !said.contains(finding)) {
            match finding.severity {
                Severity::Error => tracing::error!("{finding}"),
                Severity::Warning => tracing::warn!("{finding}"),
                Severity::Info => tracing::info!("{finding}"),
            }
        }
        let errors = findings.iter().filter(|finding| finding.is_error()).count();
        self.follow.metrics.config_errors.set(i64::try_from(errors).unwrap_or(i64::MAX));
        if let Some(directory) = self.follow.settings.publish_dir.clone() {
            let documents = [
                (publish::STATUS, publish::status(generation.number, &findings)),
                (publish::ROOT_CERTIFICATE, publish::root_certificate(&self.follow.roots)),
                (
                    publish::WEBHOOK,
                    webhook_configuration(
                        &self.configuration.injection,
                        self.follow.roots.as_bytes(),
                    ),
                ),
            ];
            let written = tokio::task::spawn_blocking(move || {
                documents.iter().try_for_each(|(name, it)| publish::write(&directory, name, it))
            });
            match written.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "what is in force is not published"),
                Err(error) => tracing::error!(%error, "publishing ended abnormally"),
            }
        }
        self.said = findings;
    }
}
