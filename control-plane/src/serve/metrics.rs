//! Metrics of the control plane, under the names that dashboards for Istio read.
//!
//! Several of Istio's counters have no `_total` in their name, which the exposition library adds to
//! every counter; they are kept as [`Count`], a gauge that only grows.

use std::collections::BTreeMap;
use std::fmt;

use lateen_webhook::audit::State;
use lateen_webhook::stats::Counters;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::kubernetes::self_test;

/// Label `type` of a resource type, such as `cds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResourceType {
    /// Short name of the type.
    pub r#type: String,
}

/// Label `topic`: what is followed at an API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Topic {
    topic: String,
}

/// Label `result`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// Label `state`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Standing {
    state: &'static str,
}

/// Label `version`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: String,
}

/// Label set of `istio_build`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    component: String,
    tag: String,
}

/// A number that only grows, exposed under exactly its name.
pub type Count = Gauge;

/// All metrics; cheap to update from anywhere.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Connected proxies.
    pub connected: Gauge,
    /// Responses sent, by type.
    pub pushes: Family<ResourceType, Count>,
    /// Responses refused, by type.
    pub rejects: Family<ResourceType, Count>,
    /// Snapshots put in force.
    pub config_events: Count,
    /// Services in the registry.
    pub services: Gauge,
    /// Services without a ready endpoint.
    pub empty_services: Gauge,
    /// Findings of severity error in force.
    pub config_errors: Gauge,
    /// What cannot be followed at the API server, by topic.
    unfollowed: Family<Topic, Gauge>,
    /// Tokens shown to the API server, by what it said.
    reviews: Family<Outcome, Counter>,
    /// Events, by what became of them.
    events: Family<Outcome, Counter>,
    /// Pods, by how they stand to the sidecar that they would get.
    pods: Family<Standing, Gauge>,
    /// What the last self-test of injection has shown: 1 for its result.
    self_test: Family<Outcome, Gauge>,
    /// Seconds from a change of the snapshot to the last response of a proxy.
    pub convergence: Histogram,
    /// Seconds to make the resources of one kind of proxy.
    pub generation_time: Histogram,
    /// Streams ended by an error of ours or a broken protocol.
    pub internal_errors: Count,
    /// Certificate requests.
    pub csr_count: Count,
    /// Certificates issued.
    pub certificates_issued: Count,
    /// Callers that were not believed.
    pub authentication_failures: Count,
    /// Requests that could not be read.
    pub csr_parsing_errors: Count,
    /// Requests that could not be signed.
    pub csr_sign_errors: Count,
    /// End of the root certificate, in seconds since 1970.
    pub root_expiry: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            connected: Gauge::default(),
            pushes: Family::default(),
            rejects: Family::default(),
            config_events: Count::default(),
            services: Gauge::default(),
            empty_services: Gauge::default(),
            config_errors: Gauge::default(),
            unfollowed: Family::default(),
            reviews: Family::default(),
            events: Family::default(),
            pods: Family::default(),
            self_test: Family::default(),
            convergence: histogram(),
            generation_time: histogram(),
            internal_errors: Count::default(),
            csr_count: Count::default(),
            certificates_issued: Count::default(),
            authentication_failures: Count::default(),
            csr_parsing_errors: Count::default(),
            csr_sign_errors: Count::default(),
            root_expiry: Gauge::default(),
        };
        metrics.register_discovery();
        metrics.register_certificates();
        metrics.register_injection();
        metrics
    }
}

impl Metrics {
    /// The exposition text, with the counters that the webhook keeps.
    #[must_use]
    pub fn text(&self, injections: &Counters) -> String {
        let mut out = "# TYPE lateen_injection_decisions counter\n".to_owned();
        for (reason, value) in injections.reasons() {
            out.push_str(&format!(
                "lateen_injection_decisions_total{{reason=\"{reason}\"}} {value}\n"
            ));
        }
        for (name, value) in injections.snapshot() {
            let family = name.strip_suffix("_total").unwrap_or(name);
            out.push_str(&format!("# TYPE {family} counter\n{name} {value}\n"));
        }
        match encode(&mut out, &self.registry.lock()) {
            Ok(()) => out,
            Err(error) => format!("# the metrics could not be written: {error}\n"),
        }
    }

    /// Says whether what is followed at the API server cannot be followed now.
    pub fn set_unfollowed(&self, topic: &str, unfollowed: bool) {
        let topic = Topic { topic: topic.to_owned() };
        self.unfollowed.get_or_create(&topic).set(unfollowed.into());
    }

    /// Counts a token that was shown to the API server.
    pub(crate) fn count_review(&self, result: &'static str) {
        self.reviews.get_or_create(&Outcome { result }).inc();
    }

    /// Counts an event by what became of it.
    pub(crate) fn count_event(&self, result: &'static str) {
        self.events.get_or_create(&Outcome { result }).inc();
    }

    /// Says how many pods stand how; none at all where this replica does not look.
    pub(crate) fn set_pods(&self, counts: &BTreeMap<State, i64>) {
        self.pods.clear();
        if counts.is_empty() {
            return;
        }
        for state in State::ALL {
            let count = counts.get(&state).copied().unwrap_or_default();
            self.pods.get_or_create(&Standing { state: state.code() }).set(count);
        }
    }

    /// Says what the last self-test has shown; nothing where this replica does not test.
    pub(crate) fn set_self_test(&self, shown: Option<&'static str>) {
        self.self_test.clear();
        let Some(shown) = shown else { return };
        for result in self_test::Outcome::RESULTS {
            self.self_test.get_or_create(&Outcome { result }).set((result == shown).into());
        }
    }

    fn register_injection(&self) {
        let mut registry = self.registry.lock();
        let help = "Events about injection";
        registry.register("lateen_events", help, self.events.clone());
        let help = "Pods of this revision, by how they stand to the sidecar that they would get";
        registry.register("lateen_injection_pods", help, self.pods.clone());
        let help = "Whether the last self-test of injection had this result";
        registry.register("lateen_injection_self_test", help, self.self_test.clone());
    }

    fn register_discovery(&self) {
        let mut registry = self.registry.lock();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let info = Family::<Version, Gauge>::default();
        info.get_or_create(&Version { version: version.clone() }).set(1);
        registry.register("pilot_info", "Version of this control plane", info);
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { component: "pilot".to_owned(), tag: version }).set(1);
        registry.register("istio_build", "Build of this component", build);
        registry.register("pilot_xds", "Connected proxies", self.connected.clone());
        registry.register("pilot_xds_pushes", "Responses sent", self.pushes.clone());
        let rejects = self.rejects.clone();
        registry.register("pilot_total_xds_rejects", "Responses refused by proxies", rejects);
        let errors = self.internal_errors.clone();
        registry.register("pilot_total_xds_internal_errors", "Streams ended by errors", errors);
        let events = self.config_events.clone();
        registry.register("pilot_k8s_cfg_events", "Snapshots put in force", events);
        registry.register("pilot_services", "Services known", self.services.clone());
        let empty = self.empty_services.clone();
        registry.register("pilot_eds_no_instances", "Services without endpoints", empty);
        let refused = self.config_errors.clone();
        registry.register("lateen_config_errors", "Objects refused", refused);
        let help = "What cannot be followed at the API server now";
        registry.register("lateen_unfollowed", help, self.unfollowed.clone());
        let convergence = self.convergence.clone();
        let help = "Seconds from a change to the last response of a proxy";
        registry.register("pilot_proxy_convergence_time", help, convergence);
        let time = self.generation_time.clone();
        registry.register("pilot_xds_push_time", "Seconds to make a proxy's resources", time);
    }

    fn register_certificates(&self) {
        let mut registry = self.registry.lock();
        let counters = [
            ("citadel_server_csr_count", "Certificate requests", &self.csr_count),
            (
                "citadel_server_success_cert_issuance_count",
                "Certificates issued",
                &self.certificates_issued,
            ),
            (
                "citadel_server_authentication_failure_count",
                "Callers that were not believed",
                &self.authentication_failures,
            ),
            (
                "citadel_server_csr_parsing_err_count",
                "Requests that could not be read",
                &self.csr_parsing_errors,
            ),
            (
                "citadel_server_csr_sign_err_count",
                "Requests that could not be signed",
                &self.csr_sign_errors,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let help = "Tokens shown to the API server";
        registry.register("lateen_token_reviews", help, self.reviews.clone());
        registry.register(
            "citadel_server_root_cert_expiry_timestamp",
            "End of the root certificate",
            self.root_expiry.clone(),
        );
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.03, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0])
}

#[cfg(test)]
mod tests {
    use super::{Counters, Metrics, ResourceType, State};
    use lateen_webhook::Reason;
    use std::collections::BTreeMap;

    #[test]
    fn names_are_those_that_dashboards_read() {
        let metrics = Metrics::default();
        metrics.connected.set(3);
        metrics.csr_count.inc();
        metrics.rejects.get_or_create(&ResourceType { r#type: "cds".to_owned() }).inc();
        let injections = Counters::default();
        injections.request();
        injections.decision(Reason::SkippedHostNetwork);
        metrics.set_pods(&[(State::Missing, 2)].into());
        metrics.set_self_test(Some("timeout"));
        let text = metrics.text(&injections);
        for line in [
            "pilot_xds 3",
            "citadel_server_csr_count 1",
            "pilot_total_xds_rejects{type=\"cds\"} 1",
            "sidecar_injection_requests_total 1",
            "lateen_injection_decisions_total{reason=\"skipped.host-network\"} 1",
            "lateen_injection_pods{state=\"missing\"} 2",
            "lateen_injection_pods{state=\"stale\"} 0",
            "lateen_injection_self_test{result=\"timeout\"} 1",
            "lateen_injection_self_test{result=\"reached\"} 0",
            "pilot_proxy_convergence_time_count 0",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        metrics.set_pods(&BTreeMap::new());
        metrics.set_self_test(None);
        let text = metrics.text(&injections);
        assert!(!text.contains("lateen_injection_pods{"), "who does not lead says nothing");
        assert!(!text.contains("lateen_injection_self_test{"), "who does not lead says nothing");
    }
}
