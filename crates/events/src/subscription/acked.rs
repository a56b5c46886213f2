//! The set of sequences that are acknowledged: all up to a cursor, and ranges beyond it.
//!
//! Its size is the number of gaps, not of messages. It knows nothing of why a sequence is in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A set of sequences; a snapshot of a subscription is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// Every sequence up to and with this one is in the set; they begin at 1.
    cursor: u64,
    /// First to last of each run beyond the cursor; runs neither touch each other nor the cursor.
    beyond: BTreeMap<u64, u64>,
}

impl Acked {
    /// All up to and with `cursor`.
    pub fn up_to(cursor: u64) -> Self {
        Self { cursor, beyond: BTreeMap::new() }
    }

    /// The last sequence before the first one that is not in the set.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// How many runs lie beyond the cursor: what the set needs of memory.
    pub fn runs(&self) -> usize {
        self.beyond.len()
    }

    pub fn contains(&self, sequence: u64) -> bool {
        sequence <= self.cursor || self.beyond.range(..=sequence).next_back().is_some_and(|(_, last)| sequence <= *last)
    }

    pub fn insert(&mut self, sequence: u64) {
        self.insert_run(sequence, sequence);
    }

    /// Adds `first` to `last`, both included; nothing when `last` lies before `first`.
    pub fn insert_run(&mut self, first: u64, last: u64) {
        if last < first {
            return;
        }
        let (mut first, mut last) = (first, last);
        // The run before it may touch it or hold it.
        if let Some((&start, &end)) = self.beyond.range(..=first).next_back()
            && end.saturating_add(1) >= first
        {
            first = start;
            last = last.max(end);
            self.beyond.remove(&start);
        }
        while let Some((&start, &end)) = self.beyond.range(first..=last.saturating_add(1)).next() {
            last = last.max(end);
            self.beyond.remove(&start);
        }
        if first <= self.cursor.saturating_add(1) {
            self.cursor = self.cursor.max(last);
            while let Some((&start, &end)) = self.beyond.first_key_value()
                && start <= self.cursor.saturating_add(1)
            {
                self.cursor = self.cursor.max(end);
                self.beyond.remove(&start);
            }
        } else {
            self.beyond.insert(first, last);
        }
    }

    /// Takes out `sequence` and all after it.
    pub fn forget_from(&mut self, sequence: u64) {
        let last = sequence.saturating_sub(1);
        self.cursor = self.cursor.min(last);
        drop(self.beyond.split_off(&sequence));
        if let Some(mut run) = self.beyond.last_entry() {
            *run.get_mut() = (*run.get()).min(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_a_plain_set_holds(runs in prop::collection::vec((1_u64..60, 0_u64..8), 0..40), cursor in 0_u64..10) {
            let mut acked = Acked::up_to(cursor);
            let mut plain: BTreeSet<u64> = (1..=cursor).collect();
            for (first, length) in runs {
                acked.insert_run(first, first + length);
                plain.extend(first..=first + length);
            }
            for sequence in 1..80 {
                prop_assert_eq!(acked.contains(sequence), plain.contains(&sequence), "{}", sequence);
            }
            let gap = (1..).find(|sequence| !plain.contains(sequence)).expect("the set is finite");
            prop_assert_eq!(acked.cursor(), gap - 1);
            for forgotten in [0, 1, 17, 40, 80] {
                let mut rest = acked.clone();
                rest.forget_from(forgotten);
                for sequence in 1..80 {
                    prop_assert_eq!(rest.contains(sequence), sequence < forgotten && plain.contains(&sequence), "{} of {}", sequence, forgotten);
                }
            }
            let runs = plain.iter().filter(|s| **s > gap && !plain.contains(&(**s - 1))).count();
            prop_assert_eq!(acked.runs(), runs);
        }
    }
}
