//! What people see of a lab: progress, findings, the table of pods.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use lateen_api::Finding;
use lateen_lab::api_server::view::PodRow;
use lateen_lab::protocol::Reply;

/// Progress and remarks go to standard error, so that standard output is the result.
pub(super) fn say(text: &str) {
    let mut error = std::io::stderr().lock();
    // Nobody reads progress: nothing to do about it.
    drop(writeln!(error, "{text}"));
}

/// Tells an answer that is no result.
pub(super) fn reply(reply: &Reply) {
    match reply {
        Reply::Progress(text) => say(&format!("  {text}")),
        Reply::Warning(text) => say(&format!("warning: {text}")),
        Reply::Changed(text) | Reply::Ready(text) => say(text),
        Reply::Pods(_)
        | Reply::Exit(_)
        | Reply::Packets(_)
        | Reply::Raw
        | Reply::Done
        | Reply::Failed(_) => {}
    }
}

/// Findings, one a line.
pub(super) fn findings(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The pods as a table.
pub(super) fn table(pods: &[PodRow]) -> String {
    if pods.is_empty() {
        return "no pods; apply some: lateen lab apply -f FILE".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["NAMESPACE", "POD", "READY", "STATUS", "SIDECAR", "WHY", "ADDRESSES"]);
    for pod in pods {
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        let sidecar = pod.containers.iter().any(|name| name == "istio-proxy");
        table.add_row([
            pod.namespace.clone(),
            pod.name.clone(),
            if pod.ready { "yes" } else { "no" }.to_owned(),
            status(pod),
            if sidecar { "yes" } else { "no" }.to_owned(),
            pod.reason.clone(),
            addresses.join(" "),
        ]);
    }
    table.to_string()
}

fn status(pod: &PodRow) -> String {
    let mut text = pod.phase.clone();
    if pod.restarts > 0 {
        text = format!("{text}, {} restarts", pod.restarts);
    }
    if !pod.ready && !pod.why.is_empty() && pod.phase != "Terminating" {
        text = format!("{text}: {}", pod.why);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;
    use lateen_lab::api_server::view::PodRow;

    #[test]
    fn a_row_says_why() {
        let pod = PodRow {
            name: "a-1".to_owned(),
            namespace: "n".to_owned(),
            reason: "skipped.not-selected".to_owned(),
            phase: "Pending".to_owned(),
            why: "a: CrashLoopBackOff".to_owned(),
            restarts: 2,
            ..PodRow::default()
        };
        let text = table(&[pod]);
        assert!(text.contains("skipped.not-selected"), "{text}");
        assert!(text.contains("Pending, 2 restarts: a: CrashLoopBackOff"), "{text}");
        assert!(table(&[]).contains("lateen lab apply"));
    }
}
