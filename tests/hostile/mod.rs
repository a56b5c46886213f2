//! Hostile callers, sources and functions against the built server.

pub fn tests() -> Vec<e2e::runner::Test> {
    Vec::new()
}
