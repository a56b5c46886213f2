//! Base images: known, unknown, missing.

use super::*;

pub(crate) fn catalogue(versions: &[&str]) -> Catalogue {
    let mut interpreters: Vec<Interpreter> = versions
        .iter()
        .map(|version| Interpreter {
            version: Version::parse(version).unwrap(),
            path: format!("/opt/{version}/bin/python").into(),
            runtime_paths: vec!["/usr".into(), format!("/opt/{version}").into()],
            platform: "linux-x86_64".to_owned(),
            has_pip: true,
        })
        .collect();
    interpreters.sort_by_key(|found| std::cmp::Reverse(found.version));
    Catalogue { interpreters, ..Catalogue::default() }
}

#[test]
fn the_catalogue_file_is_whole() {
    assert_eq!(KNOWN.runtimes.len(), 7);
    for runtime in &KNOWN.runtimes {
        assert_eq!(runtime.id, format!("python{}", runtime.version.replace('.', "")));
        assert!(STACKS.contains(&runtime.stack.as_str()));
    }
    assert!(KNOWN.uv.hashes.iter().all(|hash| hash.len() == 64));
    for pins in [&KNOWN.framework, &KNOWN.webserver] {
        assert!(pins.pins[0].starts_with(&format!("{}==", pins.package)));
    }
}

#[test]
fn base_images_are_understood_or_refused() {
    fn check(text: &str, expect: Result<&str, &str>) {
        match (BaseImage::parse(text), expect) {
            (Ok(base), Ok(uri)) => assert_eq!(base.uri("asia-northeast1"), format!("asia-northeast1-docker.pkg.dev/serverless-runtimes/{uri}")),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{text}: {error}")
            }
            (got, _) => panic!("{text}: {got:?}"),
        }
    }
    check("python312", Ok("google-22/runtimes/python312"));
    check("python312:latest", Ok("google-22/runtimes/python312"));
    check("google-22/python312", Ok("google-22/runtimes/python312"));
    check("google-22-full/python312", Ok("google-22-full/runtimes/python312"));
    check("google-24/python314", Ok("google-24/runtimes/python314"));
    check("python314", Ok("google-24/runtimes/python314"));
    check("python39", Ok("google-18/runtimes/python39"));
    check("us-central1-docker.pkg.dev/serverless-runtimes/google-22-full/runtimes/python313:3.13_20250101", Ok("google-22-full/runtimes/python313"));
    check("asia-northeast1-docker.pkg.dev/serverless-runtimes/google-22/runtimes/python312@sha256:0123", Ok("google-22/runtimes/python312"));
    check("localhost:5000/runtimes/python312", Ok("google-22/runtimes/python312"));
    check("nodejs22", Err("only Python functions can be built"));
    check("google-22/go126", Err("only Python functions can be built"));
    check("osonly24", Err("only Python functions can be built"));
    check("java17", Err("not available on this host yet"));
    check("python399", Err("Unknown base image \"python399\". Known: python38, python39"));
    check("python", Err("Unknown base image"));
    check("python312 ", Err("Unknown base image"));
    check("", Err("Unknown base image"));
    check("google-20/python312", Err("unknown stack \"google-20\""));
    check("debian/python312", Err("unknown stack \"debian\""));
    check("gcr.io/x/ubuntu:22.04", Err("Unknown base image"));
}

#[test]
fn a_missing_interpreter_is_named_with_what_is_there() {
    let text = catalogue(&["3.12.1", "3.13.0"]).interpreter_of(&BaseImage::parse("python314").unwrap()).unwrap_err().to_string();
    assert_eq!(
        text,
        "Base image \"python314\" needs Python 3.14, which is not installed on this host. Found: 3.12.1, 3.13.0. \
         Install Python 3.14 (for example with pyenv or uv), restart tanebi, then deploy again."
    );
    let text = catalogue(&[]).interpreter_of(&BaseImage::parse("python312").unwrap()).unwrap_err().to_string();
    assert!(text.contains("Found: none."), "{text}");
}

#[test]
fn the_newest_patch_of_a_runtime_is_taken_and_no_other_minor() {
    let catalogue = catalogue(&["3.12.1", "3.12.11", "3.12.9", "3.1.2"]);
    let found = catalogue.interpreter_of(&BaseImage::parse("python312").unwrap()).unwrap();
    assert_eq!(found.version.to_string(), "3.12.11");
    assert!(catalogue.interpreter_of(&BaseImage::parse("python311").unwrap()).is_err());
}

#[test]
fn only_what_runs_and_answers_is_an_interpreter() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("some-python/bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (name, script) in [
        ("python3.8", "#!/bin/sh\necho lies\n"),
        ("python3.9", "#!/bin/sh\nexit 3\n"),
        ("python3.10", "not a program"),
        ("uv", "#!/bin/sh\necho uv 1.2.3 '(x86_64)'\n"),
    ] {
        std::fs::write(bin.join(name), script).unwrap();
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(bin.join("python3.10"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let catalogue = Catalogue::discover(&[dir.path().to_owned(), "/nowhere".into()]);
    assert_eq!(catalogue.interpreters(), []);
    assert_eq!(catalogue.skipped().len(), 3, "{:?}", catalogue.skipped());
    assert_eq!(catalogue.uv().unwrap().1, "1.2.3");
}

#[test]
fn the_interpreters_of_this_host_are_found_with_their_folders() {
    let catalogue = Catalogue::discover(&["/usr/bin".into()]);
    for found in catalogue.interpreters() {
        assert!(found.runtime_paths.contains(&PathBuf::from("/usr")), "{found:?}");
        assert!(found.path.starts_with("/usr"), "{found:?}");
    }
    let by_hand = std::fs::read_dir("/usr/bin").unwrap().any(|entry| entry.unwrap().file_name().to_str() == Some("python3.11"));
    assert_eq!(by_hand, catalogue.interpreters().iter().any(|found| found.version.minor == 11), "{:?}", catalogue.skipped());
}

#[test]
fn what_everybody_can_write_is_passed_over_by_root() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uv");
    std::fs::write(&path, "#!/bin/sh\nid -u >&2\necho uv 1.2.3\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(path_owner(&path).is_err());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(path_owner(&path), Ok(None));
    std::os::unix::fs::chown(&path, Some(1234), Some(1234)).unwrap();
    assert_eq!(path_owner(&path), Ok(Some((1234, 1234))));
}
