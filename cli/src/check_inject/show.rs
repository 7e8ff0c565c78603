//! What people and programs see of pods that were asked about.

use comfy_table::{ContentArrangement, Table, presets};
use lateen_api::names::annotation;
use lateen_webhook::changes::Change;
use lateen_webhook::explain::HookVerdict;
use serde_json::{Value, json};

use super::Row;

/// Most characters of the value of a change that people are shown.
const SHOWN: usize = 80;

/// All that is known, for programs.
pub(super) fn json(rows: &[Row]) -> Value {
    let rows = rows.iter().map(|row| {
        let mut value = json!(row.explanation);
        value["kind"] = json!(row.subject.kind);
        value["namespace"] = json!(row.subject.namespace);
        value["name"] = json!(row.subject.name);
        value["injected"] = json!(row.explanation.reason.injects());
        if row.subject.exists {
            value["hasSidecar"] = json!(has_sidecar(row));
        }
        if !row.changes.is_empty() {
            value["changes"] = json!(row.changes);
        }
        value
    });
    rows.collect()
}

/// One pod in full, or several as a table.
pub(super) fn text(rows: &[Row], asked_for_one: bool) -> String {
    match rows {
        [row] if asked_for_one => one(row),
        [] => "there are no pods; see: kubectl get pods\n".to_owned(),
        rows => many(rows),
    }
}

fn one(row: &Row) -> String {
    let explanation = &row.explanation;
    let mut text = format!("{} {}\n", row.subject.kind, place(row));
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<11} {value}\n"));
    line("injected", &verdict(row));
    line("reason", &format!("{}: {}", explanation.reason, explanation.explanation));
    if let Some(now) = now(row) {
        line("now", now);
    }
    if let Some(advice) = &explanation.advice {
        line("for one", advice);
    }
    for warning in &explanation.warnings {
        line("warning", warning);
    }
    text.push_str(&format!("\n{}\n", hooks(&explanation.hooks)));
    if !row.changes.is_empty() {
        text.push_str(&format!("\n{}\n", changes(&row.changes)));
    }
    text
}

fn many(rows: &[Row]) -> String {
    let mut table = empty(&["NAMESPACE", "KIND", "NAME", "INJECTED", "SIDECAR", "REASON", "WHY"]);
    for row in rows {
        let sidecar = match (row.subject.exists, has_sidecar(row)) {
            (false, _) => "-",
            (true, true) => "yes",
            (true, false) => "no",
        };
        table.add_row([
            row.subject.namespace.clone(),
            row.subject.kind.clone(),
            row.subject.name.clone(),
            verdict(row),
            sidecar.to_owned(),
            row.explanation.reason.to_string(),
            row.explanation.explanation.clone(),
        ]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    for row in rows {
        for warning in &row.explanation.warnings {
            text.push_str(&format!("warning: {}: {warning}\n", place(row)));
        }
        if !row.changes.is_empty() {
            text.push_str(&format!("\n{}\n{}\n", place(row), changes(&row.changes)));
        }
    }
    text
}

fn place(row: &Row) -> String {
    let subject = &row.subject;
    if subject.kind == "Namespace" {
        return format!("{} (a pod that says nothing)", subject.name);
    }
    format!("{}/{}", subject.namespace, subject.name)
}

fn verdict(row: &Row) -> String {
    let reason = row.explanation.reason;
    match &row.explanation.revision {
        Some(revision) if reason.injects() => format!("yes, by revision {revision}"),
        _ if reason.denies() => "denied".to_owned(),
        _ if reason == lateen_webhook::Reason::Unknown => "unknown".to_owned(),
        _ => "no".to_owned(),
    }
}

fn has_sidecar(row: &Row) -> bool {
    row.subject.pod["metadata"]["annotations"].get(annotation::STATUS).is_some()
}

/// Where what is differs from what would be.
fn now(row: &Row) -> Option<&'static str> {
    match (row.subject.exists, has_sidecar(row), row.explanation.reason.injects()) {
        (true, false, true) => {
            Some("the pod has no sidecar: it would get one if it were created again")
        }
        (true, true, false) => Some("the pod has a sidecar: created again, it would get none"),
        (true, true, true) => Some("the pod has its sidecar"),
        _ => None,
    }
}

fn hooks(hooks: &[HookVerdict]) -> String {
    if hooks.is_empty() {
        return "no webhook injects in this cluster: install a control plane (docs/install.md)"
            .to_owned();
    }
    let mut table = empty(&["WEBHOOK", "HOOK", "REVISION", "TAG", "CALLS", "CALLED", "WHY"]);
    let mut before = "";
    for hook in hooks {
        let again = before == hook.configuration;
        let once = |text: &str| if again { String::new() } else { text.to_owned() };
        table.add_row([
            once(&hook.configuration),
            hook.hook.clone(),
            once(&hook.revision),
            once(hook.tag.as_deref().unwrap_or_default()),
            once(&hook.calls),
            if hook.fires { "yes" } else { "no" }.to_owned(),
            hook.why.clone(),
        ]);
        before = &hook.configuration;
    }
    table.trim_fmt()
}

fn changes(changes: &[Change]) -> String {
    let mut table = empty(&["CHANGE", "IN", "NAME", "DETAIL"]);
    for change in changes {
        let mut detail: String = change.detail.chars().take(SHOWN).collect();
        if detail.len() < change.detail.len() {
            detail.push_str("...");
        }
        let detail = detail.replace('\n', " ");
        table.add_row([change.what, &change.place, &change.name, &detail]);
    }
    table.trim_fmt()
}

fn empty(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}
