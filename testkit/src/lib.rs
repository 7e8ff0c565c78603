//! Fakes and servers for tests; never shipped.
pub mod netns;
