//! The key set with which tokens are checked: read from a file, and again when the file changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::caller::Callers;
use crate::token::TokenVerifier;

/// Time between looks at the file.
const PERIOD: Duration = Duration::from_secs(2);

/// A file with keys.
#[derive(Debug)]
pub(super) struct Keys {
    file: PathBuf,
    issuer: String,
    /// The text that is in force.
    text: String,
}

impl Keys {
    /// Keys of `issuer` in a file; nothing is read yet.
    pub(super) fn new(file: PathBuf, issuer: String) -> Self {
        Self { file, issuer, text: String::new() }
    }

    /// Reads the file and puts its keys in force.
    pub(super) fn load(mut self, callers: &Callers) -> Result<Self, AppError> {
        self.text = std::fs::read_to_string(&self.file)
            .map_err(|error| self.unusable(&error.to_string()))?;
        callers.set_verifier(self.verifier(&self.text)?);
        Ok(self)
    }

    /// Puts changed keys in force until `stop`; a file that cannot be used changes nothing.
    pub(super) async fn follow(mut self, callers: Arc<Callers>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            let file = self.file.clone();
            let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file));
            let text = match read.await {
                Ok(Ok(text)) if text != self.text => text,
                Ok(Ok(_)) => continue,
                Err(error) => {
                    tracing::error!(%error, "reading keys ended abnormally");
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::warn!(file = %self.file.display(), %error, "keys stay as they were");
                    continue;
                }
            };
            match self.verifier(&text) {
                Ok(verifier) => callers.set_verifier(verifier),
                Err(error) => tracing::warn!(%error, "keys stay as they were"),
            }
            self.text = text;
        }
    }

    fn verifier(&self, text: &str) -> Result<TokenVerifier, AppError> {
        let keys: JwkSet =
            serde_json::from_str(text).map_err(|error| self.unusable(&error.to_string()))?;
        if keys.keys.is_empty() {
            return Err(self.unusable("it holds no keys"));
        }
        Ok(TokenVerifier::new(keys, self.issuer.clone()))
    }

    fn unusable(&self, reason: &str) -> AppError {
        AppError::File {
            flag: "token-jwks",
            file: self.file.display().to_string(),
            reason: reason.to_owned(),
        }
    }
}
