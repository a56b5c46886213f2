//! The loop over all jobs: it waits for the first instant at which one is due, and knows nothing else of them.
//!
//! Jobs at rest are an instant and a key each; no task and no timer. What is due runs in a task of its own, so that one slow job holds up no other.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use model::{Code, Status, Timestamp, key};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    Attempt, Outcome, Shared,
    attempt::{log_finished, log_started},
    job::{Job, JobKey},
};
use crate::{agenda::Agenda, busy::Guard};

/// Records that one scan reads.
const PAGE: usize = 500;
/// After the store did not take a change.
const STORE_REST: Duration = Duration::from_secs(1);

/// All jobs there are. What was under way when the process ended has failed.
pub(super) async fn load(shared: &Shared) -> Result<Agenda<JobKey>, Status> {
    let mut due = Agenda::default();
    let mut after: Option<String> = None;
    loop {
        let records = shared.store.scan(key::JOBS, after.as_deref(), PAGE).map_err(Status::internal)?;
        for record in &records {
            let mut job: Job = match record.json() {
                Ok(job) => job,
                Err(error) => {
                    tracing::error!(%error, "a job's record cannot be read: it does not run, the others do");
                    continue;
                }
            };
            if let Some(attempt) = job.under_way() {
                let outcome = Outcome::failed(Code::Aborted, "The server ended while the attempt was under way.");
                job = finish(shared, &job, &attempt, &outcome).await?.unwrap_or(job);
            }
            shared.count(&job.key);
            due.set(&job.key, job.due());
        }
        match records.last() {
            Some(last) if records.len() == PAGE => after = Some(last.key.clone()),
            _ => return Ok(due),
        }
    }
}

pub(super) async fn run(shared: Arc<Shared>, mut due: Agenda<JobKey>, mut changes: UnboundedReceiver<(JobKey, Guard)>) {
    let mut guards = Vec::new();
    loop {
        let mut until = shared.clock.until(due.first().unwrap_or(Timestamp::MAX));
        let is_waiting = poll_fn(|context| Poll::Ready(until.as_mut().poll(context).is_pending())).await;
        if is_waiting {
            // From here on whoever moves the clock knows what this loop waits for.
            guards.clear();
            tokio::select! {
                () = until => {}
                changed = changes.recv() => {
                    // The sender is in `shared`.
                    let Some((key, guard)) = changed else { return };
                    guards.push(guard);
                    look(&shared, &mut due, &key, &mut guards);
                    while let Ok((key, guard)) = changes.try_recv() {
                        guards.push(guard);
                        look(&shared, &mut due, &key, &mut guards);
                    }
                    continue;
                }
            }
        }
        let now = shared.clock.now();
        while let Some(key) = due.take(now) {
            tokio::spawn(begin(shared.clone(), key, shared.busy.begin()));
        }
    }
}

fn look(shared: &Arc<Shared>, due: &mut Agenda<JobKey>, key: &JobKey, guards: &mut Vec<Guard>) {
    match shared.read(key) {
        Ok(job) => due.set(key, job.and_then(|(job, _)| job.due())),
        Err(error) => {
            tracing::error!(job = key.resource(), %error, "a job cannot be read; it is looked at again");
            if let Some(guard) = guards.pop() {
                again(shared.clone(), key.clone(), guard);
            }
        }
    }
}

/// Has the loop look at a job once more, a moment later.
fn again(shared: Arc<Shared>, key: JobKey, guard: Guard) {
    tokio::spawn(async move {
        tokio::time::sleep(STORE_REST).await;
        shared.tell(&key, guard);
    });
}

/// Begins what is due: recorded first, then made.
async fn begin(shared: Arc<Shared>, key: JobKey, guard: Guard) {
    let now = shared.clock.now();
    match shared.change(&key, |job| job.begin(now)).await {
        Ok(Some((job, Some(attempt)))) => attempt_make(shared, job, attempt, guard).await,
        // Changed or deleted meanwhile: what it waits for now is seen by the loop.
        Ok(_) => shared.tell(&key, guard),
        Err(error) => {
            tracing::error!(job = key.resource(), %error, "a job that is due could not be begun; it is tried again");
            again(shared, key, guard);
        }
    }
}

/// Makes an attempt that is recorded, and records what came of it.
pub(super) async fn attempt_make(shared: Arc<Shared>, job: Job, attempt: Attempt, guard: Guard) {
    log_started(&shared, &job, &attempt);
    let outcome = shared.way.attempt(&job, &attempt).await;
    while let Err(error) = finish(&shared, &job, &attempt, &outcome).await {
        tracing::error!(job = job.key.resource(), %error, "the end of an attempt could not be recorded; it is tried again");
        tokio::time::sleep(STORE_REST).await;
    }
    shared.tell(&job.key, guard);
}

/// Records the end of an attempt; the job as it then is, `None` when it is gone.
async fn finish(shared: &Shared, job: &Job, attempt: &Attempt, outcome: &Outcome) -> Result<Option<Job>, Status> {
    let now = shared.clock.now();
    let changed = shared.change(&job.key, |found| {
        // One that was made again under the name knows nothing of this attempt.
        if found.uid == job.uid {
            found.finish(attempt, outcome.ended.clone(), now);
        }
        Ok(())
    });
    let changed = changed.await?;
    log_finished(shared, job, outcome);
    Ok(changed.map(|(job, ())| job))
}
