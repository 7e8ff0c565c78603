//! Walks the tree, applies every rule and prints what breaks one, with where and what to do.
//!
//! The rules themselves stand in `arrows` (which crate may use which) and `budgets` (one file).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use crate::{arrows, budgets};

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// File, and line where it is known.
    pub(crate) place: String,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

/// Checks the tree below `root`; the exit status is 1 when a rule is broken.
pub(crate) fn run(root: &Path) -> anyhow::Result<ExitCode> {
    let mut breaches = Vec::new();
    let mut files = 0;
    for member in members(root)? {
        let manifest = fs::read_to_string(root.join(&member).join("Cargo.toml"))
            .with_context(|| format!("{member}/Cargo.toml"))?;
        breaches.extend(arrows::check(&member, &manifest)?);
        for file in sources(&root.join(&member))? {
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            breaches.extend(budgets::check(&name, &text));
            files += 1;
        }
    }
    for breach in &breaches {
        eprintln!("{}: {}", breach.place, breach.message);
    }
    println!("tidy: {files} files, {} breaches", breaches.len());
    Ok(if breaches.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn members(root: &Path) -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
    let members = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(toml::Value::as_array)
        .context("Cargo.toml names no workspace members")?;
    Ok(members.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// All Rust files of a crate, build output left out.
fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
