//! One command of a build in a sandbox of its own: started, listened to, ended.
//!
//! Whatever happens (timeout, memory, a full disk, the caller gone) the sandbox is ended and the reason has a name. What
//! the command's failure means is the caller's to say.

use std::{collections::VecDeque, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use sandbox::{Ended, Keeper, Sandbox, Spec};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::Receiver,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    BuildEgress, Error,
    log::{BuildLog, Lines},
    tree,
};

/// Lines kept for whoever explains a failure.
const TAIL_LINES: usize = 80;
/// Bytes of the report of a sandbox's end.
const ENDED_MAX_BYTES: u64 = 64 << 10;
/// How long output may still come after the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the disk is looked at.
const DISK_PERIOD: Duration = Duration::from_millis(500);
/// Bytes by which the file system may fill up during one step.
const DISK_MAX_BYTES: u64 = 8 << 30;
/// Bytes that stay free whatever a build does.
const DISK_RESERVE_BYTES: u64 = 256 << 20;

/// What steps are run with.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) egress: Arc<dyn BuildEgress>,
    /// Hosts that may be reached beside the registries.
    pub(crate) also: &'static [&'static str],
    pub(crate) log: BuildLog,
    pub(crate) deadline: Instant,
    /// As told when it is over.
    pub(crate) timeout: Duration,
}

/// How a step ended by itself.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) memory_peak_bytes: u64,
    /// The last lines of both streams, in the order in which they came.
    pub(crate) tail: Vec<String>,
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// How it ended, for a text.
    pub(crate) fn how(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown end".to_owned(),
        }
    }
}

impl Runner {
    /// Runs a sandbox to its end. `disk` is a folder on the file system that it writes to.
    /// # Errors
    /// `User` when it went over its memory or the disk, `Timeout`, `Internal` when the sandbox could not be made.
    pub(crate) async fn run(&self, spec: Spec, disk: &Path) -> Result<Outcome, Error> {
        let began = Instant::now();
        let memory_bytes = spec.limits.memory_bytes;
        let disk = tree::TreeReader::open(disk).map_err(|e| Error::Internal(format!("opening the build's folder: {e}")))?;
        let free_before = free(&disk)?;
        let mut end = End { keeper: self.keeper.clone(), id: Some(spec.id.clone()) };
        let is_redirected = spec.network.redirected;
        let mut sandbox = self.start(spec).await?;
        let _network = is_redirected.then(|| self.egress.serve(&mut sandbox, self.also));
        let Sandbox { stdout, stderr, ended, .. } = sandbox;
        let (mut stdout, mut stderr, mut ended) = (receiver(stdout)?, receiver(stderr)?, receiver(ended)?);
        let tail = parking_lot::Mutex::new(VecDeque::new());
        let ended = {
            let said = async { tokio::join!(self.listen(&mut stdout, &tail), self.listen(&mut stderr, &tail)) };
            tokio::pin!(said);
            let mut is_silent = false;
            let report = report(&mut ended);
            tokio::pin!(report);
            let mut ticks = tokio::time::interval(DISK_PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let ended = loop {
                tokio::select! {
                    ended = &mut report => break ended?,
                    _ = &mut said, if !is_silent => is_silent = true,
                    () = tokio::time::sleep_until(self.deadline) => {
                        end.now().await?;
                        return Err(Error::Timeout(self.timeout));
                    }
                    _ = ticks.tick() => {
                        let now = free(&disk)?;
                        if now < DISK_RESERVE_BYTES || free_before.saturating_sub(now) > DISK_MAX_BYTES {
                            end.now().await?;
                            return Err(disk_full());
                        }
                    }
                }
            };
            if !is_silent {
                // Nobody is left who could write; what is in the pipes is read.
                let _ = tokio::time::timeout(DRAIN_TIMEOUT, &mut said).await;
            }
            ended
        };
        end.now().await?;
        if ended.out_of_memory {
            return Err(Error::User(format!(
                "The build needed more than {} MiB of memory. Use fewer or smaller dependencies, or raise the memory of builds on this host.",
                memory_bytes >> 20
            )));
        }
        if let Some(why) = ended.setup_error {
            return Err(Error::Internal(format!("the build's sandbox: {why}")));
        }
        Ok(Outcome {
            code: ended.code,
            signal: ended.signal,
            memory_peak_bytes: ended.memory_peak_bytes,
            tail: tail.into_inner().into(),
            took: began.elapsed(),
        })
    }

    /// Starts it beside the runtime's threads. When nobody waits for it any more by then, it is ended again.
    async fn start(&self, spec: Spec) -> Result<Sandbox, Error> {
        let (send, receive) = tokio::sync::oneshot::channel();
        let keeper = self.keeper.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(Ok(unwanted)) = send.send(keeper.start(&spec))
                && let Err(e) = keeper.end(&unwanted.id)
            {
                tracing::warn!(id = unwanted.id, "ending a build's sandbox: {e}");
            }
        });
        let started = receive.await.map_err(|e| Error::Internal(format!("a build's thread: {e}")))?;
        started.map_err(|e| Error::Internal(format!("starting the build's sandbox: {e}")))
    }

    async fn listen(&self, pipe: &mut Receiver, tail: &parking_lot::Mutex<VecDeque<String>>) {
        let mut lines = Lines::default();
        let mut each = |line: String| {
            self.log.program(&line);
            let mut tail = tail.lock();
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        };
        let mut buffer = [0; 8192];
        loop {
            match pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => lines.push(&buffer[..n], &mut each),
            }
        }
        lines.finish(&mut each);
    }
}

fn disk_full() -> Error {
    Error::User(format!(
        "The build filled the disk: it wrote more than {} GiB, or left less than {} MiB free. \
         Free space on this host or use fewer dependencies, then deploy again.",
        DISK_MAX_BYTES >> 30,
        DISK_RESERVE_BYTES >> 20
    ))
}

/// Ends the sandbox when it is dropped before its end was told.
struct End {
    keeper: Arc<Keeper>,
    id: Option<String>,
}

impl End {
    async fn now(&mut self) -> Result<(), Error> {
        let Some(id) = self.id.take() else {
            return Ok(());
        };
        let keeper = self.keeper.clone();
        blocking(move || keeper.end(&id)).await?.map_err(|e| Error::Internal(format!("ending the build's sandbox: {e}")))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && let Err(e) = self.keeper.end(&id)
        {
            // It was perhaps never started.
            tracing::debug!(id, "ending a build's sandbox: {e}");
        }
    }
}

async fn report(pipe: &mut Receiver) -> Result<Ended, Error> {
    let mut bytes = Vec::new();
    pipe.take(ENDED_MAX_BYTES).read_to_end(&mut bytes).await.map_err(|e| Error::Internal(format!("waiting for the build's sandbox: {e}")))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Internal(format!("the build's sandbox ended without a report: {e}")))
}

/// They are pipes; anything else is refused here.
fn receiver(fd: OwnedFd) -> Result<Receiver, Error> {
    Receiver::from_owned_fd(fd).map_err(|e| Error::Internal(format!("reading from the build's sandbox: {e}")))
}

fn free(disk: &tree::TreeReader) -> Result<u64, Error> {
    tree::free_bytes(disk.root()).map_err(|e| Error::Internal(format!("asking for free disk space: {e}")))
}

/// Runs what blocks beside the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Internal(format!("a build's thread: {e}")))
}
