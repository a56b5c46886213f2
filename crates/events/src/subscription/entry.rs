//! What of a subscription survives: entries of its own log, and a checkpoint that stands for those before it.
//!
//! Leases, backoffs and what was read ahead of the topic's log are not in it: after a restart they are gone, and every message
//! that is not acknowledged is delivered again.

use std::collections::BTreeMap;

use model::Timestamp;
use serde::{Deserialize, Serialize};

use super::acked::Acked;

/// One change that must survive. The caller appends it before it answers whoever asked for the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The state was restored: ack ids of earlier epochs belong to leases that are gone.
    Opened { epoch: u64 },
    /// These sequences are acknowledged.
    Acked { sequences: Vec<u64> },
    /// These messages were delivered in vain once more: a nack, or a lease that ended.
    Failed { sequences: Vec<u64> },
    /// The message lies in the dead-letter topic; it counts as acknowledged.
    DeadLettered { sequence: u64 },
    /// A seek: what is acknowledged was set anew.
    Sought { epoch: u64, acked: Acked, discard_before: Option<Timestamp> },
}

/// All that entries up to a point amount to. Its size grows with gaps and failures, not with messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How often the state was restored or sought; a part of each ack id.
    pub(super) epoch: u64,
    /// The epoch that the last seek began: ids from before it acknowledge nothing.
    pub(super) sought: u64,
    pub(super) acked: Acked,
    /// How often each message was delivered in vain; only of those that are not acknowledged.
    pub(super) failures: BTreeMap<u64, u32>,
    /// From a seek to a time: messages published before it count as acknowledged, also those that are yet to come.
    pub(super) discard_before: Option<Timestamp>,
}

impl Checkpoint {
    /// The state of a subscription that begins after `cursor`, the topic's last message when it was created.
    pub fn new(cursor: u64) -> Self {
        Self { acked: Acked::up_to(cursor), ..Self::default() }
    }

    /// Adds what `entry` says.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Opened { epoch } => self.epoch = *epoch,
            Entry::Acked { sequences } => sequences.iter().for_each(|sequence| self.acknowledge(*sequence)),
            Entry::Failed { sequences } => {
                for sequence in sequences {
                    let failures = self.failures.entry(*sequence).or_default();
                    *failures = failures.saturating_add(1);
                }
            }
            Entry::DeadLettered { sequence } => self.acknowledge(*sequence),
            Entry::Sought { epoch, acked, discard_before } => {
                self.epoch = *epoch;
                self.sought = *epoch;
                self.acked = acked.clone();
                self.failures.clear();
                self.discard_before = *discard_before;
            }
        }
    }

    pub(super) fn acknowledge(&mut self, sequence: u64) {
        self.acked.insert(sequence);
        self.failures.remove(&sequence);
    }
}
