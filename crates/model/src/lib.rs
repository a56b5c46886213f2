//! The nouns of the product and the rules that need nothing but their input.
//!
//! **Invariant:** pure. The same input gives the same output: no clock, file, socket, task or
//! environment is read here. Time enters through [`clock::Clock`], which others implement.

pub mod address;
pub mod build;
pub mod clock;
pub mod condition;
pub mod function;
pub mod hops;
pub mod image;
pub mod key;
pub mod limits;
pub mod log;
pub mod name;
pub mod operation;
pub mod overload;
pub mod policy;
pub mod revision;
pub mod scaling;
pub mod schedule;
pub mod secret;
pub mod service;
pub mod status;
pub mod storage;
pub mod trigger;

pub use clock::{Clock, Timestamp};
pub use hops::Hops;
pub use name::{ProjectId, ProjectNumber, Region, RevisionName, ServiceKey, ServiceName};
pub use revision::Revision;
pub use service::Service;
pub use status::{Code, Status};
