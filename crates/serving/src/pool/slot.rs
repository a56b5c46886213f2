//! A place at an instance for one request, and a place in the queue for one that waits.
//!
//! Both are given back by dropping them. Whose turn it is then is `pool.rs`'s to say.

use std::sync::Arc;

use model::Hops;
use tokio::{sync::oneshot, time::Instant};

use super::Pool;
use crate::{handling::Handled, headers::Trace, instances::Instance, refusal::Refusal, slots::Member};

/// A place at an instance for one request. Dropping it gives it back.
pub(crate) struct Slot {
    instance: Option<Arc<Instance>>,
    /// Since when it is held.
    taken: Instant,
    /// The instance must be woken before it can answer.
    pub(crate) frozen: bool,
    /// The first place of an instance that was started for this request.
    pub(crate) is_cold: bool,
    /// The request that has it, once one has.
    handled: Option<Handled>,
}

impl Slot {
    /// The place that was taken of `member`.
    pub(super) fn of(member: &Member<Instance>, taken: Instant) -> Self {
        Self { instance: Some(member.instance.clone()), taken, frozen: member.frozen, is_cold: false, handled: None }
    }

    /// The request that has it is about to reach the instance.
    pub(crate) fn handles(&mut self, trace: &Trace, hops: Hops) {
        self.handled = Some(self.instance().handling.begin(trace, hops));
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        self.instance.as_ref().expect("only `disarm` takes it, which consumes the slot")
    }

    /// Drops it without giving the place back.
    pub(super) fn disarm(mut self) {
        self.instance = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.handled.take());
        if let Some(instance) = self.instance.take() {
            let pool = instance.pool.clone();
            pool.release(&instance, self.taken);
        }
    }
}

/// What a request gets when it comes to the pool.
pub(crate) enum Entry {
    Slot(Slot),
    Wait(Place),
}

/// A place in the queue. Dropping it leaves the queue.
pub(crate) struct Place {
    pub(super) pool: Arc<Pool>,
    pub(super) number: u64,
    pub(crate) slot: oneshot::Receiver<Result<Slot, Refusal>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.leave(self.number);
        // A slot that was handed over in the last moment drops with the receiver and goes to the next.
    }
}

/// The other end of a [`Place`].
pub(super) struct Waiter {
    pub(super) number: u64,
    pub(super) slot: oneshot::Sender<Result<Slot, Refusal>>,
}
