//! `lateen check-inject`, also `lateen explain injection`: whether pods are injected, by which revision,
//! why, and what that changes.
//!
//! Finds the pods and prints what the webhook's library says of them.

mod show;
pub(crate) mod subjects;

use std::process::ExitCode;

use clap::Args;
use lateen_webhook::changes::{self, Change};
use lateen_webhook::explain::{Explanation, explain};
use lateen_webhook::inject::original;

use crate::cluster::Connection;
use crate::output::{Format, unreadable};
use crate::surroundings::{self, Files};
use subjects::Subject;

/// What `lateen check-inject` takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lateen check-inject cart-7c5d-x2v9q -n shop          a pod\n  \
    lateen check-inject deployment/cart -n shop --diff   a workload, and what its pods become\n  \
    lateen check-inject -n shop                          every pod of a namespace\n  \
    lateen check-inject -n shop -l app=cart              pods by label\n  \
    lateen check-inject -f shop.yaml                     manifests, without a cluster\n\n\
    Hooks and policy are those of the cluster (of the files with -f); it is asked for the pods,\n\
    their namespace, mutatingwebhookconfigurations, and the ConfigMaps of each control plane.\n\
    The reason codes are explained in docs/injection.md.")]
pub(crate) struct Settings {
    /// A pod, or KIND/NAME; without it the pods of the namespace
    #[arg(value_name = "POD|KIND/NAME")]
    subject: Option<String>,
    /// Namespace; else that of the context
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// Only pods with these labels, such as app=cart
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with_all = ["subject", "files"])]
    selector: Option<String>,
    #[command(flatten)]
    given: Files,
    #[command(flatten)]
    connection: Connection,
    /// Show what injection changes in each pod
    #[arg(long)]
    diff: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A pod and what is said of it.
#[derive(Debug)]
pub(crate) struct Row {
    subject: Subject,
    explanation: Explanation,
    /// What injection changes, where it was asked for.
    changes: Vec<Change>,
}

/// Runs the command.
///
/// # Errors
/// The cluster cannot be asked, or there is no such object.
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let (subjects, around) = if settings.given.files.is_empty() {
        let live = settings.connection.open().await?;
        let namespace = settings.namespace.clone().unwrap_or_else(|| live.namespace.clone());
        let subject = settings.subject.as_deref();
        let found = subjects::live(&live, &namespace, subject, settings.selector.as_deref());
        let found = found.await?;
        let namespace = found.first().map_or(namespace, |it| it.namespace.clone());
        (found, surroundings::of_cluster(&live, Some(&namespace)).await?)
    } else {
        let read = || {
            let documents = surroundings::documents(&settings.given)?;
            let around = surroundings::of_documents(&documents, &settings.given)?;
            let namespace = settings.namespace.as_deref();
            anyhow::Ok((
                subjects::of_documents(&documents, namespace, settings.subject.as_deref())?,
                around,
            ))
        };
        match read() {
            Ok(read) => read,
            Err(error) => return Ok(unreadable(&error)),
        }
    };
    let rows: Vec<Row> = subjects
        .into_iter()
        .map(|subject| {
            let explanation = explain(&subject.pod, &subject.namespace, &around);
            let injected = explanation.injection.as_ref().filter(|_| settings.diff);
            let changes = injected
                .map(|it| changes::between(&original(&subject.pod), &it.pod))
                .unwrap_or_default();
            Row { subject, explanation, changes }
        })
        .collect();
    match settings.output {
        Format::Json => println!("{:#}", show::json(&rows)),
        Format::Table => print!("{}", show::text(&rows, settings.subject.is_some())),
    }
    Ok(ExitCode::SUCCESS)
}
