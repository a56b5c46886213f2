//! Small translations that several surfaces share: times, refusals.

use model::{Status, Timestamp};

/// A proto's timestamp.
pub(crate) fn time(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

/// The refusal of a field that is understood by Google and not here.
pub(crate) fn unsupported(field: impl Into<String>) -> Status {
    Status::invalid_field(field, "it is not supported by this server; leave it out")
}

/// Refuses `field` when it is set.
pub(crate) fn refuse(set: bool, field: &str) -> Result<(), Status> {
    if set { Err(unsupported(field)) } else { Ok(()) }
}

/// A number of instances, requests or seconds that a proto carries as `i32`.
///
/// # Errors
/// `INVALID_ARGUMENT` for a negative one.
pub(crate) fn count(field: &str, value: i32) -> Result<u32, Status> {
    u32::try_from(value).map_err(|_| Status::invalid_field(field, format!("{value} is negative")))
}

/// A port.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is no port; 0 stands for "unset".
pub(crate) fn port(field: &str, value: i32) -> Result<u16, Status> {
    u16::try_from(value).map_err(|_| Status::invalid_field(field, format!("{value} is no port; ports are 1 to 65535")))
}

/// The reverse of [`count`]: what exceeds `i32` was never read from one.
pub(crate) fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
