//! Files that users have, unchanged: the well-known samples, and resources that must be accepted
//! or refused.
//!
//! The files are not part of this project: `LATEEN_CONFORMANCE` names their folder, and `make test`
//! runs these where it does.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::{Path, PathBuf};

use lateen_api::{Object, kind, stream, validate};
use serde_json::Value;

fn set(name: &str) -> PathBuf {
    let root = std::env::var_os("LATEEN_CONFORMANCE").expect("LATEEN_CONFORMANCE names the files");
    let set = PathBuf::from(root).join(name);
    assert!(set.is_dir(), "{} is missing: set LATEEN_CONFORMANCE", set.display());
    set
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|it| it == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(file: &Path) -> Vec<Object> {
    let text = std::fs::read_to_string(file).unwrap();
    let stream = stream::parse(&file.to_string_lossy(), &text);
    let shown: Vec<String> = stream.findings.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{shown:#?}");
    stream.objects
}

/// Errors of all objects of all files, and how many objects there were.
fn errors(files: &[PathBuf]) -> (usize, Vec<String>) {
    let mut count = 0;
    let mut errors = Vec::new();
    for object in files.iter().flat_map(|file| read(file)) {
        count += 1;
        let checked = validate::check(&object);
        errors.extend(checked.findings.iter().filter(|it| it.is_error()).map(ToString::to_string));
    }
    (count, errors)
}

#[test]
#[ignore = "reads files of others: make test"]
fn the_samples_are_accepted_unchanged() {
    let (count, errors) = errors(&yaml_files(&set("samples")));
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(count > 150, "only {count} objects found");
}

#[test]
#[ignore = "reads files of others: make test"]
fn the_samples_hold_as_many_documents_as_they_say() {
    let folder = set("samples");
    let cases = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&cases).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let file = folder.join(case["file"].as_str().unwrap());
        let documents = case["documents"].as_u64().unwrap();
        assert_eq!(read(&file).len() as u64, documents, "{}", file.display());
    }
}

#[test]
#[ignore = "reads files of others: make test"]
fn what_others_accept_is_accepted() {
    let (count, errors) = errors(&yaml_files(&set("validation").join("accept")));
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(count > 100, "only {count} objects found");
}

#[test]
#[ignore = "reads files of others: make test"]
fn single_documents_of_honoured_kinds_get_the_right_verdict() {
    let folder = set("validation");
    let cases = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&cases).unwrap();
    // `[001:db8::]` is a list of one mapping in YAML 1.2, a list of one text in YAML 1.1.
    let known_differences = ["docs/serviceentry/accept/full.yaml"];
    let mut wrong = Vec::new();
    let mut judged = 0;
    for case in cases["cases"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let objects = read(&folder.join(file));
        let [object] = objects.as_slice() else { continue };
        let honoured = kind::of(object).is_some_and(|it| it.support == kind::Support::Honoured);
        if !honoured {
            continue;
        }
        judged += 1;
        let checked = validate::check(object);
        let refuse = case["expect"] == "reject";
        let expected = refuse || known_differences.contains(&file);
        if checked.is_refused() != expected {
            let shown: Vec<String> = checked.findings.iter().map(ToString::to_string).collect();
            wrong.push(format!(
                "{file}: wanted refusal: {refuse}, hint {}: {shown:?}",
                case["hint"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {judged}: {wrong:#?}", wrong.len());
    assert!(judged > 10, "only {judged} documents judged");
}
