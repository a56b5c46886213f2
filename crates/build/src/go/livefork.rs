//! What is changed in Go's standard library for programs of which clones are made: random numbers that differ in each.
//!
//! The changes are data (`runtimes/go/livefork/rules.toml`), made to the toolchain's own files while a program is compiled (`go build
//! -overlay`); nothing of Go's is kept here. Where a text is not found as it is expected, nothing is changed, and no clones are made.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use serde::Deserialize;
use serde_json::json;

/// Where the changed files lie in a build's sandbox.
const FOLDER: &str = "/build/livefork";

#[derive(Deserialize)]
struct Rules {
    addition: Vec<Addition>,
    replacement: Vec<Replacement>,
}

/// Files that a package has more.
#[derive(Deserialize)]
struct Addition {
    first: u32,
    last: Option<u32>,
    files: Vec<String>,
    package: String,
}

/// A text of a file that is another.
#[derive(Deserialize)]
struct Replacement {
    first: u32,
    last: Option<u32>,
    file: String,
    find: String,
    replace: String,
}

static RULES: LazyLock<Rules> =
    LazyLock::new(|| toml::from_str(include_str!("../../../../runtimes/go/livefork/rules.toml")).expect("the rules are a file of ours"));

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../../runtimes/go/livefork/", $name)))
    };
}
const FILES: [(&str, &str); 11] = [
    file!("livefork.go"),
    file!("livefork_amd64.go"),
    file!("livefork_amd64.s"),
    file!("livefork_arm64.go"),
    file!("livefork_arm64.s"),
    file!("livefork_crypto.go"),
    file!("livefork_go116.go"),
    file!("livefork_go122.go"),
    file!("livefork_go127.go"),
    file!("livefork_math.go"),
    file!("livefork_sysrand.go"),
];

/// The changed and added files of one toolchain.
pub(crate) struct Overlay {
    /// By the name that each has in the sandbox: the toolchain's path, the text.
    files: BTreeMap<String, (String, String)>,
}

impl Overlay {
    /// For Go 1.`minor` whose root is `root` in the sandbox and `on_host` on the host.
    ///
    /// # Errors
    /// Why none can be made, in words for the build's log.
    pub fn of(root: &Path, on_host: &Path, minor: u32) -> Result<Self, String> {
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for rule in RULES.replacement.iter().filter(|rule| holds(minor, rule.first, rule.last)) {
            let text = match texts.get(&rule.file) {
                Some(text) => text.clone(),
                None => std::fs::read_to_string(on_host.join("src").join(&rule.file)).map_err(|error| format!("{}: {error}", rule.file))?,
            };
            let found = text.matches(&rule.find).count();
            if found != 1 {
                return Err(format!("{} is not as it is known ({found} places for a change)", rule.file));
            }
            texts.insert(rule.file.clone(), text.replacen(&rule.find, &rule.replace, 1));
        }
        if texts.is_empty() {
            return Err("its generators are not known".to_owned());
        }
        for rule in RULES.addition.iter().filter(|rule| holds(minor, rule.first, rule.last)) {
            for name in &rule.files {
                let text = FILES.iter().find(|(own, _)| own == name).map(|(_, text)| *text).ok_or_else(|| format!("{name} is missing"))?;
                texts.insert(format!("{}/{name}", rule.package), text.to_owned());
            }
        }
        let place = |file: &str| root.join("src").join(file).display().to_string();
        let files = texts.into_iter().map(|(file, text)| (file.replace('/', "_"), (place(&file), text))).collect();
        Ok(Self { files })
    }

    /// The files of the library that are changed for Go 1.`minor`, below its folder `src`.
    pub fn changed(minor: u32) -> BTreeSet<&'static str> {
        RULES.replacement.iter().filter(|rule| holds(minor, rule.first, rule.last)).map(|rule| rule.file.as_str()).collect()
    }

    /// What `go` is told by GOFLAGS.
    pub fn flag() -> String {
        format!("-overlay={FOLDER}/overlay.json")
    }

    /// The files that a build's sandbox has for it.
    pub fn laid(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let replaced: BTreeMap<&String, String> = self.files.iter().map(|(name, (path, _))| (path, format!("{FOLDER}/{name}"))).collect();
        let list = json!({ "Replace": replaced }).to_string();
        let texts = self.files.iter().map(|(name, (_, text))| (format!("{FOLDER}/{name}"), text.clone()));
        texts.chain([(format!("{FOLDER}/overlay.json"), list)]).map(|(path, text)| (path.into(), text.into_bytes())).collect()
    }

    /// Changes with what is changed.
    pub fn hash(&self) -> String {
        use sha2::{Digest, Sha256};
        hex::encode(Sha256::digest(json!(self.files).to_string()))
    }
}

/// Whether a rule is for Go 1.`minor`.
fn holds(minor: u32, first: u32, last: Option<u32>) -> bool {
    first <= minor && last.is_none_or(|last| minor <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_rule_is_there() {
        for rule in &RULES.addition {
            assert!(rule.files.iter().all(|name| FILES.iter().any(|(own, _)| own == name)), "{:?}", rule.files);
        }
    }

    #[test]
    fn a_toolchain_that_is_not_as_known_gets_none() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("src/runtime")).unwrap();
        std::fs::write(root.path().join("src/runtime/runtime2.go"), "package runtime\n").unwrap();
        let why = Overlay::of(Path::new("/go"), root.path(), 25).err().unwrap();
        assert!(why.contains("runtime/runtime2.go is not as it is known (0 places"), "{why}");
        assert!(Overlay::of(Path::new("/go"), root.path(), 15).is_err());
    }
}
