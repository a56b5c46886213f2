//! The one thread that writes records: takes all commits that wait, puts them into one transaction with one fsync,
//! answers them, tells the watchers.
//!
//! Group commit is what makes many small durable writes cheap. Each commit still stands alone: its own preconditions,
//! seen after those before it in the batch; its own revision; its own answer.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use crate::{
    database::{self, Head, RawRecord, checksum, key_checksum},
    error::{CommitError, Error},
    integrity::Damage,
    queue::{self, QUEUE_MAX_KIB, Queue, Writer},
    record::{COMMIT_MAX_BYTES, Expect, Guard, Write},
    watch::Watchers,
};

const _: () = assert!(COMMIT_MAX_BYTES / 1024 < QUEUE_MAX_KIB, "the largest commit must fit into the queue");

type Job = queue::Job<Commit, Outcome>;

/// Writes, and what must hold besides what they expect.
struct Commit {
    guards: Vec<Guard>,
    writes: Vec<Write>,
}

/// The thread, joined on drop.
pub(crate) struct Committer(Writer<Commit, Outcome>);

impl Committer {
    pub(crate) fn start(path: &Path, connection: Connection, head: Head, watchers: Arc<Watchers>, damage: Arc<Damage>) -> Result<Self, Error> {
        watchers.committed(head.revision);
        let worker = Worker { path: path.to_owned(), connection: Some(connection), head, watchers, damage };
        Writer::start("store-committer", move |queue| worker.run(queue)).map(Self)
    }

    /// Queues `writes` and waits for the answer. Dropped before the answer, the commit may happen or not.
    pub(crate) async fn commit(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Outcome {
        let bytes = writes.iter().map(Write::bytes).sum();
        self.0.queue().ask(Commit { guards, writes }, bytes).await.unwrap_or(Err(CommitError::Store(Error::Closed)))
    }

    /// Does what waits, then ends the thread.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

struct Worker {
    path: PathBuf,
    /// None after a failure: the next batch opens a new one.
    connection: Option<Connection>,
    head: Head,
    watchers: Arc<Watchers>,
    damage: Arc<Damage>,
}

/// The end of the thread: watches end with it.
struct End(Arc<Watchers>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What came of one commit of a batch that is on disk.
type Outcome = Result<u64, CommitError>;

impl Worker {
    fn run(mut self, queue: &Queue<Commit, Outcome>) {
        let _end = End(self.watchers.clone());
        while let Some(batch) = queue.take() {
            self.batch(batch);
        }
    }

    fn batch(&mut self, jobs: Vec<Job>) {
        match self.transaction(&jobs) {
            Ok(outcomes) => self.finish(jobs, outcomes),
            // One large commit that does not fit must not take the small ones with it.
            Err(Error::Full(_)) if jobs.len() > 1 => jobs.into_iter().for_each(|job| self.batch(vec![job])),
            Err(error) => {
                tracing::error!(commits = jobs.len(), "nothing was written: {error}");
                for job in jobs {
                    let _ = job.answer.send(Err(error.clone().into()));
                }
            }
        }
    }

    /// Answers first, so that callers go on while the watchers are told.
    fn finish(&self, jobs: Vec<Job>, outcomes: Vec<Outcome>) {
        self.watchers.committed(self.head.revision);
        let mut told = Vec::new();
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            if let Ok(revision) = outcome {
                told.push((revision, job.work.writes));
            }
            // A caller that has gone does not want to know.
            let _ = job.answer.send(outcome);
        }
        for (revision, writes) in told {
            for write in writes {
                self.watchers.tell(write.key, write.value, revision);
            }
        }
    }

    /// All of `jobs` in one transaction, on disk when this returns; or, with an error, none of them.
    fn transaction(&mut self, jobs: &[Job]) -> Result<Vec<Outcome>, Error> {
        let mut connection = self.connection()?;
        let answer = transaction(&mut connection, self.head, &self.damage, jobs);
        match &answer {
            Ok((head, _)) => self.head = *head,
            // After a full disk the rollback is all that is needed. After anything else, a failed fsync above all, what
            // SQLite and the kernel hold in memory is not trusted: the next batch begins with a new connection.
            Err(Error::Full(_)) => {}
            Err(_) => return answer.map(|(_, outcomes)| outcomes),
        }
        self.connection = Some(connection);
        answer.map(|(_, outcomes)| outcomes)
    }

    fn connection(&mut self) -> Result<Connection, Error> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let connection = database::open(&self.path)?;
        let head = database::head_read(&connection).map_err(Error::sqlite("read the head of state.db"))?;
        if let Some(head) = head
            && head != self.head
        {
            // The write whose sync failed is there after all. Nobody was told of it.
            tracing::warn!(revision = head.revision, "a commit that was answered with an error is on the disk");
            self.head = head;
            self.watchers.committed(head.revision);
            self.watchers.resync();
        }
        Ok(connection)
    }
}

fn transaction(connection: &mut Connection, head: Head, damage: &Damage, jobs: &[Job]) -> Result<(Head, Vec<Outcome>), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::sqlite("begin a transaction"))?;
    let mut next = head;
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        outcomes.push(match expectations_check(&transaction, damage, &job.work)? {
            Ok(()) => Ok(writes_apply(&transaction, &mut next, &job.work.writes).map_err(Error::sqlite("write a record"))?),
            Err(refusal) => Err(refusal),
        });
    }
    if next != head {
        database::head_write(&transaction, next).map_err(Error::sqlite("write the head"))?;
        transaction.commit().map_err(Error::sqlite("commit"))?;
    }
    for (job, _) in jobs.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()) {
        job.work.writes.iter().for_each(|write| damage.key_forget(&write.key));
    }
    Ok((next, outcomes))
}

/// Whether every guard holds and every write finds what it expects. The outer error is the disk's.
fn expectations_check(transaction: &Transaction<'_>, damage: &Damage, commit: &Commit) -> Result<Result<(), CommitError>, Error> {
    let guarded = commit.guards.iter().map(|guard| (&guard.key, Expect::Revision(guard.revision)));
    for (key, expect) in guarded.chain(commit.writes.iter().map(|write| (&write.key, write.expect))) {
        if expect == Expect::Any {
            continue;
        }
        let found = transaction
            .prepare_cached("SELECT key, value, revision, checksum FROM record WHERE key = ?1")
            .and_then(|mut statement| statement.query_row([key], |row| RawRecord::of(row).map(|raw| raw.is_sound().then_some(raw.revision))).optional())
            .map_err(Error::sqlite("read a record"))?;
        let holds = match (found, expect) {
            (Some(None), _) => return Ok(Err(damage.key_note(key).into())),
            (Some(Some(revision)), Expect::Revision(expected)) => revision == expected,
            (Some(Some(_)), _) => false,
            (None, expect) => {
                if let Err(error) = damage.absence_check(key) {
                    return Ok(Err(error.into()));
                }
                expect == Expect::Absent
            }
        };
        if !holds {
            return Ok(Err(CommitError::Conflict { key: key.clone() }));
        }
    }
    Ok(Ok(()))
}

/// Writes and counts; answers with the commit's revision.
fn writes_apply(transaction: &Transaction<'_>, head: &mut Head, writes: &[Write]) -> rusqlite::Result<u64> {
    head.revision += 1;
    for write in writes {
        let key_sum = key_checksum(write.key.as_bytes());
        let removed = transaction.prepare_cached("DELETE FROM record WHERE key = ?1")?.execute([&write.key])? as i64;
        head.records -= removed;
        head.keys = head.keys.wrapping_sub(removed * key_sum);
        if let Some(value) = &write.value {
            transaction.prepare_cached("INSERT INTO record (key, value, revision, checksum) VALUES (?1, ?2, ?3, ?4)")?.execute((
                &write.key,
                value,
                head.revision.cast_signed(),
                checksum(write.key.as_bytes(), head.revision, value),
            ))?;
            head.records += 1;
            head.keys = head.keys.wrapping_add(key_sum);
        }
    }
    Ok(head.revision)
}
