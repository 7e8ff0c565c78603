//! An API server for the kubelet's own tests.

use std::collections::BTreeMap;

use lateen_api::core::PodStatus;
use parking_lot::Mutex;

use super::{ApiServer, PodKey, TokenRequest};

/// Objects by name, in any namespace.
#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) config_maps: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    pub(super) secrets: Mutex<BTreeMap<String, BTreeMap<String, Vec<u8>>>>,
}

impl ApiServer for Fake {
    fn config_map(&self, _: &str, name: &str) -> Option<BTreeMap<String, String>> {
        self.config_maps.lock().get(name).cloned()
    }

    fn secret(&self, _: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        self.secrets.lock().get(name).cloned()
    }

    fn token(&self, request: &TokenRequest) -> Result<String, String> {
        let audience = request.audience.as_deref().unwrap_or("api");
        Ok(format!("{}/{audience}/{}", request.service_account, request.seconds))
    }

    fn pod_status(&self, _: &PodKey, _: PodStatus) {}

    fn event(&self, _: &PodKey, _: &str, _: &str) {}
}
