//! What is in force, for people: configuration, endpoints, certificates. Pure.
//!
//! Keys never appear, only what certificates say.

use crate::agent::discovery::Summary;
use crate::agent::materials::{Materials, epoch_ms};
use crate::config::{Cluster, Discovery, FilterChain, Listener, RouteAction, RouteSource};
use crate::config::{RouteConfig, Snapshot, Terminal};
use lateen_identity::PeerCertificate;
use lateen_xds::type_url;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The snapshot with versions and refusals.
pub(super) fn config(snapshot: &Snapshot, summary: &Summary) -> Value {
    let version =
        |kind: &str, name: &Arc<str>| summary.versions.get(&(kind.to_owned(), Arc::clone(name)));
    let mut listeners: Vec<_> = snapshot.listeners.values().collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    let mut routes: Vec<_> = snapshot.routes.values().collect();
    routes.sort_by(|a, b| a.name.cmp(&b.name));
    let refused = summary.refused.iter().map(|refused| {
        json!({
            "type": refused.type_url,
            "name": &*refused.name,
            "version": refused.version,
            "reason": refused.reason,
        })
    });
    json!({
        "epoch": snapshot.epoch,
        "listeners": listeners.iter()
            .map(|l| listener(l, version(type_url::LISTENER, &l.name))).collect::<Vec<_>>(),
        "clusters": clusters.iter()
            .map(|c| cluster(c, snapshot, version(type_url::CLUSTER, &c.name))).collect::<Vec<_>>(),
        "routes": routes.iter()
            .map(|r| route(r, version(type_url::ROUTES, &r.name))).collect::<Vec<_>>(),
        "names": snapshot.names.hosts.len(),
        "warming": summary.warming.iter().map(|name| &**name).collect::<Vec<_>>(),
        "refused": refused.collect::<Vec<_>>(),
    })
}

fn listener(listener: &Listener, version: Option<&String>) -> Value {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    json!({
        "name": &*listener.name,
        "version": version,
        "address": listener.address.to_string(),
        "additional": listener.additional_addresses.iter()
            .map(ToString::to_string).collect::<Vec<_>>(),
        "bound": listener.bind,
        "direction": format!("{:?}", listener.direction).to_lowercase(),
        "chains": chains.map(|chain| self::chain(chain)).collect::<Vec<_>>(),
    })
}

fn chain(chain: &FilterChain) -> Value {
    let serves = match &chain.terminal {
        Terminal::Tcp(proxy) => {
            let names: Vec<_> = proxy.clusters.iter().map(|(name, _)| &**name).collect();
            json!({ "tcp": names })
        }
        Terminal::Http(manager) => match &manager.routes {
            RouteSource::Rds(name) => json!({ "http": { "routes": &**name } }),
            RouteSource::Inline(_) => json!({ "http": { "routes": "inline" } }),
        },
    };
    json!({
        "name": &*chain.name,
        "port": chain.matches.destination_port,
        "addresses": chain.matches.prefix_ranges.iter()
            .map(ToString::to_string).collect::<Vec<_>>(),
        "protocols": chain.matches.application_protocols,
        "tls": chain.tls.as_ref().map(|tls| json!({
            "certificates": tls.certificates.iter().map(|name| &**name).collect::<Vec<_>>(),
            "clientCertificate": tls.require_client_certificate,
        })),
        "serves": serves,
    })
}

fn cluster(cluster: &Cluster, snapshot: &Snapshot, version: Option<&String>) -> Value {
    let endpoints = match &cluster.discovery {
        Discovery::Eds(_) => snapshot.endpoints.get(&cluster.name),
        Discovery::Static(set) => Some(set),
        Discovery::StrictDns(_) | Discovery::LogicalDns(_) | Discovery::OriginalDst { .. } => None,
    };
    let endpoints = endpoints.map(|set| {
        set.endpoints
            .iter()
            .map(|endpoint| {
                json!({
                    "address": endpoint.address.to_string(),
                    "health": format!("{:?}", endpoint.health).to_lowercase(),
                    "weight": endpoint.weight,
                    "priority": endpoint.priority,
                    "mutualTls": endpoint.mtls,
                })
            })
            .collect::<Vec<_>>()
    });
    json!({
        "name": &*cluster.name,
        "version": version,
        "balance": format!("{:?}", cluster.balance),
        "http": format!("{:?}", cluster.http),
        "endpoints": endpoints,
    })
}

fn route(routes: &RouteConfig, version: Option<&String>) -> Value {
    let hosts = routes.virtual_hosts.iter().map(|host| {
        let routes = host.routes.iter().map(|route| {
            json!({
                "name": &*route.name,
                "path": format!("{:?}", route.matches.path),
                "action": action(&route.action),
            })
        });
        json!({
            "name": &*host.name,
            "domains": host.domains,
            "routes": routes.collect::<Vec<_>>(),
        })
    });
    json!({ "name": &*routes.name, "version": version, "hosts": hosts.collect::<Vec<_>>() })
}

fn action(action: &RouteAction) -> String {
    const LONGEST: usize = 400;
    let text = format!("{action:?}");
    text.chars().take(LONGEST).collect()
}

/// One line for each fact of each endpoint, in the form of Envoy's `/clusters`.
pub(super) fn clusters(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut names: Vec<_> = snapshot.endpoints.iter().collect();
    names.sort_by(|a, b| a.0.cmp(b.0));
    for (name, set) in names {
        for endpoint in &set.endpoints {
            let at = endpoint.address;
            let health = format!("{:?}", endpoint.health).to_lowercase();
            let _infallible = writeln!(text, "{name}::{at}::health_flags::{health}");
            let _infallible = writeln!(text, "{name}::{at}::weight::{}", endpoint.weight);
            let _infallible = writeln!(text, "{name}::{at}::priority::{}", endpoint.priority);
        }
    }
    text
}

/// The certificates in force.
pub(super) fn certificates(materials: &Materials, now: SystemTime) -> Value {
    let own = materials.credential().map(|own| certificate(own.leaf(), now));
    let roots = materials.bundle().map_or_else(Vec::new, |bundle| {
        let parsed = bundle.roots().iter().filter_map(|der| PeerCertificate::from_der(der).ok());
        parsed.map(|root| certificate(&root, now)).collect()
    });
    let mut all = json!({ "certificate": own, "roots": roots });
    if let Some(own) = materials.credential() {
        // Flat as well, for those who wait for a renewal.
        all["serial"] = own.leaf().serial.as_str().into();
        all["not_after_ms"] = epoch_ms(own.leaf().not_after).into();
        all["renew_at_ms"] = materials.renew_at_ms().into();
    }
    all
}

fn certificate(certificate: &PeerCertificate, now: SystemTime) -> Value {
    let seconds = |at: SystemTime| {
        at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
    };
    json!({
        "uris": certificate.uris,
        "dns": certificate.dns,
        "subject": certificate.subject,
        "serial": certificate.serial,
        "sha256": certificate.hash,
        "notBefore": seconds(certificate.not_before),
        "notAfter": seconds(certificate.not_after),
        "secondsLeft": certificate.not_after.duration_since(now).unwrap_or(Duration::ZERO).as_secs(),
    })
}
