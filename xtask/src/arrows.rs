//! Which crate may use which. The table is the one of `docs/architecture.md`; an arrow that is
//! not in it is refused, so that the shape of the house is decided, not grown.

use anyhow::Context;

use crate::tidy::Breach;

/// Folder, and the crates of ours it may use.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("api", &[]),
    ("xds", &[]),
    ("identity", &["lateen-api"]),
    ("interception", &[]),
    ("cni", &["lateen-api", "lateen-interception"]),
    ("webhook", &["lateen-api", "lateen-identity", "lateen-interception"]),
    ("proxy", &["lateen-api", "lateen-identity", "lateen-xds"]),
    ("control-plane", &["lateen-api", "lateen-identity", "lateen-webhook", "lateen-xds"]),
    ("lab", &["lateen-api", "lateen-interception", "lateen-webhook"]),
    (
        "cli",
        &[
            "lateen-api",
            "lateen-control-plane",
            "lateen-interception",
            "lateen-lab",
            "lateen-webhook",
        ],
    ),
    ("testkit", &["lateen-api", "lateen-identity", "lateen-xds"]),
    ("bench", &["lateen-api", "lateen-interception", "lateen-lab", "lateen-webhook"]),
    (
        "fuzz",
        &[
            "lateen-api",
            "lateen-cni",
            "lateen-control-plane",
            "lateen-identity",
            "lateen-interception",
            "lateen-proxy",
            "lateen-webhook",
            "lateen-xds",
        ],
    ),
    ("xtask", &[]),
    (
        "tests/cluster",
        &["lateen-cli", "lateen-control-plane", "lateen-identity", "lateen-lab", "lateen-webhook"],
    ),
];

/// Crates that never ship in a product binary.
const DEV_ONLY: &str = "lateen-testkit";

/// Checks the manifest of the crate in `folder`.
pub(crate) fn check(folder: &str, manifest: &str) -> anyhow::Result<Vec<Breach>> {
    let manifest: toml::Table =
        manifest.parse().with_context(|| format!("{folder}/Cargo.toml is not TOML"))?;
    let place = format!("{folder}/Cargo.toml");
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == folder) else {
        let message = "this folder has no row in xtask/src/arrows.rs: decide what it may use";
        return Ok(vec![Breach { place, message: message.to_owned() }]);
    };
    let mut breaches = Vec::new();
    for used in ours(&manifest, "dependencies") {
        if !allowed.contains(&used.as_str()) {
            breaches.push(Breach {
                place: place.clone(),
                message: format!("{folder} -> {used} is not an allowed arrow"),
            });
        }
    }
    for section in ["dev-dependencies", "build-dependencies"] {
        for used in ours(&manifest, section) {
            let fine = allowed.contains(&used.as_str()) || used == DEV_ONLY;
            if !fine {
                breaches.push(Breach {
                    place: place.clone(),
                    message: format!("{folder} -> {used} ({section}) is not an allowed arrow"),
                });
            }
        }
    }
    Ok(breaches)
}

fn ours(manifest: &toml::Table, section: &str) -> Vec<String> {
    let dependencies = manifest.get(section).and_then(toml::Value::as_table);
    dependencies
        .into_iter()
        .flat_map(toml::Table::keys)
        .filter(|name| name.starts_with("lateen"))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn an_arrow_against_the_house_is_refused() {
        let manifest = "[dependencies]\nlateen-control-plane.workspace = true\n";
        let breaches = check("proxy", manifest).unwrap();
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].message.contains("proxy -> lateen-control-plane"));
    }

    #[test]
    fn the_testkit_is_for_tests_only() {
        assert!(check("proxy", "[dev-dependencies]\nlateen-testkit = {}\n").unwrap().is_empty());
        assert_eq!(check("proxy", "[dependencies]\nlateen-testkit = {}\n").unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_folder_must_be_decided_about() {
        assert_eq!(check("attic", "").unwrap().len(), 1);
    }
}
