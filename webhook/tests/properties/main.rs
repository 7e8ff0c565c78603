//! What holds for every pod: injecting twice is injecting once, the patch gives the pod, unknown
//! fields survive, no text becomes structure, and cost grows with size.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at what it does not expect")]

mod again;
mod hostile;
mod outcome;
mod pods;
mod texts;
