//! Sidecar injection. Empty so far.
