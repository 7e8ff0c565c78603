//! The volumes of a pod: folders on the node's own file system, filled and kept up to date.

mod content;
mod write;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_api::core::{Container, Volume};

use super::environment::Environment;
use super::facts::Facts;
use super::{ApiServer, TokenRequest};
use crate::launch::Mount;
use content::Content;

/// How often content is compared with what it should be.
pub(super) const REFRESH: Duration = Duration::from_secs(2);

/// A token, and when it is to be replaced.
#[derive(Debug)]
struct Token {
    text: String,
    renew: Instant,
}

/// The volumes of one pod.
#[derive(Debug)]
pub(super) struct Volumes {
    folder: PathBuf,
    group: Option<u32>,
    api: Arc<dyn ApiServer>,
    tokens: BTreeMap<(String, u64), Token>,
    written: BTreeMap<String, Content>,
}

impl Volumes {
    /// Volumes below `folder`.
    pub(super) fn new(folder: PathBuf, facts: &Facts, api: Arc<dyn ApiServer>) -> Self {
        let context = facts.pod.spec.security_context.as_ref();
        let group = context.and_then(|it| it.fs_group).and_then(|gid| u32::try_from(gid).ok());
        Self { folder, group, api, tokens: BTreeMap::new(), written: BTreeMap::new() }
    }

    /// Makes what is missing and replaces what has changed.
    pub(super) fn refresh(&mut self, facts: &Facts) -> Result<(), String> {
        for volume in &facts.pod.spec.volumes {
            self.refresh_one(volume, facts).map_err(|e| format!("volume {}: {e}", volume.name))?;
        }
        Ok(())
    }

    fn refresh_one(&mut self, volume: &Volume, facts: &Facts) -> Result<(), String> {
        let folder = self.folder.join(&volume.name);
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(failed)?;
            let mode = if self.group.is_some() { 0o2777 } else { 0o777 };
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).map_err(failed)?;
            chown(&folder, None, self.group).map_err(failed)?;
        }
        let (api, tokens) = (&self.api, &mut self.tokens);
        let mut token = |audience: Option<String>, seconds: u64| {
            token(api.as_ref(), tokens, facts, (audience, seconds))
        };
        let Some(content) = content::of(volume, facts, api.as_ref(), &mut token)? else {
            return Ok(());
        };
        if self.written.get(&volume.name) != Some(&content) {
            write::replace(&folder, &content, self.group)?;
            self.written.insert(volume.name.clone(), content);
        }
        Ok(())
    }

    /// Mounts of a container.
    pub(super) fn mounts(
        &self,
        container: &Container,
        facts: &Facts,
        environment: &Environment,
    ) -> Result<Vec<Mount>, String> {
        let mut mounts = Vec::new();
        for mount in &container.volume_mounts {
            let volumes = &facts.pod.spec.volumes;
            let volume = volumes.iter().find(|volume| volume.name == mount.name);
            let volume = volume.ok_or_else(|| format!("the pod has no volume {}", mount.name))?;
            let text = mount.extra.get("subPathExpr").and_then(|it| it.as_str());
            let part = text.map(|text| environment.expand(text)).or_else(|| mount.sub_path.clone());
            let source = self.source(&volume.name, part.as_deref().unwrap_or_default())?;
            mounts.push(Mount {
                source,
                target: Path::new("/").join(&mount.mount_path),
                read_only: mount.read_only == Some(true) || self.written.contains_key(&volume.name),
            });
        }
        Ok(mounts)
    }

    fn source(&self, volume: &str, part: &str) -> Result<PathBuf, String> {
        let folder = self.folder.join(volume);
        if part.is_empty() {
            return Ok(folder);
        }
        let failed = |e: std::io::Error| format!("volume {volume}, subPath {part}: {e}");
        let source = folder.join(part);
        if !source.exists() {
            fs::create_dir_all(&source).map_err(failed)?;
            chown(&source, None, self.group).map_err(failed)?;
        }
        // A file of a ConfigMap is a link that will lead elsewhere; and no link leads out.
        let real = source.canonicalize().map_err(failed)?;
        let inside = folder.canonicalize().map_err(failed)?;
        if real.starts_with(&inside) {
            Ok(real)
        } else {
            Err(format!("volume {volume}: subPath {part} leads out of it"))
        }
    }
}

/// A token of the pod: the one it has, or a new one when four fifths of its life are over.
fn token(
    api: &dyn ApiServer,
    tokens: &mut BTreeMap<(String, u64), Token>,
    facts: &Facts,
    (audience, seconds): (Option<String>, u64),
) -> Result<String, String> {
    let key = (audience.clone().unwrap_or_default(), seconds);
    let now = Instant::now();
    if let Some(token) = tokens.get(&key).filter(|token| now < token.renew) {
        return Ok(token.text.clone());
    }
    let service_account = facts.pod.service_account().to_owned();
    let text =
        api.token(&TokenRequest { pod: facts.key.clone(), service_account, audience, seconds })?;
    let renew = now + Duration::from_secs(seconds) * 4 / 5;
    tokens.insert(key, Token { text: text.clone(), renew });
    Ok(text)
}
