//! A full disk: the commit fails, nothing that was acknowledged is touched, and the store goes on when there is space.
//!
//! Needs a small file system of its own, which only root can mount.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use store::{CommitError, Error, Expect, Extent, Store, Write};

struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// 8 MiB of tmpfs; `None` where this process may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        match mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=8m")) {
            Ok(()) => Some(Self { folder }),
            Err(error) => {
                // Past the capture of the harness: a skipped test must be seen.
                let _ = writeln!(std::io::stderr(), "SKIPPED: the disk-full test cannot mount a tmpfs here: {error}");
                None
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_ends_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let store = Store::open(&disk.data()).unwrap();
    let filler = disk.folder.path().join("filler");
    fs::write(&filler, vec![1; 3 << 20]).unwrap();

    let write = |number: usize| {
        vec![
            Write { key: format!("a/{number:04}"), expect: Expect::Absent, value: Some(vec![number as u8; 32 << 10]) },
            Write { key: format!("b/{number:04}"), expect: Expect::Absent, value: Some(vec![number as u8; 32 << 10]) },
        ]
    };
    let mut acknowledged = 0;
    let refused = loop {
        assert!(acknowledged < 1000, "the disk does not fill");
        match store.commit(write(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(CommitError::Store(error)) => break error,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(matches!(refused, Error::Full(_)), "{refused}");
    assert!(acknowledged > 5);
    check(&store, acknowledged);

    let refused = store.blobs().put(&vec![7; 8 << 20]).unwrap_err();
    assert!(matches!(refused, Error::Full(_)), "{refused}");
    assert_eq!(fs::read_dir(disk.data().join("staging")).unwrap().count(), 0, "what was begun is removed");

    // Many at once, small ones among them: none may be lost or half there.
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let store = store.clone();
            let bytes = if task % 2 == 0 { 256 << 10 } else { 10 };
            let write = Write { key: format!("c/{task}"), expect: Expect::Absent, value: Some(vec![1; bytes]) };
            tokio::spawn(async move { (format!("c/{task}"), store.commit(vec![write]).await) })
        })
        .collect();
    for task in tasks {
        let (key, answer) = task.await.unwrap();
        assert_eq!(store.get(&key).unwrap().is_some(), answer.is_ok(), "{key}: {answer:?}");
    }
    check(&store, acknowledged);

    fs::remove_file(&filler).unwrap();
    for _ in 0..5 {
        store.commit(write(acknowledged)).await.unwrap();
        acknowledged += 1;
    }
    check(&store, acknowledged);
    drop(store);
    let store = Store::open(&disk.data()).unwrap();
    check(&store, acknowledged);
    assert!(store.damaged().is_empty());
}

#[tokio::test]
async fn a_full_disk_leaves_logs_as_they_were() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let store = Store::open(&disk.data()).unwrap();
    let filler = disk.folder.path().join("filler");
    fs::write(&filler, vec![1; 3 << 20]).unwrap();
    store.logs().append("b", vec![b"b".to_vec()]).await.unwrap();
    let mut head = 0;
    let refused = loop {
        assert!(head < 1000, "the disk does not fill");
        match store.logs().append("a", vec![vec![1; 60 << 10]]).await {
            Ok(number) => head = number,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Full(_)), "{refused}");
    assert!(head > 5);
    // One that would begin a log, and one that would go on with another.
    for log in ["new", "b"] {
        let refused = store.logs().append(log, vec![vec![2; 60 << 10]; 20]).await;
        assert!(matches!(refused, Err(Error::Full(_))), "{refused:?}");
    }
    let check = |store: &Store, head: u64, names: &[&str]| {
        assert_eq!(store.logs().names(""), names);
        assert_eq!(store.logs().extent("a").unwrap(), Extent { first: 1, head });
        let entries = store.logs().read("a", 0, usize::MAX, usize::MAX).unwrap();
        assert!(entries.iter().map(|entry| entry.number).eq(1..=head));
        assert!(entries.iter().all(|entry| entry.value == vec![1; 60 << 10]));
        assert_eq!(store.logs().read("b", 0, usize::MAX, usize::MAX).unwrap().len(), 1);
    };
    check(&store, head, &["a", "b"]);
    fs::remove_file(&filler).unwrap();
    assert_eq!(store.logs().append("a", vec![vec![1; 60 << 10]]).await.unwrap(), head + 1);
    assert_eq!(store.logs().append("new", vec![b"n".to_vec()]).await.unwrap(), 1);
    check(&store, head + 1, &["a", "b", "new"]);
    drop(store);
    check(&Store::open(&disk.data()).unwrap(), head + 1, &["a", "b", "new"]);
}

#[track_caller]
fn check(store: &Store, acknowledged: usize) {
    for side in ["a/", "b/"] {
        let records = store.scan(side, None, usize::MAX).unwrap();
        assert_eq!(records.len(), acknowledged);
        for (number, record) in records.iter().enumerate() {
            assert!(record.value.iter().all(|byte| *byte == number as u8));
        }
    }
}

#[test]
fn a_folder_without_space_does_not_open() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    fs::write(disk.folder.path().join("filler"), vec![1; 16 << 20]).unwrap_err();
    let error = Store::open(&disk.data()).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("no space left"), "{error}");
    fs::remove_file(disk.folder.path().join("filler")).unwrap();
    Store::open(&disk.data()).unwrap();
}

#[test]
fn the_path_of_a_store_is_no_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(Path::new(file.path())).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
}
