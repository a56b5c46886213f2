//! The real clock: the one place that asks the system for the time.

use std::time::Duration;

use model::clock::{Timestamp, Until};

/// The system's wall clock.
pub struct SystemClock;

/// The runtime's time stands still while a machine sleeps, and does not follow when its clock is set: so often is looked again.
const LOOK: Duration = Duration::from_secs(30);

impl model::Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn until(&self, at: Timestamp) -> Until {
        Box::pin(async move {
            while let Ok(left) = Duration::try_from(at.duration_since(Timestamp::now()))
                && !left.is_zero()
            {
                tokio::time::sleep(left.min(LOOK)).await;
            }
        })
    }
}
