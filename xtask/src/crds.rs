//! `cargo xtask crds`: the CustomResourceDefinitions of `charts/base`, from the tables in `xtask/crds`.
//!
//! The tables hold facts of Istio's API: field names, types, limits, conditions. What they become is
//! decided in [`notation`] (types) and [`definition`] (the object around them); here files are read
//! and written. Must not know charts beyond the folder.

mod definition;
mod notation;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use definition::Kind;
use notation::{Notation, Rule};

/// Folder of the tables, below the checkout.
const TABLES: &str = "xtask/crds";
/// Folder of the definitions, below the checkout.
const CHART: &str = "charts/base/files/crds";
/// First line of a written definition.
const NOTE: &str = "# Written by `cargo xtask crds` from xtask/crds.\n";

/// The definitions that the tables of the checkout `root` stand for, by file name.
///
/// # Errors
/// When a table cannot be read or says something that the notation does not have.
pub fn definitions(root: &Path) -> anyhow::Result<BTreeMap<String, Value>> {
    let tables = root.join(TABLES);
    let rules: BTreeMap<String, Rule> = read(&tables.join("rules.yaml"))?;
    let shapes: BTreeMap<String, Value> = read(&tables.join("shapes.yaml"))?;
    let mut made = BTreeMap::new();
    for entry in fs::read_dir(&tables).with_context(|| tables.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "rules.yaml" || name == "shapes.yaml" {
            continue;
        }
        let kind: Kind = read(&path)?;
        let notation = Notation { rules: &rules, shapes: [&kind.shapes, &shapes] };
        let definition =
            definition::definition(&kind, &notation).with_context(|| path.display().to_string())?;
        made.insert(format!("{}.yaml", kind.name()), definition);
    }
    Ok(made)
}

/// Writes the definitions into the chart of the checkout `root`.
///
/// # Errors
/// As [`definitions`], and when a file cannot be written.
pub fn write(root: &Path) -> anyhow::Result<usize> {
    let folder = root.join(CHART);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let made = definitions(root)?;
    for (name, definition) in &made {
        let path = folder.join(name);
        fs::write(&path, text(definition)?).with_context(|| path.display().to_string())?;
    }
    Ok(made.len())
}

/// Compares the chart of the checkout `root` with the tables.
///
/// # Errors
/// When a definition is not what the tables stand for.
pub fn check(root: &Path) -> anyhow::Result<()> {
    for (name, definition) in definitions(root)? {
        let path = root.join(CHART).join(name);
        if fs::read_to_string(&path).unwrap_or_default() != text(&definition)? {
            bail!("{} is not what xtask/crds says: run `cargo xtask crds`", path.display());
        }
    }
    Ok(())
}

fn text(definition: &Value) -> anyhow::Result<String> {
    Ok(format!("{NOTE}{}", serde_saphyr::to_string(definition)?))
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}
