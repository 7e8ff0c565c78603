//! Where a path of a container is once the links of the machine are followed.
//!
//! Pure: who asks says what is a link.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

const MOST_LINKS: usize = 40;

/// The place below the root, without links; `None` for the root itself and endless links.
/// Nothing is a link below the folders `own`: they are empty at first.
pub(super) fn resolve(
    path: &Path,
    own: &[&str],
    link: impl Fn(&Path) -> Option<PathBuf>,
) -> Option<PathBuf> {
    let mut rest = parts(path);
    let (mut found, mut links) = (PathBuf::new(), 0);
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            found.pop();
            continue;
        }
        found.push(part);
        let is_own = own.iter().any(|own| found.starts_with(own));
        let to = if is_own { None } else { link(&Path::new("/").join(&found)) };
        if let Some(to) = to {
            links += 1;
            if links > MOST_LINKS {
                return None;
            }
            found = if to.is_absolute() { PathBuf::new() } else { found.parent()?.to_owned() };
            let mut parts = parts(&to);
            parts.append(&mut rest);
            rest = parts;
        }
    }
    (!found.as_os_str().is_empty()).then_some(found)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::{Path, PathBuf, resolve};

    fn place(path: &str) -> Option<PathBuf> {
        resolve(Path::new(path), &["run"], |path| {
            let to = match path.to_str()? {
                "/var/run" => "/run",
                "/var/lock" => "../run/lock",
                "/loop" => "/loop",
                // Never looked at: it is below a folder of the container's own.
                "/run/secrets" => "/elsewhere",
                _ => return None,
            };
            Some(PathBuf::from(to))
        })
    }

    #[test]
    fn links_of_the_machine_are_followed() {
        for (path, wanted) in [
            ("/var/run/secrets/tokens", "run/secrets/tokens"),
            ("/var/lock/a", "run/lock/a"),
            ("/etc/istio/../x", "etc/x"),
            ("/../../etc", "etc"),
            ("var/lib", "var/lib"),
        ] {
            assert_eq!(place(path), Some(PathBuf::from(wanted)), "{path}");
        }
        assert_eq!(place("/"), None);
        assert_eq!(place("/a/.."), None);
        assert_eq!(place("/loop/a"), None);
    }
}
