//! Sidecar injection, so far its pure ground: which webhook a pod's labels pick, strategic merge,
//! and the JSON patch between two pods. Policy, mutation and the HTTPS server come next.

pub mod patch;
pub mod selectors;
pub mod strategic_merge;
