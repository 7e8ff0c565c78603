//! Checks of `DestinationRule`: subsets, load balancing, limits, TLS.

use std::collections::BTreeSet;

use super::{Remarks, fields};
use crate::host::is_label;
use crate::networking::{
    ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, DestinationRule, LoadBalancer,
    Maglev, OutlierDetection, PortTrafficPolicy, Subset, TrafficPolicy, Warmup,
};

/// Largest table of Maglev.
const MAX_MAGLEV: u64 = 5_000_011;

/// Checks a DestinationRule.
pub(super) fn check(spec: &DestinationRule, remarks: &mut Remarks) {
    if spec.host.is_empty() {
        remarks.error("spec.host", "a host is needed");
    } else {
        fields::host(remarks, "spec.host", &spec.host);
    }
    fields::export_to(remarks, &spec.export_to);
    fields::workload_selector(remarks, spec.workload_selector.as_ref());
    if spec.workload_selector.is_some() && spec.export_to.iter().any(|entry| entry != ".") {
        let message = "a rule with workloadSelector holds in its own namespace only: `.`";
        remarks.error("spec.exportTo", message);
    }
    if let Some(it) = &spec.traffic_policy {
        policy(remarks, "spec.trafficPolicy", it);
    }
    let mut seen = BTreeSet::new();
    for (index, it) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        subset(remarks, &path, it);
        if !seen.insert(&it.name) {
            remarks.error(format!("{path}.name"), format!("subset `{}` is there twice", it.name));
        }
    }
}

fn subset(remarks: &mut Remarks, path: &str, subset: &Subset) {
    if !is_label(&subset.name) {
        let message = format!("`{}` is not a name of letters, digits and `-`", subset.name);
        remarks.error(format!("{path}.name"), message);
    }
    fields::selector(remarks, &format!("{path}.labels"), &subset.labels);
    if let Some(it) = &subset.traffic_policy {
        policy(remarks, &format!("{path}.trafficPolicy"), it);
    }
}

fn policy(remarks: &mut Remarks, path: &str, policy: &TrafficPolicy) {
    let empty = *policy == TrafficPolicy::default();
    remarks.refuse_unless(!empty, path, "the policy says nothing");
    parts(
        remarks,
        path,
        &PortTrafficPolicy {
            port: None,
            load_balancer: policy.load_balancer.clone(),
            connection_pool: policy.connection_pool.clone(),
            outlier_detection: policy.outlier_detection.clone(),
            tls: policy.tls.clone(),
        },
    );
    let mut seen = BTreeSet::new();
    for (index, it) in policy.port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        let number = it.port.map_or(0, |port| port.number);
        fields::port(remarks, &format!("{path}.port.number"), number);
        if !seen.insert(number) {
            remarks.error(format!("{path}.port"), format!("port {number} is there twice"));
        }
        parts(remarks, &path, it);
    }
    remarks.not_honoured(policy.tunnel.is_some(), path, "tunnel");
    remarks.not_honoured(policy.proxy_protocol.is_some(), path, "proxyProtocol");
    remarks.not_honoured(policy.retry_budget.is_some(), path, "retryBudget");
    if let Some(tunnel) = &policy.tunnel {
        let path = format!("{path}.tunnel");
        if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
            remarks.error(format!("{path}.protocol"), "must be CONNECT or POST");
        }
        fields::host(remarks, &format!("{path}.targetHost"), &tunnel.target_host);
        fields::port(remarks, &format!("{path}.targetPort"), tunnel.target_port);
    }
}

fn parts(remarks: &mut Remarks, path: &str, policy: &PortTrafficPolicy) {
    if let Some(it) = &policy.load_balancer {
        load_balancer(remarks, &format!("{path}.loadBalancer"), it);
    }
    if let Some(it) = &policy.connection_pool {
        connection_pool(remarks, &format!("{path}.connectionPool"), it);
    }
    if let Some(it) = &policy.outlier_detection {
        outlier_detection(remarks, &format!("{path}.outlierDetection"), it);
    }
    if let Some(it) = &policy.tls {
        tls(remarks, &format!("{path}.tls"), it);
    }
}

fn load_balancer(remarks: &mut Remarks, path: &str, balancer: &LoadBalancer) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        remarks.error(path, "simple and consistentHash exclude each other");
    }
    if let Some(hash) = &balancer.consistent_hash {
        consistent_hash(remarks, &format!("{path}.consistentHash"), hash);
    }
    let (locality, zone) =
        (balancer.locality_lb_setting.is_some(), balancer.zone_aware_lb_setting.is_some());
    if locality && zone {
        remarks.error(path, "localityLbSetting and zoneAwareLbSetting exclude each other");
    }
    remarks.not_honoured(locality, path, "localityLbSetting");
    remarks.not_honoured(zone, path, "zoneAwareLbSetting");
    if balancer.warmup.is_some() && balancer.warmup_duration_secs.is_some() {
        remarks.error(path, "warmup and warmupDurationSecs exclude each other");
    }
    remarks.not_honoured(balancer.warmup_duration_secs.is_some(), path, "warmupDurationSecs");
    if let Some(it) = &balancer.warmup {
        remarks.not_honoured(true, path, "warmup");
        warmup(remarks, &format!("{path}.warmup"), it);
    }
}

fn warmup(remarks: &mut Remarks, path: &str, warmup: &Warmup) {
    if warmup.duration.is_none() {
        remarks.error(format!("{path}.duration"), "how long the warm-up is must be given");
    }
    fields::wait(remarks, &format!("{path}.duration"), warmup.duration);
    if warmup.aggression.is_some_and(|value| value < 1.0) {
        remarks.error(format!("{path}.aggression"), "must be 1 or more");
    }
    if warmup.minimum_percent.is_some_and(|value| !(0.0..=100.0).contains(&value)) {
        remarks.error(format!("{path}.minimumPercent"), "must be 0 to 100");
    }
}

fn consistent_hash(remarks: &mut Remarks, path: &str, hash: &ConsistentHash) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|is| **is).count() != 1 {
        let message = "exactly one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName is needed";
        remarks.error(path, message);
    }
    if let Some(name) = &hash.http_header_name {
        fields::header_name(remarks, &format!("{path}.httpHeaderName"), name);
    }
    if let Some(cookie) = &hash.http_cookie {
        let path = format!("{path}.httpCookie");
        remarks.refuse_unless(!cookie.name.is_empty(), &format!("{path}.name"), "a name is needed");
        remarks.not_honoured(!cookie.attributes.is_empty(), &path, "attributes");
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        remarks.error(path, "ringHash and maglev exclude each other");
    }
    if let Some(Maglev { table_size }) = hash.maglev
        && table_size != 0
        && (table_size > MAX_MAGLEV || !is_prime(table_size))
    {
        let message = format!("{table_size} is not a prime of at most {MAX_MAGLEV}");
        remarks.error(format!("{path}.maglev.tableSize"), message);
    }
}

fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

/// Checks limits of connections and requests.
pub(super) fn connection_pool(remarks: &mut Remarks, path: &str, pool: &ConnectionPool) {
    if pool.tcp.is_none() && pool.http.is_none() {
        remarks.error(path, "one of tcp and http is needed");
    }
    if let Some(tcp) = &pool.tcp {
        let path = format!("{path}.tcp");
        fields::wait(remarks, &format!("{path}.connectTimeout"), tcp.connect_timeout);
        fields::wait(
            remarks,
            &format!("{path}.maxConnectionDuration"),
            tcp.max_connection_duration,
        );
    }
    if let Some(http) = &pool.http {
        let path = format!("{path}.http");
        if http.use_client_protocol
            && http.h2_upgrade_policy == crate::networking::UpgradePolicy::Upgrade
        {
            remarks
                .error(&path, "useClientProtocol and h2UpgradePolicy UPGRADE exclude each other");
        }
        remarks.not_honoured(http.http2_keep_alive.is_some(), &path, "http2KeepAlive");
    }
}

fn outlier_detection(remarks: &mut Remarks, path: &str, outlier: &OutlierDetection) {
    fields::wait(remarks, &format!("{path}.interval"), outlier.interval);
    fields::wait(remarks, &format!("{path}.baseEjectionTime"), outlier.base_ejection_time);
    let percentages = [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ];
    for (name, value) in percentages {
        if value > 100 {
            remarks.error(format!("{path}.{name}"), format!("{value} is not 0 to 100"));
        }
    }
    if !outlier.split_external_local_origin_errors
        && outlier.consecutive_local_origin_failures.is_some_and(|count| count > 0)
    {
        let message = "needs splitExternalLocalOriginErrors: true";
        remarks.error(format!("{path}.consecutiveLocalOriginFailures"), message);
    }
    if outlier.consecutive_errors > 0 {
        let message = "consecutiveErrors has no effect: use consecutive5xxErrors";
        remarks.warn(format!("{path}.consecutiveErrors"), message);
    }
    remarks.not_honoured(outlier.http_errors.is_some(), path, "httpErrors");
}

fn tls(remarks: &mut Remarks, path: &str, tls: &ClientTls) {
    let files = [&tls.client_certificate, &tls.private_key, &tls.ca_certificates];
    match tls.mode {
        ClientTlsMode::IstioMutual => {
            let given =
                files.iter().any(|file| !file.is_empty()) || !tls.credential_name.is_empty();
            let message =
                "ISTIO_MUTUAL uses the certificates of the mesh: no files, no credentialName";
            remarks.refuse_unless(!given, path, message);
        }
        ClientTlsMode::Mutual if tls.credential_name.is_empty() => {
            for (name, file) in
                [("clientCertificate", &tls.client_certificate), ("privateKey", &tls.private_key)]
            {
                let message = "needed for MUTUAL";
                remarks.refuse_unless(!file.is_empty(), &format!("{path}.{name}"), message);
            }
        }
        ClientTlsMode::Mutual | ClientTlsMode::Simple | ClientTlsMode::Disable => {}
    }
    if !tls.credential_name.is_empty() {
        if files.iter().any(|file| !file.is_empty()) {
            remarks.error(path, "credentialName and files exclude each other");
        }
        remarks.not_honoured(tls.mode != ClientTlsMode::IstioMutual, path, "credentialName");
    }
    if tls.insecure_skip_verify == Some(true)
        && (!tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty())
    {
        let message = "excludes caCertificates and subjectAltNames";
        remarks.error(format!("{path}.insecureSkipVerify"), message);
    }
    remarks.not_honoured(!tls.ca_crl.is_empty(), path, "caCrl");
}
