//! The threads that requests live on, each with a runtime of its own: one for two cores, as the instances need the others.
//!
//! A caller's connection, its requests and their connections to instances stay on one thread: no request wakes another thread. What is not a
//! request (instances' lives, the control plane, the APIs) runs elsewhere and cannot be held up by one.

use std::{future::Future, io, thread, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// An instance that has answered goes on working on its core for a while; the thread that passes its answer on was seen to wait 0.35 ms for that.
const SLICE: Duration = Duration::from_micros(100);

/// The threads. Dropping them ends what runs on them.
pub struct Workers {
    runtimes: Vec<Handle>,
    end: CancellationToken,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system gives no thread or no event queue.
    pub fn start() -> io::Result<Self> {
        let end = CancellationToken::new();
        let count = thread::available_parallelism().map_or(1, std::num::NonZero::get).div_ceil(2);
        let runtimes = (0..count).map(|number| worker(number, end.clone())).collect::<io::Result<_>>()?;
        Ok(Self { runtimes, end })
    }

    /// Runs one task of `make`'s on each thread.
    pub(crate) fn spawn_each<F>(&self, make: impl Fn() -> F) -> Vec<JoinHandle<()>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtimes.iter().map(|runtime| runtime.spawn(make())).collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

fn worker(number: usize, end: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(format!("requests-{number}")).spawn(move || {
        if let Err(error) = sandbox::slice_set(SLICE) {
            tracing::debug!(%error, "a thread of requests may be held up by instances");
        }
        runtime.block_on(end.cancelled());
        runtime.shutdown_background();
    })?;
    Ok(handle)
}
