//! `lateen ps`: the pods of a cluster and whether each has the sidecar that it would get today.
//!
//! Reads and prints; every verdict is the webhook library's.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use lateen_webhook::audit::{Audit, State, audit, lives};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster::{Connection, Live, POD};
use crate::output::Format;
use crate::surroundings;

/// What `lateen ps` takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lateen ps                 all pods\n  \
    lateen ps -n shop         those of a namespace\n  \
    lateen ps --wrong         those that would be other ones if they were created again\n\n\
    STATE is current, outside (no sidecar, and none is due), missing, stale, undated (not injected\n\
    by lateend), unwanted, denied or unknown: docs/injection.md. What to do: lateen restart --stale.\n\
    Why a pod is or is not injected: lateen check-inject POD -n NS.")]
pub(crate) struct Settings {
    /// Namespace; without it all of them
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// Only pods with these labels, such as app=cart
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only pods that are not as they would be today
    #[arg(long)]
    wrong: bool,
    #[command(flatten)]
    connection: Connection,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A pod and what is said of it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) pod: Value,
    pub(crate) audit: Audit,
}

/// A row, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    namespace: &'a str,
    pod: &'a str,
    sidecar: bool,
    state: State,
    stale: bool,
    reason: &'static str,
    explanation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decides: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
}

impl Row {
    pub(crate) fn text(&self, key: &str) -> &str {
        self.pod["metadata"][key].as_str().unwrap_or_default()
    }

    fn printed(&self) -> Printed<'_> {
        Printed {
            namespace: self.text("namespace"),
            pod: self.text("name"),
            sidecar: self.audit.revision.is_some() || self.audit.image.is_some(),
            state: self.audit.state,
            stale: self.audit.state.differs(),
            reason: self.audit.reason.code(),
            explanation: &self.audit.explanation,
            revision: self.audit.revision.as_deref(),
            decides: self.audit.decides.as_deref(),
            version: self.audit.image.as_deref().map(tag),
        }
    }
}

/// Judges the pods of a cluster that have not ended.
pub(crate) async fn rows(
    live: &Live,
    namespace: Option<&str>,
    selector: Option<&str>,
) -> anyhow::Result<Vec<Row>> {
    let around = surroundings::of_cluster(live, namespace).await?;
    let pods = live.list(&POD, namespace, selector).await?;
    let pods = pods.into_iter().filter(lives);
    Ok(pods
        .map(|pod| {
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            let audit = audit(&pod, namespace, &around);
            Row { pod, audit }
        })
        .collect())
}

/// Prints the pods.
///
/// # Errors
/// The cluster cannot be asked.
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let live = settings.connection.open().await?;
    let namespace = settings.namespace.as_deref();
    let mut rows = rows(&live, namespace, settings.selector.as_deref()).await?;
    let (all, wrong) = (rows.len(), rows.iter().filter(|it| it.audit.state.differs()).count());
    if settings.wrong {
        rows.retain(|row| row.audit.state.differs());
    }
    match settings.output {
        Format::Json => {
            println!("{:#}", json!(rows.iter().map(Row::printed).collect::<Vec<_>>()));
        }
        Format::Table => {
            if !rows.is_empty() {
                println!("{}", table(&rows));
            }
            println!("{}", summary(all, wrong, namespace));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["NAMESPACE", "POD", "SIDECAR", "STATE", "REVISION", "VERSION", "REASON"]);
    for row in rows.iter().map(Row::printed) {
        table.add_row([
            row.namespace,
            row.pod,
            if row.sidecar { "yes" } else { "no" },
            row.state.code(),
            row.revision.unwrap_or("-"),
            row.version.unwrap_or("-"),
            row.reason,
        ]);
    }
    table.trim_fmt()
}

fn summary(all: usize, wrong: usize, namespace: Option<&str>) -> String {
    let within = namespace.map(|it| format!(" -n {it}")).unwrap_or_default();
    match (all, wrong) {
        (0, _) => "there are no pods".to_owned(),
        (_, 0) => "all pods are as they would be if they were created today".to_owned(),
        _ => format!(
            "{wrong} of {all} pods would be other ones if they were created today; restart their \
             workloads: lateen restart --stale{within}"
        ),
    }
}

/// What follows the name in a reference to an image.
fn tag(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once('@').or_else(|| name.split_once(':')) {
        Some((_, tag)) => tag,
        None => "latest",
    }
}

#[cfg(test)]
mod tests {
    use super::{summary, tag};

    #[test]
    fn versions_are_tags_or_digests() {
        for (image, expected) in [
            ("ghcr.io/mesh/proxyv2:1.2", "1.2"),
            ("localhost:5000/proxyv2", "latest"),
            ("proxyv2@sha256:ab", "sha256:ab"),
        ] {
            assert_eq!(tag(image), expected);
        }
    }

    #[test]
    fn what_to_do_is_named() {
        assert!(summary(3, 1, Some("shop")).ends_with("lateen restart --stale -n shop"));
        assert!(summary(3, 0, None).contains("all pods"));
    }
}
