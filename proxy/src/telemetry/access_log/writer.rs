//! Log files, written by a thread of their own so that a slow disk or pipe never holds a worker.
//!
//! Workers append to a buffer in memory; the thread (started with the first file) writes buffers
//! out a few times a second. A buffer that is full drops lines and counts them.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Most bytes that wait for one file.
const MAX_WAITING: usize = 4 << 20;
/// Bytes at which the thread is woken early.
const ENOUGH: usize = 64 << 10;
/// How long lines wait at most.
const INTERVAL: Duration = Duration::from_millis(200);
/// The thread only copies bytes.
const STACK: usize = 64 << 10;

/// One log file, as workers see it.
#[derive(Debug)]
pub(in crate::telemetry) struct LogFile {
    buffer: Mutex<Vec<u8>>,
    bell: Arc<Bell>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
    closed: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock() = true;
        self.changed.notify_one();
    }

    /// Waits until something is there to write; `true` when there will be no more.
    fn wait(&self) -> bool {
        let mut rung = self.rung.lock();
        if !*rung && !self.closed.load(Ordering::Acquire) {
            self.changed.wait(&mut rung);
        }
        *rung = false;
        self.closed.load(Ordering::Acquire)
    }

    /// Lets lines gather.
    fn gather(&self) {
        let mut rung = self.rung.lock();
        if !self.closed.load(Ordering::Acquire) {
            let _timed_out = self.changed.wait_for(&mut rung, INTERVAL);
        }
    }
}

impl LogFile {
    /// Appends a line, or drops it when too much waits already.
    pub(in crate::telemetry) fn append(&self, line: &str) {
        let mut buffer = self.buffer.lock();
        if buffer.len() + line.len() > MAX_WAITING {
            drop(buffer);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = buffer.len();
        buffer.extend_from_slice(line.as_bytes());
        let now = buffer.len();
        drop(buffer);
        if before == 0 || (before < ENOUGH && now >= ENOUGH) {
            self.bell.ring();
        }
    }
}

/// All log files of the process.
#[derive(Debug, Default)]
pub struct LogFiles {
    files: Arc<Mutex<BTreeMap<String, Arc<LogFile>>>>,
    bell: Arc<Bell>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LogFiles {
    /// The file of a path; `/dev/stdout` and `/dev/stderr` are the process's own.
    pub(super) fn open(&self, path: &str) -> Arc<LogFile> {
        let file = {
            let mut files = self.files.lock();
            let file = files.entry(path.to_owned()).or_insert_with(|| {
                Arc::new(LogFile {
                    buffer: Mutex::default(),
                    bell: Arc::clone(&self.bell),
                    dropped: AtomicU64::new(0),
                })
            });
            Arc::clone(file)
        };
        self.start();
        file
    }

    /// Lines that were lost because a file was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.files.lock().values().map(|file| file.dropped.load(Ordering::Relaxed)).sum()
    }

    /// Writes what waits and ends the thread; for the end of the process.
    pub fn close(&self) {
        {
            let _order = self.bell.rung.lock();
            self.bell.closed.store(true, Ordering::Release);
        }
        self.bell.changed.notify_all();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::warn!("the access log thread failed");
        }
    }

    fn start(&self) {
        let mut thread = self.thread.lock();
        if thread.is_some() || self.bell.closed.load(Ordering::Acquire) {
            return;
        }
        let (files, bell) = (Arc::clone(&self.files), Arc::clone(&self.bell));
        let started = thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(STACK)
            .spawn(move || run(&files, &bell));
        match started {
            Ok(handle) => *thread = Some(handle),
            Err(error) => tracing::error!(%error, "access logs are not written: no thread"),
        }
    }
}

fn run(files: &Mutex<BTreeMap<String, Arc<LogFile>>>, bell: &Bell) {
    let mut outputs: BTreeMap<String, Box<dyn Write>> = BTreeMap::new();
    loop {
        let last = bell.wait();
        if !last {
            bell.gather();
        }
        let known: Vec<_> =
            files.lock().iter().map(|(path, file)| (path.clone(), Arc::clone(file))).collect();
        for (path, file) in known {
            let lines = std::mem::take(&mut *file.buffer.lock());
            if lines.is_empty() {
                continue;
            }
            if let Err(error) = write(&mut outputs, &path, &lines) {
                tracing::warn!(%error, path, "access log cannot be written");
                outputs.remove(&path);
            }
        }
        if last {
            return;
        }
    }
}

fn write(
    outputs: &mut BTreeMap<String, Box<dyn Write>>,
    path: &str,
    lines: &[u8],
) -> io::Result<()> {
    if !outputs.contains_key(path) {
        outputs.insert(path.to_owned(), output(path)?);
    }
    let Some(output) = outputs.get_mut(path) else { return Ok(()) };
    output.write_all(lines)?;
    output.flush()
}

fn output(path: &str) -> io::Result<Box<dyn Write>> {
    Ok(match path {
        "/dev/stdout" => Box::new(io::stdout()),
        "/dev/stderr" => Box::new(io::stderr()),
        _ => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_in_the_file_after_close() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let files = LogFiles::default();
        let file = files.open(path.to_str().unwrap());
        for number in 0..1000 {
            file.append(&format!("line {number}\n"));
        }
        files.close();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        assert!(text.ends_with("line 999\n"));
    }

    #[test]
    fn a_file_that_is_too_slow_loses_lines_not_memory() {
        let files = LogFiles::default();
        let file = LogFile {
            buffer: Mutex::new(vec![0; MAX_WAITING]),
            bell: Arc::default(),
            dropped: AtomicU64::new(0),
        };
        file.append("x\n");
        assert_eq!(file.dropped.load(Ordering::Relaxed), 1);
        assert_eq!(file.buffer.lock().len(), MAX_WAITING);
        assert_eq!(files.dropped(), 0);
    }
}
