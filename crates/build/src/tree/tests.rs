//! Trees as builds leave them, good and evil.

use super::*;

#[test]
fn paths_are_plain_names_or_refused() {
    fn check(path: &str, expect: Result<&str, PathFault>) {
        assert_eq!(TreePath::parse(path.as_bytes()).map(|p| p.to_string()), expect.map(str::to_owned), "{path:?}");
    }
    check("main.py", Ok("main.py"));
    check("./a//b/./c", Ok("a/b/c"));
    check("a/", Ok("a"));
    check("./", Ok(""));
    check("...", Ok("..."));
    check("", Err(PathFault::Empty));
    check("/etc/passwd", Err(PathFault::Absolute));
    check("..", Err(PathFault::Parent));
    check("a/../b", Err(PathFault::Parent));
    check("a\\..\\b", Err(PathFault::Backslash));
    check("a\0b", Err(PathFault::Control));
    check("a\nb", Err(PathFault::Control));
    check(&"x".repeat(255), Ok(&"x".repeat(255)));
    check(&"x".repeat(256), Err(PathFault::NameTooLong));
    check(&"x/".repeat(65), Err(PathFault::TooDeep));
    check(&"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/".repeat(30), Err(PathFault::PathTooLong));
    assert_eq!(TreePath::parse(b"a\xff"), Err(PathFault::NotUtf8));
}

#[test]
fn links_that_could_leave_the_tree_are_told() {
    fn check(path: &str, target: &str, stays: bool) {
        assert_eq!(link_stays(&TreePath::parse(path.as_bytes()).unwrap(), target), stays, "{path} -> {target}");
    }
    check("a", "b", true);
    check("a", "b/c", true);
    check("a/b", "../c", true);
    check("a/b", "..", true);
    check("a", "..", false);
    check("a", "../x", false);
    check("a/b", "../../x", false);
    check("a", "/etc/passwd", false);
    check("a/b", "c/../../x", false);
    check("a", "b\\..", false);
    check("a", "", false);
    check("a", "b\0c", false);
}

#[test]
fn a_copy_takes_files_folders_and_links_that_stay() {
    let from = tempfile::tempdir().unwrap();
    let to = tempfile::tempdir().unwrap();
    std::fs::create_dir(from.path().join("bin")).unwrap();
    std::fs::write(from.path().join("bin/x"), "x").unwrap();
    std::os::unix::fs::symlink("x", from.path().join("bin/y")).unwrap();
    std::os::unix::fs::symlink("/usr/bin/python3", from.path().join("bin/python")).unwrap();
    let rules = CopyRules { bytes_max: 10, entries_max: 10, links_below: vec!["/usr".into()], without: vec![] };
    let copied = copy(from.path(), &mut TreeWriter::open(to.path()).unwrap(), &rules).unwrap();
    assert_eq!(copied, Copied { bytes: 1, entries: 4 });
    assert_eq!(std::fs::read_to_string(to.path().join("bin/y")).unwrap(), "x");
}

#[test]
fn what_is_taken_is_moved_unless_it_has_another_name_or_attributes() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let (from, to, outside) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("outside"));
    [&from, &to].into_iter().for_each(|path| std::fs::create_dir(path).unwrap());
    std::fs::create_dir(from.join("bin")).unwrap();
    std::fs::write(from.join("bin/own"), "own").unwrap();
    std::fs::set_permissions(from.join("bin/own"), std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::write(&outside, "shared").unwrap();
    std::fs::hard_link(&outside, from.join("shared")).unwrap();
    std::fs::write(from.join("marked"), "marked").unwrap();
    let is_marked = rustix::fs::setxattr(from.join("marked"), "user.mark", b"x", rustix::fs::XattrFlags::empty()).is_ok();
    let number = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let (own, marked) = (number(&from.join("bin/own")), number(&from.join("marked")));
    let rules = CopyRules { bytes_max: 100, entries_max: 10, links_below: vec![], without: vec![] };
    let taken = take(&from, &mut TreeWriter::open(&to).unwrap(), &rules).unwrap();
    assert_eq!(taken, Copied { bytes: 15, entries: 4 });
    assert_eq!(number(&to.join("bin/own")), own, "moved");
    assert_eq!(std::fs::metadata(to.join("bin/own")).unwrap().mode() & 0o7777, 0o755);
    assert!(!from.join("bin/own").exists());
    assert_ne!(number(&to.join("shared")), number(&outside), "whoever has the other name cannot change it");
    assert_eq!(number(&to.join("marked")) == marked, !is_marked);
    assert_eq!(std::fs::read_to_string(to.join("shared")).unwrap() + &std::fs::read_to_string(to.join("marked")).unwrap(), "sharedmarked");
}

#[test]
fn a_copy_refuses_what_is_not_data() {
    fn check(make: impl Fn(&Path), expect: &str) {
        for transfer in [copy, take] {
            let from = tempfile::tempdir().unwrap();
            let to = tempfile::tempdir().unwrap();
            make(from.path());
            let rules = CopyRules { bytes_max: 10, entries_max: 3, links_below: vec!["/usr".into()], without: vec![] };
            let error = transfer(from.path(), &mut TreeWriter::open(to.path()).unwrap(), &rules).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }
    use std::os::unix::fs::{PermissionsExt, symlink};
    check(|d| symlink("/etc/shadow", d.join("a")).unwrap(), "leads out");
    check(|d| symlink("/usr/../etc/shadow", d.join("a")).unwrap(), "leads out");
    check(|d| symlink("/usrx", d.join("a")).unwrap(), "leads out");
    check(|d| symlink("../a", d.join("a")).unwrap(), "leads out");
    check(|d| drop(std::os::unix::net::UnixListener::bind(d.join("s")).unwrap()), "neither file");
    check(|d| std::fs::write(d.join("a"), "01234567890").unwrap(), "more than");
    check(|d| (0..4).for_each(|i| std::fs::write(d.join(i.to_string()), "").unwrap()), "too many");
    check(
        |d| {
            std::fs::write(d.join("a"), "x").unwrap();
            std::fs::set_permissions(d.join("a"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        },
        "set-user-id",
    );
}

#[test]
fn reading_follows_no_link() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "text").unwrap();
    std::os::unix::fs::symlink("a", dir.path().join("l")).unwrap();
    std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
    let tree = TreeReader::open(dir.path()).unwrap();
    assert_eq!(tree.read("a", 10).unwrap().as_deref(), Some(&b"text"[..]));
    assert_eq!(tree.read("./a", 10).unwrap().as_deref(), Some(&b"text"[..]));
    assert!(tree.read("a", 3).is_err());
    for path in ["l", "root/etc/passwd", "../a", "/etc/passwd", "none", "a/b", ""] {
        assert_eq!(tree.read(path, 1 << 20).unwrap(), None, "{path}");
    }
}
