//! Time, as something that is passed in.

use std::pin::Pin;

pub use jiff::Timestamp;

/// Resolves when its instant has come; dropped, it is forgotten.
pub type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The wall clock: for claims, records and schedules. Timeouts use the runtime's monotonic clock.
///
/// The real one and a manual one live in the binary; nothing else asks the system for the time.
pub trait Clock: Send + Sync + 'static {
    /// The current instant.
    fn now(&self) -> Timestamp;

    /// Waits until [`Clock::now`] is `at` or later. Whatever is due at an instant waits by this and not by the runtime, whose time nobody can move.
    fn until(&self, at: Timestamp) -> Until;
}
