//! What this control plane would write to the API server, published to a directory.
//!
//! The registration of the webhook, the root certificate for every namespace, and what there is to
//! say about the configuration. A file is replaced as a whole and only when it changed. What goes
//! into the files is made by pure functions.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lateen_api::Finding;
use serde_json::{Value, json};
use thiserror::Error;

/// File with the registration of the webhook.
pub const WEBHOOK: &str = "mutatingwebhookconfiguration.json";
/// File with the ConfigMap of the root certificate.
pub const ROOT_CERTIFICATE: &str = "istio-ca-root-cert.json";
/// File with the findings of the last load.
pub const STATUS: &str = "status.json";

/// A file could not be written.
#[derive(Debug, Error)]
#[error("{}: {source}; the directory of --publish-dir must be writable", path.display())]
pub struct PublishError {
    path: PathBuf,
    source: io::Error,
}

/// The ConfigMap that proxies mount to know whom to trust.
#[must_use]
pub fn root_certificate(roots_pem: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio-ca-root-cert", "labels": {"istio.io/config": "true"}},
        "data": {"root-cert.pem": roots_pem},
    })
}

/// What is in force, and what was refused or is not honoured.
#[must_use]
pub fn status(version: u64, findings: &[Finding]) -> Value {
    let refused = findings.iter().filter(|finding| finding.is_error()).count();
    json!({"version": version, "refused": refused, "findings": findings})
}

/// Writes a document, if it is not there already.
///
/// # Errors
/// When the directory cannot be made or the file not be written.
pub fn write(directory: &Path, name: &str, document: &Value) -> Result<(), PublishError> {
    let path = directory.join(name);
    let text = format!("{document:#}\n");
    if fs::read_to_string(&path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    replace(directory, name, &text).map_err(|source| PublishError { path, source })
}

fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let unfinished = directory.join(format!(".{name}.tmp"));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::{ROOT_CERTIFICATE, root_certificate, status, write};
    use lateen_api::Finding;
    use std::fs;

    #[test]
    fn files_are_whole_and_written_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("new");
        write(&directory, ROOT_CERTIFICATE, &root_certificate("PEM")).unwrap();
        let path = directory.join(ROOT_CERTIFICATE);
        let first = fs::metadata(&path).unwrap().modified().unwrap();
        write(&directory, ROOT_CERTIFICATE, &root_certificate("PEM")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), first);
        write(&directory, ROOT_CERTIFICATE, &root_certificate("NEW")).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("NEW"));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn the_status_counts_what_was_refused() {
        let findings = [Finding::error("spec.hosts", "no"), Finding::warning("spec", "hm")];
        let status = status(3, &findings);
        assert_eq!((status["version"].as_u64(), status["refused"].as_u64()), (Some(3), Some(1)));
        assert_eq!(status["findings"][0]["path"], "spec.hosts");
    }

    #[test]
    fn an_unwritable_directory_is_named() {
        let error = write("/proc/none".as_ref(), "x", &root_certificate("")).unwrap_err();
        assert!(error.to_string().contains("/proc/none/x"), "{error}");
    }
}
