//! Records, logs, blobs and layers on disk.
//!
//! **Invariant:** the only place that knows bytes on disk. What was answered is durable: a commit, an appended entry, a finished blob and a
//! committed layer outlive a kill and a power cut. What is damaged on disk is refused by name, never served.
//!
//! A folder holds all of it: `state.db` (records, SQLite), `logs.db` (logs, SQLite), `blobs/`, `layers/`, `staging/` (what is not finished; emptied
//! at open) and `lock`. [`Store`] is the way in; `record` has the nouns, `committer` the one thread that writes records,
//! `logs` the third kind, `queue` and `connections` what records and logs share, `watch` what tells others of changes, `integrity` how damage is found.

#[cfg(all(feature = "unsafe-no-fsync", not(debug_assertions)))]
compile_error!("the feature `unsafe-no-fsync` loses data at a power cut; it exists for tests and cannot be in a release build");

mod blobs;
mod committer;
mod connections;
mod database;
mod durable;
mod error;
mod integrity;
mod layers;
mod lock;
mod logs;
mod queue;
mod readers;
mod record;
mod store;
mod trash;
mod watch;

pub use blobs::{BlobWriter, Blobs};
pub use error::{CommitError, Error};
pub use layers::{Layers, Staging};
pub use logs::{ENTRY_MAX_BYTES, Entry, Extent, Logs};
pub use record::{COMMIT_MAX_BYTES, Expect, Guard, KEY_MAX_BYTES, Record, Write};
pub use store::Store;
pub use watch::{Change, Event, Watch};
