//! Archives as strangers make them.

use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use proptest::prelude::*;

use self::{
    evil::{Evil, evil_archives},
    made::*,
};
use super::*;

mod evil;
mod made;

const SMALL: Limits = Limits { packed_bytes: 1 << 20, unpacked_bytes: 64 << 10, entries: 50, ratio: 100 };

fn unpack_bytes(bytes: &[u8], limits: &Limits) -> (tempfile::TempDir, Result<Unpacked, Error>) {
    // `inside` has a parent of its own, in which an escape would be seen.
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let result = unpack(file, &inside, limits);
    (dir, result)
}

fn tree_of(folder: &Path) -> BTreeMap<String, String> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                assert_eq!(meta.permissions().mode() & 0o7777, 0o755, "{name}");
                walk(&path, root, found);
            } else if meta.is_symlink() {
                found.insert(name, format!("-> {}", std::fs::read_link(&path).unwrap().display()));
            } else {
                let mode = meta.permissions().mode() & 0o7777;
                found.insert(name, format!("{mode:o} {}", String::from_utf8_lossy(&std::fs::read(&path).unwrap())));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

#[test]
fn evil_archives_write_nothing_outside_and_say_why() {
    let all = evil_archives();
    assert!(all.len() >= 80, "{}", all.len());
    for Evil { what, bytes, expect } in all {
        let (dir, result) = unpack_bytes(&bytes, &SMALL);
        let error = match result {
            Ok(_) => panic!("{what}: was unpacked: {:?}", tree_of(dir.path())),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(expect), "{what}: {error}");
        assert!(!error.contains("writing the source"), "{what}: {error}");
        assert!(error.len() < 600 && !error.chars().any(char::is_control), "{what}: {error:?}");
        let beside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(beside, ["inside"], "{what}");
        let inside = dir.path().join("inside").canonicalize().unwrap();
        for name in tree_of(&inside).into_keys() {
            if let Ok(leads_to) = inside.join(&name).canonicalize() {
                assert!(leads_to.starts_with(&inside), "{what}: {name} leads to {leads_to:?}");
            }
        }
    }
}

#[test]
fn a_bomb_is_stopped_by_its_ratio() {
    let limits = Limits { packed_bytes: 1 << 20, unpacked_bytes: 500 << 20, entries: 10, ratio: 100 };
    let zip = zip_bytes(&[Zip { method: 8, data: vec![0; 17 << 20], ..zip_file("zeros", "") }]);
    let tar = gz(&tar_raw(&[Tar { data: vec![0; 35 << 20], ..tar_file("zeros", "") }]));
    for bytes in [zip, tar] {
        let (_dir, result) = unpack_bytes(&bytes, &limits);
        assert!(matches!(result, Err(Error::Ratio(100))), "{result:?}");
    }
}

#[test]
fn a_table_of_contents_without_end_is_not_read_into_memory() {
    let entries: Vec<_> = (0..60_000).map(|i| zip_file(&format!("{i:0>200}"), "")).collect();
    let (_dir, result) = unpack_bytes(&zip_bytes(&entries), &Limits { entries: 1 << 30, ..Limits::SOURCE });
    assert!(result.unwrap_err().to_string().contains("larger than 8 MiB"));
}

#[test]
fn modes_become_0644_or_0755_and_links_inside_are_kept() {
    let zip = zip_bytes(&[
        zip_file("main.py", "code"),
        Zip { mode: 0o104755, ..zip_file("bin/run", "setuid") },
        Zip { mode: 0o100600, ..zip_file("private", "p") },
        Zip { mode: 0, ..zip_file("dos", "d") },
        Zip { mode: 0o040700, ..zip_file("empty/", "") },
        Zip { mode: 0o120777, ..zip_file("bin/link", "../main.py") },
    ]);
    let tar = tar_bytes(&[
        pax_entry(b'g', &[("comment", "0123456789")]),
        tar_kind(b'5', "./", ""),
        tar_file("./main.py", "code"),
        Tar { mode: 0o4755, ..tar_file("bin/run", "setuid") },
        Tar { mode: 0o600, ..tar_file("private", "p") },
        tar_file("dos", "d"),
        tar_kind(b'5', "empty", ""),
        pax_entry(b'x', &[("path", "bin/link"), ("mtime", "1.5")]),
        tar_kind(b'2', "x", "../main.py"),
    ]);
    for bytes in [zip, tar] {
        let (dir, result) = unpack_bytes(&bytes, &SMALL);
        assert_eq!(result.unwrap(), Unpacked { files: 4, bytes: 12 });
        let inside = dir.path().join("inside");
        assert!(inside.join("empty").is_dir());
        let tree = tree_of(&inside);
        let expect = [("bin/link", "-> ../main.py"), ("bin/run", "755 setuid"), ("dos", "644 d"), ("main.py", "644 code"), ("private", "644 p")];
        assert_eq!(tree, expect.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
    }
}

#[test]
fn an_archive_of_24_000_nested_folders_is_refused() {
    let name = |chain: usize| format!("{chain}/{}", "d/".repeat(62)).into_bytes();
    let long = |chain| Tar { kind: b'L', data: name(chain), ..tar_file("././@LongLink", "") };
    let bytes = tar_bytes(&(0..24_000 / 63).flat_map(|chain| [long(chain), tar_kind(b'5', "d", "")]).collect::<Vec<_>>());
    let dir = tempfile::tempdir().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let result = unpack(file, dir.path(), &Limits::SOURCE);
    assert!(matches!(result, Err(Error::Entries(20_000))), "{result:?}");
}

#[test]
fn as_many_named_folders_as_files_are_counted_once() {
    let mut entries = Vec::new();
    for i in 0..25 {
        entries.push(Zip { mode: 0o040755, ..zip_file(&format!("d{i}/"), "") });
        entries.push(zip_file(&format!("d{i}/f"), ""));
    }
    unpack_bytes(&zip_bytes(&entries), &SMALL).1.unwrap();
}

#[test]
fn an_empty_archive_is_an_empty_folder() {
    assert_eq!(unpack_bytes(&zip_bytes(&[]), &SMALL).1.unwrap(), Unpacked::default());
    assert_eq!(unpack_bytes(&tar_bytes(&[]), &SMALL).1.unwrap(), Unpacked::default());
}

#[test]
fn a_tarball_in_several_gzip_members_and_filled_up_with_zeros_is_unpacked() {
    let mut tar = tar_raw(&[tar_file("main.py", "code")]);
    tar.resize(10 << 10, 0);
    let bytes = [gz(&tar[..700]), gz(&tar[700..]), gz(b"")].concat();
    assert_eq!(unpack_bytes(&bytes, &SMALL).1.unwrap(), Unpacked { files: 1, bytes: 4 });
}

/// As gcloud makes them: Python's zipfile, walking a folder.
const PYTHON_ZIP: &str = r#"
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[2], "w", zipfile.ZIP_DEFLATED) as z:
    for root, _, files in os.walk(sys.argv[1]):
        folder = os.path.normpath(os.path.relpath(root, sys.argv[1]))
        if folder != os.curdir:
            z.write(root, folder)
        for name in files:
            z.write(os.path.join(root, name), os.path.join(folder, name))
"#;

#[test]
fn pythons_zip_is_unpacked() {
    let source = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(source.path().join("pkg/データ")).unwrap();
    std::fs::write(source.path().join("main.py"), "def f():\n    pass\n").unwrap();
    std::fs::write(source.path().join("pkg/データ/é.txt"), "x".repeat(5000)).unwrap();
    let zip = out.path().join("source.zip");
    let status = std::process::Command::new("python3").args(["-c", PYTHON_ZIP]).args([source.path(), &zip]).status().unwrap();
    assert!(status.success());
    let (dir, result) = unpack_bytes(&std::fs::read(&zip).unwrap(), &SMALL);
    assert_eq!(result.unwrap().files, 2);
    assert_eq!(tree_of(&dir.path().join("inside")).len(), 2);
}

#[test]
fn the_zip_crates_own_zip_is_unpacked() {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    writer.add_directory("d", options).unwrap();
    writer.start_file("d/main.py", options.unix_permissions(0o755)).unwrap();
    writer.write_all(b"code").unwrap();
    writer.add_symlink("link", "d/main.py", options).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    let (dir, result) = unpack_bytes(&bytes, &SMALL);
    assert_eq!(result.unwrap(), Unpacked { files: 1, bytes: 4 });
    let tree = tree_of(&dir.path().join("inside"));
    assert_eq!(tree["d/main.py"], "755 code");
    assert_eq!(tree["link"], "-> d/main.py");
}

#[test]
fn the_tar_crates_own_tarball_is_unpacked_with_a_long_name() {
    let mut builder = tar::Builder::new(Vec::new());
    let name = format!("{}/main.py", "d".repeat(150));
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    builder.append_data(&mut header, &name, &b"code"[..]).unwrap();
    let (dir, result) = unpack_bytes(&gz(&builder.into_inner().unwrap()), &SMALL);
    assert_eq!(result.unwrap(), Unpacked { files: 1, bytes: 4 });
    assert_eq!(tree_of(&dir.path().join("inside"))[&name], "644 code");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes: an answer, and nothing beside the folder.
    #[test]
    fn no_bytes_make_it_panic_or_escape(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048), kind in 0..4u8) {
        match kind {
            0 => bytes.splice(0..0, *b"PK\x03\x04").for_each(drop),
            1 => bytes = gz(&bytes),
            2 => {
                // Around a real one, a few bytes changed.
                let mut whole = zip_bytes(&[zip_file("a/b", "x"), Zip { mode: 0o120777, ..zip_file("l", "a") }]);
                for pair in bytes.chunks(2).take(4) {
                    let at = usize::from(pair[0]) * whole.len() / 256;
                    whole[at] = *pair.last().unwrap();
                }
                bytes = whole;
            }
            _ => {
                let mut whole = tar_raw(&[tar_file("a/b", "x"), pax_entry(b'x', &[("path", "y")]), tar_kind(b'2', "l", "a")]);
                for pair in bytes.chunks(2).take(4) {
                    let at = usize::from(pair[0]) * whole.len() / 256;
                    whole[at] = *pair.last().unwrap();
                }
                bytes = gz(&whole);
            }
        }
        let (dir, _) = unpack_bytes(&bytes, &SMALL);
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
