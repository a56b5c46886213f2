//! Which base images there are, and which of them this host can build on.
//!
//! A base image is a name of Google's (`python312`, `google-22/python312`, a full path); here it stands for an interpreter
//! of the host. Interpreters are found by running them at their absolute paths, never believed by name. Does not install
//! any. Its data: runtimes/python/catalogue.toml, compiled in.

use std::{
    collections::BTreeMap,
    io::Read,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::Error;

/// How long an interpreter may take to say what it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Interpreters and package managers looked at, at most.
const CANDIDATES_MAX: usize = 200;
/// Bytes that a candidate may say.
const PROBE_MAX_BYTES: u64 = 64 << 10;
const PROBE: &str = include_str!("../../../runtimes/python/probe.py");

/// The catalogue file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    #[serde(rename = "runtime")]
    pub(crate) runtimes: Vec<KnownRuntime>,
    pub(crate) uv: KnownUv,
    pub(crate) framework: Pins,
    pub(crate) webserver: Pins,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownRuntime {
    /// `python312`.
    pub(crate) id: String,
    /// `3.12`.
    pub(crate) version: String,
    /// `google-22`.
    pub(crate) stack: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownUv {
    pub(crate) version: String,
    pub(crate) hashes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    pub(crate) package: String,
    pub(crate) pins: Vec<String>,
}

pub(crate) static KNOWN: LazyLock<Known> =
    LazyLock::new(|| toml::from_str(include_str!("../../../runtimes/python/catalogue.toml")).expect("the catalogue is compiled in; a test reads it"));

/// `3.12.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        let version = Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// An interpreter of the host that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    pub version: Version,
    /// The file itself, no link.
    pub path: PathBuf,
    /// Host folders that it consists of: its prefix, `/usr` and what else the dynamic loader needs.
    pub runtime_paths: Vec<PathBuf>,
    /// `linux-x86_64`.
    pub platform: String,
    /// Whether `-m pip` is there, by which uv can be fetched.
    pub has_pip: bool,
}

/// What this host has. Made once, early, by whoever may still read every folder.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Newest first.
    interpreters: Vec<Interpreter>,
    /// uv binaries and their versions.
    uv: Vec<(PathBuf, String)>,
    /// What was found and not taken, one line each.
    skipped: Vec<String>,
}

/// A base image as somebody wrote it, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseImage {
    pub(crate) id: String,
    /// `google-22`, `google-22-full`.
    pub(crate) stack: String,
}

#[derive(Deserialize)]
struct Probed {
    implementation: String,
    version: String,
    release: bool,
    base_prefix: PathBuf,
    base_exec_prefix: PathBuf,
    #[serde(rename = "virtual")]
    is_virtual: bool,
    stdlib: PathBuf,
    platform: String,
    pip: bool,
}

impl Catalogue {
    /// Looks in each folder of `search` for `python3.N` and `uv`, in it, in its `bin` and in the `bin` of each folder in it
    /// (so `/usr/bin`, `~/.pyenv/versions`, `~/.local/share/uv/python`, DATA/runtimes are good ones), and runs what it finds.
    ///
    /// To be called before privileges are dropped: interpreters may lie where the daemon cannot look. Each candidate runs
    /// as the owner of its path, so a folder that another uid can write never gets root's rights; one that everybody can
    /// write is passed over. Takes some 100 ms; starts and joins threads of its own.
    pub fn discover(search: &[PathBuf]) -> Catalogue {
        let names: Vec<String> = KNOWN.runtimes.iter().map(|runtime| format!("python{}", runtime.version)).collect();
        let mut pythons = BTreeMap::new();
        let mut uvs = BTreeMap::new();
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
                for name in &names {
                    if let Ok(path) = folder.join(name).canonicalize() {
                        pythons.insert(path, ());
                    }
                }
                if let Ok(path) = folder.join("uv").canonicalize() {
                    uvs.insert(path, ());
                }
            }
        }
        let mut catalogue = Catalogue::default();
        let pythons: Vec<PathBuf> = pythons.into_keys().take(CANDIDATES_MAX).collect();
        for probed in in_parallel(&pythons, interpreter_probe) {
            match probed {
                Ok(interpreter) => catalogue.interpreters.push(interpreter),
                Err(why) => catalogue.skipped.push(why),
            }
        }
        let uvs: Vec<PathBuf> = uvs.into_keys().filter(|path| path.is_file()).take(CANDIDATES_MAX).collect();
        for probed in in_parallel(&uvs, uv_probe) {
            match probed {
                Ok(uv) => catalogue.uv.push(uv),
                Err(why) => catalogue.skipped.push(why),
            }
        }
        catalogue.interpreters.sort_by(|a, b| (b.version, b.has_pip, &a.path).cmp(&(a.version, a.has_pip, &b.path)));
        catalogue.interpreters.dedup_by(|a, b| a.path == b.path);
        catalogue
    }

    /// Newest first.
    pub fn interpreters(&self) -> &[Interpreter] {
        &self.interpreters
    }

    /// What was found and not taken, one line each, for `tanebi doctor`.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// The uv of this host that we know, else any.
    pub(crate) fn uv(&self) -> Option<&(PathBuf, String)> {
        self.uv.iter().find(|(_, version)| *version == KNOWN.uv.version).or_else(|| self.uv.first())
    }

    /// The newest interpreter of a runtime.
    pub(crate) fn interpreter(&self, runtime: &KnownRuntime) -> Option<&Interpreter> {
        self.interpreters.iter().find(|found| format!("{}.{}", found.version.major, found.version.minor) == runtime.version)
    }

    /// The interpreter of a base image.
    /// # Errors
    /// `User` with what is missing and how to get it.
    pub(crate) fn interpreter_of(&self, base: &BaseImage) -> Result<&Interpreter, Error> {
        let runtime = base.runtime();
        self.interpreter(runtime).ok_or_else(|| {
            Error::User(format!(
                "Base image {:?} needs Python {}, which is not installed on this host. Found: {}. \
                 Install Python {} (for example with pyenv or uv), restart tanebi, then deploy again.",
                base.id,
                runtime.version,
                self.found(),
                runtime.version
            ))
        })
    }

    /// Versions, oldest first, as a text.
    pub(crate) fn found(&self) -> String {
        if self.interpreters.is_empty() {
            return "none".to_owned();
        }
        let mut versions: Vec<Version> = self.interpreters.iter().map(|found| found.version).collect();
        versions.sort();
        versions.dedup();
        versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl BaseImage {
    /// Understands an id, `STACK/ID`, or a whole path, with a tag or digest or without.
    /// # Errors
    /// `User` for what is none of ours.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let without_digest = text.split_once('@').map_or(text, |(name, _)| name);
        let (path, last) = without_digest.rsplit_once('/').map_or(("", without_digest), |(path, last)| (path, last));
        let id = last.split_once(':').map_or(last, |(id, _)| id);
        let Some(runtime) = KNOWN.runtimes.iter().find(|runtime| runtime.id == id) else {
            return Err(Error::User(unknown_text(text, id)));
        };
        let stack = match path.split('/').find(|segment| segment.starts_with("google-")) {
            Some(stack) if STACKS.contains(&stack.strip_suffix("-full").unwrap_or(stack)) => stack.to_owned(),
            Some(stack) => {
                return Err(Error::User(format!(
                    "Base image {text:?} names an unknown stack {stack:?}. Known: {}, each also with \"-full\".",
                    STACKS.join(", ")
                )));
            }
            // `something/python312` must be a place where base images lie, not a word that we pass over.
            None if !path.is_empty() && !path.contains('/') => {
                return Err(Error::User(format!(
                    "Base image {text:?} names an unknown stack {path:?}. Known: {}, each also with \"-full\".",
                    STACKS.join(", ")
                )));
            }
            None => runtime.stack.clone(),
        };
        Ok(Self { id: id.to_owned(), stack })
    }

    /// A runtime on its own stack.
    pub(crate) fn of_runtime(runtime: &KnownRuntime) -> Self {
        Self { id: runtime.id.clone(), stack: runtime.stack.clone() }
    }

    pub(crate) fn runtime(&self) -> &'static KnownRuntime {
        KNOWN.runtimes.iter().find(|runtime| runtime.id == self.id).expect("made from a known runtime only")
    }

    /// As gcloud shows it.
    pub(crate) fn uri(&self, region: &str) -> String {
        format!("{region}-docker.pkg.dev/serverless-runtimes/{}/runtimes/{}", self.stack, self.id)
    }
}

const STACKS: [&str; 3] = ["google-18", "google-22", "google-24"];

fn unknown_text(text: &str, id: &str) -> String {
    let family = id.trim_end_matches(|c: char| c.is_ascii_digit());
    let numbered = family.len() < id.len();
    let known: Vec<&str> = KNOWN.runtimes.iter().map(|runtime| runtime.id.as_str()).collect();
    match family {
        "nodejs" | "go" | "java" | "ruby" | "php" | "dotnet" | "osonly" if numbered => {
            format!("Base image {text:?} is not available on this host yet: only Python functions can be built (base images {}).", known.join(", "))
        }
        _ => format!("Unknown base image {text:?}. Known: {}, also with a stack in front, such as google-22/python312.", known.join(", ")),
    }
}

/// Runs `probe` for each path, a few at a time, and keeps the order.
fn in_parallel<T: Send>(paths: &[PathBuf], probe: fn(&Path) -> Result<T, String>) -> Vec<Result<T, String>> {
    let mut results = Vec::new();
    for chunk in paths.chunks(4) {
        std::thread::scope(|scope| {
            let running: Vec<_> = chunk.iter().map(|path| scope.spawn(move || probe(path))).collect();
            for (thread, path) in running.into_iter().zip(chunk) {
                results.push(thread.join().unwrap_or_else(|_| Err(format!("{}: the probe failed", path.display()))));
            }
        });
    }
    results
}

fn interpreter_probe(path: &Path) -> Result<Interpreter, String> {
    let fail = |why: String| format!("{}: {why}", path.display());
    let said = candidate_run(path, &["-I", "-c", PROBE]).map_err(fail)?;
    let probed: Probed = serde_json::from_str(&said).map_err(|e| fail(format!("does not say what it is: {e}")))?;
    if probed.implementation != "cpython" {
        return Err(fail(format!("is {}, not CPython", probed.implementation)));
    }
    if probed.is_virtual {
        return Err(fail("belongs to a virtual environment".to_owned()));
    }
    let version = Version::parse(&probed.version).ok_or_else(|| fail(format!("has version {:?}", probed.version)))?;
    if !probed.release {
        return Err(fail(format!("is a pre-release of {version}")));
    }
    let mut runtime_paths = vec![PathBuf::from("/usr")];
    // Hosts whose /lib is not a link into /usr.
    for path in ["/lib", "/lib64", "/lib32", "/bin", "/sbin"] {
        if Path::new(path).symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            runtime_paths.push(path.into());
        }
    }
    for needed in [probed.base_prefix.as_path(), probed.base_exec_prefix.as_path(), probed.stdlib.as_path(), path] {
        let Ok(real) = needed.canonicalize() else {
            return Err(fail(format!("its folder {} is not there", needed.display())));
        };
        if real == Path::new("/") {
            return Err(fail("its prefix is the whole host".to_owned()));
        }
        // Its scripts and its configuration name the folder as it calls it itself.
        if real != needed {
            return Err(fail(format!("its folder {} is a link", needed.display())));
        }
        if !runtime_paths.iter().any(|known| real.starts_with(known)) {
            if real == path {
                return Err(fail(format!("lies outside of its prefix {}", probed.base_prefix.display())));
            }
            runtime_paths.push(real);
        }
    }
    Ok(Interpreter { version, path: path.to_owned(), runtime_paths, platform: probed.platform, has_pip: probed.pip })
}

fn uv_probe(path: &Path) -> Result<(PathBuf, String), String> {
    let fail = |why: String| format!("{}: {why}", path.display());
    let said = candidate_run(path, &["--version"]).map_err(fail)?;
    let mut words = said.split_whitespace();
    match (words.next(), words.next()) {
        (Some("uv"), Some(version)) => Ok((path.to_owned(), version.to_owned())),
        _ => Err(fail("does not say that it is uv".to_owned())),
    }
}

/// Runs a candidate with an empty environment as whoever could have written it.
fn candidate_run(path: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(path);
    command.args(arguments).env_clear().env("LANG", "C.UTF-8").current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some((uid, gid)) = path_owner(path)? {
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn().map_err(|e| format!("cannot be run: {e}"))?;
    let stdout = child.stdout.take().ok_or("has no output")?;
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        stdout.take(PROBE_MAX_BYTES).read_to_string(&mut said).map(|_| said)
    });
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("said nothing for {} s", PROBE_TIMEOUT.as_secs()));
            }
        }
    };
    if !status.success() {
        return Err(format!("ended with {status}"));
    }
    match reader.join() {
        Ok(Ok(said)) => Ok(said),
        _ => Err("said something unreadable".to_owned()),
    }
}

/// When this process is root: the uid and gid, other than root's, that own a part of the path, if any.
/// # Errors
/// When everybody or a group can write there.
fn path_owner(path: &Path) -> Result<Option<(u32, u32)>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let mut owner = None;
    for part in path.ancestors() {
        let meta = part.symlink_metadata().map_err(|e| format!("{}: {e}", part.display()))?;
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        if meta.mode() & 0o022 != 0 && !sticky {
            return Err(format!("passed over, as others than its owner can write {}", part.display()));
        }
        if meta.uid() != 0 {
            match owner {
                None => owner = Some((meta.uid(), meta.gid())),
                Some((uid, _)) if uid == meta.uid() => {}
                Some(_) => return Err("passed over, as its path has several owners".to_owned()),
            }
        }
    }
    Ok(owner)
}

#[cfg(test)]
pub(crate) mod tests;
