//! Why no template can be made of a process: state that a clone could not have, or could not have rightly.

use std::{fmt, io};

use crate::error::Failure;

/// Why not, in words for the revision's log; or that reading the state failed.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The process has state that cannot be cloned.
    State(String),
    Failed(Failure),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(why) => f.write_str(why),
            Self::Failed(failure) => f.write_str(&failure.line()),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

pub(super) fn refuse<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::State(why.into()))
}

/// `call().read("the threads")?`
pub(super) trait Read<T> {
    fn read(self, what: &str) -> Result<T, Refusal>;
}

impl<T> Read<T> for io::Result<T> {
    fn read(self, what: &str) -> Result<T, Refusal> {
        self.map_err(|error| Refusal::Failed(Failure::new(format!("read {what} of the template"), error)))
    }
}
