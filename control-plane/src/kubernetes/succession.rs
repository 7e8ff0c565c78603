//! When one authority takes the place of another: not before what it signs is believed.
//!
//! First the roots of both are published; when every webhook's bundle has held those of the new for
//! a while, the new one signs. The while is for what reads later than we do: the caches of API
//! servers, and the files of ConfigMaps in pods. Pure.

use std::time::Duration;

/// An authority that waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Succession {
    overlap: Duration,
    /// Since when its roots are published everywhere.
    published: Option<Duration>,
}

impl Succession {
    /// One that signs when its roots have been published for `overlap`.
    #[must_use]
    pub fn new(overlap: Duration) -> Self {
        Self { overlap, published: None }
    }

    /// The pause until its turn has come; `None` while nobody knows. `published`: every bundle
    /// holds its roots at `now`.
    pub fn step(&mut self, now: Duration, published: bool) -> Option<Duration> {
        if !published {
            self.published = None;
            return None;
        }
        let since = *self.published.get_or_insert(now);
        Some((since + self.overlap).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::Succession;
    use std::time::Duration;

    #[test]
    fn it_waits_for_the_bundles_and_then_a_while() {
        let seconds = Duration::from_secs;
        let mut succession = Succession::new(seconds(120));
        assert_eq!(succession.step(seconds(0), false), None);
        assert_eq!(succession.step(seconds(10), true), Some(seconds(120)));
        assert_eq!(succession.step(seconds(70), true), Some(seconds(60)));
        assert_eq!(succession.step(seconds(80), false), None, "somebody overwrote a bundle");
        assert_eq!(succession.step(seconds(90), true), Some(seconds(120)));
        assert_eq!(succession.step(seconds(210), true), Some(Duration::ZERO));
        assert_eq!(succession.step(seconds(300), true), Some(Duration::ZERO));
    }
}
