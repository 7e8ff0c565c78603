//! What the proxy tells about traffic: `istio_*` metrics and access logs.
//!
//! [`Telemetry`] belongs to one worker; it turns finished requests and connections into counts,
//! through handles that are looked up by identity, so that a request costs a few hundred
//! nanoseconds. [`Hub`] is shared: it merges what the workers counted when somebody scrapes, and
//! writes access logs away from the workers. Knows nothing of how traffic is carried.

pub mod access_log;
mod exposition;
mod gauges;
mod handles;
mod hub;
mod labels;
mod process;
mod series;
mod tcp;

#[cfg(test)]
mod tests;

pub use crate::http::{Flags, RequestRecord};
pub use gauges::{Gauge, GaugeGuard};
pub use hub::{Build, Hub};
pub use labels::Local;

use crate::config::{AccessLog, HttpFilter, Terminal};
use crate::http::Sink;
use crate::tcp::{TcpRecord, TcpSink};
use access_log::{Compiled, Entry};
use handles::Handles;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tcp::OpenConnections;

/// Most formats kept compiled on one worker.
const MAX_FORMATS: usize = 64;
/// How often the bytes of open TCP connections are counted.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Telemetry of one worker.
#[derive(Debug)]
pub struct Telemetry {
    hub: Arc<Hub>,
    handles: Handles,
    open: OpenConnections,
    formats: RefCell<Vec<Rc<Compiled>>>,
    line: RefCell<String>,
}

impl Telemetry {
    /// Telemetry of a new worker.
    #[must_use]
    pub fn new(hub: &Arc<Hub>) -> Rc<Self> {
        Rc::new(Self {
            hub: Arc::clone(hub),
            handles: Handles::new(hub),
            open: OpenConnections::default(),
            formats: RefCell::default(),
            line: RefCell::default(),
        })
    }

    /// What all workers share.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Counts a finished request and logs it, as its connection manager wants.
    pub fn http(&self, record: &RequestRecord) {
        let manager = &record.manager;
        if manager.filters.iter().any(|filter| matches!(filter, HttpFilter::Stats)) {
            self.handles.http(record);
        }
        self.log(&Entry::Request(record), &manager.access_log);
    }

    /// Counts bytes of open TCP connections again and again. Run it as one task of the worker.
    pub async fn report(self: Rc<Self>) {
        loop {
            tokio::time::sleep(REPORT_EVERY).await;
            self.open.report();
        }
    }

    fn log(&self, entry: &Entry<'_>, logs: &[AccessLog]) {
        for log in logs {
            let flags = entry.flags();
            if !log.flags.is_empty() && !log.flags.iter().any(|name| flags.has_named(name)) {
                continue;
            }
            let compiled = self.compiled(log);
            let mut line = self.line.borrow_mut();
            line.clear();
            compiled.write(entry, &mut line);
            compiled.file().append(&line);
        }
    }

    fn compiled(&self, log: &AccessLog) -> Rc<Compiled> {
        let mut formats = self.formats.borrow_mut();
        if let Some(known) = formats.iter().find(|known| known.is_for(log)) {
            return Rc::clone(known);
        }
        if formats.len() >= MAX_FORMATS {
            formats.clear();
        }
        let compiled = Rc::new(Compiled::new(log, self.hub.logs()));
        formats.push(Rc::clone(&compiled));
        compiled
    }
}

impl Sink for Telemetry {
    fn exchange(&self, record: &RequestRecord) {
        self.http(record);
    }
}

impl TcpSink for Telemetry {
    fn opened(&self, record: &Rc<TcpRecord>) {
        if record.chain.as_ref().is_some_and(|chain| chain.stats) {
            self.open.open(record, self.handles.tcp(record));
        }
    }

    fn closed(&self, record: &Rc<TcpRecord>) {
        let counted = self.open.close(record);
        if !counted && record.chain.as_ref().is_some_and(|chain| chain.stats) {
            // Refused before its upstream was chosen: opened and closed at once.
            self.open.open(record, self.handles.tcp(record));
            self.open.close(record);
        }
        let entry = Entry::Connection(record);
        self.log(&entry, &record.listener.access_log);
        if let Some(Terminal::Tcp(proxy)) = record.chain.as_ref().map(|chain| &chain.terminal) {
            self.log(&entry, &proxy.access_log);
        }
    }
}
