//! Which webhooks call us, what their CA bundle holds, and what it should hold.
//!
//! The API server believes our serving certificate only by the bundle, so a root is taken out of a
//! bundle only some time after nobody shows a certificate of it any more. Pure: what is found in
//! the API server goes in, what to write comes out.
//!
//! What is written is a strategic merge patch, not an apply: a hook of which fields had been
//! applied by us could not be removed by whoever else applies the configuration.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::roots::Roots;

/// Former roots that stay in one bundle; it is no place to store things.
const REMEMBERED: usize = 16;

/// Longest time between looks at former roots.
const LOOK: Duration = Duration::from_secs(30);

/// How hooks that call us are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callee {
    /// Our Service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// The configuration that is ours even where it calls an address and no Service.
    pub configuration: String,
}

/// A hook that calls us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its name in its configuration.
    pub name: String,
    /// What the API server trusts when it calls it.
    pub bundle: Roots,
}

impl Callee {
    /// Whether a hook of a configuration calls us.
    #[must_use]
    pub fn is_called_by(&self, configuration: &str, client: &WebhookClientConfig) -> bool {
        match &client.service {
            Some(service) => service.name == self.service && service.namespace == self.namespace,
            None => configuration == self.configuration,
        }
    }

    /// The hook, when it calls us.
    #[must_use]
    pub fn hook(
        &self,
        configuration: &str,
        name: &str,
        client: &WebhookClientConfig,
    ) -> Option<Hook> {
        let text = client.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
        let hook = || Hook { name: name.to_owned(), bundle: Roots::of_pem(text) };
        self.is_called_by(configuration, client).then(hook)
    }
}

/// Roots that are in bundles though nobody wants them any more: each stays for a while.
///
/// One that comes back begins anew: somebody else wants it, and both can be served.
#[derive(Debug)]
pub struct Former {
    grace: Duration,
    /// Of each bundle that holds unwanted roots: those, and since when.
    since: HashMap<String, Vec<(CertificateDer<'static>, Duration)>>,
}

impl Former {
    /// Former roots stay for `grace`.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, since: HashMap::new() }
    }

    /// Time between looks whether one has stayed long enough.
    #[must_use]
    pub fn look(&self) -> Duration {
        (self.grace / 4).clamp(Duration::from_secs(1), LOOK)
    }

    /// What the bundle `name`, which holds `present`, should hold at `now` (of a clock that does not
    /// jump; the date is for certificates). `None` when it does.
    pub fn next(
        &mut self,
        name: &str,
        wanted: &Roots,
        present: &Roots,
        (now, date): (Duration, SystemTime),
    ) -> Option<Roots> {
        let unwanted = present.lasting(date).filtered(|root| !wanted.has(root));
        let mut since = self.since.remove(name).unwrap_or_default();
        since.retain(|(root, _)| unwanted.has(root));
        let known =
            |since: &[(CertificateDer<'_>, _)], root| since.iter().any(|(it, _)| it == root);
        for root in unwanted.iter() {
            if since.len() < REMEMBERED && !known(&since, root) {
                since.push((root.clone(), now));
            }
        }
        let mut next = wanted.clone();
        let young = since.iter().filter(|(_, since)| now.saturating_sub(*since) < self.grace);
        young.for_each(|(root, _)| next.add(root));
        if !since.is_empty() {
            self.since.insert(name.to_owned(), since);
        }
        (next != *present).then_some(next)
    }
}

/// The patch that gives hooks of a configuration their bundles; `names` are all its hooks, in the
/// order that they have and keep.
#[must_use]
pub fn patch(names: &[String], bundles: &[(String, Roots)]) -> Value {
    use base64::Engine as _;
    let encode = |roots: &Roots| base64::engine::general_purpose::STANDARD.encode(roots.pem());
    let hooks = bundles
        .iter()
        .map(|(name, roots)| json!({"name": name, "clientConfig": {"caBundle": encode(roots)}}));
    let order = names.iter().map(|name| json!({"name": name}));
    json!({
        "$setElementOrder/webhooks": order.collect::<Vec<_>>(),
        "webhooks": hooks.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::roots::Roots;
    use super::super::roots::tests::root;
    use super::{Callee, Former, patch};
    use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
    use lateen_identity::ca::ROOT_LIFETIME;
    use serde_json::{Value, json};
    use std::time::{Duration, SystemTime};

    fn minutes(count: u64) -> (Duration, SystemTime) {
        (Duration::from_secs(count * 60), SystemTime::now())
    }

    fn client(value: Value) -> WebhookClientConfig {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn hooks_of_others_are_left_alone() {
        let callee = Callee {
            service: "istiod-canary".to_owned(),
            namespace: "mesh".to_owned(),
            configuration: "istio-sidecar-injector-canary-mesh".to_owned(),
        };
        let service = |name: &str, namespace: &str| {
            client(json!({"service": {"name": name, "namespace": namespace, "path": "/inject"}}))
        };
        assert!(callee.is_called_by("istio-revision-tag-prod", &service("istiod-canary", "mesh")));
        assert!(!callee.is_called_by(&callee.configuration, &service("istiod", "mesh")));
        assert!(!callee.is_called_by(&callee.configuration, &service("istiod-canary", "other")));
        let address = client(json!({"url": "https://127.0.0.1:1/inject"}));
        assert!(callee.is_called_by(&callee.configuration, &address));
        assert!(!callee.is_called_by("somebody-elses", &address));
        assert_eq!(callee.hook("somebody-elses", "a", &address), None);
        let hook = callee.hook(&callee.configuration, "a", &address).unwrap();
        assert!(hook.bundle.is_empty());
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_there_is_left() {
        let mut former = Former::new(Duration::from_secs(600));
        let a = root();
        assert_eq!(former.next("x", &a, &Roots::default(), minutes(0)), Some(a.clone()));
        assert_eq!(former.next("x", &a, &a, minutes(0)), None);
    }

    #[test]
    fn a_former_root_stays_for_a_while() {
        let mut former = Former::new(Duration::from_secs(600));
        let (a, b) = (root(), root());
        let both = a.and(&b);
        assert_eq!(former.next("x", &b, &a, minutes(0)), Some(both.clone()), "published beside it");
        assert_eq!(former.next("x", &b, &both, minutes(9)), None);
        assert_eq!(former.next("x", &b, &both, minutes(10)), Some(b.clone()));
        assert_eq!(former.next("x", &b, &b, minutes(11)), None);
        // It comes back, because another wants it: both are served, and nobody fights.
        assert_eq!(former.next("x", &b, &both, minutes(11)), None);
        assert_eq!(former.next("x", &b, &both, minutes(20)), None);
        assert_eq!(former.next("y", &b, &both, minutes(20)), None, "each bundle has its time");
        assert_eq!(former.next("x", &b, &both, minutes(21)), Some(b.clone()));
        // Wanted again, and then no more: its time begins anew.
        assert_eq!(former.next("x", &both, &b, minutes(22)), Some(both.clone()));
        assert_eq!(former.next("x", &both, &both, minutes(23)), None);
        assert_eq!(former.next("x", &b, &both, minutes(24)), None);
        assert_eq!(former.next("x", &b, &both, minutes(34)), Some(b));
    }

    #[test]
    fn what_has_ended_goes_at_once() {
        let mut former = Former::new(Duration::from_secs(600));
        let (a, b) = (root(), root());
        let later = (Duration::ZERO, SystemTime::now() + 2 * ROOT_LIFETIME);
        assert_eq!(former.next("x", &b, &a.and(&b), later), Some(b));
    }

    #[test]
    fn a_patch_names_only_bundles() {
        let a = root();
        let names = ["x".to_owned(), "y".to_owned()];
        let patch = patch(&names, &[("y".to_owned(), a)]);
        assert_eq!(patch["$setElementOrder/webhooks"], json!([{"name": "x"}, {"name": "y"}]));
        let hooks = patch["webhooks"].as_array().unwrap();
        assert_eq!(hooks.len(), 1);
        let keys: Vec<_> = hooks[0]["clientConfig"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["caBundle"]);
    }
}
