//! The process that uses the store until it is killed: commits, logs, blobs and layers from several threads, and a line for each
//! operation, printed after the store has answered.

use std::{
    io::Write as _,
    path::Path,
    process,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use store::Store;

use crate::content::{self, Log, LogStep};

/// Before each line, so that those of the test harness are no trouble.
pub const MARK: &str = "@ ";
/// What is printed once the store is open.
pub const OPEN: &str = "open";

/// One write for a line, past the harness's capture.
pub fn say(line: &str) {
    let line = format!("{MARK}{line}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).expect("the parent reads until this process ends");
}

/// Ends only by being killed, or with the first error.
pub fn work(data: &Path, round: u64) -> ! {
    let store = Store::open(data).unwrap_or_else(|error| end("open", &error));
    say(OPEN);
    let (blobs, layers) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let store = &store;
        // Two of each, that make the same blob and the same layer at about the same time, and change a log each; each waits
        // for a commit before each step, so that neither kind of work starves the other.
        let [blob_turns, layer_turns, log_turns] = [0, 1, 2].map(|kind| {
            [0, 1].map(|thread| {
                let (turn, turns) = channel();
                let (blobs, layers) = (&blobs, &layers);
                scope.spawn(move || match kind {
                    0 => blobs_put(store, round, thread, blobs, turns),
                    1 => layers_commit(store, round, thread, layers, turns),
                    _ => log_change(store, round, thread, turns),
                });
                turn
            })
        });
        scope.spawn(move || commits(store, round, 0, &blob_turns));
        scope.spawn(move || commits(store, round, 1, &layer_turns));
        scope.spawn(move || commits(store, round, 2, &log_turns));
    });
    unreachable!("no thread ends")
}

fn end(step: &str, error: &dyn std::fmt::Display) -> ! {
    say(&format!("error {step}: {error}"));
    process::exit(1);
}

/// Gives the others a turn after each commit.
fn commits(store: &Store, round: u64, task: u64, turns: &[Sender<()>]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O needs nothing");
    let mut previous = None;
    for number in 1.. {
        let writes = content::commit(round, task, number, previous);
        let revision = runtime.block_on(store.commit(writes)).unwrap_or_else(|error| end("commit", &error));
        say(&format!("commit {round} {task} {number} {revision}"));
        previous = Some(revision);
        for turn in turns {
            // A thread that met an error ends the process.
            let _ = turn.send(());
        }
    }
}

fn log_change(store: &Store, round: u64, task: u64, turns: Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O needs nothing");
    let (name, mut log) = (content::log_name(round, task), Log::EMPTY);
    for (number, ()) in (1..).zip(turns) {
        let step = content::log_step(round, task, number, &log);
        let done = runtime.block_on(async {
            match &step {
                LogStep::Append(entries) => store.logs().append(&name, entries.clone()).await.map(|first| first == log.next()),
                LogStep::Trim(up_to) => store.logs().trim(&name, *up_to).await.map(|()| true),
                LogStep::Delete => store.logs().delete(&name).await.map(|()| true),
            }
        });
        match done {
            Ok(true) => say(&format!("log {round} {task} {number}")),
            Ok(false) => end("append", &"the number is not the next one"),
            Err(error) => end("log", &error),
        }
        log.apply(step);
    }
}

/// Both threads take the number that the other one has reached, or the next.
fn next(own: &mut u64, shared: &AtomicU64) -> u64 {
    *own = (*own + 1).max(shared.load(Ordering::Relaxed));
    shared.fetch_max(*own, Ordering::Relaxed);
    *own
}

fn blobs_put(store: &Store, round: u64, thread: u64, shared: &AtomicU64, turns: Receiver<()>) {
    let mut own = 0;
    for () in turns {
        let number = next(&mut own, shared);
        let id = store.blobs().put(&content::blob(round, number)).unwrap_or_else(|error| end("blob", &error));
        say(&format!("blob {round} {number} {id} {thread}"));
    }
}

fn layers_commit(store: &Store, round: u64, thread: u64, shared: &AtomicU64, turns: Receiver<()>) {
    let mut own = 0;
    for () in turns {
        let number = next(&mut own, shared);
        let staging = store.layers().staging().unwrap_or_else(|error| end("layer", &error));
        content::tree_write(staging.path(), &content::layer(round, number)).unwrap_or_else(|error| end("layer", &error));
        let digest = staging.commit().unwrap_or_else(|error| end("layer", &error));
        say(&format!("layer {round} {number} {digest} {thread}"));
    }
}
