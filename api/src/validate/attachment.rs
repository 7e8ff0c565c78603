//! Checks of what policies say they are for: workloads by labels, or objects by reference, not both.

use super::{Remarks, fields};
use crate::security::Selector;
use crate::target::TargetRef;

/// Most references of one policy.
const MAX_TARGETS: usize = 16;
/// Longest name of an object.
const MAX_NAME: usize = 253;

/// What a policy says it is for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attachment<'a> {
    pub(super) selector: Option<&'a Selector>,
    pub(super) target_ref: Option<&'a TargetRef>,
    pub(super) target_refs: &'a [TargetRef],
}

impl Attachment<'_> {
    /// Whether objects are referred to.
    pub(super) fn by_reference(&self) -> bool {
        self.target_ref.is_some() || !self.target_refs.is_empty()
    }
}

/// Checks selector and references of a policy.
pub(super) fn check(remarks: &mut Remarks, attachment: Attachment<'_>) {
    let given = [
        attachment.selector.is_some(),
        attachment.target_ref.is_some(),
        !attachment.target_refs.is_empty(),
    ];
    if given.iter().filter(|is| **is).count() > 1 {
        remarks.error("spec", "selector, targetRef and targetRefs exclude each other");
    }
    if let Some(selector) = attachment.selector {
        labels(remarks, selector);
    }
    if let Some(target) = attachment.target_ref {
        reference(remarks, "spec.targetRef", target);
    }
    references(remarks, attachment.target_refs);
}

/// Checks a selector.
pub(super) fn labels(remarks: &mut Remarks, selector: &Selector) {
    let path = "spec.selector.matchLabels";
    fields::selector(remarks, path, &selector.match_labels);
    if selector.match_labels.is_empty() {
        remarks.warn(path, "a selector without labels means the whole namespace: leave it out");
    }
}

/// Checks `targetRefs`.
pub(super) fn references(remarks: &mut Remarks, targets: &[TargetRef]) {
    if targets.len() > MAX_TARGETS {
        remarks.error("spec.targetRefs", format!("more than {MAX_TARGETS} references"));
    }
    for (index, target) in targets.iter().enumerate() {
        reference(remarks, &format!("spec.targetRefs[{index}]"), target);
    }
}

fn reference(remarks: &mut Remarks, path: &str, target: &TargetRef) {
    fields::needed(remarks, &format!("{path}.name"), &target.name, MAX_NAME);
    if !target.namespace.is_empty() {
        let message = "only objects of the same namespace can be referred to: leave it out";
        remarks.error(format!("{path}.namespace"), message);
    }
    if !target.is_attachable() {
        let message = format!(
            "`{}` of group `{}` cannot be referred to; Service, ServiceEntry, and Gateway and GatewayClass of gateway.networking.k8s.io can",
            target.kind, target.group
        );
        remarks.error(format!("{path}.kind"), message);
    }
}
