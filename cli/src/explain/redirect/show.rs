//! What people and programs see of a packet that was asked about.

use comfy_table::{ContentArrangement, Table, presets};
use lateen_interception::plan::{Protocol, Rule};
use lateen_interception::render::text::{chain_name, line};
use lateen_interception::settings::DNS_PORT;
use lateen_interception::trace::{Origin, Packet, Step, Trace, Way};
use serde_json::{Value, json};

use super::subject::Subject;

/// Most characters of a rule that people are shown; a list may have thousands of entries.
const SHOWN: usize = 160;

/// A packet and what happens to it.
pub(super) type Answer<'a> = (Trace<'a>, Packet);

/// All that is known, for programs.
pub(super) fn json(subject: &Subject, answers: &[Answer<'_>]) -> Value {
    answers.iter().map(|(trace, packet)| one_json(subject, trace, packet)).collect()
}

fn one_json(subject: &Subject, trace: &Trace<'_>, packet: &Packet) -> Value {
    let origin = match &packet.origin {
        Origin::Process { uid, gid, interface } => {
            json!({"direction": "outbound", "uid": uid, "gid": gid, "interface": interface})
        }
        Origin::Network { interface } => json!({"direction": "inbound", "interface": interface}),
    };
    let mut value = json!({
        "subject": subject.name,
        "settings": subject.origin,
        "packet": origin,
        "verdict": verdict(trace.way),
        "rule": trace.decisive().map(|step| step_json(subject, step)),
        "steps": trace.steps.iter().map(|step| step_json(subject, step)).collect::<Vec<_>>(),
    });
    value["packet"]["protocol"] = json!(protocol(packet));
    value["packet"]["to"] = json!(packet.destination.to_string());
    if !packet.source.ip().is_unspecified() {
        value["packet"]["from"] = json!(packet.source.ip().to_string());
    }
    if let Way::Redirected(port) | Way::Tproxied(port) = trace.way {
        value["port"] = json!(port);
        value["listener"] = json!(listener(subject, port));
    }
    value
}

fn step_json(subject: &Subject, step: &Step<'_>) -> Value {
    let reason = &step.rule.reason;
    let mut value = json!({
        "chain": chain_name(step.hook),
        "number": step.number,
        "text": line(step.rule),
        "flag": reason.setting.flag(),
        "purpose": reason.text,
    });
    if let Some(said) = subject.said(reason.setting) {
        value["saidBy"] = json!(said.place);
        value["value"] = json!(said.value);
    }
    value
}

/// One packet in full, and after it the next.
pub(super) fn text(subject: &Subject, answers: &[Answer<'_>]) -> String {
    let all = answers.iter().map(|(trace, packet)| one(subject, trace, packet));
    all.collect::<Vec<_>>().join("\n")
}

fn one(subject: &Subject, trace: &Trace<'_>, packet: &Packet) -> String {
    let mut text = String::new();
    let mut say = |name: &str, value: &str| text.push_str(&format!("{name:<11} {value}\n"));
    say("of", &subject.name);
    say("settings", &subject.origin);
    say("packet", &described(packet));
    say("goes to", &destination(subject, trace.way, packet));
    match trace.decisive() {
        Some(step) => {
            say(
                "by",
                &format!("{} rule {}: {}", chain_name(step.hook), step.number, shown(step.rule)),
            );
            say("because", &step.rule.reason.to_string());
            if let Some(said) = subject.said(step.rule.reason.setting) {
                let value = said.value.map_or_else(
                    || "not set, the default holds".to_owned(),
                    |value| format!("{:?}", cut(&value)),
                );
                say("said by", &format!("{}: {value}", said.place));
            }
        }
        None if subject.settings.is_some() => say("by", "no rule: none has to do with it"),
        None => {}
    }
    if matches!(trace.way, Way::Tproxied(_)) {
        say("note", "dropped while the proxy does not listen");
    }
    if trace.steps.len() > 1 {
        text.push_str(&format!("\n{}\n", steps(&trace.steps)));
    }
    text
}

fn steps(steps: &[Step<'_>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["CHAIN", "RULE", "WHAT IT SAYS", "WHY"]);
    for step in steps {
        table.add_row([
            chain_name(step.hook).to_owned(),
            step.number.to_string(),
            shown(step.rule),
            step.rule.reason.to_string(),
        ]);
    }
    table.trim_fmt()
}

fn shown(rule: &Rule) -> String {
    cut(&line(rule))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

fn protocol(packet: &Packet) -> &'static str {
    match packet.protocol {
        Some(Protocol::Tcp) => "tcp",
        Some(Protocol::Udp) => "udp",
        None => "other",
    }
}

fn described(packet: &Packet) -> String {
    let source = packet.source.ip();
    let from = if source.is_unspecified() { String::new() } else { format!(" from {source}") };
    let (to, protocol) = (packet.destination, protocol(packet));
    match &packet.origin {
        Origin::Process { uid, gid, interface } => {
            format!("{protocol} of uid {uid}, gid {gid}{from} to {to}, leaving over {interface}")
        }
        Origin::Network { interface } if to.ip().is_unspecified() => {
            format!("{protocol}{from} to port {} of the pod, arriving over {interface}", to.port())
        }
        Origin::Network { interface } => {
            format!("{protocol}{from} to {to}, arriving over {interface}")
        }
    }
}

fn verdict(way: Way) -> &'static str {
    match way {
        Way::Untouched => "untouched",
        Way::Redirected(_) => "redirect",
        Way::Tproxied(_) => "tproxy",
        Way::Dropped => "drop",
    }
}

fn destination(subject: &Subject, way: Way, packet: &Packet) -> String {
    match way {
        Way::Untouched if packet.destination.ip().is_unspecified() => {
            format!("port {}, untouched: not through the proxy", packet.destination.port())
        }
        Way::Untouched => format!("{}, untouched: not through the proxy", packet.destination),
        Way::Redirected(port) => format!("port {port}, {}", listener(subject, port)),
        Way::Tproxied(port) => {
            format!("port {port}, {}, with its addresses unchanged", listener(subject, port))
        }
        Way::Dropped => "nowhere: it is dropped".to_owned(),
    }
}

fn listener(subject: &Subject, port: u16) -> &'static str {
    match &subject.settings {
        Some(settings) if port == settings.outbound_port => "the proxy's outbound listener",
        Some(settings) if port == settings.inbound_port => "the proxy's inbound listener",
        _ if port == DNS_PORT => "the proxy's DNS",
        _ => "the proxy",
    }
}
