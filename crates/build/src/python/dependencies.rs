//! The environment of a function: its dependencies installed once for the same wishes, kept as a layer.
//!
//! A build whose dependencies are known runs no package manager and needs no network. What was not pinned by a lock file
//! is looked up again after a day, as Google's buildpack does; when the registry cannot be reached then, the old layer is
//! used and the log says so. How downloads are shared without trusting packages: see `cache`.

use std::path::Path;

use sandbox::Spec;
use tokio::time::Instant;

use super::{
    Dependencies, ENVIRONMENT, Kind,
    failure::{self, BUILDS_BUCKET, Failure},
    uv::{self, Finder, Uv},
};
use crate::{
    Error, Interpreter,
    environment::{Access, Reach, set, shown},
    job::{self, Job, Kept, Whose, Wishes},
    plan::WORKSPACE,
    step::Outcome,
};

/// Changes when the same wishes would be installed in another way.
const FORMAT: u32 = 2;
const DRIVER: &str = include_str!("../../../../runtimes/python/dependencies.py");
/// What installs a Poetry project.
const POETRY: &str = "poetry>=2,<3";

/// What installing needs.
pub(super) struct Installer<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) interpreter: &'a Interpreter,
    pub(super) dependencies: &'a Dependencies,
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
    /// The layer of the dependencies: known, or installed now.
    pub(super) async fn layer(&self) -> Result<String, Error> {
        let log = &self.job.runner.log;
        let wishes = self.wishes();
        let old = match self.job.known(&wishes)? {
            Some(known) if known.is_fresh => {
                log.say("The dependencies are those of an earlier build.");
                return Ok(known.layer);
            }
            Some(known) => {
                log.say("The dependencies are a day old: looking for newer ones.");
                Some(known.layer)
            }
            None => None,
        };
        self.job.base.package.notes.iter().for_each(|note| log.say(note.as_str()));
        let uv = Finder { job: self.job }.find(self.interpreter).await?;
        self.install(&uv, &wishes, old).await
    }

    /// Installs them. `known` is an old layer to fall back on.
    /// # Errors
    /// `User` with the cause in its first line.
    async fn install(&self, uv: &Uv, wishes: &Wishes, known: Option<String>) -> Result<String, Error> {
        let dependencies = self.dependencies;
        let mut added = dependencies.added.as_ref().map(|added| added.pins.clone()).unwrap_or_default();
        // Poetry itself, and what a project asks to be built with, is other people's code.
        let is_plain = uv.is_known() && self.job.variables.is_empty() && dependencies.kind != Kind::Poetry;
        let mut trust = if is_plain { Trust::RegistryOnly } else { Trust::AnyCode };
        loop {
            let explained = match self.attempt(uv, &added, trust).await {
                Ok(kept) => {
                    // What packages' own code made is the project's.
                    let whose = if trust == Trust::RegistryOnly { Whose::Everybodys } else { Whose::Projects };
                    self.job.remember(wishes, &kept, dependencies.is_locked, whose)?;
                    return Ok(kept.layer);
                }
                Err(Attempt::Error(error)) => return Err(error),
                Err(Attempt::Explained(explained)) => explained,
            };
            let bare = dependencies.added.as_ref().map(|added| vec![added.package.clone()]).unwrap_or_default();
            match explained.failure {
                Failure::BuildNeeded if trust == Trust::RegistryOnly => {
                    self.job.runner.log.say("A dependency has no wheel and must be built: starting again in a sandbox whose downloads are not kept.");
                    trust = Trust::AnyCode;
                }
                Failure::NoSolution if added != bare => {
                    let package = &bare[0];
                    self.job.runner.log.say(format!("The pinned versions of {package} do not fit the source's own requirements: trying any version."));
                    added = bare;
                }
                Failure::Network => {
                    if let Some(layer) = known {
                        self.job
                            .runner
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

    async fn attempt(&self, uv: &Uv, added: &[String], trust: Trust) -> Result<Kept, Attempt> {
        let environment = self.job.work.folder("environment")?;
        let downloads = self.job.work.folder("downloads")?;
        let generation = self.job.caches.uv.now();
        let mut spec = self.spec(uv, added, trust)?;
        spec.mounts.push(shown(&environment, ENVIRONMENT, Access::Write));
        spec.mounts.push(shown(&downloads, "/cache", Access::Write));
        spec.mounts.push(shown(generation.path(), "/cache-shared", Access::Read));
        let outcome = self.job.runner.run(spec, &environment).await?;
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
        let kept = self.keep(&environment).await?;
        if trust == Trust::RegistryOnly {
            self.job.promote_later(&self.job.caches.uv, &downloads)?;
        }
        self.told(&outcome, installed.elapsed());
        Ok(kept)
    }

    /// The sandbox of one attempt, without its writable folders.
    fn spec(&self, uv: &Uv, added: &[String], trust: Trust) -> Result<Spec, Error> {
        let python = self.interpreter.path.display().to_string();
        let is_local = self.dependencies.is_local;
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
            "commands": commands(self.dependencies, &python, added),
            "compile": [format!("{ENVIRONMENT}/lib")],
        });
        // -S: not even the interpreter's own site-packages take part.
        let command = [python.as_str(), "-I", "-S", "/build/dependencies.py", "/build/plan.json"];
        let mut spec = self.job.spec(self.interpreter, Reach::Registries, &command)?;
        spec.working_dir = WORKSPACE.into();
        spec.files.push(("/build/dependencies.py".into(), DRIVER.as_bytes().to_vec()));
        spec.files.push(("/build/plan.json".into(), driver_plan.to_string().into_bytes()));
        spec.mounts.push(uv.mount.clone());
        if is_local {
            spec.mounts.push(shown(self.job.source, "/source", Access::Read));
            spec.mounts.push(shown(&self.job.work.folder("source")?, WORKSPACE, Access::Write));
        } else {
            spec.mounts.push(shown(self.job.source, WORKSPACE, Access::Read));
        }
        // Compilers are found through it on Debian.
        if Path::new("/etc/alternatives").is_dir() {
            spec.mounts.push(shown(Path::new("/etc/alternatives"), "/etc/alternatives", Access::Read));
        }
        if trust == Trust::AnyCode {
            for (name, value) in self.job.variables {
                set(&mut spec.env, name, value);
            }
        }
        for (name, value) in
            [("UV_CACHE_DIR", "/cache"), ("UV_LINK_MODE", "copy"), ("UV_PYTHON_DOWNLOADS", "never"), ("UV_NO_PROGRESS", "1"), ("VIRTUAL_ENV", ENVIRONMENT)]
        {
            set(&mut spec.env, name, value);
        }
        Ok(spec)
    }

    /// Takes the environment as data and makes it a layer.
    async fn keep(&self, environment: &Path) -> Result<Kept, Error> {
        let mut links_below: Vec<String> = self.interpreter.runtime_paths.iter().map(|path| path.display().to_string()).collect();
        links_below.extend(self.interpreter.layer.iter().map(|layer| layer.target.display().to_string()));
        links_below.push(ENVIRONMENT.to_owned());
        // An editable project of the source is linked to where the code lies.
        links_below.push(WORKSPACE.to_owned());
        self.job.keep(environment, links_below, vec![".lock", ".gitignore", "CACHEDIR.TAG"], "the dependencies").await
    }

    fn told(&self, outcome: &Outcome, keeping: std::time::Duration) {
        self.job.runner.log.say(format!(
            "Dependencies are installed ({:.1} s, at most {} MiB of memory) and kept ({:.1} s).",
            outcome.took.as_secs_f64(),
            outcome.memory_peak_bytes >> 20,
            keeping.as_secs_f64()
        ));
    }

    /// Names these wishes.
    fn wishes(&self) -> Wishes {
        let (dependencies, interpreter) = (self.dependencies, self.interpreter);
        // A variable may lead to files of the source.
        let is_local = dependencies.is_local || !self.job.variables.is_empty();
        let whose = if is_local { Whose::Projects } else { Whose::Everybodys };
        let wishes = serde_json::json!({
            "format": FORMAT,
            "interpreter": interpreter.path.display().to_string(),
            "version": interpreter.version.to_string(),
            "platform": interpreter.platform,
            "kind": format!("{:?}", dependencies.kind),
            "added": dependencies.added.as_ref().map(|added| (&added.package, &added.pins)),
            "files": job::hashes(&dependencies.files),
            "archive": is_local.then_some(self.job.archive),
            "vendored": dependencies.vendored,
            "variables": self.job.variables,
            "package_environment": self.job.base.package.variables,
        });
        self.job.wishes(&wishes, whose)
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
        Kind::Poetry => {
            // Into the environment that VIRTUAL_ENV names. The project itself is where the code lies, as everywhere else.
            return vec![
                make,
                words(&[
                    uv::PROGRAM,
                    "tool",
                    "run",
                    "--python",
                    python,
                    "--from",
                    POETRY,
                    "poetry",
                    "install",
                    "--no-interaction",
                    "--only",
                    "main",
                    "--no-root",
                ]),
            ];
        }
        Kind::PipProject => words(&[uv::PROGRAM, "pip", "install", "--strict", "--python", &environment_python, "."]),
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
        Kind::Project | Kind::PipProject | Kind::Poetry => "pyproject.toml",
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
