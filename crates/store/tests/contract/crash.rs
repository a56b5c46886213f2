//! kill -9 at any moment loses nothing that was acknowledged and leaves no half of a commit.
//!
//! This test binary is also the process that is killed: with `STORE_CHILD` set, the test `child` commits until it ends,
//! and prints what was acknowledged.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use store::{Expect, Store, Write};

const CHILD: &str = "STORE_CHILD";
const ROUNDS: u64 = 10;

/// Commits pairs from 8 tasks, and puts blobs, until it is killed. Nothing when it is not the child.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD) else {
        return;
    };
    let store = Store::open(Path::new(&folder)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8).map(|task| tokio::spawn(pairs(store.clone(), task))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn pairs(store: Store, task: u64) {
    let process = std::process::id();
    for number in 0.. {
        let name = format!("{process}-{task}-{number}");
        // Every eighth is large, so that commits end in the middle of one too.
        let value = name.repeat(if number % 8 == 7 { 4000 } else { 1 });
        let writes = ["left", "right"].map(|side| Write::put(format!("{side}/{name}"), Expect::Absent, &value));
        let revision = store.commit(writes.into()).await.unwrap();
        println_now(&format!("ack {name} {revision}"));
        if task == 0 {
            let blob = tokio::task::spawn_blocking({
                let (store, name) = (store.clone(), name.clone());
                move || store.blobs().put(name.as_bytes()).unwrap()
            });
            println_now(&format!("blob {name} {}", blob.await.unwrap()));
        }
    }
}

/// One write a line, past the test harness's capture.
fn println_now(line: &str) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[test]
fn what_was_acknowledged_outlives_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    let mut seed = 20_261_127_u64;
    for round in 0..ROUNDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // From the very start of the process to some hundred commits in.
        let lines = if round == 0 { 0 } else { (seed >> 33) % 400 };
        acknowledged.extend(run_and_kill(folder.path(), lines as usize));
        check(folder.path(), &acknowledged);
    }
    assert!(acknowledged.len() > 100, "only {} were acknowledged: nothing was tested", acknowledged.len());
}

/// Runs the child until it printed `lines` lines, kills it, and answers with all that it had printed.
fn run_and_kill(folder: &Path, lines: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    let mut next = |acknowledged: &mut Vec<String>| {
        let mut line = String::new();
        let more = output.read_line(&mut line).unwrap() > 0;
        if line.ends_with('\n') && (line.starts_with("ack ") || line.starts_with("blob ")) {
            acknowledged.push(line.trim_end().to_owned());
        }
        more
    };
    while acknowledged.len() < lines {
        assert!(next(&mut acknowledged), "the child ended by itself");
    }
    child.kill().unwrap();
    while next(&mut acknowledged) {}
    child.wait().unwrap();
    acknowledged
}

fn check(folder: &Path, acknowledged: &[String]) {
    let store = Store::open(folder).unwrap();
    let mut revisions = std::collections::BTreeSet::new();
    for line in acknowledged {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            ["ack", name, revision] => {
                let revision: u64 = revision.parse().unwrap();
                assert!(revisions.insert(revision), "{line}: the revision was given out twice");
                for side in ["left", "right"] {
                    let record = store.get(&format!("{side}/{name}")).unwrap();
                    assert_eq!(record.map(|record| record.revision), Some(revision), "{line}");
                }
            }
            ["blob", name, id] => {
                assert_eq!(store.blobs().read(id).unwrap().as_deref(), Some(name.as_bytes()), "{line}");
            }
            _ => panic!("{line}"),
        }
    }
    let sides = ["left/", "right/"].map(|side| {
        let records = store.scan(side, None, usize::MAX).unwrap();
        records.into_iter().map(|record| (record.key[side.len()..].to_owned(), record.revision)).collect::<Vec<_>>()
    });
    assert_eq!(sides[0], sides[1], "half of a commit is visible");
    assert!(store.damaged().is_empty());
}
