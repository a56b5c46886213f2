//! Events beside HTTP: Pub/Sub, Scheduler, Storage, Eventarc.
//!
//! **Invariant:** an accepted event is delivered at least once or lands in the dead-letter topic.
//!
//! `pubsub` is Pub/Sub, `subscription` the rules by which it delivers and `schema` those that its messages follow; `scheduler` runs jobs.
//! `deliver` is how a service is called, `storage` is what is told of objects, `busy` counts what is under way, `history` keeps what was,
//! `agenda` is what is due when.

mod agenda;
pub mod busy;
pub mod deliver;
pub mod history;
pub mod pubsub;
pub mod scheduler;
pub mod schema;
pub mod storage;
pub mod subscription;
