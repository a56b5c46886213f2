//! Blobs and layers: named by their content, whole or not there.

use std::path::Path;

use store::Store;

use crate::{PATIENCE, folder, open};

#[test]
fn blobs_are_named_by_their_content() {
    use std::io::{Read as _, Write as _};
    let folder = folder();
    let store = open(&folder);
    let blobs = store.blobs();
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(blobs.put(b"hello").unwrap(), HELLO);
    assert_eq!(blobs.put(b"hello").unwrap(), HELLO);
    let mut writer = blobs.writer().unwrap();
    writer.write_all(b"hel").unwrap();
    writer.write_all(b"lo").unwrap();
    assert_eq!(writer.finish().unwrap(), HELLO);
    assert_eq!(blobs.read(HELLO).unwrap().as_deref(), Some(&b"hello"[..]));
    let mut text = String::new();
    blobs.open(HELLO).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let empty = blobs.put(b"").unwrap();
    assert_eq!(blobs.read(&empty).unwrap().as_deref(), Some(&b""[..]));

    let mut dropped = blobs.writer().unwrap();
    dropped.write_all(b"never finished").unwrap();
    drop(dropped);
    assert_eq!(std::fs::read_dir(folder.path().join("staging")).unwrap().count(), 0);

    blobs.delete(HELLO).unwrap();
    blobs.delete(HELLO).unwrap();
    assert!(blobs.open(HELLO).unwrap().is_none());
    for odd in ["", "..", "../../state.db", &HELLO[..63], &HELLO.to_uppercase(), "é"] {
        assert!(blobs.open(odd).unwrap().is_none(), "{odd}");
        assert!(blobs.read(odd).unwrap().is_none(), "{odd}");
        blobs.delete(odd).unwrap();
    }
}

#[test]
fn blobs_are_written_by_many_at_once() {
    let folder = folder();
    let store = open(&folder);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..20 {
                    // Half of them the same in all threads.
                    let content = if number % 2 == 0 { format!("{number}") } else { format!("{thread} {number}") };
                    let id = store.blobs().put(content.as_bytes()).unwrap();
                    assert_eq!(store.blobs().read(&id).unwrap().unwrap(), content.as_bytes());
                }
            });
        }
    });
}

#[test]
fn layers_are_named_by_their_tree() {
    use std::{fs, os::unix::fs::PermissionsExt};
    let folder = folder();
    let store = open(&folder);
    let build = |odd_mode: u32, content: &str| {
        let staging = store.layers().staging().unwrap();
        let root = staging.path().to_owned();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o755);
        fs::create_dir(root.join("pkg")).unwrap();
        fs::write(root.join("pkg/a.py"), content).unwrap();
        fs::set_permissions(root.join("pkg/a.py"), fs::Permissions::from_mode(odd_mode)).unwrap();
        fs::write(root.join("run"), "#!").unwrap();
        fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o4711)).unwrap();
        std::os::unix::fs::symlink("pkg/a.py", root.join("link")).unwrap();
        (staging.commit().unwrap(), root)
    };
    let (first, staged) = build(0o600, "x");
    assert!(!staged.exists());
    let path = store.layers().path(&first).unwrap();
    let mode = |name: &str| fs::symlink_metadata(path.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("pkg"), mode("pkg/a.py"), mode("run")), (0o755, 0o644, 0o755));
    assert_eq!(fs::read_link(path.join("link")).unwrap(), Path::new("pkg/a.py"));

    let (same, staged) = build(0o666, "x");
    assert_eq!(same, first);
    gone(&staged);
    assert_ne!(build(0o600, "y").0, first, "content counts");
    assert_ne!(build(0o700, "x").0, first, "what may be executed counts");

    for odd in ["", ".", "..", "../staging"] {
        assert_eq!(store.layers().path(odd), None, "{odd}");
    }
    let dropped = store.layers().staging().unwrap();
    let staged = dropped.path().to_owned();
    fs::write(staged.join("f"), "f").unwrap();
    drop(dropped);
    gone(&staged);
    assert_eq!(fs::read_dir(folder.path().join("staging")).unwrap().count(), 0);
}

/// Waits until a thread of the store has removed it.
fn gone(path: &Path) {
    let end = std::time::Instant::now() + PATIENCE;
    while path.exists() {
        assert!(std::time::Instant::now() < end, "{} is still there", path.display());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_large_tree_that_is_dropped_holds_nobody_up() {
    use std::{fs, time::Instant};
    let folder = folder();
    let store = open(&folder);
    let staging = store.layers().staging().unwrap();
    let staged = staging.path().to_owned();
    for chain in 0..100 {
        fs::create_dir_all(staged.join(format!("{chain}/{}", "d/".repeat(60)))).unwrap();
    }
    let began = Instant::now();
    drop(staging);
    let dropped = began.elapsed();
    gone(&staged);
    assert!(dropped < began.elapsed() / 2, "{dropped:?} of {:?}", began.elapsed());
    // Closed before or after: its folder is removed here, or at the next open.
    let late = store.layers().staging().unwrap();
    let staged = late.path().to_owned();
    drop(store);
    drop(late);
    assert!(!staged.exists());
}

#[test]
fn layers_hold_files_folders_and_links_only() {
    let folder = folder();
    let store = open(&folder);
    let staging = store.layers().staging().unwrap();
    std::fs::create_dir(staging.path().join("sub")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(staging.path().join("sub/s")).unwrap();
    let error = staging.commit().unwrap_err().to_string();
    assert!(error.starts_with("sub/s: "), "{error}");
}

#[test]
fn a_layer_shares_no_file_with_the_outside() {
    use std::fs;
    let folder = folder();
    let store = open(&folder);
    let outside = folder.path().join("outside");
    fs::write(&outside, "before").unwrap();
    let staging = store.layers().staging().unwrap();
    fs::hard_link(&outside, staging.path().join("f")).unwrap();
    let digest = staging.commit().unwrap();
    fs::write(&outside, "after").unwrap();
    let path = store.layers().path(&digest).unwrap();
    assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "before");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
}

#[test]
fn a_tree_with_many_files_becomes_a_layer() {
    use std::fs;
    let folder = folder();
    let store = open(&folder);
    let digests: Vec<String> = [false, true]
        .map(|backwards| {
            let staging = store.layers().staging().unwrap();
            // The order of making must not matter.
            for index in 0..200 {
                let number = if backwards { 199 - index } else { index };
                let path = staging.path().join(format!("d{}/{number}", number % 7));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, number.to_string()).unwrap();
            }
            staging.commit().unwrap()
        })
        .to_vec();
    assert_eq!(digests[0], digests[1]);
    assert_eq!(fs::read_to_string(store.layers().path(&digests[0]).unwrap().join("d1/8")).unwrap(), "8");
}

#[test]
fn what_was_staged_is_gone_at_the_next_start() {
    let folder = folder();
    let store = open(&folder);
    let staging = store.layers().staging().unwrap();
    std::fs::create_dir(staging.path().join("sub")).unwrap();
    let writer = store.blobs().writer().unwrap();
    std::mem::forget((staging, writer));
    drop(store);
    open(&folder);
    assert_eq!(std::fs::read_dir(folder.path().join("staging")).unwrap().count(), 0);
}

#[test]
fn only_the_owner_may_look() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let dir = folder.path().join("above/data");
    let _store = Store::open(&dir).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&dir), mode(&dir.join("blobs")) | mode(&dir.join("layers")) | mode(&dir.join("staging")), mode(&dir.join("state.db")), mode(&dir.join("lock"))),
        (0o700, 0o700, 0o600, 0o600)
    );
}
