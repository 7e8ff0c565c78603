//! What each port of the agent answers.

use super::dump;
use super::probe::Probers;
use super::scrape::Targets;
use crate::agent::discovery::Summary;
use crate::agent::materials::Materials;
use crate::agent::state::AgentState;
use crate::config::Snapshot;
use crate::listen::ListenShared;
use crate::settings::VERSION;
use crate::telemetry::Hub;
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Header by which Prometheus says how long it waits.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";
/// Longest wait for application metrics.
const LONGEST_SCRAPE: Duration = Duration::from_secs(30);
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// One of the agent's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// 15021: ready or not.
    Health,
    /// 15020: ready, merged metrics, application probes, drain, quit.
    Status,
    /// 15090: metrics of the proxy alone.
    Prometheus,
    /// 15000: everything for people.
    Admin,
}

/// What the pages are made from.
#[derive(Debug)]
pub struct PagesParts {
    /// State of the agent.
    pub state: Arc<AgentState>,
    /// Configuration in force.
    pub config: Arc<ArcSwap<Snapshot>>,
    /// Versions and refusals.
    pub summary: Arc<ArcSwap<Summary>>,
    /// Metrics.
    pub hub: Arc<Hub>,
    /// Listeners.
    pub listen: Arc<ListenShared>,
    /// Certificates.
    pub materials: Arc<Materials>,
    /// Number of workers.
    pub workers: usize,
    /// Application probes.
    pub probers: Probers,
    /// Application metrics.
    pub targets: Targets,
    /// Node id.
    pub node: String,
}

/// The pages of all ports.
#[derive(Debug)]
pub struct Pages {
    parts: PagesParts,
    started: Instant,
    scrape_failures: AtomicU64,
}

type Answer = Response<Full<Bytes>>;

impl Pages {
    /// Pages from these parts.
    #[must_use]
    pub fn new(parts: PagesParts) -> Arc<Self> {
        let scrape_failures = AtomicU64::new(0);
        Arc::new(Self { parts, started: Instant::now(), scrape_failures })
    }

    /// Answers a request; its body is not read.
    pub(super) async fn answer<B>(
        &self,
        site: Site,
        request: Request<B>,
        from_loopback: bool,
    ) -> Answer {
        let (head, _body) = request.into_parts();
        let path = head.uri.path();
        let read = matches!(head.method, Method::GET | Method::HEAD);
        let query = head.uri.query().unwrap_or_default();
        match (site, path) {
            (Site::Health | Site::Status, "/healthz/ready") | (Site::Admin, "/ready") if read => {
                self.ready(site)
            }
            (Site::Prometheus | Site::Admin, "/stats/prometheus") if read => {
                page(METRICS, self.parts.hub.prometheus())
            }
            (Site::Status, "/metrics" | "/stats/prometheus") if read => {
                self.merged(&head.headers).await
            }
            (Site::Status, probe)
                if probe.starts_with("/app-health/") || probe.starts_with("/app-lifecycle/") =>
            {
                self.parts.probers.probe(probe, &head.headers).await.map(Full::new)
            }
            (Site::Status, "/drain") | (Site::Admin, "/drain_listeners") => {
                self.act(&head.method, from_loopback, |state| state.drain.cancel())
            }
            (Site::Status | Site::Admin, "/quitquitquit") => {
                self.act(&head.method, from_loopback, |state| state.quit.cancel())
            }
            (Site::Admin, path) if read => self.admin(path, query),
            _ => answer(StatusCode::NOT_FOUND, TEXT, "not found\n"),
        }
    }

    fn ready(&self, site: Site) -> Answer {
        let parts = &self.parts;
        match parts.state.ready(&parts.config, &parts.listen, parts.workers) {
            Ok(()) if site == Site::Admin => page(TEXT, "LIVE\n"),
            Ok(()) => page(TEXT, ""),
            Err(missing) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, missing + "\n"),
        }
    }

    async fn merged(&self, headers: &HeaderMap) -> Answer {
        let asked = headers.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.parse().ok());
        let timeout = asked
            .and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or(Duration::from_secs(10))
            .min(LONGEST_SCRAPE);
        let (application, failed) = self.parts.targets.fetch(timeout).await;
        let failures = self.scrape_failures.fetch_add(failed, Ordering::Relaxed) + failed;
        let mut text = self.parts.hub.prometheus();
        text.push_str("# TYPE istio_agent_scrape_failures_total counter\n");
        text.push_str("istio_agent_scrape_failures_total{type=\"application\"} ");
        text.push_str(&failures.to_string());
        text.push('\n');
        text.push_str(&application);
        page(METRICS, text)
    }

    /// Does what changes the process, for loopback only.
    fn act(&self, method: &Method, from_loopback: bool, act: impl FnOnce(&AgentState)) -> Answer {
        if method != Method::POST {
            return answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "POST only\n");
        }
        if !from_loopback {
            return answer(StatusCode::FORBIDDEN, TEXT, "from loopback only\n");
        }
        act(&self.parts.state);
        page(TEXT, "OK\n")
    }

    fn admin(&self, path: &str, query: &str) -> Answer {
        let parts = &self.parts;
        match path {
            "/" | "/help" => page(TEXT, HELP),
            "/server_info" => page(JSON, pretty(&self.server_info())),
            "/config_dump" => {
                page(JSON, pretty(&dump::config(&parts.config.load(), &parts.summary.load())))
            }
            "/clusters" => page(TEXT, dump::clusters(&parts.config.load())),
            "/certs" => {
                page(JSON, pretty(&dump::certificates(&parts.materials, SystemTime::now())))
            }
            "/stats" => stats(&parts.hub.prometheus(), query),
            "/listeners" => page(TEXT, listeners(&parts.config.load())),
            _ => answer(StatusCode::NOT_FOUND, TEXT, "not found; see /help\n"),
        }
    }

    fn server_info(&self) -> Value {
        let parts = &self.parts;
        let state = if parts.state.drain.is_cancelled() {
            "DRAINING"
        } else if parts.state.ready(&parts.config, &parts.listen, parts.workers).is_ok() {
            "LIVE"
        } else {
            "INITIALIZING"
        };
        json!({
            "version": VERSION,
            "state": state,
            "uptime_seconds": self.started.elapsed().as_secs(),
            "node": parts.node,
            "workers": parts.workers,
            "epoch": parts.config.load().epoch,
            "open_connections": parts.listen.open_connections(),
            "bind_errors": parts.listen.bound.errors().iter()
                .map(|(at, error)| format!("{at}: {error}")).collect::<Vec<_>>(),
        })
    }
}

const HELP: &str = "\
/certs               certificates in force
/clusters            endpoints in force
/config_dump         configuration in force, versions, refusals
/drain_listeners     POST: let connections finish
/listeners           listeners in force
/quitquitquit        POST: end the process
/ready               whether traffic can be taken
/server_info         version and state
/stats               metrics; ?format=json, ?format=prometheus, ?filter=TEXT
/stats/prometheus    metrics as Prometheus reads them
";

fn stats(prometheus: &str, query: &str) -> Answer {
    let value = |name: &str| {
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
    };
    let filter = value("filter").map_or("", |(_, text)| text);
    let samples = prometheus
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(filter))
        .filter_map(|line| line.rsplit_once(' '));
    match value("format") {
        Some((_, "prometheus")) => page(METRICS, prometheus.to_owned()),
        Some((_, "json")) => {
            let list = samples.map(|(name, value)| {
                json!({ "name": name, "value": value.parse::<f64>().unwrap_or_default() })
            });
            page(JSON, json!({ "stats": list.collect::<Vec<_>>() }).to_string())
        }
        _ => {
            let lines: Vec<_> = samples.map(|(name, value)| format!("{name}: {value}\n")).collect();
            page(TEXT, lines.concat())
        }
    }
}

fn listeners(snapshot: &Snapshot) -> String {
    let mut lines: Vec<_> = snapshot
        .listeners
        .values()
        .map(|listener| format!("{}::{}\n", listener.name, listener.address))
        .collect();
    lines.sort();
    lines.concat()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn page(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    answer(StatusCode::OK, kind, body)
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
