//! What can go wrong, here and on the keeper's side of the socket.
//!
//! Inside the keeper, the starter and init every error is a [`Failure`]: step, errno, hint. It crosses processes as JSON and
//! becomes an [`Error`] in the daemon.

use std::io;

use serde::{Deserialize, Serialize};

/// Why a call on the keeper failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed; `step` says which, on what.
    #[error("{step}: {source}")]
    Step {
        /// What was being done, with the path or name it was done to.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A system call failed and the operator of the host can do something about it.
    #[error("{step}: {source}\nhint: {hint}")]
    Hinted {
        /// What was being done, with the path or name it was done to.
        step: String,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        hint: String,
    },
    /// The command's program cannot be run: it is not there, is no program, or nobody may run it.
    #[error("run {program}: {source}{}", .hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Program {
        /// Its path inside.
        program: String,
        /// The kernel's answer to exec.
        source: io::Error,
        /// What is there all the same.
        hint: Option<String>,
    },
    /// The request itself is not acceptable; nothing was done.
    #[error("the keeper refused: {0}")]
    Refused(String),
    /// The keeper ended; so did every sandbox.
    #[error("the keeper is gone")]
    Gone,
    /// No sandbox of this id is running (any more).
    #[error("no sandbox {0}")]
    NoSandbox(String),
}

impl Error {
    pub(crate) fn step(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Step { step: step.into(), source: source.into() }
    }
}

/// One failed step, as it travels between processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub step: String,
    pub errno: i32,
    pub hint: Option<String>,
    /// The program that exec did not take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

impl Failure {
    pub fn new(step: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        // Errors made by std itself carry no errno; EIO stands for them, with their text.
        match error.raw_os_error() {
            Some(errno) => Self { step: step.into(), errno, hint: None, program: None },
            None => Self { step: format!("{}: {error}", step.into()), errno: libc::EIO, hint: None, program: None },
        }
    }

    /// Exec's answer, when it is about the program and not about this host.
    pub fn exec(program: &str, error: io::Error) -> Self {
        const OF_THE_PROGRAM: [i32; 8] = [libc::ENOENT, libc::EACCES, libc::ENOEXEC, libc::ENOTDIR, libc::ELOOP, libc::EISDIR, libc::ENAMETOOLONG, libc::E2BIG];
        let failure = Self::new(format!("run {program}"), error);
        let is_its = OF_THE_PROGRAM.contains(&failure.errno);
        Self { program: is_its.then(|| program.to_owned()), ..failure }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the hint when the kernel answered with one of these.
    pub fn hint_on(self, errnos: &[i32], hint: &str) -> Self {
        if errnos.contains(&self.errno) { self.hint(hint) } else { self }
    }

    /// For [`crate::Ended::setup_error`].
    pub fn line(&self) -> String {
        let source = io::Error::from_raw_os_error(self.errno);
        match &self.hint {
            Some(hint) => format!("{}: {source} (hint: {hint})", self.step),
            None => format!("{}: {source}", self.step),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let source = io::Error::from_raw_os_error(failure.errno);
        match (failure.program, failure.hint) {
            (Some(program), hint) => Self::Program { program, source, hint },
            (None, Some(hint)) => Self::Hinted { step: failure.step, source, hint },
            (None, None) => Self::Step { step: failure.step, source },
        }
    }
}

/// `call().step(|| "mount proc")?`
pub(crate) trait Step<T> {
    fn step<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step(), error))
    }
}
