//! Events beside HTTP: Pub/Sub, Scheduler, Storage, Eventarc.
//!
//! **Invariant:** an accepted event is delivered at least once or lands in the dead-letter topic.
//!
//! `pubsub` is Pub/Sub and `subscription` the rules by which it delivers; `scheduler` runs jobs; `eventarc` is how events of triggers travel.
//! `deliver` is how a service is called, `storage` is what is told of objects, `busy` counts what is under way, `history` keeps what was.

pub mod busy;
pub mod deliver;
pub mod eventarc;
pub mod history;
pub mod pubsub;
pub mod scheduler;
pub mod storage;
pub mod subscription;
