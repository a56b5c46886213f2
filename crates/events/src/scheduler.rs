//! Cloud Scheduler: jobs, and the loop that runs them when they are due.
//!
//! A job is one record. `execution` says what becomes of it, `due` waits for the first instant of all jobs, `attempt` is what one run does.
//! Only this process writes jobs: whoever changes one tells the loop, and hands it a guard that goes when the loop waits for what follows.

mod attempt;
mod due;
mod execution;
pub mod job;

use std::{collections::HashMap, pin::Pin, sync::Arc};

use iam::Identity;
use model::{Clock, Code, Hops, ProjectId, Region, Status, key, limits::JOBS_MAX};
use parking_lot::Mutex;
use store::{CommitError, Expect, Store, Write};
use tokio::{sync::mpsc, task::JoinHandle};

pub use attempt::{Outcome, Sender};
pub use execution::{Attempt, Execution};
use job::{Job, JobKey, Settings};

use crate::busy::{Busy, Guard};

/// The jobs. Clones share them.
#[derive(Clone)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    way: Arc<dyn Way>,
    log: Box<dyn Fn(model::log::Entry) + Send + Sync>,
    busy: Busy,
    /// How many jobs there are, and are being made.
    counts: Mutex<HashMap<(ProjectId, Region), usize>>,
    /// Jobs whose record has changed.
    changed: mpsc::UnboundedSender<(JobKey, Guard)>,
}

/// How attempts reach what they are for.
pub trait Way: Send + Sync + 'static {
    /// Whether `who` may have such a job, and the target can be reached at all.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field, `PERMISSION_DENIED`.
    fn check(&self, who: &Identity, project: &ProjectId, settings: &Settings) -> Result<(), Status>;

    /// Makes one attempt; always an outcome.
    fn attempt<'a>(&'a self, job: &'a Job, attempt: &'a Attempt) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;
}

impl Scheduler {
    /// Reads all jobs and starts to run them; what an earlier process had under way counts as failed. The loop ends by itself only when it breaks.
    ///
    /// Call inside a tokio runtime.
    /// # Errors
    /// `INTERNAL` when the store or a record cannot be read, or not written.
    pub async fn start(
        store: Store,
        clock: Arc<dyn Clock>,
        way: Arc<dyn Way>,
        busy: Busy,
        log: Box<dyn Fn(model::log::Entry) + Send + Sync>,
    ) -> Result<(Self, JoinHandle<()>), Status> {
        let (changed, changes) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { store, clock, way, log, busy, counts: Mutex::default(), changed });
        let jobs = due::load(&shared).await?;
        let running = tokio::spawn(due::run(shared.clone(), jobs, changes));
        Ok((Self { shared }, running))
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub fn job_get(&self, key: &JobKey) -> Result<Job, Status> {
        self.shared.read(key)?.map(|(job, _)| job).ok_or_else(|| missing(key))
    }

    /// Jobs of a region by id, past the id `after`, at most `limit`.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn job_list(&self, project: &ProjectId, region: &Region, after: Option<&str>, limit: usize) -> Result<Vec<Job>, Status> {
        let after = after.map(|id| key::job(project, region, id));
        let records = self.shared.store.scan(&key::jobs_of(project, Some(region)), after.as_deref(), limit).map_err(Status::internal)?;
        records.iter().map(|record| record.json().map_err(Status::internal)).collect()
    }

    /// # Errors
    /// `INVALID_ARGUMENT` naming the field, `PERMISSION_DENIED` without actAs on the target's account, `ALREADY_EXISTS`,
    /// `RESOURCE_EXHAUSTED`.
    pub async fn job_create(&self, who: &Identity, key: JobKey, settings: Settings) -> Result<Job, Status> {
        let guard = self.shared.busy.begin();
        settings.check()?;
        self.shared.way.check(who, &key.project, &settings)?;
        let now = self.shared.clock.now();
        let next = settings.schedule()?.next(now);
        let uid = format!("{:032x}", rand::random::<u128>());
        let job = Job { key, uid, settings, is_paused: false, updated: now, next, execution: None, attempted: None, ended: None };
        let place = self.shared.place_take(&job.key)?;
        if !self.shared.commit(Write::put(job.key.record(), Expect::Absent, &job)).await? {
            return Err(Status::already_exists(format!("Job {} already exists.", job.key.resource())));
        }
        place.keep();
        self.shared.tell(&job.key, guard);
        Ok(job)
    }

    /// Replaces `from` by `to`.
    ///
    /// # Errors
    /// As [`Scheduler::job_create`]; `NOT_FOUND`; `ABORTED` when the job is not as in `from` any more.
    pub async fn job_update(&self, who: &Identity, key: &JobKey, from: &Settings, to: Settings) -> Result<Job, Status> {
        to.check()?;
        self.shared.way.check(who, &key.project, &to)?;
        let now = self.shared.clock.now();
        self.change(key, |job| {
            if job.settings != *from {
                return Err(Status::new(Code::Aborted, format!("Job {} was changed meanwhile. Read it again.", key.resource())));
            }
            job.change(to.clone(), now)
        })
        .await
    }

    /// An attempt that is under way goes on.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn job_delete(&self, key: &JobKey) -> Result<(), Status> {
        let guard = self.shared.busy.begin();
        loop {
            let (_, revision) = self.shared.read(key)?.ok_or_else(|| missing(key))?;
            if self.shared.commit(Write::delete(key.record(), Expect::Revision(revision))).await? {
                self.shared.uncount(key);
                self.shared.tell(key, guard);
                return Ok(());
            }
        }
    }

    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` unless it is enabled.
    pub async fn job_pause(&self, key: &JobKey) -> Result<Job, Status> {
        self.change(key, |job| {
            if job.is_paused {
                return Err(Status::failed_precondition("Job must be in ENABLED state to be paused."));
            }
            job.pause();
            Ok(())
        })
        .await
    }

    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` unless it is paused.
    pub async fn job_resume(&self, key: &JobKey) -> Result<Job, Status> {
        let now = self.shared.clock.now();
        self.change(key, |job| {
            if !job.is_paused {
                return Err(Status::failed_precondition("Job must be in PAUSED state to be resumed."));
            }
            job.resume(now)
        })
        .await
    }

    /// Runs it now, behind `hops`, whatever its state; beside the attempt that is under way when there is one. Returns when that has begun.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn job_run(&self, key: &JobKey, hops: Hops) -> Result<Job, Status> {
        let guard = self.shared.busy.begin();
        let now = self.shared.clock.now();
        let (job, attempt) = self.shared.change(key, |job| Ok(job.force(now, hops.clone()))).await?.ok_or_else(|| missing(key))?;
        tokio::spawn(due::attempt_make(self.shared.clone(), job.clone(), attempt, guard));
        Ok(job)
    }

    async fn change(&self, key: &JobKey, change: impl FnMut(&mut Job) -> Result<(), Status>) -> Result<Job, Status> {
        let guard = self.shared.busy.begin();
        let (job, ()) = self.shared.change(key, change).await?.ok_or_else(|| missing(key))?;
        self.shared.tell(key, guard);
        Ok(job)
    }
}

/// A place among the jobs of a region, given back when it is not kept.
struct Place<'s> {
    shared: &'s Shared,
    key: &'s JobKey,
    is_kept: bool,
}

impl Place<'_> {
    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.shared.uncount(self.key);
        }
    }
}

impl Shared {
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the region is full.
    fn place_take<'s>(&'s self, key: &'s JobKey) -> Result<Place<'s>, Status> {
        let mut counts = self.counts.lock();
        let count = counts.entry((key.project.clone(), key.region.clone())).or_default();
        if *count >= JOBS_MAX {
            let why = format!(
                "Quota exceeded: there are {count} jobs of project {} in region {}; at most {JOBS_MAX} are allowed (jobs per region).",
                key.project, key.region
            );
            return Err(Status::new(Code::ResourceExhausted, why));
        }
        *count += 1;
        Ok(Place { shared: self, key, is_kept: false })
    }

    fn count(&self, key: &JobKey) {
        *self.counts.lock().entry((key.project.clone(), key.region.clone())).or_default() += 1;
    }

    fn uncount(&self, key: &JobKey) {
        if let Some(count) = self.counts.lock().get_mut(&(key.project.clone(), key.region.clone())) {
            *count = count.saturating_sub(1);
        }
    }

    /// A job and its record's revision.
    fn read(&self, key: &JobKey) -> Result<Option<(Job, u64)>, Status> {
        let record = self.store.get(&key.record()).map_err(Status::internal)?;
        record.map(|record| Ok((record.json().map_err(Status::internal)?, record.revision))).transpose()
    }

    /// Changes a job until that goes through; `None` when there is none.
    async fn change<T>(&self, key: &JobKey, mut change: impl FnMut(&mut Job) -> Result<T, Status>) -> Result<Option<(Job, T)>, Status> {
        loop {
            let Some((mut job, revision)) = self.read(key)? else { return Ok(None) };
            let before = job.clone();
            let what = change(&mut job)?;
            if job == before || self.commit(Write::put(key.record(), Expect::Revision(revision), &job)).await? {
                return Ok(Some((job, what)));
            }
        }
    }

    /// `false` when the precondition does not hold.
    async fn commit(&self, write: Write) -> Result<bool, Status> {
        match self.store.commit(vec![write]).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(error) => Err(Status::internal(error)),
        }
    }

    /// The loop looks at the job again; the guard goes when it waits for what follows.
    fn tell(&self, key: &JobKey, guard: Guard) {
        // Without a loop nobody waits for anything any more.
        let _ = self.changed.send((key.clone(), guard));
    }
}

fn missing(key: &JobKey) -> Status {
    Status::not_found(format!("Job {} not found.", key.resource()))
}
