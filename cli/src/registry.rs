//! `lateen registry`: what the mesh knows: every service, port, protocol and endpoint, and where
//! each was defined.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser};
use comfy_table::{ContentArrangement, Table, presets};
use lateen_control_plane::offline::Offline;
use lateen_control_plane::registry::{Row, rows};
use lateen_control_plane::settings::Settings as ControlPlane;
use serde_json::json;

use crate::output::{Format, say_findings, unreadable};

/// Endpoints of one row that people are shown.
const SHOWN: usize = 4;

/// What `lateen registry` takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lateen registry --config-dir manifests/          what a directory of YAML describes\n  \
    lateen registry --lab demo                       what a running lab knows\n  \
    lateen registry --lab demo --host catalog -o json")]
pub(crate) struct Settings {
    #[command(flatten)]
    from: From,
    /// Only services whose host contains this text
    #[arg(long, value_name = "TEXT")]
    host: Option<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Where a mesh is described.
#[derive(Debug, Args)]
pub(crate) struct From {
    /// Directory with any Kubernetes YAML or JSON, as given to lateend
    #[arg(long, value_name = "DIR", required_unless_present = "lab")]
    config_dir: Option<PathBuf>,
    /// A running lab, by its name
    #[arg(long, value_name = "NAME", conflicts_with = "config_dir")]
    lab: Option<String>,
    /// Mesh configuration; else key `mesh` of the ConfigMap istio-system/istio
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
}

impl From {
    /// Reads the mesh.
    pub(crate) fn read(&self) -> anyhow::Result<Offline> {
        let folder = match (&self.config_dir, &self.lab) {
            (Some(folder), _) => folder.clone(),
            (None, Some(lab)) => lateen_lab::state::folder(lab).join("config"),
            (None, None) => anyhow::bail!("name a mesh: --config-dir DIR or --lab NAME"),
        };
        let mut settings = ControlPlane::parse_from(["lateend", "--config-dir", "."]);
        settings.config_dir = Some(folder);
        settings.mesh_config.clone_from(&self.mesh_config);
        settings.cluster_domain.clone_from(&self.cluster_domain);
        Offline::read(&settings).context("the mesh cannot be read")
    }
}

/// Prints the registry. Findings go to standard error.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let mesh = match settings.from.read() {
        Ok(mesh) => mesh,
        Err(error) => return Ok(unreadable(&error)),
    };
    say_findings(&mesh.findings);
    let mut rows = rows(mesh.model.services());
    if let Some(text) = &settings.host {
        rows.retain(|row| row.host.contains(text.as_str()));
    }
    match settings.output {
        Format::Json => println!("{:#}", json!(rows)),
        Format::Table => println!("{}", table(&rows)),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no service is known".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["SERVICE", "PORT", "PROTOCOL", "ADDRESSES", "ENDPOINTS", "DEFINED BY", "AT"]);
    let mut before = "";
    for row in rows {
        let again = before == row.host;
        let once = |text: String| if again { String::new() } else { text };
        table.add_row([
            once(row.host.clone()),
            format!("{} {}", row.port, row.port_name),
            row.protocol.to_owned(),
            once(row.addresses.join("\n")),
            endpoints(row),
            once(row.defined_by.clone()),
            once(row.source.clone()),
        ]);
        before = &row.host;
    }
    table.trim_fmt()
}

fn endpoints(row: &Row) -> String {
    let mut lines: Vec<String> = row
        .endpoints
        .iter()
        .take(SHOWN)
        .map(|it| {
            let tls = if it.mutual_tls { " mTLS" } else { "" };
            format!("{} {}{tls}", it.address, it.workload).trim_end().to_owned()
        })
        .collect();
    if row.endpoints.len() > SHOWN {
        lines.push(format!("and {} more (-o json)", row.endpoints.len() - SHOWN));
    }
    match (lines.is_empty(), row.resolution) {
        (false, "endpoints") => lines.join("\n"),
        (false, how) => format!("{how}: {}", lines.join("\n")),
        (true, "endpoints") => "none".to_owned(),
        (true, how) => how.to_owned(),
    }
}
