//! The environment of a function: its dependencies installed once for the same wishes, kept as a layer.
//!
//! A build whose dependencies are known runs no package manager and needs no network. What was not pinned by a lock file
//! is looked up again after a day, as Google's buildpack does; when the registry cannot be reached then, the old layer is
//! used and the log says so. How downloads are shared without trusting packages: see `cache`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::Clock;
use sandbox::Spec;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    Error,
    cache::Cache,
    environment::{Access, Base, Reach, shown},
    failure::{self, BUILDS_BUCKET, Failure},
    known::{Entry, KNOWN_FOLDER},
    python::{Dependencies, ENVIRONMENT, Kind, Plan, WORKSPACE},
    record,
    step::{Outcome, Runner, blocking},
    tree::{self, CopyError, CopyRules, TreeWriter},
    uv::{self, Uv},
    work::Work,
};

/// Changes when the same wishes would be installed in another way.
const FORMAT: u32 = 1;
/// Google's buildpack: one day.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of one environment.
const MAX_BYTES: u64 = 4 << 30;
const ENTRIES_MAX: usize = 200_000;
const DRIVER: &str = include_str!("../../../runtimes/python/dependencies.py");

/// What installing needs.
pub(crate) struct Installer<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) store: &'a store::Store,
    pub(crate) cache: &'a Arc<Cache>,
    pub(crate) base: &'a Base,
    pub(crate) runner: &'a Runner,
    pub(crate) work: &'a Work,
    pub(crate) clock: &'a dyn Clock,
    /// The unpacked source.
    pub(crate) source: &'a Path,
    /// Names the source's content.
    pub(crate) archive: &'a str,
    /// The user's build variables.
    pub(crate) variables: &'a [(String, String)],
}

/// Whether a package's own code may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// No: building packages is blocked, downloads are kept for others.
    RegistryOnly,
    /// Yes: in a copy of everything, which is thrown away.
    AnyCode,
}

/// Why one attempt failed.
enum Attempt {
    Explained(failure::Explained),
    Error(Error),
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Attempt::Error(error)
    }
}

impl Installer<'_> {
    /// The layer of these dependencies if it is known: digest, and whether it is fresh.
    pub(crate) fn known(&self, plan: &Plan) -> Result<Option<(String, bool)>, Error> {
        let entry: Option<Entry> = record::read(&self.entry_path(plan))?;
        let Some(entry) = entry else { return Ok(None) };
        // From here to the image that names it nothing else keeps it.
        if !self.store.layers().touch(&entry.layer).map_err(|e| Error::Internal(format!("looking for known dependencies: {e}")))? {
            return Ok(None);
        }
        // A clock that was set back makes an entry old, not eternal.
        let age = self.clock.now().duration_since(entry.made);
        let is_fresh = entry.is_locked || (!age.is_negative() && age.unsigned_abs() < FRESH);
        Ok(Some((entry.layer, is_fresh)))
    }

    /// Installs them. `known` is an old layer to fall back on.
    /// # Errors
    /// `User` with the cause in its first line.
    pub(crate) async fn install(&self, plan: &Plan, uv: &Uv, known: Option<String>) -> Result<String, Error> {
        let dependencies = &plan.dependencies;
        let mut added = dependencies.added.as_ref().map(|added| added.pins.clone()).unwrap_or_default();
        let is_plain = uv.is_known() && self.variables.is_empty();
        let mut trust = if is_plain { Trust::RegistryOnly } else { Trust::AnyCode };
        loop {
            let explained = match self.attempt(plan, uv, &added, trust).await {
                Ok((layer, bytes)) => {
                    let entry = Entry { layer: layer.clone(), made: self.clock.now(), is_locked: dependencies.is_locked, bytes };
                    record::write(&self.entry_path(plan), &entry)?;
                    return Ok(layer);
                }
                Err(Attempt::Error(error)) => return Err(error),
                Err(Attempt::Explained(explained)) => explained,
            };
            let bare = dependencies.added.as_ref().map(|added| vec![added.package.clone()]).unwrap_or_default();
            match explained.failure {
                Failure::BuildNeeded if trust == Trust::RegistryOnly => {
                    self.runner.log.say("A dependency has no wheel and must be built: starting again in a sandbox whose downloads are not kept.");
                    trust = Trust::AnyCode;
                }
                Failure::NoSolution if added != bare => {
                    let package = &bare[0];
                    self.runner.log.say(format!("The pinned versions of {package} do not fit the source's own requirements: trying any version."));
                    added = bare;
                }
                Failure::Network => {
                    if let Some(layer) = known {
                        self.runner
                            .log
                            .say(format!("WARNING: the package registry cannot be reached; using the dependencies of an earlier build. ({})", explained.text));
                        return Ok(layer);
                    }
                    return Err(Error::User(format!(
                        "The package registry cannot be reached, which is needed to install these dependencies for the first time: {}",
                        explained.text
                    )));
                }
                _ => return Err(Error::User(text_of(dependencies, &explained.text))),
            }
        }
    }

    async fn attempt(&self, plan: &Plan, uv: &Uv, added: &[String], trust: Trust) -> Result<(String, u64), Attempt> {
        let environment = self.work.folder("environment")?;
        let downloads = self.work.folder("downloads")?;
        let generation = self.cache.now();
        let mut spec = self.spec(plan, uv, added, trust)?;
        spec.mounts.push(shown(&environment, ENVIRONMENT, Access::Write));
        spec.mounts.push(shown(&downloads, "/cache", Access::Write));
        spec.mounts.push(shown(generation.path(), "/cache-shared", Access::Read));
        let outcome = self.runner.run(spec, &environment).await?;
        if !outcome.is_success() {
            let mut explained = failure::explain(&outcome.tail);
            if outcome.code.is_none_or(|code| code >= 128) {
                explained.text = format!("The package manager ended with {}. {}", outcome.how(), explained.text);
            }
            return Err(Attempt::Explained(explained));
        }
        let incompatible = failure::incompatibilities(&outcome.tail);
        if !incompatible.is_empty() {
            return Err(Error::User(format!("found incompatible dependencies: {}. Mend requirements.txt, then deploy again.", incompatible.join("; "))).into());
        }
        let installed = Instant::now();
        let kept = self.keep(plan, &environment).await?;
        if trust == Trust::RegistryOnly {
            let cache = self.cache.clone();
            // Lost downloads are no reason to fail a build.
            if let Err(e) = blocking(move || cache.promote(&downloads)).await? {
                tracing::warn!("{e}");
            }
        }
        self.told(&outcome, installed.elapsed());
        Ok(kept)
    }

    /// The sandbox of one attempt, without its writable folders.
    fn spec(&self, plan: &Plan, uv: &Uv, added: &[String], trust: Trust) -> Result<Spec, Error> {
        let python = plan.interpreter.path.display().to_string();
        let is_local = plan.dependencies.is_local;
        let mut copies = vec![("/cache-shared", "/cache")];
        if is_local {
            // Packages of the source are built where they lie, and the environment may name that place: a copy of its own.
            copies.push(("/source", WORKSPACE));
        }
        let blocked: &[String] = match trust {
            Trust::RegistryOnly => &[format!("/cache/{BUILDS_BUCKET}")],
            Trust::AnyCode => &[],
        };
        let driver_plan = serde_json::json!({
            "copies": copies.iter().map(|(from, to)| serde_json::json!({ "from": from, "to": to })).collect::<Vec<_>>(),
            "blocked": blocked,
            "commands": commands(&plan.dependencies, &python, added),
            "compile": [format!("{ENVIRONMENT}/lib")],
        });
        // -S: not even the interpreter's own site-packages take part.
        let command = [python.as_str(), "-I", "-S", "/build/dependencies.py", "/build/plan.json"];
        let mut spec = self.base.spec(self.work.sandbox_id(), &plan.interpreter, Reach::Registries, command.map(str::to_owned).to_vec());
        spec.working_dir = WORKSPACE.into();
        spec.files.push(("/build/dependencies.py".into(), DRIVER.as_bytes().to_vec()));
        spec.files.push(("/build/plan.json".into(), driver_plan.to_string().into_bytes()));
        spec.mounts.push(uv.mount.clone());
        if is_local {
            spec.mounts.push(shown(self.source, "/source", Access::Read));
            spec.mounts.push(shown(&self.work.folder("source")?, WORKSPACE, Access::Write));
        } else {
            spec.mounts.push(shown(self.source, WORKSPACE, Access::Read));
        }
        // Compilers are found through it on Debian.
        if Path::new("/etc/alternatives").is_dir() {
            spec.mounts.push(shown(Path::new("/etc/alternatives"), "/etc/alternatives", Access::Read));
        }
        if trust == Trust::AnyCode {
            spec.env.extend(self.variables.iter().cloned());
        }
        for (name, value) in
            [("UV_CACHE_DIR", "/cache"), ("UV_LINK_MODE", "copy"), ("UV_PYTHON_DOWNLOADS", "never"), ("UV_NO_PROGRESS", "1"), ("VIRTUAL_ENV", ENVIRONMENT)]
        {
            spec.env.retain(|(known, _)| known != name);
            spec.env.push((name.to_owned(), value.to_owned()));
        }
        Ok(spec)
    }

    /// Takes the environment as data and makes it a layer: digest and bytes.
    async fn keep(&self, plan: &Plan, environment: &Path) -> Result<(String, u64), Error> {
        let mut links_below: Vec<String> = plan.interpreter.runtime_paths.iter().map(|path| path.display().to_string()).collect();
        links_below.push(ENVIRONMENT.to_owned());
        // An editable project of the source is linked to where the code lies.
        links_below.push(WORKSPACE.to_owned());
        let rules = CopyRules { bytes_max: MAX_BYTES, entries_max: ENTRIES_MAX, links_below, without: vec![".lock", ".gitignore", "CACHEDIR.TAG"] };
        let (store, environment) = (self.store.clone(), environment.to_owned());
        blocking(move || {
            let internal = |e: &dyn std::fmt::Display| Error::Internal(format!("keeping the dependencies: {e}"));
            let staging = store.layers().staging().map_err(|e| internal(&e))?;
            let mut writer = TreeWriter::open(staging.path()).map_err(|e| internal(&e))?;
            let copied = match tree::copy(&environment, &mut writer, &rules) {
                Ok(copied) => copied,
                Err(e @ CopyError::Io { .. }) => return Err(internal(&e)),
                Err(e) => {
                    return Err(Error::User(format!(
                        "The installed dependencies cannot be kept: {e}. Remove the package that it belongs to, then deploy again."
                    )));
                }
            };
            Ok((staging.commit().map_err(|e| internal(&e))?, copied.bytes))
        })
        .await?
    }

    fn told(&self, outcome: &Outcome, keeping: Duration) {
        self.runner.log.say(format!(
            "Dependencies are installed ({:.1} s, at most {} MiB of memory) and kept ({:.1} s).",
            outcome.took.as_secs_f64(),
            outcome.memory_peak_bytes >> 20,
            keeping.as_secs_f64()
        ));
    }

    fn entry_path(&self, plan: &Plan) -> PathBuf {
        self.dir.join(KNOWN_FOLDER).join(format!("{}.json", self.key(plan)))
    }

    /// Hash of all that decides the outcome, but time.
    fn key(&self, plan: &Plan) -> String {
        let dependencies = &plan.dependencies;
        let files: Vec<_> = dependencies.files.iter().map(|(name, bytes)| (name, hex::encode(Sha256::digest(bytes)))).collect();
        let key = serde_json::json!({
            "format": FORMAT,
            "interpreter": plan.interpreter.path.display().to_string(),
            "version": plan.interpreter.version.to_string(),
            "platform": plan.interpreter.platform,
            "kind": format!("{:?}", dependencies.kind),
            "added": dependencies.added.as_ref().map(|added| (&added.package, &added.pins)),
            "files": files,
            "archive": dependencies.is_local.then_some(self.archive),
            "vendored": dependencies.vendored,
            "variables": self.variables,
            "package_environment": self.base.package.variables,
        });
        hex::encode(Sha256::digest(key.to_string()))
    }
}

/// What uv is asked to do.
fn commands(dependencies: &Dependencies, python: &str, added: &[String]) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let make = words(&[uv::PROGRAM, "venv", "--quiet", "--no-project", "--python", python, ENVIRONMENT]);
    // One run into an empty environment: see `cache` why it must not be two.
    let environment_python = format!("{ENVIRONMENT}/bin/python");
    let mut install = match dependencies.kind {
        Kind::Project => {
            return vec![make, words(&[uv::PROGRAM, "sync", "--active", "--python", &environment_python])];
        }
        Kind::Nothing if added.is_empty() => return vec![make],
        Kind::Nothing => words(&[uv::PROGRAM, "pip", "install", "--strict", "--python", &environment_python]),
        Kind::Requirements => words(&[uv::PROGRAM, "pip", "install", "--strict", "--python", &environment_python, "--requirement", "requirements.txt"]),
    };
    if let Some(folder) = &dependencies.vendored {
        install.extend(words(&["--no-index", "--find-links"]));
        install.push(format!("{WORKSPACE}/{folder}"));
    }
    install.extend(added.iter().cloned());
    vec![make, install]
}

fn text_of(dependencies: &Dependencies, cause: &str) -> String {
    let file = match dependencies.kind {
        Kind::Project => "pyproject.toml",
        Kind::Nothing | Kind::Requirements => "requirements.txt",
    };
    format!("The dependencies could not be installed: {cause} Mend {file}, then deploy again.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::Added;

    #[test]
    fn uv_is_run_once_into_an_empty_environment() {
        fn check(kind: Kind, added: &[&str], vendored: Option<&str>, expect: &str) {
            let dependencies = Dependencies {
                kind,
                added: Some(Added { package: "x".to_owned(), pins: vec![] }),
                files: vec![],
                is_local: false,
                vendored: vendored.map(str::to_owned),
                is_locked: false,
            };
            let added: Vec<String> = added.iter().map(|pin| (*pin).to_owned()).collect();
            let commands = commands(&dependencies, "/p/python3.12", &added);
            assert_eq!(commands[0].join(" "), "/uv/uv venv --quiet --no-project --python /p/python3.12 /layers/python");
            let rest: Vec<String> = commands[1..].iter().map(|command| command.join(" ")).collect();
            assert_eq!(rest.join("; "), expect);
        }
        let pip = "/uv/uv pip install --strict --python /layers/python/bin/python";
        check(Kind::Nothing, &[], None, "");
        check(Kind::Nothing, &["a==1", "b==2"], None, &format!("{pip} a==1 b==2"));
        check(Kind::Requirements, &[], None, &format!("{pip} --requirement requirements.txt"));
        check(Kind::Requirements, &[], Some("wheels"), &format!("{pip} --requirement requirements.txt --no-index --find-links /workspace/wheels"));
        check(Kind::Project, &[], None, "/uv/uv sync --active --python /layers/python/bin/python");
    }
}
