//! TCP connections as they open, pass bytes and close.
//!
//! Bytes of connections that stay open are counted whenever [`OpenConnections::report`] is
//! called, so that long-lived connections show before they end.

use super::series::TcpSeries;
use crate::tcp::TcpRecord;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

#[derive(Debug)]
struct Open {
    record: Rc<TcpRecord>,
    series: Arc<TcpSeries>,
    received: u64,
    sent: u64,
}

impl Open {
    /// Counts what passed since the last time.
    fn report(&mut self) {
        let traffic = &self.record.traffic;
        let (received, sent) = (traffic.received.get(), traffic.sent.get());
        self.series.received.add(received.saturating_sub(self.received));
        self.series.sent.add(sent.saturating_sub(self.sent));
        (self.received, self.sent) = (received, sent);
    }
}

/// Connections of one worker that are counted.
#[derive(Debug, Default)]
pub(super) struct OpenConnections(RefCell<HashMap<*const TcpRecord, Open>>);

impl OpenConnections {
    /// A connection opened.
    pub(super) fn open(&self, record: &Rc<TcpRecord>, series: Arc<TcpSeries>) {
        series.opened.add(1);
        let open = Open { record: Rc::clone(record), series, received: 0, sent: 0 };
        self.0.borrow_mut().insert(Rc::as_ptr(record), open);
    }

    /// A connection closed; true when it had been opened.
    pub(super) fn close(&self, record: &Rc<TcpRecord>) -> bool {
        let Some(mut open) = self.0.borrow_mut().remove(&Rc::as_ptr(record)) else { return false };
        open.report();
        open.series.closed.add(1);
        true
    }

    /// Counts what passed since the last time.
    pub(super) fn report(&self) {
        self.0.borrow_mut().values_mut().for_each(Open::report);
    }
}
