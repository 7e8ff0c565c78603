//! Annotations that steer injection: their check, and typed access.
//!
//! A value that cannot be honoured denies the pod, and the message names the annotation in full.
//! Lists for redirection are checked by the code that will read them. Must not know containers.

use std::collections::BTreeMap;

use lateen_api::names::annotation;

use super::InjectError;
use super::proxy_config::Mode;

/// Annotations of a pod.
pub(crate) type Annotations = BTreeMap<String, String>;

const QUANTITIES: [&str; 4] = [
    annotation::PROXY_CPU,
    annotation::PROXY_CPU_LIMIT,
    annotation::PROXY_MEMORY,
    annotation::PROXY_MEMORY_LIMIT,
];
const NUMBERS: [&str; 3] = [
    annotation::READINESS_INITIAL_DELAY,
    annotation::READINESS_PERIOD,
    annotation::READINESS_FAILURE,
];

/// Checks the annotations that no later step reads strictly.
pub(crate) fn check(annotations: &Annotations) -> Result<(), InjectError> {
    for key in QUANTITIES {
        if annotations.get(key).is_some_and(|value| !is_quantity(value)) {
            return Err(InjectError::annotation(key, "not a resource quantity, such as 100m"));
        }
    }
    for key in NUMBERS {
        if annotations.get(key).is_some_and(|value| value.parse::<u32>().is_err()) {
            return Err(InjectError::annotation(key, "not a number"));
        }
    }
    if annotations.get(annotation::STATUS_PORT).is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(InjectError::annotation(annotation::STATUS_PORT, "not a port"));
    }
    let mode = annotations.get(annotation::INTERCEPTION_MODE);
    if mode.is_some_and(|mode| Mode::parse(mode).is_none()) {
        let reason = "expected REDIRECT, TPROXY or NONE";
        return Err(InjectError::annotation(annotation::INTERCEPTION_MODE, reason));
    }
    let merge = annotations.get(annotation::MERGE_METRICS);
    if merge.is_some_and(|value| parse_bool(value).is_none()) {
        return Err(InjectError::annotation(annotation::MERGE_METRICS, "expected true or false"));
    }
    Ok(())
}

/// A number annotation, or the value of the settings. Its syntax was checked before.
pub(crate) fn number(annotations: &Annotations, key: &str, default: u32) -> u32 {
    annotations.get(key).and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A boolean in any spelling that Go's parser takes.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Whether the text is a Kubernetes resource quantity.
fn is_quantity(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let dots = number.bytes().filter(|byte| *byte == b'.').count();
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    let known =
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
            .contains(&suffix);
    number.bytes().any(|byte| byte.is_ascii_digit()) && dots <= 1 && (known || exponent)
}

#[cfg(test)]
mod tests {
    use super::{check, is_quantity};

    #[test]
    fn quantities() {
        for good in ["100m", "2", "0.5", "1Gi", "128974848", "1e3", "12E6", "+1k", ".5"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1 Gi", "1gi", "1.2.3", "1e", "100m\n  x: y", "0x10", "."] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }

    #[test]
    fn every_message_names_the_annotation_in_full() {
        for (key, value) in [
            ("sidecar.istio.io/proxyCPU", "many"),
            ("sidecar.istio.io/proxyCPULimit", "1x"),
            ("sidecar.istio.io/proxyMemory", "1GiB"),
            ("sidecar.istio.io/proxyMemoryLimit", ""),
            ("readiness.status.sidecar.istio.io/initialDelaySeconds", "-1"),
            ("readiness.status.sidecar.istio.io/periodSeconds", "1s"),
            ("readiness.status.sidecar.istio.io/failureThreshold", ""),
            ("status.sidecar.istio.io/port", "70000"),
            ("sidecar.istio.io/interceptionMode", "redirect"),
            ("prometheus.istio.io/merge-metrics", "no"),
        ] {
            let error = check(&[(key.to_owned(), value.to_owned())].into()).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        assert!(check(&[("other".to_owned(), "x".to_owned())].into()).is_ok());
    }
}
