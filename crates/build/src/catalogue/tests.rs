//! Base images: known, unknown, missing.

use super::*;

pub(crate) fn catalogue(versions: &[(Language, &str)]) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for (language, version) in versions {
        catalogue.add(Interpreter {
            language: *language,
            version: Version::parse(version).unwrap(),
            path: format!("/opt/{version}/bin/{}", language.prefix()).into(),
            runtime_paths: vec!["/usr".into(), format!("/opt/{version}").into()],
            layer: None,
            platform: "linux-x86_64".to_owned(),
            packager: Some("/opt/packager".into()),
        });
    }
    catalogue
}

/// A host as the table of rules thinks of it.
pub(crate) fn host() -> Catalogue {
    let python = ["3.8.18", "3.9.18", "3.10.13", "3.11.7", "3.12.1", "3.13.0"].map(|version| (Language::Python, version));
    let others = [
        (Language::Nodejs, "20.20.2"),
        (Language::Nodejs, "24.19.0"),
        (Language::Go, "1.26.8"),
        (Language::Go, "1.25.5"),
        (Language::Java, "17.0.15"),
        (Language::Java, "25.0.1"),
    ];
    catalogue(&[&python[..], &others[..]].concat())
}

fn pythons(versions: &[&'static str]) -> Catalogue {
    catalogue(&versions.iter().map(|version| (Language::Python, *version)).collect::<Vec<_>>())
}

#[test]
fn the_catalogue_files_are_whole() {
    assert_eq!(KNOWN.languages().len(), Language::ALL.len());
    for language in KNOWN.languages() {
        for runtime in &language.runtimes {
            assert_eq!(runtime.id, format!("{}{}", language.prefix, runtime.version.replace('.', "")));
            assert!(base_image::STACKS.contains(&runtime.stack.as_str()));
            for day in [&runtime.deprecated, &runtime.decommissioned].into_iter().flatten() {
                assert!(format!("{day}T00:00:00Z").parse::<model::Timestamp>().is_ok(), "{day}");
            }
        }
    }
    assert!(KNOWN.python.uv.hashes.iter().all(|hash| hash.len() == 64));
    for pins in [&KNOWN.python.framework, &KNOWN.python.webserver] {
        assert!(pins.pins[0].starts_with(&format!("{}==", pins.package)));
    }
    assert_eq!((KNOWN.java.invoker.sha256.len(), KNOWN.java.maven.sha512.len()), (64, 128));
    assert_eq!(KNOWN.nodejs.managers.keys().collect::<Vec<_>>(), ["bun", "pnpm", "yarn"]);
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
    check("nodejs22", Ok("google-22/runtimes/nodejs22"));
    check("google-24/go126", Ok("google-24/runtimes/go126"));
    check("java17", Ok("google-22/runtimes/java17"));
    check("ruby34", Ok("google-22/runtimes/ruby34"));
    check("nodejs7", Err("Unknown base image \"nodejs7\". Known: nodejs8, nodejs10"));
    check("python399", Err("Unknown base image \"python399\". Known: python38, python39"));
    check("python", Err("Unknown base image"));
    check("python312 ", Err("Unknown base image"));
    check("google-20/python312", Err("unknown stack \"google-20\""));
    check("debian/python312", Err("unknown stack \"debian\""));
    check("gcr.io/x/ubuntu:22.04", Err("Unknown base image"));
}

#[test]
fn a_stack_without_a_language_leaves_it_to_the_source() {
    for text in ["", "gcr.io/buildpacks/google-22/run", "gcr.io/buildpacks/google-24-full/run:latest", "gcr.io/buildpacks/google-22/run@sha256:0123"] {
        assert!(base_image::any(text).is_some(), "{text}");
    }
    for text in ["python312", "gcr.io/buildpacks/builder", "gcr.io/buildpacks/google-20/run", "gcr.io/buildpacks/google-22/build"] {
        assert!(base_image::any(text).is_none(), "{text}");
    }
}

#[test]
fn a_missing_interpreter_is_named_with_what_is_there() {
    let missing = |catalogue: Catalogue, id: &str| catalogue.interpreter_of(&BaseImage::parse(id).unwrap()).unwrap_err().to_string();
    assert_eq!(
        missing(pythons(&["3.12.1", "3.13.0"]), "python314"),
        "Base image \"python314\" needs Python 3.14, which is not installed on this host. Found: 3.12.1, 3.13.0. \
         Install it with: tanebi runtimes install python314 (runs: uv python install 3.14), then deploy again."
    );
    let text = missing(pythons(&[]), "nodejs24");
    assert!(text.contains("needs Node.js 24, which is not installed on this host. Found: none."), "{text}");
    for id in ["ruby34", "php85", "dotnet8", "osonly24"] {
        let text = missing(host(), id);
        assert!(text.contains("is not available on this host"), "{text}");
    }
}

#[test]
fn the_newest_patch_of_a_runtime_is_taken_and_no_other_minor() {
    let catalogue = pythons(&["3.12.1", "3.12.11", "3.12.9", "3.1.2"]);
    let found = catalogue.interpreter_of(&BaseImage::parse("python312").unwrap()).unwrap();
    assert_eq!(found.version.to_string(), "3.12.11");
    assert!(catalogue.interpreter_of(&BaseImage::parse("python311").unwrap()).is_err());
    let found = host().interpreter_of(&BaseImage::parse("java17").unwrap()).unwrap().version;
    assert_eq!((found.major, found.patch), (17, 15));
}

#[test]
fn versions_are_read_as_programs_write_them() {
    for (text, expect) in [("3.12.1", "3.12.1"), ("25", "25.0.0"), ("1.26", "1.26.0"), ("17.0.15+6-Debian", "17.0.15"), ("25.0.2.1", "25.0.2")] {
        assert_eq!(Version::parse(text).unwrap().to_string(), expect);
    }
    assert_eq!(Version::parse("abc"), None);
    assert_eq!(Version::parse("1.x"), None);
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
    let catalogue = Catalogue::discover(&[dir.path().to_owned(), "/nowhere".into()], None);
    assert_eq!(catalogue.interpreters(), []);
    assert_eq!(catalogue.skipped().len(), 3, "{:?}", catalogue.skipped());
    assert_eq!(catalogue.uv().unwrap().1, "1.2.3");
}

#[test]
fn the_interpreters_of_this_host_are_found_with_their_folders() {
    let catalogue = Catalogue::discover(&["/usr/bin".into()], None);
    for found in catalogue.of(Language::Python) {
        assert!(found.runtime_paths.contains(&PathBuf::from("/usr")), "{found:?}");
        assert!(found.path.starts_with("/usr"), "{found:?}");
    }
    let by_hand = std::fs::read_dir("/usr/bin").unwrap().any(|entry| entry.unwrap().file_name().to_str() == Some("python3.11"));
    assert_eq!(by_hand, catalogue.of(Language::Python).any(|found| found.version.minor == 11), "{:?}", catalogue.skipped());
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
    assert!(candidate::path_owner(&path).is_err());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(candidate::path_owner(&path), Ok(None));
    std::os::unix::fs::chown(&path, Some(1234), Some(1234)).unwrap();
    assert_eq!(candidate::path_owner(&path), Ok(Some((1234, 1234))));
}

#[test]
fn fetched_runtimes_of_a_language_are_there_together() {
    let mut catalogue = host();
    let fetched = |version: &str, layer: &str| Interpreter {
        language: Language::Nodejs,
        version: Version::parse(version).unwrap(),
        path: "/layers/runtime/bin/node".into(),
        runtime_paths: vec!["/usr".into()],
        layer: Some(Layer { digest: layer.to_owned(), target: "/layers/runtime".into() }),
        platform: "linux-x64".to_owned(),
        packager: None,
    };
    for (version, layer) in [("22.1.0", "a"), ("26.1.0", "b"), ("22.1.0", "c"), ("24.19.0", "d")] {
        catalogue.add(fetched(version, layer));
    }
    let found: Vec<String> =
        catalogue.of(Language::Nodejs).map(|found| format!("{} {}", found.version, found.layer.as_ref().map_or("-", |layer| &layer.digest))).collect();
    assert_eq!(found, ["26.1.0 b", "24.19.0 -", "24.19.0 d", "22.1.0 c", "20.20.2 -"]);
}

#[test]
fn what_a_file_said_is_remembered_until_it_changes() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let memory = dir.path().join("memory.json");
    let bin = dir.path().join("tools");
    std::fs::create_dir(&bin).unwrap();
    let write = |version: &str| {
        std::fs::write(bin.join("uv"), format!("#!/bin/sh\necho x >> {}\necho uv {version}\n", dir.path().join("runs").display())).unwrap();
        std::fs::set_permissions(bin.join("uv"), std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let found = || Catalogue::discover(std::slice::from_ref(&bin), Some(&memory)).uv().unwrap().1.clone();
    let runs = || std::fs::read_to_string(dir.path().join("runs")).unwrap().lines().count();
    write("1.2.3");
    assert_eq!((found(), runs()), ("1.2.3".to_owned(), 1));
    assert_eq!((found(), runs()), ("1.2.3".to_owned(), 1));
    write("1.2.40");
    assert_eq!((found(), runs()), ("1.2.40".to_owned(), 2));
    std::fs::write(&memory, "{").unwrap();
    assert_eq!((found(), runs()), ("1.2.40".to_owned(), 3));
}
