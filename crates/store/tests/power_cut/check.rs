//! The process that opens the store after a cut and compares what it serves with what was acknowledged before.
//!
//! Prints `lost ...` for what was acknowledged and is not there, `broken ...` for what must never be, and `checked` at the
//! end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process,
};

use sha2::{Digest as _, Sha256};
use store::{Expect, Store, Write};

use crate::{
    content::{self, Log},
    work::say,
};

/// What is printed when all has been compared.
pub const CHECKED: &str = "checked";

/// The log that each check appends an entry to.
const CHECKS: &str = "checks";

/// A line that the working process printed, or an earlier check.
#[derive(Debug)]
enum Acknowledged {
    Commit {
        round: u64,
        task: u64,
        number: u64,
        revision: u64,
    },
    Check {
        round: u64,
        revision: u64,
    },
    Blob {
        round: u64,
        number: u64,
        id: String,
    },
    Layer {
        round: u64,
        number: u64,
        digest: String,
    },
    /// A task's log had so many steps.
    Log {
        round: u64,
        task: u64,
        step: u64,
    },
    /// Of the log of checks.
    Entry {
        round: u64,
        number: u64,
    },
}

impl Acknowledged {
    fn of(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let kind = fields.next()?;
        let rest: Vec<&str> = fields.collect();
        let number = |index: usize| rest.get(index)?.parse::<u64>().ok();
        let text = |index: usize| rest.get(index).map(|text| (*text).to_owned());
        let round = number(0);
        match kind {
            "commit" => Some(Self::Commit { round: round?, task: number(1)?, number: number(2)?, revision: number(3)? }),
            "check" => Some(Self::Check { round: round?, revision: number(1)? }),
            "blob" => Some(Self::Blob { round: round?, number: number(1)?, id: text(2)? }),
            "log" => Some(Self::Log { round: round?, task: number(1)?, step: number(2)? }),
            "entry" => Some(Self::Entry { round: round?, number: number(1)? }),
            "layer" => Some(Self::Layer { round: round?, number: number(1)?, digest: text(2)? }),
            _ => None,
        }
    }
}

/// Whether `line` acknowledges something.
pub fn is_acknowledgement(line: &str) -> bool {
    Acknowledged::of(line).is_some()
}

/// Compares with the lines in the file `acknowledged`. With `closes` the store is closed at the end; else this process ends
/// as if it had been killed, and the WAL stays.
pub fn check(data: &Path, round: u64, acknowledged: &Path, closes: bool) -> ! {
    let text = fs::read_to_string(acknowledged).expect("the parent has written it");
    let acknowledged: Vec<Acknowledged> = text.lines().filter_map(Acknowledged::of).collect();
    let store = match Store::open(data) {
        Ok(store) => store,
        Err(error) => {
            say(&format!("broken: the store does not open: {error}"));
            if !acknowledged.is_empty() {
                say(&format!("lost: all {} that were acknowledged", acknowledged.len()));
            }
            process::exit(0);
        }
    };
    let damaged = store.damaged();
    if !damaged.is_empty() {
        say(&format!("broken: damaged records: {damaged:?}"));
    }
    let highest = commits_check(&store, &acknowledged).max(revisions_check(&acknowledged));
    blobs_check(&store, data, &acknowledged);
    layers_check(&store, data, &acknowledged);
    logs_check(&store, &acknowledged);
    match fs::read_dir(data.join("staging")).map(Iterator::count) {
        Ok(0) => {}
        other => say(&format!("broken: staging/ is not empty after opening: {other:?}")),
    }
    commit_check(&store, round, highest);
    append_check(&store, round, &acknowledged);
    say(CHECKED);
    if closes {
        drop(store);
    }
    process::exit(0);
}

/// Each task must be found as its first n commits made it, for one n of at least the acknowledged ones. That is: whole,
/// in order, all of a commit or nothing. Answers with the highest revision found.
fn commits_check(store: &Store, acknowledged: &[Acknowledged]) -> u64 {
    let mut tasks: BTreeMap<(u64, u64), BTreeMap<u64, u64>> = BTreeMap::new();
    for line in acknowledged {
        if let Acknowledged::Commit { round, task, number, revision } = line {
            tasks.entry((*round, *task)).or_default().insert(*number, *revision);
        }
    }
    let heads = store.scan("head/", None, usize::MAX).unwrap_or_else(|error| {
        say(&format!("broken: the heads cannot be read: {error}"));
        Vec::new()
    });
    for head in &heads {
        let numbers = head.key.strip_prefix("head/").and_then(|name| name.split_once('-'));
        let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match numbers {
            Some(task) => drop(tasks.entry(task).or_default()),
            None => say(&format!("broken: a record that nobody wrote: {}", head.key)),
        }
    }
    let mut expected = 0;
    let mut highest = 0;
    for ((round, task), revisions) in tasks {
        let (count, revision) = task_check(store, round, task, &revisions);
        expected += content::records_after(round, task, count).len();
        highest = highest.max(revision);
    }
    match store.scan("record/", None, usize::MAX) {
        Ok(all) if all.len() == expected => {}
        Ok(all) => say(&format!("broken: {} records instead of {expected}", all.len())),
        Err(error) => say(&format!("broken: the records cannot be read: {error}")),
    }
    highest
}

/// Answers with the number and the revision of the last commit found.
fn task_check(store: &Store, round: u64, task: u64, acknowledged: &BTreeMap<u64, u64>) -> (u64, u64) {
    let label = format!("task {task} of round {round}");
    let head = store.get(&content::head_key(round, task)).unwrap_or_else(|error| {
        say(&format!("broken: {label}: {error}"));
        None
    });
    let (count, revision) = head.map_or((0, 0), |head| {
        let count = std::str::from_utf8(&head.value).ok().and_then(|text| text.parse().ok());
        (count.unwrap_or(0), head.revision)
    });
    for (number, revision) in acknowledged.range(count + 1..) {
        say(&format!("lost: commit {number} of {label}, revision {revision}"));
    }
    let prefix = content::records_prefix(round, task);
    let found = store.scan(&prefix, None, usize::MAX).unwrap_or_else(|error| {
        say(&format!("broken: {label}: {error}"));
        Vec::new()
    });
    let mut expected = content::records_after(round, task, count);
    let mut revisions = BTreeMap::from([(count, revision)]);
    for record in found {
        match expected.remove(&record.key) {
            None => say(&format!("broken: {} is there after commit {count}", record.key)),
            Some((value, _)) if value[..] != record.value[..] => {
                say(&format!("broken: {} has another value", record.key));
            }
            Some((_, number)) => {
                if *revisions.entry(number).or_insert(record.revision) != record.revision {
                    say(&format!("broken: {} has another revision than its commit", record.key));
                }
            }
        }
    }
    for key in expected.keys() {
        say(&format!("lost: {key}, though commit {count} is there"));
    }
    for (number, revision) in &revisions {
        if acknowledged.get(number).is_some_and(|told| told != revision) {
            say(&format!("broken: commit {number} of {label} has revision {revision}"));
        }
    }
    if revisions.values().zip(revisions.values().skip(1)).any(|(a, b)| a >= b) {
        say(&format!("broken: revisions of {label} do not rise: {revisions:?}"));
    }
    (count, revision)
}

/// No revision was given out twice, and later processes gave higher ones. Answers with the highest.
fn revisions_check(acknowledged: &[Acknowledged]) -> u64 {
    let mut seen = BTreeSet::new();
    let mut rounds: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for line in acknowledged {
        // A check comes after the work of its round.
        let (stage, revision) = match line {
            Acknowledged::Commit { round, revision, .. } => (round * 2, *revision),
            Acknowledged::Check { round, revision } => (round * 2 + 1, *revision),
            _ => continue,
        };
        if !seen.insert(revision) {
            say(&format!("broken: revision {revision} was given out twice"));
        }
        let (low, high) = rounds.entry(stage).or_insert((revision, revision));
        (*low, *high) = ((*low).min(revision), (*high).max(revision));
    }
    for ((_, before), (low, _)) in rounds.values().zip(rounds.values().skip(1)) {
        if before >= low {
            say(&format!("broken: revision {low} was given out after {before}"));
        }
    }
    seen.last().copied().unwrap_or(0)
}

fn blobs_check(store: &Store, data: &Path, acknowledged: &[Acknowledged]) {
    for line in acknowledged {
        if let Acknowledged::Blob { round, number, id } = line {
            match store.blobs().read(id) {
                Ok(Some(bytes)) if bytes == content::blob(*round, *number) => {}
                Ok(Some(_)) => say(&format!("broken: {line:?} has another content")),
                Ok(None) => say(&format!("lost: {line:?}")),
                Err(error) => say(&format!("lost: {line:?}: {error}")),
            }
        }
    }
    // Those too that were not acknowledged: a blob that has its name has its content.
    let files = fs::read_dir(data.join("blobs")).into_iter().flatten().flatten();
    for file in files.flat_map(|folder| fs::read_dir(folder.path())).flatten().flatten() {
        let bytes = fs::read(file.path()).unwrap_or_default();
        if file.file_name().to_str() != Some(&hex::encode(Sha256::digest(&bytes))) {
            say(&format!("broken: the blob {:?} is served with another content", file.file_name()));
        }
    }
}

fn layers_check(store: &Store, data: &Path, acknowledged: &[Acknowledged]) {
    for line in acknowledged {
        if let Acknowledged::Layer { round, number, digest } = line {
            match store.layers().path(digest).map(|path| content::tree_read(&path)) {
                Some(Ok(tree)) if tree == content::layer(*round, *number) => {}
                Some(tree) => say(&format!("lost: {line:?} is not whole: {}", difference(tree))),
                None => say(&format!("lost: {line:?}")),
            }
        }
    }
    // Those too that were not acknowledged.
    for folder in fs::read_dir(data.join("layers")).into_iter().flatten().flatten() {
        let label = fs::read_to_string(folder.path().join(content::LAYER_NAME)).unwrap_or_default();
        let numbers = label.split_once(' ');
        let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let expected = numbers.map(|(round, number)| content::layer(round, number));
        let found = content::tree_read(&folder.path());
        if found.as_ref().ok() != expected.as_ref() {
            let name = folder.file_name();
            say(&format!("broken: the layer {name:?} is served: {}", difference(found)));
        }
    }
}

/// Each task's log must be found as its first n steps made it, n being what was acknowledged or one more; and nothing else.
fn logs_check(store: &Store, acknowledged: &[Acknowledged]) {
    let mut tasks: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut checks = Log::EMPTY;
    for line in acknowledged {
        match line {
            Acknowledged::Log { round, task, step } => {
                let steps = tasks.entry((*round, *task)).or_default();
                *steps = (*steps).max(*step);
            }
            Acknowledged::Entry { round, number } => drop(checks.entries.insert(*number, round.to_string().into_bytes())),
            _ => {}
        }
    }
    let names = store.logs().names("");
    for name in names.iter().filter(|name| *name != CHECKS) {
        let numbers = name.strip_prefix("log/").and_then(|name| name.split_once('-'));
        match numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))) {
            Some(task) => drop(tasks.entry(task).or_default()),
            None => say(&format!("broken: a log that nobody began: {name}")),
        }
    }
    let mut blobs = BTreeSet::new();
    for ((round, task), steps) in tasks {
        let name = content::log_name(round, task);
        let found = log_found(store, &name);
        if names.contains(&name) == (found == Log::EMPTY) {
            say(&format!("broken: log {name} is named and has had no entry, or has one and is not named"));
        }
        log_check(round, task, steps, &found);
        blobs.extend(found.entries.values().filter(|value| value.len() > content::LOG_INLINE_MAX).map(|value| hex::encode(Sha256::digest(value))));
    }
    let found = log_found(store, CHECKS);
    if found != checks {
        lost_say(CHECKS, &checks, &found);
        say(&format!("broken: log {CHECKS} is {found:?}"));
    }
    match store.logs().blobs_named() {
        Ok(named) if named.iter().cloned().collect::<BTreeSet<_>>() == blobs => {}
        Ok(named) => say(&format!("broken: logs name {} blobs instead of {}", named.len(), blobs.len())),
        Err(error) => say(&format!("broken: the blobs of logs are not named: {error}")),
    }
}

/// Says after how many steps a log was found: it must not fall behind that any more.
fn log_check(round: u64, task: u64, acknowledged: u64, found: &Log) {
    let name = content::log_name(round, task);
    let mut log = Log::EMPTY;
    let mut kept = None;
    let mut is_after = None;
    for step in 0..=acknowledged + 1 {
        if step > 0 {
            log.apply(content::log_step(round, task, step, &log));
        }
        if log == *found {
            is_after = Some(step);
        }
        if step == acknowledged {
            kept = Some(log.clone());
        }
    }
    match is_after {
        Some(0) if acknowledged == 0 => {}
        Some(step) if step >= acknowledged => say(&format!("log {round} {task} {step}")),
        Some(step) => say(&format!("lost: log {name} is as after step {step} of {acknowledged}")),
        None => {
            // What the step after would have trimmed may be gone.
            let mut kept = kept.unwrap_or(Log::EMPTY);
            kept.entries.retain(|number, _| log.entries.contains_key(number));
            lost_say(&name, &kept, found);
            say(&format!("broken: log {name} is as after no step up to {acknowledged}: {} entries from {}", found.entries.len(), found.first));
        }
    }
}

fn lost_say(name: &str, expected: &Log, found: &Log) {
    for (number, _) in expected.entries.iter().filter(|(number, value)| found.entries.get(number) != Some(value)) {
        say(&format!("lost: log {name}: entry {number}"));
    }
}

/// What can be read of a log, entry by entry.
fn log_found(store: &Store, name: &str) -> Log {
    let extent = store.logs().extent(name).unwrap_or_else(|error| {
        say(&format!("broken: log {name}: {error}"));
        store::Extent { first: 1, head: 0 }
    });
    let mut log = Log { first: extent.first, ..Log::EMPTY };
    for number in extent.first..=extent.head {
        match store.logs().read(name, number - 1, 1, usize::MAX).as_deref() {
            Ok([entry]) if entry.number == number => drop(log.entries.insert(number, entry.value.clone())),
            Ok(_) => say(&format!("broken: log {name} skips entry {number}")),
            Err(error) => say(&format!("broken: log {name}: {error}")),
        }
    }
    // Those before the first must not come back, nor any after the last.
    match store.logs().read(name, 0, usize::MAX, usize::MAX) {
        Ok(all) if all.iter().map(|entry| entry.number).eq(extent.first..=extent.head) => {}
        Ok(all) => say(&format!("broken: log {name} has {} entries instead of {}", all.len(), extent.len())),
        Err(error) => say(&format!("broken: log {name}: {error}")),
    }
    log
}

/// The store takes appends, under the number after the last.
fn append_check(store: &Store, round: u64, acknowledged: &[Acknowledged]) {
    let next = 1 + acknowledged.iter().filter(|line| matches!(line, Acknowledged::Entry { .. })).count() as u64;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O needs nothing");
    match runtime.block_on(store.logs().append(CHECKS, vec![round.to_string().into_bytes()])) {
        Ok(number) if number == next => say(&format!("entry {round} {number}")),
        Ok(number) => say(&format!("broken: an append to log {CHECKS} got the number {number} instead of {next}")),
        Err(error) => say(&format!("broken: no append is taken: {error}")),
    }
}

fn difference(found: std::io::Result<content::Tree>) -> String {
    match found {
        Ok(tree) => format!("it holds {:?}", tree.keys().collect::<Vec<_>>()),
        Err(error) => error.to_string(),
    }
}

/// The store takes commits, with a revision above all that were found or acknowledged.
fn commit_check(store: &Store, round: u64, highest: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O needs nothing");
    let write = Write { key: format!("check/{round}"), expect: Expect::Absent, value: Some(b"1".to_vec()) };
    match runtime.block_on(store.commit(vec![write])) {
        Ok(revision) if revision > highest => say(&format!("check {round} {revision}")),
        Ok(revision) => say(&format!("broken: the revision {revision} comes after {highest}")),
        Err(error) => say(&format!("broken: no commit is taken: {error}")),
    }
}
