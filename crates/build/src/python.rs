//! Python: what a source needs, and how what is built of it is started.
//!
//! Reads the source as data and decides; runs nothing. Rules and texts: GoogleCloudPlatform/buildpacks, cmd/python and
//! pkg/python (functions_framework, missing_entrypoint, webserver, uv). Where we differ: dependencies are always installed
//! with uv, and always into a virtual environment, so that what the host's interpreter has installed is not seen.

use crate::{
    Error, Language,
    catalogue::{KNOWN, Pins},
    job::{Job, Output},
    plan::{Parts, Plan, Question, Recipe, Wanted, has, injection_allowed, pairs, read, shell, user},
    tree::TreeReader,
    variables::Variables,
};

mod code;
mod dependencies;
mod failure;
mod requirements;
mod uv;

use requirements::{Requirements, normalised};
pub(crate) use uv::{PROGRAM as UV, layer_remembered};

/// What uv builds packages in: see `cache`.
pub(crate) use failure::BUILDS_BUCKET;

/// Where the virtual environment lies in sandboxes and instances: its scripts name it.
pub(crate) const ENVIRONMENT: &str = "/layers/python";

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
    /// pyproject.toml, installed as pip does it.
    PipProject,
    /// pyproject.toml of Poetry's.
    Poetry,
}

impl Dependencies {
    /// What Google's buildpack would install them with.
    #[cfg(test)]
    pub(crate) fn manager(&self, version: crate::catalogue::Version) -> &'static str {
        match self.kind {
            Kind::Poetry => "poetry",
            Kind::Project => "uv",
            Kind::Nothing if self.added.is_none() => "none",
            Kind::Requirements | Kind::Nothing if version.minor >= 14 => "uv",
            Kind::PipProject | Kind::Requirements | Kind::Nothing => "pip",
        }
    }

    fn is_project(&self) -> bool {
        matches!(self.kind, Kind::Project | Kind::PipProject | Kind::Poetry)
    }
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
pub(crate) fn parts(question: &Question<'_>, notes: &mut Vec<String>) -> Result<Parts, Error> {
    let (dependencies, command, mut env) = match &question.variables.function_target {
        Some(_) => function(question, notes)?,
        None => application(question, notes)?,
    };
    env.extend(pairs(&[("PATH", "/layers/python/bin:/usr/local/bin:/usr/bin:/bin"), ("PYTHONUNBUFFERED", "TRUE"), ("VIRTUAL_ENV", ENVIRONMENT)]));
    Ok(Parts { recipe: Recipe::Python(dependencies), command, env, memory_env: Vec::new() })
}

/// What uv says of a failure, in one text.
pub(crate) fn explain(tail: &[String]) -> String {
    failure::explain(tail).text
}

/// uv, ready to be mounted.
/// # Errors
/// `User` when it is not on this host and cannot be fetched.
pub(crate) async fn uv_find(job: &Job<'_>, interpreter: &crate::Interpreter) -> Result<sandbox::Mount, Error> {
    Ok(uv::Finder { job }.find(interpreter).await?.mount)
}

/// What .python-version asks for.
pub(crate) fn version_wanted(source: &TreeReader) -> Result<Option<(&'static str, Wanted)>, Error> {
    let Some(text) = read(source, ".python-version")? else { return Ok(None) };
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let line = line.ok_or_else(|| user(".python-version exists but does not specify a version"))?;
    Ok(Some((".python-version", Wanted::parse(".python-version", line, Language::Python)?)))
}

/// Compiles the code, installs the dependencies or knows them, and keeps both.
pub(crate) async fn build(job: &Job<'_>, plan: &Plan, dependencies: &Dependencies, staging: store::Staging) -> Result<Output, Error> {
    let compiling = async {
        let (bytecode, compiled) = code::compile(job, plan, plan.is_function()).await?;
        job.runner.log.say(format!("Compiled ({:.2} s, at most {} MiB of memory).", compiled.took.as_secs_f64(), compiled.memory_peak_bytes >> 20));
        Ok(bytecode)
    };
    let installer = dependencies::Installer { job, interpreter: &plan.interpreter, dependencies };
    let (bytecode, environment) = tokio::try_join!(compiling, installer.layer())?;
    let code = crate::step::blocking(move || {
        code::bytecode_take(&bytecode, staging.path())?;
        staging.commit().map_err(|e| Error::Internal(format!("keeping the code: {e}")))
    })
    .await??;
    let layer = |digest: String, target: &str| model::image::Layer { digest, target: target.into() };
    Ok(Output { layers: vec![layer(code, crate::plan::WORKSPACE), layer(environment, ENVIRONMENT)], command: None })
}

// === What it needs and how it starts ===

const MISSING_MAIN: &str = "missing main.py and GOOGLE_FUNCTION_SOURCE not specified. Either create the function in main.py or specify \
    GOOGLE_FUNCTION_SOURCE to point to the file that contains the function";

type Started = (Dependencies, Vec<String>, Vec<(String, String)>);

fn function(question: &Question<'_>, notes: &mut Vec<String>) -> Result<Started, Error> {
    let Question { source, variables, .. } = question;
    match &variables.function_source {
        None if !has(source, "main.py")? => return Err(user(MISSING_MAIN)),
        Some(path) if !has(source, path)? => {
            return Err(user(format!("GOOGLE_FUNCTION_SOURCE specified file {path:?} but it does not exist")));
        }
        _ => {}
    }
    let mut found = dependencies(question, notes)?;
    let framework = &KNOWN.python.framework;
    if found.names(&framework.package) {
        notes.push("The functions framework is among the source's own dependencies.".to_owned());
    } else if found.dependencies.is_project() {
        return Err(user(
            "This project is using pyproject.toml but you have not included the Functions Framework in your dependencies. \
             Please add it to your pyproject.toml.",
        ));
    } else if variables.vendored.is_some() {
        return Err(user("Vendored dependencies detected, please add functions-framework to requirements.txt and download it using pip"));
    } else {
        injection_allowed(variables)?;
        notes.push(format!("Adding {} to the dependencies.", framework.pins[0]));
        found.add(framework);
    }
    // The framework's own script, run by name so that no line of `#!` has to be believed: gunicorn, one worker, threads = 4 x cpus.
    let command = vec![format!("{ENVIRONMENT}/bin/python"), format!("{ENVIRONMENT}/bin/functions-framework")];
    Ok((found.dependencies, command, Vec::new()))
}

fn application(question: &Question<'_>, notes: &mut Vec<String>) -> Result<Started, Error> {
    let mut found = dependencies(question, notes)?;
    let mut env = Vec::new();
    let entrypoint = match crate::plan::entrypoint(question)? {
        Some(entrypoint) => entrypoint,
        None => {
            if let Some(command) = script(question.source, &found)? {
                notes.push(format!("Setting default entrypoint: {:?}", command.join(" ")));
                return Ok((found.dependencies, command, pairs(&[("PYTHONPATH", crate::plan::WORKSPACE)])));
            }
            let (entrypoint, extra) = entrypoint_default(question.source, &found, question.interpreter.version.minor)?;
            notes.push(format!("Setting default entrypoint: {entrypoint:?}"));
            env = extra;
            let webserver = &KNOWN.python.webserver;
            if !found.names(&webserver.package) && entrypoint.starts_with("gunicorn") {
                if found.dependencies.is_project() || question.variables.vendored.is_some() {
                    return Err(user(
                        "The default entrypoint needs gunicorn. Add it to the dependencies, or set an entrypoint with \
                         \"GOOGLE_ENTRYPOINT\" env var or by creating a \"Procfile\" file.",
                    ));
                }
                notes.push(format!("Adding {} to the dependencies.", webserver.pins[0]));
                found.add(webserver);
            }
            entrypoint
        }
    };
    Ok((found.dependencies, shell(entrypoint), env))
}

fn entrypoint_default(source: &TreeReader, found: &Found, minor: u32) -> Result<(String, Vec<(String, String)>), Error> {
    let (file, module) = if has(source, "main.py")? {
        ("main.py", "main:app")
    } else if has(source, "app.py")? {
        ("app.py", "app:app")
    } else if minor >= 13 && found.names("google-adk") {
        return Ok(("adk api_server --port $PORT --host 0.0.0.0".to_owned(), vec![]));
    } else if found.dependencies.is_project() {
        return Err(user(
            "for Python with pyproject.toml, provide a main.py or app.py file or a script command in pyproject.toml or set an entrypoint with \
             \"GOOGLE_ENTRYPOINT\" env var or by creating a \"Procfile\" file. For a function, give --function ENTRY_POINT.",
        ));
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
    if found.names("google-adk") {
        return Ok(("adk api_server --port $PORT --host 0.0.0.0".to_owned(), vec![]));
    }
    Ok(gunicorn)
}

/// The one script of a pyproject.toml, or the one of several that is named start. Google runs it by uv or Poetry, which are not in an
/// instance here: the environment's own Python calls what it names.
fn script(source: &TreeReader, found: &Found) -> Result<Option<Vec<String>>, Error> {
    if !found.dependencies.is_project() {
        return Ok(None);
    }
    let Some(table) = read(source, "pyproject.toml")?.and_then(|text| text.parse::<toml::Table>().ok()) else { return Ok(None) };
    let tables = [table.get("tool").and_then(|tool| tool.get("poetry")?.get("scripts")), table.get("project").and_then(|project| project.get("scripts"))];
    for scripts in tables.into_iter().flatten().filter_map(|scripts| scripts.as_table()) {
        let one = if scripts.len() == 1 { scripts.values().next() } else { scripts.get("start") };
        let Some((module, object)) = one.and_then(|script| script.as_str()?.split_once(':')) else { continue };
        let is_plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.');
        if !is_plain(module) || !is_plain(object) {
            return Err(user(format!("pyproject.toml has a script {module:?}:{object:?} that names no object of a module. Mend it, then deploy again.")));
        }
        let first = object.split('.').next().unwrap_or_default();
        let call = format!("import sys; from {module} import {first}; sys.exit({object}())");
        return Ok(Some(vec![format!("{ENVIRONMENT}/bin/python"), "-c".to_owned(), call]));
    }
    Ok(None)
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
fn dependencies(question: &Question<'_>, notes: &mut Vec<String>) -> Result<Found, Error> {
    let Question { source, variables, .. } = question;
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
            let found = project_requirements(&text)?;
            keep("pyproject.toml", &text);
            let kind = project_kind(source, variables, &text)?;
            if kind == Kind::Poetry {
                let lock = read(source, "poetry.lock")?;
                match &lock {
                    Some(lock) => keep("poetry.lock", lock),
                    None => notes.push("*** To improve build performance, generate and commit poetry.lock.".to_owned()),
                }
                return Ok(Found {
                    dependencies: Dependencies { kind, added: None, files, is_local: true, vendored, is_locked: lock.is_some() },
                    requirements: found,
                });
            }
            if kind == Kind::PipProject {
                return Ok(Found { dependencies: Dependencies { kind, added: None, files, is_local: true, vendored, is_locked: false }, requirements: found });
            }
            if let Some(lock) = &lock {
                keep("uv.lock", lock);
            } else {
                notes.push("*** To improve build performance, generate and commit uv.lock.".to_owned());
            }
            // The project itself and what it refers to may be installed: but not one that says nothing of how it is built or found.
            let is_local = lock.is_none() || text.contains("build-system") || text.contains("tool.uv") || text.contains("[tool]");
            (Kind::Project, found, is_local, lock.is_some())
        }
        (None, None) => (Kind::Nothing, Requirements::default(), false, false),
    };
    let is_local = is_local || has_settings || vendored.is_some();
    Ok(Found { dependencies: Dependencies { kind, added: None, files, is_local, vendored, is_locked }, requirements: found })
}

/// poetry.lock or `[tool.poetry]` make it Poetry's, else it is uv's, unless pip was asked for and nothing is locked.
fn project_kind(source: &TreeReader, variables: &Variables, project: &str) -> Result<Kind, Error> {
    let table = project.parse::<toml::Table>().ok();
    let has_section = table.and_then(|table| table.get("tool")?.get("poetry").cloned()).is_some();
    let has_uv_lock = has(source, "uv.lock")?;
    if has(source, "poetry.lock")? || (has_section && !has_uv_lock) {
        return Ok(Kind::Poetry);
    }
    if !has_uv_lock && variables.python_package_manager.as_deref() == Some("pip") {
        return Ok(Kind::PipProject);
    }
    Ok(Kind::Project)
}

/// The dependencies that a pyproject.toml names itself.
fn project_requirements(text: &str) -> Result<Requirements, Error> {
    let table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| user(format!("Could not parse pyproject.toml: {}. Mend it, then deploy again.", e.message())))?;
    let lines = table
        .get("project")
        .and_then(|project| project.get("dependencies"))
        .and_then(|dependencies| dependencies.as_array())
        .map(|lines| lines.iter().filter_map(|line| line.as_str()).collect::<Vec<_>>().join("\n"))
        .unwrap_or_default();
    let poetry = table.get("tool").and_then(|tool| tool.get("poetry")?.get("dependencies")?.as_table().cloned()).unwrap_or_default();
    let names = poetry.keys().filter(|name| *name != "python").cloned().collect::<Vec<_>>().join("\n");
    Ok(Requirements::parse(&format!("{lines}\n{names}")))
}

#[cfg(test)]
mod tests;
