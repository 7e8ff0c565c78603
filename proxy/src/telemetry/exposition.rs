//! Prometheus' text format, version 0.0.4.
//!
//! Counters of the workers are summed here, so counting never waits for reading.

use super::hub::Shard;
use super::series::{BOUNDS, HistogramTotal, HttpSeries, TcpSeries};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

#[derive(Debug, Default)]
struct HttpTotal {
    requests: u64,
    duration: HistogramTotal,
    request_bytes: HistogramTotal,
    response_bytes: HistogramTotal,
    request_messages: u64,
    response_messages: u64,
}

impl HttpTotal {
    fn add(&mut self, series: &HttpSeries) {
        self.requests += series.requests.get();
        self.request_messages += series.request_messages.get();
        self.response_messages += series.response_messages.get();
        series.duration.add_to(&mut self.duration);
        series.request_bytes.add_to(&mut self.request_bytes);
        series.response_bytes.add_to(&mut self.response_bytes);
    }
}

#[derive(Debug, Default)]
struct TcpTotal([u64; 4]);

impl TcpTotal {
    fn add(&mut self, series: &TcpSeries) {
        let now = [&series.opened, &series.closed, &series.sent, &series.received];
        for (total, counter) in self.0.iter_mut().zip(now) {
            *total += counter.get();
        }
    }
}

/// Appends all Istio metrics of these workers.
pub(super) fn istio(text: &mut String, shards: &[Arc<Shard>]) {
    let mut http: BTreeMap<Arc<str>, HttpTotal> = BTreeMap::new();
    let mut tcp: BTreeMap<Arc<str>, TcpTotal> = BTreeMap::new();
    for shard in shards {
        for (labels, series) in shard.http.lock().iter() {
            http.entry(Arc::clone(labels)).or_default().add(series);
        }
        for (labels, series) in shard.tcp.lock().iter() {
            tcp.entry(Arc::clone(labels)).or_default().add(series);
        }
    }
    http_metrics(text, &http);
    let names = [
        "istio_tcp_connections_opened_total",
        "istio_tcp_connections_closed_total",
        "istio_tcp_sent_bytes_total",
        "istio_tcp_received_bytes_total",
    ];
    for (place, name) in names.into_iter().enumerate() {
        counters(text, name, tcp.iter().map(|(labels, total)| (&**labels, total.0[place])));
    }
}

fn http_metrics(text: &mut String, http: &BTreeMap<Arc<str>, HttpTotal>) {
    let all = || http.iter().map(|(labels, total)| (&**labels, total));
    counters(text, "istio_requests_total", all().map(|(labels, t)| (labels, t.requests)));
    let grpc = || all().filter(|(_, t)| t.request_messages + t.response_messages > 0);
    let messages = grpc().map(|(labels, t)| (labels, t.request_messages));
    counters(text, "istio_request_messages_total", messages);
    let messages = grpc().map(|(labels, t)| (labels, t.response_messages));
    counters(text, "istio_response_messages_total", messages);
    let duration = all().map(|(labels, t)| (labels, &t.duration));
    histograms(text, "istio_request_duration_milliseconds", duration);
    histograms(text, "istio_request_bytes", all().map(|(labels, t)| (labels, &t.request_bytes)));
    histograms(text, "istio_response_bytes", all().map(|(labels, t)| (labels, &t.response_bytes)));
}

fn counters<'l>(text: &mut String, name: &str, all: impl Iterator<Item = (&'l str, u64)>) {
    let mut all = all.peekable();
    if all.peek().is_some() {
        kind(text, name, "counter");
    }
    for (labels, value) in all {
        let _infallible = writeln!(text, "{name}{{{labels}}} {value}");
    }
}

fn histograms<'l>(
    text: &mut String,
    name: &str,
    all: impl Iterator<Item = (&'l str, &'l HistogramTotal)>,
) {
    let mut all = all.peekable();
    if all.peek().is_some() {
        kind(text, name, "histogram");
    }
    for (labels, total) in all {
        let mut count = 0;
        for (place, bucket) in total.buckets.iter().enumerate() {
            count += bucket;
            let _infallible = match BOUNDS.get(place) {
                Some(bound) => {
                    writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")
                }
                None => writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}"),
            };
        }
        let (whole, part) = (total.sum / 1000, total.sum % 1000);
        let _infallible = writeln!(text, "{name}_sum{{{labels}}} {whole}.{part:03}");
        let _infallible = writeln!(text, "{name}_count{{{labels}}} {count}");
    }
}

/// Appends a gauge with the values of its label sets.
pub(super) fn gauge(text: &mut String, name: &str, values: &[(String, f64)]) {
    typed(text, name, "gauge", values);
}

/// Appends a counter with the values of its label sets.
pub(super) fn counter(text: &mut String, name: &str, values: &[(String, f64)]) {
    typed(text, name, "counter", values);
}

/// Appends one line; `metric` has its labels already.
pub(super) fn line(text: &mut String, metric: &str, value: f64) {
    let _infallible = writeln!(text, "{metric} {value}");
}

fn typed(text: &mut String, name: &str, what: &str, values: &[(String, f64)]) {
    if values.is_empty() {
        return;
    }
    kind(text, name, what);
    for (labels, value) in values {
        if labels.is_empty() {
            line(text, name, *value);
        } else {
            line(text, &format!("{name}{{{labels}}}"), *value);
        }
    }
}

fn kind(text: &mut String, name: &str, what: &str) {
    let _infallible = writeln!(text, "# TYPE {name} {what}");
}
