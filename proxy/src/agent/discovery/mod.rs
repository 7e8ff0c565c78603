//! Discovery: from the control plane's stream to the snapshot in force.
//!
//! [`Store`] is pure: it takes updates, refuses what cannot be honoured, and says what is in
//! force and what else is needed. [`follow`] is the shell: it connects, reconnects, and publishes.

mod follow;
mod store;

#[cfg(test)]
mod tests;

pub use follow::{Publisher, follow};
pub use store::{Refused, Store, Summary};
