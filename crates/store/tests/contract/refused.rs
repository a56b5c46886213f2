//! Writes that the system refuses (not for want of space): the commit fails, nothing acknowledged is touched, and the
//! store goes on when writes work again.
//!
//! The refusals are real ones: a child process lowers its own limit of file sizes, so that each write beyond it ends with
//! EFBIG, which SQLite knows as an I/O error. A shell sets the signal that would come with it to ignored.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use store::{CommitError, Expect, Store, Write};

const CHILD: &str = "STORE_REFUSED_CHILD";

#[test]
fn refused_writes_lose_nothing_and_end_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact refused::child --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("the child went to its end"), "{text}");
    check(&Store::open(folder.path()).unwrap(), 150);
}

/// Nothing when it is not the child.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD) else {
        return;
    };
    let store = Store::open(Path::new(&folder)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let commit = |number: usize| {
        let writes = ["a", "b"].map(|side| Write { key: format!("{side}/{number:04}"), expect: Expect::Absent, value: Some(vec![number as u8; 20_000]) });
        runtime.block_on(store.commit(writes.into()))
    };
    let mut acknowledged = 0;
    for round in 0..3 {
        for _ in 0..25 {
            commit(acknowledged).unwrap();
            acknowledged += 1;
        }
        let before = getrlimit(Resource::Fsize);
        // Small enough that something fails soon, and that it is another thing each time.
        setrlimit(Resource::Fsize, Rlimit { current: Some(round * 300_000), ..before }).unwrap();
        let mut refused = 0;
        while refused < 3 {
            match commit(acknowledged) {
                Ok(_) => acknowledged += 1,
                Err(CommitError::Store(error)) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
                // What was answered with an error is there after all: only allowed to those who fail after writing.
                Err(CommitError::Conflict { key }) => panic!("{key} was refused and is there"),
            }
            check(&store, acknowledged);
        }
        assert!(store.blobs().put(&vec![1; 1 << 20]).is_err());
        assert!(acknowledged < 25 * (round as usize + 1) + 100, "nothing is refused");
        setrlimit(Resource::Fsize, before).unwrap();
        while acknowledged < 50 * (round as usize + 1) {
            commit(acknowledged).unwrap();
            acknowledged += 1;
        }
        check(&store, acknowledged);
    }
    println!("the child went to its end");
}

#[track_caller]
fn check(store: &Store, acknowledged: usize) {
    for side in ["a/", "b/"] {
        let records = store.scan(side, None, usize::MAX).unwrap();
        assert_eq!(records.len(), acknowledged);
        for (number, record) in records.iter().enumerate() {
            assert!(record.value.len() == 20_000 && record.value.iter().all(|byte| *byte == number as u8));
        }
    }
}
