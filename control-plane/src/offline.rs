//! The mesh of a directory, read once: for commands that explain without a running control plane.
//!
//! The same reading, the same model: what is explained is what would be done. Blocking.

use lateen_api::Finding;

use crate::app::AppError;
use crate::app::configuration::Configuration;
use crate::model::Model;
use crate::serve::generation::Mesh as _;
use crate::settings::Settings;
use crate::source::read_once;

/// A mesh that was read once.
#[derive(Debug)]
pub struct Offline {
    /// Its state.
    pub model: Model,
    /// What there is to say about the files and what they describe.
    pub findings: Vec<Finding>,
}

impl Offline {
    /// Reads the directory and the files that `settings` name.
    ///
    /// # Errors
    /// What cannot be read or used, with its name. Objects that are refused are no error: they are
    /// among the findings.
    pub fn read(settings: &Settings) -> Result<Self, AppError> {
        let folder = settings.config_dir.as_deref().ok_or_else(|| {
            AppError::Setting("only a directory can be read once: give --config-dir DIR".to_owned())
        })?;
        let load = read_once(folder)?;
        let configuration = Configuration::read(settings, &load)?;
        let model = Model::new(&load.objects, configuration.mesh(), settings);
        let mut findings = load.findings;
        findings.extend(configuration.findings().iter().cloned());
        findings.extend(model.findings().iter().cloned());
        Ok(Self { model, findings })
    }
}
