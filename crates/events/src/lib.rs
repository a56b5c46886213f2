//! Events beside HTTP: Pub/Sub, Scheduler, Storage, Eventarc.
//!
//! **Invariant:** an accepted event is delivered at least once or lands in the dead-letter topic.
//!
//! `pubsub` is Pub/Sub, `subscription` the rules by which it delivers, `deliver` how a service is called.

pub mod deliver;
pub mod pubsub;
pub mod subscription;
