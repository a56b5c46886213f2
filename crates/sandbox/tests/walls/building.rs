//! Writable mounts, as build steps have them, and discarding what strangers left.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use crate::suite::{Suite, collect, mount};
use sandbox::{Mount, Spec};

pub fn checks(suite: &mut Suite) {
    suite.check("a build writes into its folder and the daemon gets it back", |suite| {
        let out = fresh(suite, "out");
        let script = "umask 077; mkdir -p /out/a/b && echo x > /out/a/b/file && cp /usr/bin/true /out/tool && chmod 6755 /out/tool && \
            ln -s /etc/shadow /out/link && chmod 000 /out/a/b && mkfifo /out/fifo && ! echo y > /in/new && ls -ld /out | cut -d' ' -f3";
        let spec = writable(suite, "build-1", script, &out);
        let outcome = suite.run_to_end(&spec).expect_code(0);
        assert_eq!(outcome.stdout, "user\n");
        assert_eq!(outcome.ended.setup_error, None);
        let daemon = if suite.root { 65534 } else { rustix::process::geteuid().as_raw() };
        for (path, mode) in [("", 0o755), ("a", 0o700), ("a/b", 0o700), ("a/b/file", 0o600), ("tool", 0o755)] {
            let found = fs::metadata(out.join(path)).unwrap();
            assert_eq!((path, found.uid(), found.gid(), found.mode() & 0o7777), (path, daemon, found.gid(), mode));
        }
        assert_eq!(fs::symlink_metadata(out.join("link")).unwrap().uid(), daemon);
        suite.keeper().discard(&out).unwrap();
        assert!(!out.exists());
        suite.keeper().discard(&out).unwrap();
    });
    suite.check("a folder is given back also when the sandbox is ended", |suite| {
        let out = fresh(suite, "ended");
        let sandbox = suite.keeper().start(&writable(suite, "build-2", "touch /out/x; echo made; sleep 1000", &out)).unwrap();
        crate::suite::wait_for(&sandbox.stdout, "made");
        suite.keeper().end("build-2").unwrap();
        let daemon = if suite.root { 65534 } else { rustix::process::geteuid().as_raw() };
        assert_eq!((fs::metadata(&out).unwrap().uid(), fs::metadata(out.join("x")).unwrap().uid()), (daemon, daemon));
        assert_eq!(collect(&sandbox).ended.signal, Some(9));
    });
    suite.check("only folders of the daemon can be written", |suite| {
        let link = suite.staging().join("link");
        symlink("/etc", &link).unwrap();
        let outside = suite.dir.join("outside");
        fs::create_dir(&outside).unwrap();
        for source in [outside.as_path(), &suite.staging(), &link, &suite.staging().join("absent"), Path::new("/usr"), &link.join("ssl")] {
            let error = suite.keeper().start(&writable(suite, "build-3", "true", source)).map(|sandbox| sandbox.id).expect_err("not to be written");
            assert!(error.to_string().contains(&source.display().to_string()), "{error}");
        }
        for path in [outside.as_path(), &suite.staging(), &link.join("ssl"), Path::new("/etc/passwd"), &suite.staging().join("../outside")] {
            let error = suite.keeper().discard(path).expect_err("not to be discarded");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        assert!(outside.exists() && Path::new("/etc/passwd").exists());
        suite.keeper().discard(&link).unwrap();
        assert!(Path::new("/etc/passwd").exists() && fs::symlink_metadata(&link).is_err());
    });
    suite.check("a mount below 0700 folders works and links in it are the sandbox's own", |suite| {
        let deep = suite.dir.join("private/deep");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "seen\n").unwrap();
        fs::write(suite.dir.join("private/secret"), "secret\n").unwrap();
        symlink("../secret", deep.join("up")).unwrap();
        symlink("/etc/passwd", deep.join("passwd")).unwrap();
        fs::set_permissions(suite.dir.join("private"), PermissionsExt::from_mode(0o700)).unwrap();
        let mut spec = suite.shell("deep-1", "cat /app/file; cat /app/up; cat /app/passwd | wc -l");
        spec.mounts.push(mount(&deep, "/app"));
        spec.mounts.push(mount(deep.join("file"), "/one/file"));
        let outcome = suite.run_to_end(&spec).expect_code(0);
        assert_eq!(outcome.stdout, "seen\n2\n", "{outcome:?}");
    });
    suite.check("a tree of many thousand files is discarded", |suite| {
        let out = fresh(suite, "large");
        let script = "cd /out; for d in 1 2 3 4 5 6 7 8; do mkdir -p $d/$d/$d; (cd $d/$d/$d; seq 1 500 | xargs touch); done; chmod 000 3 5/5";
        suite.run_to_end(&writable(suite, "build-4", script, &out)).expect_code(0);
        suite.keeper().discard(&out).unwrap();
        assert!(!out.exists());
    });
}

fn fresh(suite: &Suite, name: &str) -> std::path::PathBuf {
    let folder = suite.staging().join(name);
    fs::create_dir(&folder).unwrap();
    if suite.root {
        chown(&folder, Some(65534), Some(65534)).unwrap();
    }
    folder
}

fn writable(suite: &Suite, id: &str, script: &str, source: &Path) -> Spec {
    let mut spec = suite.shell(id, script);
    spec.mounts.push(mount("/usr/share", "/in"));
    spec.mounts.push(Mount { source: source.to_owned(), target: "/out".into(), writable: true });
    spec
}
