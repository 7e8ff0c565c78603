//! Whether this control plane is ready, and what it waits for.
//!
//! Each part that must be there first is missing, with a reason, until it says that it is met. What
//! goes wrong later while what was known stays in force is a remark: it is shown, and readiness
//! stays. Knows no parts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use parking_lot::Mutex;

/// What is missing, and what is remarked upon.
#[derive(Debug)]
pub struct Readiness {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    missing: BTreeMap<String, String>,
    remarks: BTreeMap<String, String>,
}

impl Readiness {
    /// Not ready because of a first part.
    #[must_use]
    pub fn new(part: &str, reason: &str) -> Self {
        let readiness = Self { state: Mutex::default() };
        readiness.waits(part, reason);
        readiness
    }

    /// A part is missing.
    pub fn waits(&self, part: &str, reason: impl Into<String>) {
        self.state.lock().missing.insert(part.to_owned(), reason.into());
    }

    /// A part is there.
    pub fn met(&self, part: &str) {
        self.state.lock().missing.remove(part);
    }

    /// Something is not as it should be, but nothing is missing for it.
    pub fn remark(&self, part: &str, text: impl Into<String>) {
        self.state.lock().remarks.insert(part.to_owned(), text.into());
    }

    /// There is nothing more to remark upon a part.
    pub fn well(&self, part: &str) {
        self.state.lock().remarks.remove(part);
    }

    /// What is missing, a line each; `None` when nothing is.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let state = self.state.lock();
        (!state.missing.is_empty()).then(|| lines(&state.missing))
    }

    /// All remarks, a line each.
    #[must_use]
    pub fn remarks(&self) -> String {
        lines(&self.state.lock().remarks)
    }
}

fn lines(parts: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (part, reason) in parts {
        // A String takes everything.
        let _written = writeln!(text, "{part}: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn every_part_must_be_met() {
        let readiness = Readiness::new("b", "starting");
        readiness.waits("a", "list of pods");
        assert_eq!(readiness.missing().unwrap(), "a: list of pods\nb: starting\n");
        readiness.met("b");
        readiness.waits("a", "pods are forbidden");
        assert_eq!(readiness.missing().unwrap(), "a: pods are forbidden\n");
        readiness.met("a");
        assert_eq!(readiness.missing(), None);
    }

    #[test]
    fn remarks_take_nothing_back() {
        let readiness = Readiness::new("a", "starting");
        readiness.met("a");
        readiness.remark("watch of pods", "forbidden");
        assert_eq!(readiness.missing(), None);
        assert_eq!(readiness.remarks(), "watch of pods: forbidden\n");
        readiness.well("watch of pods");
        assert_eq!(readiness.remarks(), "");
    }
}
