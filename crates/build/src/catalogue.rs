//! Which base images there are, and which of them this host can build on.
//!
//! A base image is a name of Google's (`python312`, `google-22/nodejs22`, a full path); here it stands for an interpreter of
//! the host, or for one that `tanebi runtimes install` fetched (see `runtime`). Interpreters are found by running them at
//! their absolute paths, never believed by name. Its data: runtimes/LANGUAGE/catalogue.toml, compiled in.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use model::image::Layer;

use crate::{Error, Language};

mod base_image;
mod candidate;
mod known;
mod probe;

pub(crate) use base_image::{BaseImage, any as base_image_any};
pub use known::Stage;
pub(crate) use known::{KNOWN, KnownRuntime, Pins};
pub(crate) use probe::host_paths;

/// Interpreters and package managers looked at, at most.
const CANDIDATES_MAX: usize = 200;

/// `3.12.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    /// One to three numbers, what is missing is 0; a build's name after them is passed over.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers = text.split(['+', '-', '_']).next()?;
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        let major = parts.next()??;
        Some(Self { major, minor: parts.next().unwrap_or(Some(0))?, patch: parts.next().unwrap_or(Some(0))? })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What runs functions of one version of a language; of Go, what compiles them. It answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    pub language: Language,
    pub version: Version,
    /// The file itself, no link.
    pub path: PathBuf,
    /// Host folders that it consists of: its prefix, `/usr` and what else the dynamic loader needs.
    pub runtime_paths: Vec<PathBuf>,
    /// Where it is not the host's: the layer that it lies in.
    pub layer: Option<Layer>,
    /// `linux-x86_64`.
    pub platform: String,
    /// What installs or compiles with it: pip (as its own interpreter), npm's program, javac, go.
    pub packager: Option<PathBuf>,
}

/// What this host has. Made once, early, by whoever may still read every folder.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// By language, newest first.
    interpreters: Vec<Interpreter>,
    /// uv binaries and their versions.
    uv: Vec<(PathBuf, String)>,
    /// `gradle` of this host.
    gradle: Option<PathBuf>,
    /// What was found and not taken, one line each.
    skipped: Vec<String>,
}

impl Catalogue {
    /// Looks in each folder of `search` for interpreters and package managers by name, in it, in its `bin` and in the `bin` of
    /// each folder in it (so `/usr/bin`, `~/.pyenv/versions`, `/usr/lib/jvm`, `~/sdk` are good ones), and runs what it finds.
    ///
    /// To be called before privileges are dropped: interpreters may lie where the daemon cannot look. Each candidate runs
    /// as the owner of its path, so a folder that another uid can write never gets root's rights; one that everybody can
    /// write is passed over. What a file said is remembered in `memory` for as long as the file does not change: without that it
    /// takes some 200 ms. Starts and joins threads of its own.
    pub fn discover(search: &[PathBuf], memory: Option<&Path>) -> Catalogue {
        let mut names: Vec<(Kind, String)> = [(Kind::Uv, "uv"), (Kind::Node, "node"), (Kind::Go, "go"), (Kind::Java, "java"), (Kind::Gradle, "gradle")]
            .map(|(kind, name)| (kind, name.to_owned()))
            .into();
        names.extend(KNOWN.of(Language::Python).runtimes.iter().map(|runtime| (Kind::Python, format!("python{}", runtime.version))));
        let mut candidates = BTreeSet::new();
        for root in search {
            let mut folders = vec![root.clone(), root.join("bin")];
            let mut below: Vec<PathBuf> = std::fs::read_dir(root)
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin")))
                .take(CANDIDATES_MAX)
                .collect();
            below.sort();
            folders.append(&mut below);
            for folder in folders {
                for (kind, name) in &names {
                    if let Ok(path) = folder.join(name).canonicalize()
                        && path.is_file()
                    {
                        candidates.insert((*kind, path));
                    }
                }
            }
        }
        let mut catalogue = Catalogue::default();
        let candidates: Vec<(Kind, PathBuf)> = candidates.into_iter().take(CANDIDATES_MAX).collect();
        let asker = candidate::Asker::remembering(memory);
        for probed in in_parallel(&candidates, |kind, path| probe::candidate(&asker, kind, path)) {
            match probed {
                Ok(probe::Found::Interpreter(interpreter)) => catalogue.interpreters.push(interpreter),
                Ok(probe::Found::Uv(path, version)) => catalogue.uv.push((path, version)),
                Ok(probe::Found::Gradle(path)) => catalogue.gradle = Some(path),
                Err(why) => catalogue.skipped.push(why),
            }
        }
        asker.keep();
        catalogue.sort();
        catalogue
    }

    /// Adds one that was fetched.
    pub(crate) fn add(&mut self, interpreter: Interpreter) {
        // A newer one of the same runtime takes its place.
        let runtime = |of: &Interpreter| KNOWN.of(of.language).runtimes.iter().find(|runtime| runtime.is(of.version)).map(|runtime| &runtime.id);
        let is_same = |known: &Interpreter| known.layer.is_some() && interpreter.layer.is_some() && runtime(known) == runtime(&interpreter);
        self.interpreters.retain(|known| !is_same(known));
        self.interpreters.push(interpreter);
        self.sort();
    }

    fn sort(&mut self) {
        // Of two of the same version the one that can also install or compile.
        self.interpreters.sort_by(|a, b| (a.language, b.version, b.packager.is_some(), &a.path).cmp(&(b.language, a.version, a.packager.is_some(), &b.path)));
        self.interpreters.dedup_by(|a, b| a.path == b.path && a.language == b.language && a.layer == b.layer);
    }

    /// By language, newest first.
    pub fn interpreters(&self) -> &[Interpreter] {
        &self.interpreters
    }

    /// Newest first.
    pub(crate) fn of(&self, language: Language) -> impl Iterator<Item = &Interpreter> {
        self.interpreters.iter().filter(move |found| found.language == language)
    }

    /// What was found and not taken, one line each, for `tanebi doctor`.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// The uv of this host that we know, else any.
    pub(crate) fn uv(&self) -> Option<&(PathBuf, String)> {
        self.uv.iter().find(|(_, version)| *version == KNOWN.python.uv.version).or_else(|| self.uv.first())
    }

    pub(crate) fn gradle(&self) -> Option<&Path> {
        self.gradle.as_deref()
    }

    /// The newest interpreter of a runtime.
    pub(crate) fn interpreter(&self, language: Language, runtime: &KnownRuntime) -> Option<&Interpreter> {
        self.of(language).find(|found| runtime.is(found.version))
    }

    /// The interpreter of a base image.
    /// # Errors
    /// `User` with what is missing and how to get it.
    pub(crate) fn interpreter_of(&self, base: &BaseImage) -> Result<&Interpreter, Error> {
        let (language, runtime) = base.known();
        if let Some(why) = &language.unavailable {
            return Err(Error::User(format!("Base image {:?} ({} {}) is not available on this host: {why}.", base.id, language.name, runtime.version)));
        }
        self.interpreter(language.language, runtime).ok_or_else(|| {
            Error::User(format!(
                "Base image {:?} needs {} {}, which is not installed on this host. Found: {}. \
                 Install it with: tanebi runtimes install {} ({}), then deploy again.",
                base.id,
                language.name,
                runtime.version,
                self.found(language.language),
                base.id,
                crate::runtime::how(language.language, runtime),
            ))
        })
    }

    /// Versions, oldest first, as a text.
    pub(crate) fn found(&self, language: Language) -> String {
        let mut versions: Vec<Version> = self.of(language).map(|found| found.version).collect();
        if versions.is_empty() {
            return "none".to_owned();
        }
        versions.sort();
        versions.dedup();
        versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// What a candidate may be, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Python,
    Node,
    Go,
    Java,
    Uv,
    Gradle,
}

/// Runs `probe` for each, a few at a time, and keeps the order.
fn in_parallel<T: Send>(candidates: &[(Kind, PathBuf)], probe: impl Fn(Kind, &Path) -> Result<T, String> + Sync) -> Vec<Result<T, String>> {
    let mut results = Vec::new();
    for chunk in candidates.chunks(4) {
        std::thread::scope(|scope| {
            let running: Vec<_> = chunk.iter().map(|(kind, path)| scope.spawn(|| probe(*kind, path))).collect();
            for (thread, (_, path)) in running.into_iter().zip(chunk) {
                results.push(thread.join().unwrap_or_else(|_| Err(format!("{}: the probe failed", path.display()))));
            }
        });
    }
    results
}

#[cfg(test)]
pub(crate) mod tests;
