//! Background tasks whose panic is seen.
//!
//! A task that nobody awaits dies in silence. Every one of this crate is spawned here: a panic is logged and makes
//! [`Supervisor::failed`] resolve, so that the binary can exit and be started again instead of serving with half of itself. They run where the
//! data plane was started, not on a request's thread, unless they carry a request's bytes.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

#[derive(Clone)]
pub(crate) struct Supervisor {
    runtime: Handle,
    failed: Arc<watch::Sender<Option<&'static str>>>,
}

impl Supervisor {
    /// Needs a running runtime: the one that tasks will run on.
    pub(crate) fn new() -> Self {
        Self { runtime: Handle::current(), failed: Arc::new(watch::Sender::new(None)) }
    }

    /// Runs `task`; it may end.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(self.watched(name, task))
    }

    /// Runs `task` on the thread of the request that asks: its sockets belong to that thread's event queue.
    pub(crate) fn spawn_here(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.watched(name, task));
    }

    fn watched(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        let supervisor = self.clone();
        async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
                tracing::error!(task = name, panic = text.as_deref().unwrap_or("?"), "a background task panicked");
                supervisor.fail(name);
            }
        }
    }

    pub(crate) fn fail(&self, name: &'static str) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(name);
            first
        });
    }

    /// Resolves with the name of the first task that failed; never when none does.
    pub(crate) fn failed(&self) -> impl Future<Output = &'static str> + Send + 'static {
        let mut failed = self.failed.subscribe();
        async move {
            loop {
                if let Some(name) = *failed.borrow_and_update() {
                    return name;
                }
                if failed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_seen_with_its_name() {
        let supervisor = Supervisor::new();
        let _ = supervisor.spawn("quiet", async {}).await;
        let failed = supervisor.failed();
        let _ = supervisor.spawn("loud", async { panic!("on purpose") }).await;
        assert_eq!(failed.await, "loud");
    }
}
