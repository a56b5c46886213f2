//! A slot of a ready instance for one request, or the wait for one.
//!
//! Google holds a request that finds no free slot for 3.5 times the average start, at least 10 s, and then refuses it with
//! 429. A request that waits counts as load, so that instances are started for it; one that leaves does not.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::{
    instances,
    pool::{Entry, Pool, Slot},
    refusal::Refusal,
};

/// Takes one slot of a ready instance of the revision, waiting while one starts. The instance runs when this returns.
///
/// `held` is one that was taken already. Waits at most the hold time, and never beyond `deadline`. Dropping the slot gives it back.
/// # Errors
/// `QueueFull` (429) when the hold time is over, or cannot be enough for all who wait already; `StartFailed` (500) when what was started for it did not
/// become ready; `Timeout` (504) at the deadline.
pub(crate) async fn slot_take(pool: &Arc<Pool>, held: Option<Slot>, deadline: Instant) -> Result<Slot, Refusal> {
    let entry = match held {
        Some(slot) => Entry::Slot(slot),
        None => pool.enter()?,
    };
    let slot = match entry {
        Entry::Slot(slot) => slot,
        Entry::Wait(mut place) => {
            let since = Instant::now();
            loop {
                // While nobody knows how long a start takes, look again now and then: it may have failed or come to an end.
                let hold = pool.hold().map_or(Instant::now() + LOOK_AGAIN, |hold| since + hold);
                tokio::select! {
                    biased;
                    slot = &mut place.slot => break slot.map_err(|_| Refusal::Closing)??,
                    () = sleep_until(hold.min(deadline)) => {
                        if Instant::now() >= deadline {
                            return Err(Refusal::Timeout);
                        }
                        if pool.hold().is_some_and(|hold| since.elapsed() >= hold) {
                            return Err(pool.overdue());
                        }
                    }
                }
            }
        }
    };
    if slot.frozen {
        instances::thaw(slot.instance()).await?;
    }
    Ok(slot)
}

const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);
