//! Replaces the content of a volume at once, as kubelets do: files lie in a new folder, and the
//! link `..data`, which all others lead through, is turned to it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use super::content::Content;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `content` that of the volume at `folder`, owned by `group`.
pub(super) fn replace(folder: &Path, content: &Content, group: Option<u32>) -> Result<(), String> {
    write(folder, content, group).map_err(|e| format!("{}: {e}", folder.display()))
}

fn write(folder: &Path, content: &Content, group: Option<u32>) -> io::Result<()> {
    let old = fs::read_link(folder.join(DATA)).ok();
    let new = tempfile::Builder::new().prefix("..").disable_cleanup(true).tempdir_in(folder)?;
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    mode(new.path(), 0o755)?;
    for (path, file) in content {
        let target = new.path().join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.bytes)?;
        chown(&target, None, group)?;
        // The group that owns a volume reads what is in it.
        mode(&target, if group.is_some() { file.mode | 0o040 } else { file.mode })?;
    }
    let name = new.path().file_name().unwrap_or_default();
    drop(fs::remove_file(folder.join(NEXT)));
    symlink(name, folder.join(NEXT))?;
    fs::rename(folder.join(NEXT), folder.join(DATA))?;
    let tops: BTreeSet<&str> = content.keys().filter_map(|path| path.split('/').next()).collect();
    for top in &tops {
        let link = folder.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(top), link)?;
        }
    }
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let gone = name.to_str().is_none_or(|name| !tops.contains(name) && !name.starts_with(".."));
        if gone && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    match old {
        Some(old) => fs::remove_dir_all(folder.join(old)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::File;
    use super::replace;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn content(files: &[(&str, &str)]) -> super::Content {
        let file = |text: &str| File { bytes: text.into(), mode: 0o640 };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn content_is_replaced_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        replace(path, &content(&[("a", "1"), ("b/c", "2"), ("gone", "x")]), None).unwrap();
        assert_eq!(fs::read_to_string(path.join("b/c")).unwrap(), "2");
        let mode = fs::metadata(path.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        // What a container mounted inside of the volume stays.
        fs::create_dir(path.join("crl")).unwrap();
        replace(path, &content(&[("a", "3"), ("b/d", "4")]), None).unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "3");
        assert!(!path.join("b/c").exists() && path.join("b/d").exists());
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("..") || name == "..data")
            .collect();
        names.sort();
        assert_eq!(names, ["..data", "a", "b", "crl"]);
        assert_eq!(fs::read_dir(path).unwrap().count(), 5, "one folder of content is left");
    }
}
