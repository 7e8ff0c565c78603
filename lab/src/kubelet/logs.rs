//! The files that containers write into, and their bound.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::PodKey;

/// Largest log; as much again is kept beside it.
const MAX_BYTES: u64 = 8 << 20;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of the end in which the last line is looked for.
const TAIL: u64 = 4096;

/// Log of a container.
pub(super) fn path(state: &Path, key: &PodKey, container: &str) -> PathBuf {
    let name = format!("{}_{}_{container}.log", key.namespace, key.name);
    state.join("logs").join(name)
}

/// Keeps all logs of a lab within their bound until told to stop.
pub(super) async fn bound(folder: PathBuf, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        for file in files.map(|entry| entry.path()).filter(|path| is_log(path)) {
            if let Err(e) = cut(&file, MAX_BYTES) {
                tracing::warn!("{}: {e}", file.display());
            }
        }
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
        && path.to_string_lossy().matches('_').count() >= 2
}

/// Moves what is in a log beside it when it is too long. Containers go on writing into the same
/// file; what they write in between is lost.
fn cut(path: &Path, most: u64) -> std::io::Result<()> {
    if fs::metadata(path)?.len() <= most {
        return Ok(());
    }
    fs::copy(path, path.with_extension("log.1"))?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

/// The last line of a log, or nothing.
pub(super) fn last_line(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{cut, last_line};
    use std::io::Write;

    #[test]
    fn a_long_log_is_moved_aside_and_written_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a_b_c.log");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(b"first\nsecond\n\n").unwrap();
        assert_eq!(last_line(&path), "second");
        cut(&path, 100).unwrap();
        assert_eq!(last_line(&path), "second");
        cut(&path, 5).unwrap();
        file.write_all(b"third\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\n");
        assert_eq!(last_line(&folder.path().join("a_b_c.log.1")), "second");
        assert_eq!(last_line(&folder.path().join("none")), "");
    }
}
