//! Google's public API messages, gRPC server traits and descriptors.
//!
//! **Invariant:** nothing here is written by hand. `build.rs` makes all of it from the protos that
//! `web/package-lock.json` pins; none of it is committed.

#![allow(clippy::all, rustdoc::all, missing_docs, reason = "generated code")]

include!(concat!(env!("OUT_DIR"), "/mod.rs"));

/// The encoded `FileDescriptorSet`, with extensions such as `google.api.http`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/google.fds"));
