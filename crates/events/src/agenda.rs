//! What is due when: an instant for each key, and the first of them.
//!
//! A key at rest is an instant and itself, with no task and no timer; one loop waits for the first instant of all.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use model::Timestamp;

/// When each key is due, those that are at all.
pub(crate) struct Agenda<K> {
    by_time: BTreeSet<(Timestamp, K)>,
    by_key: HashMap<K, Timestamp>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Agenda<K> {
    pub(crate) fn set(&mut self, key: &K, due: Option<Timestamp>) {
        if let Some(old) = self.by_key.remove(key) {
            self.by_time.remove(&(old, key.clone()));
        }
        if let Some(due) = due {
            self.by_key.insert(key.clone(), due);
            self.by_time.insert((due, key.clone()));
        }
    }

    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out one that is due at `now`.
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<K> {
        let (_, key) = self.by_time.first().filter(|(at, _)| *at <= now)?.clone();
        self.set(&key, None);
        Some(key)
    }
}
