use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

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

// === zip, by hand: every field can lie ===

#[derive(Clone)]
struct Zip {
    name: Vec<u8>,
    /// Unix mode with its type bits; 0 means made on another system.
    mode: u32,
    method: u16,
    flags: u16,
    data: Vec<u8>,
    size: Option<u32>,
    crc: Option<u32>,
    header: Option<u32>,
}

fn zip_file(name: &str, data: &str) -> Zip {
    Zip {
        name: name.into(),
        mode: 0o100644,
        method: 0,
        flags: 0x800,
        data: data.into(),
        size: None,
        crc: None,
        header: None,
    }
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zip_bytes(entries: &[Zip]) -> Vec<u8> {
    let (mut out, mut central) = (Vec::new(), Vec::new());
    for e in entries {
        let start = e.header.unwrap_or(out.len() as u32);
        let packed = if e.method == 8 { deflated(&e.data) } else { e.data.clone() };
        let crc = e.crc.unwrap_or_else(|| crc32(&e.data));
        let size = e.size.unwrap_or(e.data.len() as u32);
        let mut common = Vec::new();
        common.extend(20u16.to_le_bytes());
        common.extend(e.flags.to_le_bytes());
        common.extend(e.method.to_le_bytes());
        common.extend([0, 0, 0x21, 0x58]);
        common.extend(crc.to_le_bytes());
        common.extend((packed.len() as u32).to_le_bytes());
        common.extend(size.to_le_bytes());
        common.extend((e.name.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(&e.name);
        out.extend(&packed);
        central.extend(b"PK\x01\x02");
        central.extend(if e.mode == 0 { [20, 0] } else { [20, 3] });
        central.extend(&common);
        central.extend([0; 6]);
        central.extend((e.mode << 16).to_le_bytes());
        central.extend(start.to_le_bytes());
        central.extend(&e.name);
    }
    let at = out.len() as u32;
    out.extend(&central);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((central.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

// === tar, by hand ===

struct Tar {
    name: Vec<u8>,
    kind: u8,
    mode: u32,
    link: Vec<u8>,
    data: Vec<u8>,
    size: Option<u64>,
}

fn tar_file(name: &str, data: &str) -> Tar {
    Tar { name: name.into(), kind: b'0', mode: 0o644, link: vec![], data: data.into(), size: None }
}

fn tar_kind(kind: u8, name: &str, link: &str) -> Tar {
    Tar { kind, link: link.into(), ..tar_file(name, "") }
}

fn tar_raw(entries: &[Tar]) -> Vec<u8> {
    let mut out = Vec::new();
    for e in entries {
        let mut header = [0u8; 512];
        let n = e.name.len().min(100);
        header[..n].copy_from_slice(&e.name[..n]);
        header[100..107].copy_from_slice(format!("{:07o}", e.mode).as_bytes());
        let size = e.size.unwrap_or(e.data.len() as u64);
        header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = e.kind;
        let n = e.link.len().min(100);
        header[157..157 + n].copy_from_slice(&e.link[..n]);
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(header);
        out.extend(&e.data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar_bytes(entries: &[Tar]) -> Vec<u8> {
    gz(&tar_raw(entries))
}

fn pax_record(key: &str, value: &str) -> String {
    let body = format!(" {key}={value}\n");
    let mut length = body.len() + 1;
    while format!("{length}{body}").len() != length {
        length += 1;
    }
    format!("{length}{body}")
}

fn pax_entry(kind: u8, records: &[(&str, &str)]) -> Tar {
    let data: String = records.iter().map(|(k, v)| pax_record(k, v)).collect();
    Tar { kind, ..tar_file("pax", &data) }
}

/// Names that no entry may have, and a part of what is said about them.
fn evil_names() -> Vec<(String, &'static str)> {
    let mut names = vec![
        ("../evil".to_owned(), "`..`"),
        ("..".to_owned(), "`..`"),
        ("a/../../evil".to_owned(), "`..`"),
        ("a/b/../../../evil".to_owned(), "`..`"),
        ("./../evil".to_owned(), "`..`"),
        ("a/..".to_owned(), "`..`"),
        ("//evil".to_owned(), "absolute"),
        ("/evil".to_owned(), "absolute"),
        ("/etc/cron.d/evil".to_owned(), "absolute"),
        ("/../evil".to_owned(), "absolute"),
        ("..\\evil".to_owned(), "backslash"),
        ("a\\..\\..\\evil".to_owned(), "backslash"),
        ("C:\\evil".to_owned(), "backslash"),
        ("\\\\host\\share\\evil".to_owned(), "backslash"),
        ("a\\b".to_owned(), "backslash"),
        ("evil\n".to_owned(), "control"),
        ("a\u{1b}[2Jevil".to_owned(), "control"),
        ("a\rb".to_owned(), "control"),
        ("a\u{7f}".to_owned(), "control"),
    ];


    names
}

struct Evil {
    what: String,
    bytes: Vec<u8>,
    expect: &'static str,
}

fn evil_archives() -> Vec<Evil> {
    let mut all = Vec::new();
    let mut add = |what: &str, bytes: Vec<u8>, expect: &'static str| all.push(Evil { what: what.to_owned(), bytes, expect });

    for (name, expect) in evil_names() {
        add(&format!("zip {name:?}"), zip_bytes(&[zip_file("ok", "x"), zip_file(&name, "evil")]), expect);
        add(&format!("tar {name:?}"), tar_bytes(&[tar_file("ok", "x"), tar_file(&name, "evil")]), expect);
        let long = Tar { kind: b'L', ..tar_file("././@LongLink", &format!("{name}\0")) };
        add(&format!("tar long name {name:?}"), tar_bytes(&[long, tar_file("short", "evil")]), expect);
        if !name.contains('\n') {
            add(
                &format!("tar pax {name:?}"),
                tar_bytes(&[pax_entry(b'x', &[("path", &name)]), tar_file("short", "evil")]),
                expect,
            );
        }
    }
    // Names that only one format can carry.
    add("zip NUL in the name", zip_bytes(&[zip_file("a\0b", "x")]), "control");
    add("zip empty name", zip_bytes(&[zip_file("", "x")]), "");
    add("zip root as file", zip_bytes(&[zip_file(".", "x")]), "empty");
    add("zip name of 256 bytes", zip_bytes(&[zip_file(&"x".repeat(256), "x")]), "255");
    add("zip path of 2000 bytes", zip_bytes(&[zip_file(&"xxxxxxxxxxxxxxxxxxx/".repeat(100), "")]), "1024");
    add("zip 65 folders deep", zip_bytes(&[zip_file(&("d/".repeat(65) + "x"), "x")]), "64 folders");
    add("zip name not UTF-8", zip_bytes(&[Zip { name: b"a\xff".to_vec(), ..zip_file("", "x") }]), "UTF-8");
    add("tar name not UTF-8", tar_bytes(&[Tar { name: b"a\xff".to_vec(), ..tar_file("", "x") }]), "UTF-8");
    add("tar empty name", tar_bytes(&[tar_file("", "x")]), "empty");
    let long = |n: usize| Tar { kind: b'L', ..tar_file("././@LongLink", &"x".repeat(n)) };
    add("tar long name of 300 bytes", tar_bytes(&[long(300), tar_file("a", "x")]), "255");
    add("tar long name of 60,000 bytes", tar_bytes(&[long(60_000), tar_file("a", "x")]), "too long");
    add("tar long name of 1 GiB that is not there", tar_bytes(&[Tar { size: Some(1 << 30), ..long(10) }]), "");

    // Links.
    let link = |name: &str, target: &str| Zip { mode: 0o120777, ..zip_file(name, target) };
    for (target, expect) in [
        ("/etc/passwd", "leads out"),
        ("../outside", "leads out"),
        ("a/../../outside", "leads out"),
        ("..", "leads out"),
        ("", "leads out"),
        ("..\\outside", "leads out"),
        ("/proc/self/root", "leads out"),
    ] {
        add(&format!("zip link to {target:?}"), zip_bytes(&[link("l", target)]), expect);
        add(&format!("tar link to {target:?}"), tar_bytes(&[tar_kind(b'2', "l", target)]), expect);
    }
    add("zip file under a link", zip_bytes(&[zip_file("d/a", "x"), link("l", "d"), zip_file("l/evil", "x")]), "where its folder");
    add("tar file under a link", tar_bytes(&[tar_kind(b'5', "d/", ""), tar_kind(b'2', "l", "d"), tar_file("l/evil", "x")]), "where its folder");
    add("zip link over a file", zip_bytes(&[zip_file("a", "x"), zip_file("b", "x"), link("./a", "b")]), "of this name already");
    add("tar file over a link", tar_bytes(&[tar_kind(b'2', "a", "b"), tar_file("a", "evil")]), "of this name already");
    add("zip link over a folder", zip_bytes(&[zip_file("a/b", "x"), link("a", "c")]), "of this name already");
    add("tar chain of links that climbs", tar_bytes(&[
        tar_kind(b'5', "p/q/", ""),
        tar_kind(b'2', "p/q/l1", "../.."),
        tar_kind(b'2', "l2", "p/q/l1/.."),
    ]), "leads out");
    add("tar pax linkpath", tar_bytes(&[pax_entry(b'x', &[("linkpath", "/etc")]), tar_kind(b'2', "l", "ok")]), "leads out");
    add("tar long link", tar_bytes(&[Tar { kind: b'K', ..tar_file("././@LongLink", "../../x\0") }, tar_kind(b'2', "l", "ok")]), "leads out");
    add("zip link of 5000 bytes", zip_bytes(&[link("l", &"x".repeat(5000))]), "leads out");

    // Kinds.
    add("tar hard link", tar_bytes(&[tar_file("a", "x"), tar_kind(b'1', "b", "a")]), "hard link");
    add("tar hard link out", tar_bytes(&[tar_kind(b'1', "b", "/etc/passwd")]), "hard link");
    add("tar character device", tar_bytes(&[tar_kind(b'3', "null", "")]), "device");
    add("tar block device", tar_bytes(&[tar_kind(b'4', "sda", "")]), "device");
    add("tar fifo", tar_bytes(&[tar_kind(b'6', "fifo", "")]), "device");
    add("tar sparse", tar_bytes(&[tar_kind(b'S', "sparse", "")]), "sparse");
    add("tar unknown type", tar_bytes(&[tar_kind(b'V', "label", "")]), "unknown type");
    for (what, mode) in [("fifo", 0o010644), ("character device", 0o020644), ("block device", 0o060644), ("socket", 0o140644)] {
        add(&format!("zip {what}"), zip_bytes(&[Zip { mode, ..zip_file("s", "") }]), "device");
    }
    add("tar pax size", tar_bytes(&[pax_entry(b'x', &[("size", "1")]), tar_file("a", "xyz")]), "a size in a pax");
    add("tar pax sparse", tar_bytes(&[pax_entry(b'x', &[("GNU.sparse.major", "1")]), tar_file("a", "xyz")]), "sparse");
    add("tar pax global path", tar_bytes(&[pax_entry(b'g', &[("path", "x")]), tar_file("a", "x")]), "all entries");
    add("tar pax malformed", tar_bytes(&[Tar { kind: b'x', ..tar_file("p", "999 path=x\n") }, tar_file("a", "x")]), "malformed");
    add("tar pax of length 0", tar_bytes(&[Tar { kind: b'x', ..tar_file("p", "0 path=x\n") }, tar_file("a", "x")]), "malformed");

    // Duplicates and clashes.
    add("zip duplicate", zip_bytes(&[zip_file("a", "1"), zip_file("a", "2")]), "same name");
    add("zip duplicate by another spelling", zip_bytes(&[zip_file("a", "1"), zip_file("./a", "2")]), "of this name already");
    add("tar duplicate", tar_bytes(&[tar_file("a", "1"), tar_file("./a", "2")]), "of this name already");
    add("zip file as folder", zip_bytes(&[zip_file("a", "1"), zip_file("a/b", "2")]), "where its folder");
    add("tar file as folder", tar_bytes(&[tar_file("a", "1"), tar_file("a/b", "2")]), "where its folder");
    add("zip folder as file", zip_bytes(&[zip_file("a/b", "1"), zip_file("a", "2")]), "of this name already");

    // Sizes, packing, limits.
    let zeros = |n: usize| Zip { method: 8, data: vec![0; n], ..zip_file("zeros", "") };
    add("zip says less than it holds", zip_bytes(&[Zip { size: Some(3), ..zip_file("a", "longer") }]), "");
    add("zip says more than it holds", zip_bytes(&[Zip { size: Some(30), ..zip_file("a", "short") }]), "");
    add("zip deflate says less", zip_bytes(&[Zip { size: Some(3), ..zeros(100) }]), "");
    add("zip deflate says more", zip_bytes(&[Zip { size: Some(300), ..zeros(100) }]), "");
    add("zip wrong checksum", zip_bytes(&[Zip { crc: Some(1), ..zip_file("a", "x") }]), "");
    add("zip encrypted", zip_bytes(&[Zip { flags: 0x801, ..zip_file("a", "xxxxxxxxxxxxxxxx") }]), "encrypted");
    add("zip by another method", zip_bytes(&[Zip { method: 12, ..zip_file("a", "x") }]), "method");
    add("zip folder with content", zip_bytes(&[Zip { mode: 0o040755, ..zip_file("a/", "x") }]), "size");
    add("zip too large", zip_bytes(&[zeros(65 << 10)]), "more than 0 MiB");
    add("zip too large in sum", zip_bytes(&(0..5).map(|i| Zip { name: format!("z{i}").into(), ..zeros(20 << 10) }).collect::<Vec<_>>()), "more than 0 MiB");
    add("tar too large", tar_bytes(&[tar_file("a", &"x".repeat(65 << 10))]), "more than 0 MiB");
    add("tar of headers without end", gz(&vec![b'0'; 4 << 20]), "");
    add("zip too many", zip_bytes(&(0..51).map(|i| zip_file(&i.to_string(), "")).collect::<Vec<_>>()), "more than 50 files");
    add("tar too many", tar_bytes(&(0..51).map(|i| tar_file(&i.to_string(), "")).collect::<Vec<_>>()), "more than 50 files");
    add("tar too many headers", tar_bytes(&(0..60).map(|_| pax_entry(b'x', &[("mtime", "1")])).collect::<Vec<_>>()), "more than 50 files");
    add("zip too many implied folders", zip_bytes(&(0..3).map(|i| zip_file(&format!("{i}/{}x", "d/".repeat(40)), "")).collect::<Vec<_>>()), "more than 50 files");
    add("zip entries that overlap", zip_bytes(&[zip_file("a", "xxxx"), Zip { header: Some(0), ..zip_file("b", "xxxx") }]), "");
    add("larger than allowed", { let mut z = zip_bytes(&[zip_file("a", "x")]); z.resize((1 << 20) + 1, 0); z }, "larger than 1 MiB");

    // Broken.
    let whole = zip_bytes(&[zip_file("a", "x"), zip_file("b", "y")]);
    add("zip cut off", whole[..whole.len() - 30].to_vec(), "");
    add("zip without its first half", [b"PK\x03\x04".to_vec(), whole[40..].to_vec()].concat(), "");
    add("zip with a prefix", [b"PK\x03\x04".to_vec(), whole.clone()].concat(), "");
    let whole = tar_bytes(&[tar_file("a", &"abc".repeat(2000))]);
    add("tar.gz cut off", whole[..whole.len() / 2].to_vec(), "");
    add("gzip of nothing that is a tar", gz(b"hello"), "");
    add("tar that is not packed", tar_raw(&[tar_file("a", "x")]), "neither");
    add("tar entry cut off", gz(&tar_raw(&[Tar { size: Some(5000), ..tar_file("a", "x") }])[..600]), "");
    add("tar size of 8 EiB", tar_bytes(&[Tar { size: Some(0o77777777777), ..tar_file("a", "x") }]), "");
    add("empty file", vec![], "neither");
    add("rar", b"Rar!\x1a\x07\x01\x00".to_vec(), "neither");
    add("html", b"<html></html>".to_vec(), "neither");
    all
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
        let expect = [
            ("bin/link", "-> ../main.py"),
            ("bin/run", "755 setuid"),
            ("dos", "644 d"),
            ("main.py", "644 code"),
            ("private", "644 p"),
        ];
        assert_eq!(tree, expect.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
    }
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
    let status = std::process::Command::new("python3")
        .args(["-c", PYTHON_ZIP])
        .args([source.path(), &zip])
        .status()
        .unwrap();
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
