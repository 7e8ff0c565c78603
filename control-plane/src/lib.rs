//! Sources, registry, translation, certificate authority. Empty so far.

pub mod source;
