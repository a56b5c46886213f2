//! Time, as something that is passed in.

pub use jiff::Timestamp;

/// The wall clock: for claims, records and schedules. Timeouts use the runtime's monotonic clock.
///
/// The real one and a manual one live in the binary; nothing else asks the system for the time.
pub trait Clock: Send + Sync + 'static {
    /// The current instant.
    fn now(&self) -> Timestamp;
}
