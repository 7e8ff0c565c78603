//! Fakes and servers for tests; never shipped.
pub mod ca;
pub mod echo;
pub mod netns;
