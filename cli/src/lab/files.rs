//! Reading the manifests that `-f` names: files, folders, standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use lateen_api::stream::MAX_TEXT;
use lateen_lab::api_server::manifest::ManifestText;

/// All texts, in the order of the arguments; files of a folder by name.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<ManifestText>> {
    let mut texts = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            texts.push(bounded("standard input", std::io::stdin())?);
            continue;
        }
        let name = path.display().to_string();
        if !path.is_dir() {
            texts.push(file(path)?);
            continue;
        }
        let files = folder(path).with_context(|| name.clone())?;
        ensure!(!files.is_empty(), "{name}: no file ends in .yaml, .yml or .json");
        for path in files {
            texts.push(file(&path)?);
        }
    }
    Ok(texts)
}

fn folder(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|it| it.to_str());
        if path.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn file(path: &Path) -> anyhow::Result<ManifestText> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).with_context(|| {
        format!("{name}: cannot be opened; -f takes a file, a folder or - for standard input")
    })?;
    bounded(&name, file)
}

fn bounded(name: &str, input: impl Read) -> anyhow::Result<ManifestText> {
    let mut text = String::new();
    let limit = u64::try_from(MAX_TEXT).unwrap_or(u64::MAX);
    input.take(limit + 1).read_to_string(&mut text).with_context(|| name.to_owned())?;
    ensure!(text.len() <= MAX_TEXT, "{name}: larger than {MAX_TEXT} bytes");
    Ok(ManifestText { name: name.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_folder_is_its_manifests_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", "readme.md"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let texts = read(&[folder.path().to_owned()]).unwrap();
        let names: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
        assert_eq!(names, ["a.json", "b.yaml"]);
        let error = read(&[folder.path().join("none.yaml")]).unwrap_err();
        assert!(format!("{error:#}").contains("none.yaml"), "{error:#}");
        let empty = tempfile::tempdir().unwrap();
        let error = read(&[empty.path().to_owned()]).unwrap_err();
        assert!(error.to_string().contains(".yaml"), "{error}");
    }
}
