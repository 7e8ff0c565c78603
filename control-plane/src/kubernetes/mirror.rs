//! What a watch has shown, by key: complete after each list, and changed by each event.

use std::collections::{BTreeMap, BTreeSet};

use kube::runtime::watcher::Event;

/// Objects of one watch, as far as they matter.
#[derive(Debug)]
pub struct Mirror<V> {
    objects: BTreeMap<String, V>,
    /// Keys of the list that is being received.
    listed: Option<BTreeSet<String>>,
    complete: bool,
}

/// What an event has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing that could be told yet.
    Nothing,
    /// One object.
    One(String),
    /// Any of them: a list is complete.
    All,
}

impl<V> Default for Mirror<V> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: None, complete: false }
    }
}

impl<V> Mirror<V> {
    /// Takes in an event. `read` gives an object's key, and what matters of it, if it matters.
    pub fn feed<K>(&mut self, event: Event<K>, read: impl Fn(K) -> (String, Option<V>)) -> Change {
        match event {
            Event::Init => {
                self.listed = Some(BTreeSet::new());
                Change::Nothing
            }
            Event::InitApply(object) => {
                let (key, value) = read(object);
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                self.set(key, value);
                Change::Nothing
            }
            Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.objects.retain(|key, _| listed.contains(key));
                }
                self.complete = true;
                Change::All
            }
            Event::Apply(object) => {
                let (key, value) = read(object);
                self.set(key.clone(), value);
                Change::One(key)
            }
            Event::Delete(object) => {
                let (key, _) = read(object);
                self.objects.remove(&key);
                Change::One(key)
            }
        }
    }

    /// Puts in what a write was answered with, before the watch shows it.
    pub fn set(&mut self, key: String, value: Option<V>) {
        match value {
            Some(value) => {
                self.objects.insert(key, value);
            }
            None => {
                self.objects.remove(&key);
            }
        }
    }

    /// Whether a list has been received.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// An object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&V> {
        self.objects.get(key)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &V)> {
        self.objects.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Mirror};
    use kube::runtime::watcher::Event;

    fn read(text: &str) -> (String, Option<usize>) {
        let (key, value) = text.split_once('=').unwrap();
        (key.to_owned(), value.parse().ok())
    }

    #[test]
    fn a_list_takes_the_place_of_the_one_before() {
        let mut mirror = Mirror::default();
        for event in [Event::Init, Event::InitApply("a=1"), Event::InitApply("b=2")] {
            assert_eq!(mirror.feed(event, read), Change::Nothing);
        }
        assert!(!mirror.is_complete());
        assert_eq!(mirror.feed(Event::InitDone, read), Change::All);
        assert_eq!(mirror.feed(Event::Apply("c=3"), read), Change::One("c".to_owned()));
        assert_eq!(mirror.feed(Event::Delete("a=1"), read), Change::One("a".to_owned()));
        mirror.feed(Event::Init, read);
        mirror.feed(Event::InitApply("c=4"), read);
        assert!(mirror.is_complete() && mirror.get("b").is_some(), "the old holds until then");
        mirror.feed(Event::InitDone, read);
        assert_eq!(
            mirror.iter().map(|(key, it)| (key.as_str(), *it)).collect::<Vec<_>>(),
            [("c", 4)]
        );
        mirror.feed(Event::Apply("c=none"), read);
        assert_eq!(mirror.get("c"), None, "what does not matter is not kept");
    }
}
