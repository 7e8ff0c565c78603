//! Injected pods before a real API server: that it takes them, and what it makes of pods while the
//! webhook is away.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod cases;
mod creation;
mod fallback;
