//! The real clock: the one place that asks the system for the time.

/// The system's wall clock.
pub struct SystemClock;

impl model::Clock for SystemClock {
    fn now(&self) -> model::Timestamp {
        model::Timestamp::now()
    }
}
