//! `lateen validate`: says of files what the mesh would accept, before they reach it.
//!
//! Reads and prints; every verdict is that of `lateen_api::validate`. Documents of kinds that are
//! not the mesh's are valid.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use lateen_api::{Finding, Object, Severity, stream, validate};
use serde::Serialize;

use crate::output::{Format, unreadable};

/// Flags of `lateen validate`.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Files of Kubernetes objects, YAML or JSON
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The verdict about one document.
#[derive(Debug, Default, Serialize)]
struct Verdict {
    index: usize,
    kind: String,
    namespace: String,
    name: String,
    valid: bool,
    errors: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Verdicts {
    results: Vec<Verdict>,
}

/// Runs the command.
///
/// # Errors
/// Stdout cannot be written to.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut all = Verdicts::default();
    for file in &settings.files {
        match std::fs::read_to_string(file) {
            Ok(text) => judge(file, &text, &mut all.results),
            Err(error) => {
                return Ok(unreadable(&anyhow::anyhow!("{}: {error}", file.display())));
            }
        }
    }
    let text = match settings.output {
        Format::Json => serde_json::to_string_pretty(&all)? + "\n",
        Format::Table => text(&all),
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing to stdout")?;
    let valid = all.results.iter().all(|verdict| verdict.valid);
    Ok(if valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Appends a verdict for each document of a file; the objects of a List are one document.
fn judge(file: &Path, text: &str, results: &mut Vec<Verdict>) {
    let stream = stream::parse(&file.to_string_lossy(), text);
    let mut documents: BTreeMap<usize, (Vec<&Object>, Vec<Finding>)> = BTreeMap::new();
    for object in &stream.objects {
        let document = documents.entry(object.origin.document).or_default();
        document.0.push(object);
        document.1.extend(validate::check(object).findings);
    }
    for finding in stream.findings {
        documents.entry(finding.document.unwrap_or_default()).or_default().1.push(finding);
    }
    for (objects, findings) in documents.into_values() {
        let mut verdict = Verdict { index: results.len(), ..Verdict::default() };
        match objects.as_slice() {
            [] => {}
            [object] => {
                verdict.kind.clone_from(&object.kind);
                verdict.namespace = object.metadata.namespace.clone().unwrap_or_default();
                verdict.name.clone_from(&object.metadata.name);
            }
            _ => "List".clone_into(&mut verdict.kind),
        }
        for finding in findings {
            match finding.severity {
                Severity::Error => verdict.errors.push(finding.to_string()),
                Severity::Warning | Severity::Info => verdict.warnings.push(finding.to_string()),
            }
        }
        verdict.valid = verdict.errors.is_empty();
        results.push(verdict);
    }
}

fn text(all: &Verdicts) -> String {
    let mut lines = String::new();
    for verdict in &all.results {
        for error in &verdict.errors {
            lines.push_str(&format!("error: {error}\n"));
        }
        for warning in &verdict.warnings {
            lines.push_str(&format!("warning: {warning}\n"));
        }
    }
    let refused = all.results.iter().filter(|verdict| !verdict.valid).count();
    let count = all.results.len();
    let documents = if count == 1 { "document" } else { "documents" };
    lines.push_str(&format!("{count} {documents}, {refused} refused\n"));
    lines
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::judge;

    #[test]
    fn each_document_has_a_verdict() {
        let text = "
apiVersion: v1
kind: ConfigMap
metadata: {name: somebody-elses}
---
a: [broken
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart], http: [{route: [{destination: {host: cart}, weight: -1}]}]}
";
        let mut results = Vec::new();
        judge(Path::new("a.yaml"), text, &mut results);
        judge(Path::new("b.yaml"), "kind: 3", &mut results);
        let valid: Vec<bool> = results.iter().map(|verdict| verdict.valid).collect();
        assert_eq!(valid, [true, false, false, false]);
        assert_eq!(results.iter().map(|it| it.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!((results[2].namespace.as_str(), results[2].name.as_str()), ("shop", "cart"));
        assert!(
            results[2].errors[0].starts_with("a.yaml:8: VirtualService shop/cart: spec.http[0]")
        );
        assert!(results[3].errors[0].starts_with("b.yaml:1: "), "{:?}", results[3]);
    }
}
