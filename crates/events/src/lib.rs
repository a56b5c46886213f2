//! Events beside HTTP: Pub/Sub, Scheduler, Storage, Eventarc.
//!
//! **Invariant:** an accepted event is delivered at least once or lands in the dead-letter topic.
//!
//! Nothing is accepted yet: the APIs of events answer UNIMPLEMENTED. `subscription` is what Pub/Sub will deliver by, `deliver` how
//! a service is called.

pub mod deliver;
pub mod subscription;
