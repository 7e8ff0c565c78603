//! What the node agent counts, in the text format of Prometheus. Names are Istio's where it has them.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::agent::node_pods::Key;
use crate::counts::{Counts, Watching};
use crate::settings::Repair;

/// Seconds; an ADD takes a millisecond unless it waits for its pod.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

type Labels = Vec<(&'static str, String)>;

/// The counters; shared.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ready: Gauge,
    writes: Counter,
    repaired: Family<Labels, Counter>,
    calls: Family<Labels, Counter>,
    seconds: Histogram,
    memory: Gauge,
    drifted: Family<Labels, Counter>,
    tainted: Gauge,
    /// Captured pods, whose rules count.
    pub watching: Arc<Watching>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let ready = Gauge::default();
        let writes = Counter::default();
        let repaired = Family::<Labels, Counter>::default();
        let calls = Family::<Labels, Counter>::default();
        let seconds = Histogram::new(BUCKETS);
        registry.register(
            "istio_cni_install_ready",
            "Whether plugin and configuration are in place",
            ready.clone(),
        );
        registry.register(
            "istio_cni_installs",
            "Times that plugin or configuration were written",
            writes.clone(),
        );
        registry.register(
            "istio_cni_repair_pods_repaired",
            "Pods that had started uncaptured, by what was done",
            repaired.clone(),
        );
        registry.register(
            "lateen_cni_calls",
            "Calls of the plugin, by verb and CNI error code (0: none)",
            calls.clone(),
        );
        registry.register(
            "lateen_cni_add_duration_seconds",
            "Time of an ADD in the agent",
            seconds.clone(),
        );
        let memory = Gauge::default();
        registry.register("process_resident_memory_bytes", "Resident memory", memory.clone());
        let drifted = Family::<Labels, Counter>::default();
        registry.register(
            "lateen_cni_rules_restored",
            "Times that rules of a captured pod were found changed, by whether they are in place again",
            drifted.clone(),
        );
        let watching = Arc::default();
        registry.register_collector(Box::new(Verdicts(Arc::clone(&watching))));
        let tainted = Gauge::default();
        let help =
            "Whether the node has the taint of an agent that is not ready; 0 when it is not kept";
        registry.register("lateen_cni_node_tainted", help, tainted.clone());
        Self {
            registry,
            ready,
            writes,
            repaired,
            calls,
            seconds,
            memory,
            drifted,
            tainted,
            watching,
        }
    }
}

/// What the rules of captured pods count, read when it is asked for.
#[derive(Debug)]
struct Verdicts(Arc<Watching>);

impl Collector for Verdicts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Counts { pods, left_out } = self.0.counts();
        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let help = "Captured pods whose rules are watched";
        let watched = gauge(self.0.len());
        watched.encode(encoder.encode_descriptor(
            "lateen_cni_watched_pods",
            help,
            None,
            watched.metric_type(),
        )?)?;
        let help = "Watched pods whose counters could not be read in time";
        let unread = gauge(left_out);
        unread.encode(encoder.encode_descriptor(
            "lateen_cni_unread_pods",
            help,
            None,
            unread.metric_type(),
        )?)?;
        let help = "Connections of captured pods by what their rules did with them; packets where the verdict is tproxy or drop";
        let name = "lateen_cni_pod_verdicts";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (Key { namespace, name }, verdicts) in pods {
            for (verdict, packets) in verdicts {
                let labels = [
                    ("namespace", namespace.clone()),
                    ("pod", name.clone()),
                    ("verdict", verdict.to_string()),
                ];
                ConstCounter::new(packets).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Metrics {
    /// A pass of the installer.
    pub fn installed(&self, ready: bool, wrote: bool) {
        self.ready.set(i64::from(ready));
        if wrote {
            self.writes.inc();
        }
    }

    /// A pod that was uncaptured.
    pub fn repaired(&self, mode: Repair, success: bool) {
        let result = if success { "success" } else { "fail" };
        let kind = mode.to_string();
        self.repaired.get_or_create(&vec![("type", kind), ("result", result.to_owned())]).inc();
    }

    /// A captured pod whose rules somebody had changed.
    pub fn drifted(&self, restored: bool) {
        let result = if restored { "success" } else { "fail" };
        self.drifted.get_or_create(&vec![("result", result.to_owned())]).inc();
    }

    /// Whether the node is tainted.
    pub fn tainted(&self, tainted: bool) {
        self.tainted.set(i64::from(tainted));
    }

    /// A call of the plugin.
    pub fn called(&self, verb: &str, code: u32, took: Duration) {
        let labels = vec![("verb", verb.to_owned()), ("code", code.to_string())];
        self.calls.get_or_create(&labels).inc();
        if verb == "ADD" {
            self.seconds.observe(took.as_secs_f64());
        }
    }

    /// The page. Blocking: counters of pods are read.
    #[must_use]
    pub fn text(&self) -> String {
        self.memory.set(resident());
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to a string does not fail.
            text.clear();
        }
        text
    }
}

/// Resident memory of this process in bytes; 0 where the kernel does not say.
fn resident() -> i64 {
    const PAGE: i64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok());
    pages.unwrap_or_default().saturating_mul(PAGE)
}
