//! Kubeconfig files that need no other file.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::ClusterError;
use crate::certificates::Signed;

/// Writes a kubeconfig for the client `signed` of the API server at `url`, known by `authority`.
pub(crate) fn write(
    path: &Path,
    url: &str,
    authority: &Path,
    signed: &Signed,
) -> Result<(), ClusterError> {
    let data = |file: &Path| {
        let bytes = fs::read(file).map_err(ClusterError::file(file))?;
        Ok::<_, ClusterError>(STANDARD.encode(bytes))
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "lateen",
            "cluster": { "server": url, "certificate-authority-data": data(authority)? },
        }],
        "users": [{
            "name": "lateen",
            "user": {
                "client-certificate-data": data(&signed.certificate)?,
                "client-key-data": data(&signed.key)?,
            },
        }],
        "contexts": [{ "name": "lateen", "context": { "cluster": "lateen", "user": "lateen" } }],
        "current-context": "lateen",
    });
    fs::write(path, format!("{config:#}\n")).map_err(ClusterError::file(path))
}
