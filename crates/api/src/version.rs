//! The text by which a writer proves what it has read: `etag` in run v2, `resourceVersion` in run v1.
//!
//! It speaks of what the owner asked for, not of the record: reconcilers write a service's status between a client's GET
//! and its PUT, and that is no conflict.

use control::{Control, Versioned};
use model::{Code, Service, ServiceKey, Status};

/// The version of a service, opaque to clients.
pub(crate) fn version(service: &Service) -> String {
    let uid: String = service.uid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("{:08x}{uid}", service.generation)
}

/// Whether `written` (empty for "any") is the current version.
///
/// # Errors
/// `ABORTED` when another writer was there since.
pub(crate) fn version_check(service: &Service, written: &str) -> Result<(), Status> {
    let current = version(service);
    let written = written.trim_matches('"');
    if written.is_empty() || written == current {
        return Ok(());
    }
    Err(Status::new(
        Code::Aborted,
        format!("Conflict for resource '{}': version '{written}' was specified but current version is '{current}'.", service.key.service),
    ))
}

/// Reads a service and lets `write` replace it, again when a reconciler wrote in between.
///
/// # Errors
/// Those of `write`; `NOT_FOUND`; `ABORTED` when `written` is not the current version.
pub(crate) async fn with_current<T, F>(control: &Control, key: &ServiceKey, written: &str, write: impl Fn(Versioned<Service>) -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    const TRIES: usize = 20;
    for _ in 1..TRIES {
        let current = control.service_get(key)?;
        version_check(&current.value, written)?;
        match write(current).await {
            Err(status) if status.code == Code::Aborted => tokio::task::yield_now().await,
            done => return done,
        }
    }
    let current = control.service_get(key)?;
    version_check(&current.value, written)?;
    write(current).await
}
