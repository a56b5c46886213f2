//! Archives that must be refused, and a part of what is said about each.

use super::made::*;

/// Names that no entry may have, and a part of what is said about them.
pub(super) fn evil_names() -> Vec<(String, &'static str)> {
    vec![
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
    ]
}

pub(super) struct Evil {
    pub(super) what: String,
    pub(super) bytes: Vec<u8>,
    pub(super) expect: &'static str,
}

pub(super) fn evil_archives() -> Vec<Evil> {
    let mut all = Vec::new();
    let mut add = |what: &str, bytes: Vec<u8>, expect: &'static str| all.push(Evil { what: what.to_owned(), bytes, expect });

    for (name, expect) in evil_names() {
        add(&format!("zip {name:?}"), zip_bytes(&[zip_file("ok", "x"), zip_file(&name, "evil")]), expect);
        add(&format!("tar {name:?}"), tar_bytes(&[tar_file("ok", "x"), tar_file(&name, "evil")]), expect);
        let long = Tar { kind: b'L', ..tar_file("././@LongLink", &format!("{name}\0")) };
        add(&format!("tar long name {name:?}"), tar_bytes(&[long, tar_file("short", "evil")]), expect);
        if !name.contains('\n') {
            add(&format!("tar pax {name:?}"), tar_bytes(&[pax_entry(b'x', &[("path", &name)]), tar_file("short", "evil")]), expect);
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
    add(
        "tar chain of links that climbs",
        tar_bytes(&[tar_kind(b'5', "p/q/", ""), tar_kind(b'2', "p/q/l1", "../.."), tar_kind(b'2', "l2", "p/q/l1/..")]),
        "leads out",
    );
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
    add(
        "zip too many implied folders",
        zip_bytes(&(0..3).map(|i| zip_file(&format!("{i}/{}x", "d/".repeat(40)), "")).collect::<Vec<_>>()),
        "more than 50 files",
    );
    add("zip entries that overlap", zip_bytes(&[zip_file("a", "xxxx"), Zip { header: Some(0), ..zip_file("b", "xxxx") }]), "");
    add(
        "larger than allowed",
        {
            let mut z = zip_bytes(&[zip_file("a", "x")]);
            z.resize((1 << 20) + 1, 0);
            z
        },
        "larger than 1 MiB",
    );

    // Broken.
    let whole = zip_bytes(&[zip_file("a", "x"), zip_file("b", "y")]);
    add("zip cut off", whole[..whole.len() - 30].to_vec(), "");
    add("zip without its first half", [b"PK\x03\x04".to_vec(), whole[40..].to_vec()].concat(), "");
    add("zip with a prefix", [b"PK\x03\x04".to_vec(), whole.clone()].concat(), "");
    let whole = tar_bytes(&[tar_file("a", &"abc".repeat(2000))]);
    add("tar.gz cut off", whole[..whole.len() / 2].to_vec(), "");
    let end = whole.len();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    add("tar.gz with a wrong checksum", flipped(end - 8), "end of its gzip");
    add("tar.gz with a wrong length", flipped(end - 4), "end of its gzip");
    add("tar.gz without its last byte", whole[..end - 1].to_vec(), "end of its gzip");
    add("tar.gz without its trailer", whole[..end - 8].to_vec(), "end of its gzip");
    add("tar.gz with garbage behind it", [&whole[..], b"garbage"].concat(), "end of its gzip");
    add("tar.gz with a second member cut off", [&whole[..], &gz(&[0; 4096])[..15]].concat(), "end of its gzip");
    add("tar.gz with a second archive behind it", [&whole[..], &tar_bytes(&[tar_file("b", "x")])].concat(), "goes on behind the end");
    add("tar.gz with a file behind an empty block", gz(&[vec![0; 512], tar_raw(&[tar_file("a", "x")])].concat()), "goes on behind the end");
    add("gzip of nothing that is a tar", gz(b"hello"), "");
    add("tar that is not packed", tar_raw(&[tar_file("a", "x")]), "neither");
    add("tar entry cut off", gz(&tar_raw(&[Tar { size: Some(5000), ..tar_file("a", "x") }])[..600]), "");
    add("tar size of 8 EiB", tar_bytes(&[Tar { size: Some(0o77777777777), ..tar_file("a", "x") }]), "");
    add("empty file", vec![], "neither");
    add("rar", b"Rar!\x1a\x07\x01\x00".to_vec(), "neither");
    add("html", b"<html></html>".to_vec(), "neither");
    all
}
