//! What a proxy should not have any more, but may still use.
//!
//! It is kept until the proxy has taken what no longer points at it. A proxy that refuses for ever
//! would come to keep everything that it ever had, so there is a bound. Knows no streams and no
//! types.

use std::collections::VecDeque;
use std::sync::Arc;

use lateen_xds::server::ResourceMap;

/// Most resources of a type that are kept; beyond it those that came first go first.
const MOST: usize = 4096;

/// Resources of one type that linger.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    resources: ResourceMap,
    /// Their names, in the order in which they came.
    order: VecDeque<Arc<str>>,
}

impl Lingering {
    /// Nothing.
    pub(super) const fn none() -> Self {
        Self { resources: ResourceMap::new(), order: VecDeque::new() }
    }

    /// Whether nothing does.
    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Keeps what was wanted, is not any more, and is held; forgets what is wanted again.
    pub(super) fn keep(
        &mut self,
        before: &Arc<ResourceMap>,
        after: &Arc<ResourceMap>,
        is_held: impl Fn(&str) -> bool,
    ) {
        if Arc::ptr_eq(before, after) {
            return;
        }
        self.resources.retain(|name, _| !after.contains_key(name));
        self.order.retain(|name| self.resources.contains_key(name));
        for (name, resource) in before.iter() {
            if after.contains_key(name) || !is_held(name) {
                continue;
            }
            if self.resources.insert(Arc::clone(name), resource.clone()).is_none() {
                self.order.push_back(Arc::clone(name));
            }
        }
        let surplus = self.order.len().saturating_sub(MOST);
        for name in self.order.drain(..surplus) {
            self.resources.remove(&name);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::none();
    }

    /// What is wanted, and what lingers.
    pub(super) fn and(&self, wanted: &ResourceMap) -> ResourceMap {
        let mut all = wanted.clone();
        for (name, resource) in &self.resources {
            all.entry(Arc::clone(name)).or_insert_with(|| resource.clone());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::{Lingering, MOST};
    use lateen_xds::server::{Resource, ResourceMap};
    use std::ops::Range;
    use std::sync::Arc;

    fn map(numbers: Range<usize>) -> Arc<ResourceMap> {
        let resource = Resource { version: Arc::from("1"), body: Default::default() };
        Arc::new(numbers.map(|it| (Arc::from(format!("{it:05}")), resource.clone())).collect())
    }

    fn names(lingering: &Lingering) -> Vec<String> {
        lingering.and(&ResourceMap::new()).keys().map(ToString::to_string).collect()
    }

    #[test]
    fn what_goes_lingers_until_it_is_wanted_again() {
        let mut lingering = Lingering::none();
        lingering.keep(&map(0..3), &map(2..4), |_| true);
        assert_eq!(names(&lingering), ["00000", "00001"]);
        lingering.keep(&map(2..4), &map(1..3), |_| true);
        assert_eq!(names(&lingering), ["00000", "00003"]);
        lingering.clear();
        assert!(lingering.is_empty() && names(&lingering).is_empty());
    }

    #[test]
    fn what_nobody_holds_does_not_linger() {
        let mut lingering = Lingering::none();
        lingering.keep(&map(0..3), &map(0..0), |name| name == "00001");
        assert_eq!(names(&lingering), ["00001"]);
    }

    #[test]
    fn not_more_lingers_than_is_bearable_and_the_last_stays() {
        let mut lingering = Lingering::none();
        for last in 0..MOST + 2 {
            lingering.keep(&map(last..last + 1), &map(0..0), |_| true);
        }
        let names = names(&lingering);
        assert_eq!((names.len(), names[0].as_str()), (MOST, "00002"));
        assert_eq!(lingering.order.len(), MOST);
    }
}
