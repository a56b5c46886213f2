//! Python: what a source needs, and how what is built of it is started.
//!
//! Reads the source as data and decides; runs nothing. Rules and texts: GoogleCloudPlatform/buildpacks, cmd/python and
//! pkg/python (functions_framework, missing_entrypoint, webserver, uv). Where we differ: dependencies are always installed
//! with uv, and always into a virtual environment, so that what the host's interpreter has installed is not seen.

use model::limits;

use crate::{
    Error,
    catalogue::{BaseImage, Catalogue, Interpreter, KNOWN, Pins},
    requirements::{Requirements, normalised},
    tree::TreeReader,
    variables::Variables,
};

/// Bytes of a file of the source that is read here.
const FILE_MAX_BYTES: u64 = 4 << 20;
/// Where the code lies in sandboxes and instances.
pub(crate) const WORKSPACE: &str = "/workspace";
/// Where the virtual environment lies in sandboxes and instances: its scripts name it.
pub(crate) const ENVIRONMENT: &str = "/layers/python";

/// What to do with a source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) base: BaseImage,
    pub(crate) interpreter: Interpreter,
    pub(crate) dependencies: Dependencies,
    pub(crate) command: Vec<String>,
    /// Set in instances.
    pub(crate) env: Vec<(String, String)>,
    /// Lines for the build's log.
    pub(crate) notes: Vec<String>,
}

/// What goes into the virtual environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependencies {
    pub(crate) kind: Kind,
    /// Requirements that we add.
    pub(crate) added: Option<Added>,
    /// The content of all files that decide the outcome, by name.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Whether anything of the source may decide the outcome: then all of it is part of the cache's key.
    pub(crate) is_local: bool,
    /// Folder of the source with wheels.
    pub(crate) vendored: Option<String>,
    /// Whether time changes the outcome: not with a lock file.
    pub(crate) is_locked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only what we add.
    Nothing,
    Requirements,
    /// pyproject.toml, with uv.lock or without.
    Project,
}

/// What we add: first with these pins; without, when they cannot be had together with the user's own requirements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) package: String,
    pub(crate) pins: Vec<String>,
}

/// Decides all of it.
/// # Errors
/// `User` with what to change.
pub(crate) fn plan(source: &TreeReader, base_image: &str, variables: &Variables, catalogue: &Catalogue) -> Result<Plan, Error> {
    let mut notes = Vec::new();
    let (base, interpreter) = runtime(source, base_image, variables, catalogue, &mut notes)?;
    let minor = interpreter.version.minor;
    let (dependencies, command, mut env) = match &variables.function_target {
        Some(target) => function(source, variables, target, &mut notes)?,
        None => application(source, variables, minor, &mut notes)?,
    };
    for (name, value) in [
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("PATH", "/layers/python/bin:/usr/local/bin:/usr/bin:/bin"),
        ("PYTHONUNBUFFERED", "TRUE"),
        ("VIRTUAL_ENV", ENVIRONMENT),
    ] {
        env.push((name.to_owned(), value.to_owned()));
    }
    env.sort();
    Ok(Plan { base, interpreter, dependencies, command, env, notes })
}

// === Which Python ===

fn runtime(
    source: &TreeReader,
    base_image: &str,
    variables: &Variables,
    catalogue: &Catalogue,
    notes: &mut Vec<String>,
) -> Result<(BaseImage, Interpreter), Error> {
    let by_runtime = match variables.runtime.as_deref() {
        None | Some("python") => None,
        Some(id) if id.starts_with("python") => Some(BaseImage::parse(id)?),
        Some(other) => {
            return Err(user(format!("GOOGLE_RUNTIME={other:?} is not available on this host yet: only Python functions can be built.")));
        }
    };
    let wanted = match &variables.version {
        Some((name, text)) => Some((*name, Wanted::parse(name, text)?)),
        None => None,
    };
    let given = if base_image.is_empty() { None } else { Some(BaseImage::parse(base_image)?) };
    if let (Some(given), Some(by_runtime)) = (&given, &by_runtime)
        && given.id != by_runtime.id
    {
        return Err(user(format!("GOOGLE_RUNTIME={:?} is not the base image {base_image:?}. Remove one of them.", by_runtime.id)));
    }
    let is_given = given.is_some();
    if let Some(base) = given.or(by_runtime) {
        let interpreter = catalogue.interpreter_of(&base)?;
        let Some((name, wanted)) = wanted else {
            return Ok((base, interpreter.clone()));
        };
        let found = wanted.find(catalogue, name)?;
        if found.0 != base.runtime().id {
            return Err(user(format!("{name} asks for another Python than the base image {:?}. Remove one of them.", base.id)));
        }
        return Ok((base, found.1));
    }
    debug_assert!(!is_given);
    source_is_python(source, variables)?;
    let wanted = match wanted {
        Some(wanted) => Some(wanted),
        None => match read(source, ".python-version")? {
            None => None,
            Some(text) => {
                let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
                let line = line.ok_or_else(|| user(".python-version exists but does not specify a version"))?;
                Some((".python-version", Wanted::parse(".python-version", line)?))
            }
        },
    };
    if let Some((name, wanted)) = wanted {
        let (id, interpreter) = wanted.find(catalogue, name)?;
        return Ok((BaseImage::parse(&id)?, interpreter));
    }
    let newest = KNOWN.runtimes.iter().rev().find_map(|runtime| catalogue.interpreter(runtime).map(|found| (BaseImage::of_runtime(runtime), found.clone())));
    let (base, interpreter) = newest.ok_or_else(|| {
        user("No Python is installed on this host that functions can be built for. Install one (for example with pyenv or uv), restart tanebi, then deploy again.")
    })?;
    notes.push(format!("No base image was given: building for {}, the newest Python of this host.", base.id));
    Ok((base, interpreter))
}

/// Without a base image the files say what a source is; another language's are refused by its name.
fn source_is_python(source: &TreeReader, variables: &Variables) -> Result<(), Error> {
    let has = |name: &str| source.has_file(name).map_err(|e| Error::Internal(format!("reading the source: {e}")));
    if has("Dockerfile")? && variables.function_target.is_none() {
        return Err(user(
            "The source has a Dockerfile: building container images is not available on this host. \
             Give a base image (for example --base-image python312), or remove the Dockerfile.",
        ));
    }
    let top = crate::tree::names(source.root(), limits::SOURCE_ENTRIES_MAX).map_err(|e| Error::Internal(format!("reading the source: {e}")))?;
    let python = top.iter().any(|name| name.ends_with(b".py")) || has("requirements.txt")? || has("pyproject.toml")?;
    if python || variables.runtime.is_some() || variables.version.is_some() || variables.function_source.is_some() {
        return Ok(());
    }
    for (file, language) in [
        ("package.json", "Node.js"),
        ("index.js", "Node.js"),
        ("go.mod", "Go"),
        ("pom.xml", "Java"),
        ("build.gradle", "Java"),
        ("Gemfile", "Ruby"),
        ("app.rb", "Ruby"),
        ("composer.json", "PHP"),
        ("index.php", "PHP"),
    ] {
        if has(file)? {
            return Err(user(format!("The source has a {file}: {language} is not available on this host yet, only Python functions can be built.")));
        }
    }
    if variables.function_target.is_some() {
        return Err(user(MISSING_MAIN));
    }
    Err(user("The source has no Python file, and nothing else that can be built on this host."))
}

/// A version that somebody asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    major: u32,
    minor: Option<u32>,
    patch: Option<u32>,
}

impl Wanted {
    /// `3`, `3.12`, `3.12.x`, `3.12.*`, `3.12.1`.
    fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let fault = || user(format!("{name} asks for Python {text:?}, which is not understood here. Write it as 3.12 or 3.12.1."));
        let mut parts = Vec::new();
        let mut open = false;
        for part in text.trim().split('.') {
            match part {
                "x" | "*" if !parts.is_empty() => open = true,
                number if !open => parts.push(number.parse::<u32>().map_err(|_| fault())?),
                _ => return Err(fault()),
            }
        }
        match parts.as_slice() {
            [major] => Ok(Self { major: *major, minor: None, patch: None }),
            [major, minor] => Ok(Self { major: *major, minor: Some(*minor), patch: None }),
            [major, minor, patch] if !open => Ok(Self { major: *major, minor: Some(*minor), patch: Some(*patch) }),
            _ => Err(fault()),
        }
    }

    /// The newest interpreter that it allows, and its runtime's id.
    fn find(&self, catalogue: &Catalogue, name: &str) -> Result<(String, Interpreter), Error> {
        let allows = |found: &&Interpreter| {
            found.version.major == self.major
                && self.minor.is_none_or(|minor| minor == found.version.minor)
                && self.patch.is_none_or(|patch| patch == found.version.patch)
        };
        let found = catalogue.interpreters().iter().filter(allows).find_map(|found| {
            let version = format!("{}.{}", found.version.major, found.version.minor);
            let runtime = KNOWN.runtimes.iter().find(|runtime| runtime.version == version)?;
            Some((runtime.id.clone(), found.clone()))
        });
        found.ok_or_else(|| {
            let text = [Some(self.major), self.minor, self.patch].into_iter().flatten().map(|n| n.to_string()).collect::<Vec<_>>().join(".");
            user(format!(
                "{name} asks for Python {text}, which is not installed on this host. Found: {}. \
                 Install Python {text} (for example with pyenv or uv), restart tanebi, then deploy again.",
                catalogue.found()
            ))
        })
    }
}

// === What it needs and how it starts ===

const MISSING_MAIN: &str = "missing main.py and GOOGLE_FUNCTION_SOURCE not specified. Either create the function in main.py or specify \
    GOOGLE_FUNCTION_SOURCE to point to the file that contains the function";

type Parts = (Dependencies, Vec<String>, Vec<(String, String)>);

fn function(source: &TreeReader, variables: &Variables, target: &str, notes: &mut Vec<String>) -> Result<Parts, Error> {
    let is_file = |path: &str| source.has_file(path).map_err(|e| Error::Internal(format!("reading the source: {e}")));
    match &variables.function_source {
        None if !is_file("main.py")? => return Err(user(MISSING_MAIN)),
        Some(path) if !is_file(path)? => {
            return Err(user(format!("GOOGLE_FUNCTION_SOURCE specified file {path:?} but it does not exist")));
        }
        _ => {}
    }
    for file in ["Procfile", "Dockerfile"] {
        if is_file(file)? {
            notes.push(format!("{file} has no meaning for a function and is not used."));
        }
    }
    let mut found = dependencies(source, variables, notes)?;
    let framework = &KNOWN.framework;
    if found.names(&framework.package) {
        notes.push("The functions framework is among the source's own dependencies.".to_owned());
    } else if found.dependencies.kind == Kind::Project {
        return Err(user(
            "This project is using pyproject.toml but you have not included the Functions Framework in your dependencies. \
             Please add it to your pyproject.toml.",
        ));
    } else if variables.vendored.is_some() {
        return Err(user("Vendored dependencies detected, please add functions-framework to requirements.txt and download it using pip"));
    } else if variables.skip_framework_injection {
        return Err(user(
            "Functions Framework must be set as a dependency when skipping automatic framework injection has been enabled via \
             GOOGLE_SKIP_FRAMEWORK_INJECTION",
        ));
    } else {
        notes.push(format!("Adding {} to the dependencies.", framework.pins[0]));
        found.add(framework);
    }
    let mut env = vec![("FUNCTION_TARGET".to_owned(), target.to_owned())];
    for (name, value) in [("FUNCTION_SOURCE", &variables.function_source), ("FUNCTION_SIGNATURE_TYPE", &variables.function_signature_type)] {
        if let Some(value) = value {
            env.push((name.to_owned(), value.clone()));
        }
    }
    // The framework's own script, run by name so that no line of `#!` has to be believed: gunicorn, one worker, threads = 4 x cpus.
    let command = vec![format!("{ENVIRONMENT}/bin/python"), format!("{ENVIRONMENT}/bin/functions-framework")];
    Ok((found.dependencies, command, env))
}

fn application(source: &TreeReader, variables: &Variables, minor: u32, notes: &mut Vec<String>) -> Result<Parts, Error> {
    let mut found = dependencies(source, variables, notes)?;
    let procfile = read(source, "Procfile")?;
    let mut env = Vec::new();
    let entrypoint = match (&variables.entrypoint, procfile) {
        (Some(entrypoint), _) => entrypoint.clone(),
        (None, Some(text)) => procfile_web(&text)?,
        (None, None) => {
            let (entrypoint, extra) = entrypoint_default(source, &found, minor)?;
            notes.push(format!("Setting default entrypoint: {entrypoint:?}"));
            env = extra;
            if !found.names(&KNOWN.webserver.package) && entrypoint.starts_with("gunicorn") {
                if found.dependencies.kind == Kind::Project || variables.vendored.is_some() {
                    return Err(user(
                        "The default entrypoint needs gunicorn. Add it to the dependencies, or set an entrypoint with \
                         \"GOOGLE_ENTRYPOINT\" env var or by creating a \"Procfile\" file.",
                    ));
                }
                notes.push(format!("Adding {} to the dependencies.", KNOWN.webserver.pins[0]));
                found.add(&KNOWN.webserver);
            }
            entrypoint
        }
    };
    let shell = if std::path::Path::new("/usr/bin/bash").exists() { "/usr/bin/bash" } else { "/usr/bin/sh" };
    Ok((found.dependencies, vec![shell.to_owned(), "-c".to_owned(), entrypoint], env))
}

/// The `web` line of a Procfile; a file with one process of another name has no meaning here.
fn procfile_web(text: &str) -> Result<String, Error> {
    let web = text.lines().find_map(|line| line.trim().strip_prefix("web:").map(|command| command.trim().to_owned()));
    match web {
        Some(command) if !command.is_empty() && !command.contains('\0') => Ok(command),
        _ => Err(user("The Procfile has no line \"web: COMMAND\". Add one, then deploy again.")),
    }
}

fn entrypoint_default(source: &TreeReader, found: &Found, minor: u32) -> Result<(String, Vec<(String, String)>), Error> {
    let has = |name: &str| source.has_file(name).map_err(|e| Error::Internal(format!("reading the source: {e}")));
    let (file, module) = if has("main.py")? {
        ("main.py", "main:app")
    } else if has("app.py")? {
        ("app.py", "app:app")
    } else {
        return Err(user(
            "for Python, provide a main.py or app.py file or set an entrypoint with \"GOOGLE_ENTRYPOINT\" env var or by creating a \
             \"Procfile\" file. For a function, give --function ENTRY_POINT.",
        ));
    };
    let gunicorn = (format!("gunicorn -b :$PORT {module}"), vec![]);
    // Google's smart default exists from 3.13 on.
    if minor < 13 || found.names("gunicorn") {
        return Ok(gunicorn);
    }
    if found.names("uvicorn") || found.requirements.extras.contains("fastapi[standard]") {
        return Ok((format!("uvicorn {module} --port $PORT --host 0.0.0.0"), vec![]));
    }
    if found.names("gradio") {
        let env = vec![("GRADIO_SERVER_NAME".to_owned(), "0.0.0.0".to_owned())];
        return Ok((format!("GRADIO_SERVER_PORT=$PORT exec python {file}"), env));
    }
    if found.names("streamlit") {
        return Ok((format!("streamlit run {file} --server.address 0.0.0.0 --server.port $PORT"), vec![]));
    }
    Ok(gunicorn)
}

struct Found {
    dependencies: Dependencies,
    requirements: Requirements,
}

impl Found {
    fn names(&self, package: &str) -> bool {
        self.requirements.names(package)
    }

    /// Adds pins, except for packages that the user names.
    fn add(&mut self, pins: &Pins) {
        let name_of = |pin: &str| normalised(pin.split("==").next().unwrap_or(pin));
        self.dependencies.added = Some(Added {
            package: pins.package.clone(),
            pins: pins.pins.iter().filter(|pin| !self.requirements.packages.contains(&name_of(pin))).cloned().collect(),
        });
    }
}

/// requirements.txt before pyproject.toml, as Google's pip buildpack has it.
fn dependencies(source: &TreeReader, variables: &Variables, notes: &mut Vec<String>) -> Result<Found, Error> {
    let requirements = read(source, "requirements.txt")?;
    let project = read(source, "pyproject.toml")?;
    let lock = read(source, "uv.lock")?;
    let mut files = Vec::new();
    let mut keep = |name: &str, text: &str| files.push((name.to_owned(), text.as_bytes().to_vec()));
    // uv takes settings from both, and they may name folders of the source.
    let settings = read(source, "uv.toml")?;
    let mut has_settings = settings.is_some();
    if let Some(settings) = &settings {
        keep("uv.toml", settings);
    }
    if let (Some(_), Some(project)) = (&requirements, &project) {
        notes.push("requirements.txt is used; the dependencies of pyproject.toml are not.".to_owned());
        has_settings |= project.contains("tool.uv") || project.contains("[tool]");
        keep("pyproject.toml", project);
    }
    let vendored = variables.vendored.clone();
    if let Some(folder) = &vendored {
        let path = crate::tree::TreePath::parse(folder.as_bytes())
            .map_err(|fault| user(format!("GOOGLE_VENDOR_PIP_DEPENDENCIES={folder:?} is no folder of the source: {fault}.")))?;
        if path.is_root() || requirements.is_none() {
            return Err(user("GOOGLE_VENDOR_PIP_DEPENDENCIES needs a folder of the source and a requirements.txt."));
        }
    }
    let (kind, found, is_local, is_locked) = match (requirements, project) {
        (Some(text), _) => {
            keep("requirements.txt", &text);
            let found = Requirements::parse(&text);
            let is_local = found.is_local;
            (Kind::Requirements, found, is_local, false)
        }
        (None, Some(text)) => {
            if source_has_poetry(source, &text)? {
                return Err(user(
                    "This is a Poetry project, which is not supported on this host yet. Write its dependencies to requirements.txt \
                     (poetry export -o requirements.txt), then deploy again.",
                ));
            }
            let found = project_requirements(&text)?;
            keep("pyproject.toml", &text);
            if let Some(lock) = &lock {
                keep("uv.lock", lock);
            } else {
                notes.push("*** To improve build performance, generate and commit uv.lock.".to_owned());
            }
            // The project itself and what it refers to may be installed.
            (Kind::Project, found, true, lock.is_some())
        }
        (None, None) => (Kind::Nothing, Requirements::default(), false, false),
    };
    let is_local = is_local || has_settings || vendored.is_some();
    Ok(Found { dependencies: Dependencies { kind, added: None, files, is_local, vendored, is_locked }, requirements: found })
}

fn source_has_poetry(source: &TreeReader, project: &str) -> Result<bool, Error> {
    let has_lock = source.has_file("poetry.lock").map_err(|e| Error::Internal(format!("reading the source: {e}")))?;
    let has_uv_lock = source.has_file("uv.lock").map_err(|e| Error::Internal(format!("reading the source: {e}")))?;
    let table = project.parse::<toml::Table>().ok();
    let has_section = table.and_then(|table| table.get("tool")?.get("poetry").cloned()).is_some();
    Ok((has_lock || has_section) && !has_uv_lock)
}

/// The dependencies that a pyproject.toml names itself.
fn project_requirements(text: &str) -> Result<Requirements, Error> {
    let table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| user(format!("pyproject.toml cannot be read: {}. Mend it, then deploy again.", e.message())))?;
    let lines = table
        .get("project")
        .and_then(|project| project.get("dependencies"))
        .and_then(|dependencies| dependencies.as_array())
        .map(|lines| lines.iter().filter_map(|line| line.as_str()).collect::<Vec<_>>().join("\n"))
        .unwrap_or_default();
    Ok(Requirements::parse(&lines))
}

fn read(source: &TreeReader, name: &str) -> Result<Option<String>, Error> {
    match source.read(name, FILE_MAX_BYTES) {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => String::from_utf8(bytes).map(Some).map_err(|_| user(format!("{name} is not UTF-8 text."))),
        Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => Err(user(format!("{name} is larger than 4 MiB."))),
        Err(e) => Err(Error::Internal(format!("reading {name} of the source: {e}"))),
    }
}

fn user(text: impl Into<String>) -> Error {
    Error::User(text.into())
}

#[cfg(test)]
mod tests;
