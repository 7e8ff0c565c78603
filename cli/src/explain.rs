//! `lateen explain`: why the mesh does what it does, answered by the code that does it.

mod redirect;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use lateen_api::meta::Labels;
use lateen_api::security::MutualTlsMode;
use serde_json::{Map, Value, json};

use crate::check_inject;
use crate::output::{Format, say_findings, unreadable};
use crate::registry::From;

/// What `lateen explain` takes.
#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// The mode of mutual TLS of a workload's inbound traffic, and which policies decided
    Mtls(Workload),
    /// Whether pods are injected, by which revision, why, and what that changes (check-inject)
    Injection(Box<check_inject::Settings>),
    /// Where a connection of a pod goes, and by which rule, setting and annotation
    Redirect(Box<redirect::Question>),
}

/// A workload.
#[derive(Debug, Args)]
pub(crate) struct Workload {
    #[command(flatten)]
    from: From,
    /// Namespace of the workload
    #[arg(short, long, value_name = "NS")]
    namespace: String,
    /// Label of the workload, `KEY=VALUE`; may be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

/// Explains.
pub(crate) async fn run(topic: Topic) -> anyhow::Result<ExitCode> {
    match topic {
        Topic::Mtls(workload) => mtls(&workload),
        Topic::Injection(settings) => check_inject::run(&settings).await,
        Topic::Redirect(question) => redirect::run(&question).await,
    }
}

fn mtls(workload: &Workload) -> anyhow::Result<ExitCode> {
    let mesh = match workload.from.read() {
        Ok(mesh) => mesh,
        Err(error) => return Ok(unreadable(&error)),
    };
    say_findings(&mesh.findings);
    let labels: Labels = workload.labels.iter().cloned().collect();
    let effective = mesh.model.mutual_tls(&workload.namespace, &labels);
    let policies: Vec<String> =
        effective.policies.iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect();
    if workload.output == Format::Json {
        let ports = effective.ports.iter();
        let ports: Map<String, Value> =
            ports.map(|(port, mode)| (port.to_string(), json!(name(*mode)))).collect();
        let mode = name(effective.mode);
        println!("{:#}", json!({"mode": mode, "ports": ports, "policies": policies}));
        return Ok(ExitCode::SUCCESS);
    }
    println!("all ports   {}", name(effective.mode));
    for (port, mode) in &effective.ports {
        println!("port {port:<6} {}", name(*mode));
    }
    let decided = if policies.is_empty() {
        "nothing is set: PERMISSIVE is the default".to_owned()
    } else {
        policies.join(", ")
    };
    println!("decided by  {decided}");
    Ok(ExitCode::SUCCESS)
}

fn name(mode: MutualTlsMode) -> &'static str {
    match mode {
        MutualTlsMode::Disable => "DISABLE",
        MutualTlsMode::Strict => "STRICT",
        MutualTlsMode::Unset | MutualTlsMode::Permissive => "PERMISSIVE",
    }
}
