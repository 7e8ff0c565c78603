//! Gauges of the process itself, under the names dashboards ask for.

use super::exposition;
use std::time::Duration;

/// Bytes of a memory page on the platforms we run on.
const PAGE: f64 = 4096.0;

/// Appends uptime, liveness, memory and open files.
pub(super) fn write(text: &mut String, uptime: Duration) {
    let resident = resident_pages().map_or(0.0, |pages| pages * PAGE);
    let metrics = [
        ("envoy_server_uptime", uptime.as_secs_f64().floor()),
        ("envoy_server_live", 1.0),
        ("envoy_server_memory_allocated", resident),
        ("envoy_server_memory_heap_size", resident),
        ("envoy_server_memory_physical_size", resident),
        ("process_resident_memory_bytes", resident),
        ("process_open_fds", open_files()),
    ];
    for (metric, value) in metrics {
        exposition::gauge(text, metric, &[(String::new(), value)]);
    }
}

fn resident_pages() -> Option<f64> {
    std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()
}

fn open_files() -> f64 {
    let count = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    u32::try_from(count).map_or(0.0, f64::from)
}
