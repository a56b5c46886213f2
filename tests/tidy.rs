//! The shape of the tree, as a test: arrows between crates, invariants, bans, paths that documents name.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Crate, and the crates of ours that it may use.
const ARROWS: [(&str, &[&str]); 12] = [
    ("model", &[]),
    ("proto", &[]),
    ("store", &["model"]),
    ("iam", &["model", "store"]),
    ("telemetry", &["model", "store"]),
    ("sandbox", &["model"]),
    ("build", &["model", "store", "sandbox"]),
    ("serving", &["model", "iam", "telemetry", "sandbox", "store"]),
    ("events", &["model", "store", "iam", "serving"]),
    ("control", &["model", "store", "iam", "telemetry", "sandbox", "build", "serving", "events"]),
    ("api", &["proto", "model", "store", "iam", "telemetry", "events", "control"]),
    ("tanebi", &["model", "store", "iam", "telemetry", "sandbox", "build", "serving", "events", "control", "api"]),
];

fn sources(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", ".git"].contains(&name.as_str()) {
                found.extend(sources(&path, end));
            }
        } else if name.ends_with(end) {
            found.push(path);
        }
    }
    found
}

#[test]
fn crates_use_only_what_their_arrows_allow() {
    let names: Vec<_> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(repository().join("crates").join(name).join("Cargo.toml")).expect("every crate of the design is there");
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default().split("\n[dev-dependencies]").next().unwrap_or_default();
        for line in dependencies.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(!names.contains(&dependency) || allowed.contains(&dependency), "{name} must not use {dependency}");
        }
    }
}

#[test]
fn every_crate_opens_with_its_invariant() {
    for (name, _) in ARROWS.iter().filter(|(name, _)| *name != "tanebi") {
        let lib = fs::read_to_string(repository().join("crates").join(name).join("src/lib.rs")).unwrap();
        let opening: String = lib.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(opening.contains("**Invariant:**"), "{name}/src/lib.rs");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in sources(&repository(), ".rs") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
    }
}

/// What only some may say: text, where it may stand, why.
const BANS: [(&str, &[&str], &str); 6] = [
    ("unsafe ", &["crates/sandbox/"], "unsafe lives in sandbox alone"),
    ("Timestamp::now()", &["crates/tanebi/src/clock.rs"], "the time is passed in (model::Clock)"),
    ("SystemTime::now()", &[], "the time is passed in (model::Clock)"),
    (
        "std::env::var",
        &["crates/tanebi/", "crates/proto/build.rs", "crates/sandbox/src/mutation.rs", "crates/sandbox/src/init.rs"],
        "only the binary reads the environment (and a sandbox without that wall, in its mutation test)",
    ),
    ("todo!(", &[], "nothing is left to do in silence"),
    ("#[ignore", &[], "a test runs or is not there"),
];

#[test]
fn bans_hold() {
    let root = repository();
    for path in sources(&root.join("crates"), ".rs") {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        if name.contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // Tests come last in a file and may do more.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (words, places, why) in BANS {
            if places.iter().any(|place| name.starts_with(place)) {
                continue;
            }
            for (number, line) in code.lines().enumerate() {
                let line = line.split("//").next().unwrap_or_default();
                assert!(!line.contains(words), "{name}:{}: {why}", number + 1);
            }
        }
    }
}

#[test]
fn files_stay_readable() {
    for path in sources(&repository().join("crates"), ".rs") {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 1000, "{} has {lines} lines: is it still one idea?", path.display());
    }
}

#[test]
fn documents_name_paths_that_are_there() {
    let root = repository();
    let documents: BTreeMap<PathBuf, String> = sources(&root, ".md").into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
    assert!(documents.len() >= 5, "the documents of the repository are there");
    for (document, text) in documents {
        for word in text.split(['`', '(', ')', ' ', '\n', '|', ',']) {
            let path = word.trim_end_matches(['.', ':', ';']).split(['#', ':']).next().unwrap_or_default();
            let is_path = ["crates/", "tests/", "docs/", "examples/", "benches/", "runtimes/", "web/"].iter().any(|start| path.starts_with(start))
                && !path.contains(['*', '<', '{', '…']);
            if is_path {
                let from_document = document.parent().unwrap().join(path);
                assert!(root.join(path).exists() || from_document.exists(), "{} names {path}, which is not there", document.display());
            }
        }
    }
}

#[test]
fn texts_of_the_product_speak_of_the_product() {
    let root = repository();
    for end in [".rs", ".md", ".py", ".toml", ".json"] {
        for path in sources(&root, end) {
            let text = fs::read_to_string(&path).unwrap();
            for words in [concat!("/work", "/"), concat!("FIX", "ME"), concat!("TO", "DO:"), concat!("XX", "X ")] {
                assert!(!text.contains(words), "{} holds {words:?}", path.display());
            }
        }
    }
}
