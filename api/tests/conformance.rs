//! Files that users have, unchanged: the well-known samples, and resources that must be accepted
//! or refused.
//!
//! The files are not part of this project: `LATEEN_CONFORMANCE` names their folder, and `make test`
//! runs these where it does.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::{Path, PathBuf};

use lateen_api::{Object, stream, validate};
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

/// Every case of the set: single documents to accept or refuse, and files to accept as they are.
#[test]
#[ignore = "reads files of others: make test"]
fn every_case_gets_the_verdict_of_others() {
    let folder = set("validation");
    let cases = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&cases).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let file = folder.join(case["file"].as_str().unwrap());
        let (count, errors) = errors(std::slice::from_ref(&file));
        assert!(count > 0, "{}", file.display());
        let refuse = match case["expect"].as_str().unwrap() {
            "reject" => true,
            "accept" => false,
            other => panic!("{}: {other}", file.display()),
        };
        if errors.is_empty() == refuse {
            let hint = &case["hint"];
            let file = file.display();
            wrong.push(format!("{file}: wanted refusal: {refuse}, hint {hint}: {errors:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), cases.len());
    assert_eq!(cases.len(), 131, "the set has changed: look at what is new");
    let folders = ["accept", "docs"].map(|name| yaml_files(&folder.join(name)).len());
    assert_eq!(folders.iter().sum::<usize>(), cases.len(), "files without a case");
}
