//! What to do with a source: which language, which of its runtimes, and that language's own plan.
//!
//! Reads the source as data and decides; runs nothing. Rules and texts: GoogleCloudPlatform/buildpacks, cmd/ and pkg/.

use crate::{
    Error, Language,
    catalogue::{BaseImage, Catalogue, Interpreter, KNOWN, Version, base_image_any},
    go, java, language, nodejs, python,
    tree::TreeReader,
    variables::Variables,
};
use model::image::MemoryVariable;

/// Where the code lies in sandboxes and instances.
pub(crate) const WORKSPACE: &str = "/workspace";
/// Bytes of a file of the source that is read here.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// What to do with a source.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) base: BaseImage,
    pub(crate) interpreter: Interpreter,
    pub(crate) recipe: Recipe,
    pub(crate) command: Vec<String>,
    /// Set in instances.
    pub(crate) env: Vec<(String, String)>,
    /// Set in instances, from their memory.
    pub(crate) memory_env: Vec<MemoryVariable>,
    /// Lines for the build's log.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    pub(crate) fn is_function(&self) -> bool {
        self.env.iter().any(|(name, _)| name == "FUNCTION_TARGET")
    }
}

/// What is built, by language.
#[derive(Debug)]
pub(crate) enum Recipe {
    Python(python::Dependencies),
    Nodejs(nodejs::Recipe),
    Go(go::Recipe),
    Java(java::Recipe),
}

/// What a language's rules make of a source.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) recipe: Recipe,
    /// Empty where only the build can know it.
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) memory_env: Vec<MemoryVariable>,
}

/// What a language's rules are asked about.
pub(crate) struct Question<'a> {
    pub(crate) source: &'a TreeReader,
    pub(crate) variables: &'a Variables,
    pub(crate) interpreter: &'a Interpreter,
}

/// Decides all of it.
/// # Errors
/// `User` with what to change.
pub(crate) fn plan(source: &TreeReader, base_image: &str, variables: &Variables, catalogue: &Catalogue) -> Result<Plan, Error> {
    let mut notes = Vec::new();
    let (base, interpreter) = runtime(source, base_image, variables, catalogue, &mut notes)?;
    variables.fit(interpreter.language)?;
    let question = Question { source, variables, interpreter: &interpreter };
    let parts = match interpreter.language {
        Language::Python => python::parts(&question, &mut notes)?,
        Language::Nodejs => nodejs::parts(&question, &mut notes)?,
        Language::Go => go::parts(&question, &mut notes)?,
        Language::Java => java::parts(&question, &mut notes)?,
        other => return Err(Error::Internal(format!("{other:?} has an interpreter and no builder"))),
    };
    let Parts { recipe, command, mut env, memory_env } = parts;
    if let Some(target) = &variables.function_target {
        env.push(("FUNCTION_TARGET".to_owned(), target.clone()));
        for (name, value) in [("FUNCTION_SOURCE", &variables.function_source), ("FUNCTION_SIGNATURE_TYPE", &variables.function_signature_type)] {
            if let Some(value) = value {
                env.push((name.to_owned(), value.clone()));
            }
        }
        for file in ["Procfile", "Dockerfile"] {
            if has(source, file)? {
                notes.push(format!("{file} has no meaning for a function and is not used."));
            }
        }
    }
    for (name, value) in [("HOME", "/tmp"), ("LANG", "C.UTF-8")] {
        env.push((name.to_owned(), value.to_owned()));
    }
    env.sort();
    Ok(Plan { base, interpreter, recipe, command, env, memory_env, notes })
}

// === Which language, which version ===

fn runtime(
    source: &TreeReader,
    base_image: &str,
    variables: &Variables,
    catalogue: &Catalogue,
    notes: &mut Vec<String>,
) -> Result<(BaseImage, Interpreter), Error> {
    let asked = variables.runtime.as_deref().map(|id| id.trim().to_ascii_lowercase()).filter(|id| !id.is_empty());
    let by_runtime = match asked.as_deref() {
        None => None,
        Some(id) => Some(match (KNOWN.runtime(id), Language::of_id(id)) {
            (Some(_), _) => Asked::Base(BaseImage::parse(id)?),
            (None, Some(language)) if id == language.prefix() => Asked::Language(language),
            _ => return Err(user(format!("GOOGLE_RUNTIME={id:?} names no runtime. Give one such as python312, nodejs22, go126 or java21."))),
        }),
    };
    let given = if base_image_any(base_image).is_some() { None } else { Some(BaseImage::parse(base_image)?) };
    let base = match (given, by_runtime) {
        (Some(given), Some(Asked::Base(other))) if given.id != other.id => {
            return Err(user(format!("GOOGLE_RUNTIME={:?} is not the base image {base_image:?}. Remove one of them.", other.id)));
        }
        (Some(given), Some(Asked::Language(other))) if given.language() != other => {
            return Err(user(format!("GOOGLE_RUNTIME={:?} is not the base image {base_image:?}. Remove one of them.", other.prefix())));
        }
        (Some(given), _) => Asked::Base(given),
        (None, Some(asked)) => asked,
        (None, None) => Asked::Language(by_files(source, variables)?),
    };
    match base {
        Asked::Base(base) => {
            let interpreter = catalogue.interpreter_of(&base)?;
            let Some((name, wanted)) = variable_version(variables, base.language())? else {
                return Ok((base, interpreter.clone()));
            };
            let found = wanted.find(catalogue, interpreter.language, name)?;
            if found.0.id != base.id {
                return Err(user(format!("{name} asks for another {} than the base image {:?}. Remove one of them.", base.language().name(), base.id)));
            }
            Ok((base, found.1))
        }
        Asked::Language(language) => newest(source, variables, language, catalogue, notes),
    }
}

/// What somebody asked for.
enum Asked {
    Base(BaseImage),
    Language(Language),
}

/// Without a base image the files say what a source is.
fn by_files(source: &TreeReader, variables: &Variables) -> Result<Language, Error> {
    if has(source, "Dockerfile")? && variables.function_target.is_none() {
        return Err(user(
            "The source has a Dockerfile: building container images is not available on this host. \
             Give a base image (for example --base-image python312), or remove the Dockerfile.",
        ));
    }
    let typescript = variables.nodejs_version.as_ref().or(variables.runtime_version.as_ref()).and_then(|text| Version::parse(text.trim()));
    let detected = match language::detect(source)? {
        None if typescript.is_none_or(|version| version.major >= 24) && top(source)?.iter().any(|name| name.ends_with(".ts")) => Some(Language::Nodejs),
        // An application of Python that says not how it is started is the last that Google tries.
        Some(Language::Python) if variables.function_target.is_none() && variables.entrypoint.is_none() && !has(source, "Procfile")? => {
            Some(if has(source, "package.json")? { Language::Nodejs } else { Language::Python })
        }
        detected => detected,
    };
    if let Some(language) = detected {
        if let Some(why) = &KNOWN.of(language).unavailable {
            return Err(user(format!("The source is {}, which is not available on this host: {why}.", language.name())));
        }
        return Ok(language);
    }
    if variables.function_target.is_some() {
        return Err(user(
            "No buildpack groups passed detection: the source has no file by which its language is known (such as main.py, package.json, go.mod \
             or pom.xml). Give a base image, for example --base-image python312.",
        ));
    }
    Err(user("No buildpack groups passed detection: the source has no file of Python, Node.js, Go or Java at its top."))
}

/// What the language's own file or a variable asks for, else its newest runtime here.
fn newest(
    source: &TreeReader,
    variables: &Variables,
    language: Language,
    catalogue: &Catalogue,
    notes: &mut Vec<String>,
) -> Result<(BaseImage, Interpreter), Error> {
    if let Some(why) = &KNOWN.of(language).unavailable {
        return Err(user(format!("{} is not available on this host: {why}.", language.name())));
    }
    let wanted = match variable_version(variables, language)? {
        Some(wanted) => Some(wanted),
        None if language == Language::Python => python::version_wanted(source)?,
        None => None,
    };
    if let Some((name, wanted)) = wanted {
        return wanted.find(catalogue, language, name);
    }
    let has_range = if language == Language::Nodejs { nodejs::version_range(source)? } else { None };
    let runtimes = KNOWN.of(language).runtimes.iter().rev();
    let mut found = runtimes.filter_map(|runtime| catalogue.interpreter(language, runtime).map(|found| (BaseImage::of_runtime(runtime), found.clone())));
    if let Some(range) = has_range {
        return found.find(|(_, found)| range.allows(found.version)).ok_or_else(|| {
            let fit = |runtime: &&crate::catalogue::KnownRuntime| {
                let last = Version::parse(&runtime.version).map(|version| Version { minor: 999, patch: 999, ..version });
                last.is_some_and(|version| range.allows(version))
            };
            let how = match KNOWN.of(language).runtimes.iter().rev().find(fit) {
                Some(runtime) => format!("Install one with: tanebi runtimes install {}, then deploy again.", runtime.id),
                None => "None of Google's runtimes is one either: ask for another.".to_owned(),
            };
            user(format!(
                "package.json asks for Node.js {:?} (engines.node), which needs a version that is not installed on this host. Found: {}. {how}",
                range.text,
                catalogue.found(language)
            ))
        });
    }
    let (base, interpreter) = found.next().ok_or_else(|| {
        let id = KNOWN.of(language).runtimes.iter().rev().find(|runtime| runtime.stage == crate::catalogue::Stage::Ga).map_or("", |runtime| &runtime.id);
        user(format!(
            "No {} is installed on this host that functions can be built for. Install one with: tanebi runtimes install {id}, then deploy again.",
            language.name()
        ))
    })?;
    notes.push(format!("No base image was given: building for {}, the newest {} of this host.", base.id, language.name()));
    Ok((base, interpreter))
}

fn variable_version(variables: &Variables, language: Language) -> Result<Option<(&'static str, Wanted)>, Error> {
    let own = match language {
        Language::Python => ("GOOGLE_PYTHON_VERSION", &variables.python_version),
        Language::Nodejs => ("GOOGLE_NODEJS_VERSION", &variables.nodejs_version),
        Language::Go => ("GOOGLE_GO_VERSION", &variables.go_version),
        _ => ("", &None),
    };
    let shared = ("GOOGLE_RUNTIME_VERSION", &variables.runtime_version);
    for (name, text) in [own, shared] {
        if let Some(text) = text.as_ref().filter(|text| !text.trim().is_empty()) {
            return Ok(Some((name, Wanted::parse(name, text, language)?)));
        }
    }
    Ok(None)
}

/// A version that somebody asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    major: u32,
    minor: Option<u32>,
    patch: Option<u32>,
}

impl Wanted {
    /// `3`, `3.12`, `3.12.x`, `3.12.*`, `3.12.1`.
    pub(crate) fn parse(name: &str, text: &str, language: Language) -> Result<Self, Error> {
        let example = match language {
            Language::Nodejs => "24 or 24.3.0",
            Language::Go => "1.26 or 1.26.1",
            Language::Java => "21",
            _ => "3.12 or 3.12.1",
        };
        let fault = || user(format!("invalid {} version specified: {text:?} ({name}). Write it as {example}.", language.name()));
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

    fn allows(&self, version: Version) -> bool {
        self.major == version.major && self.minor.is_none_or(|minor| minor == version.minor) && self.patch.is_none_or(|patch| patch == version.patch)
    }

    /// The newest interpreter that it allows, and its runtime.
    fn find(&self, catalogue: &Catalogue, language: Language, name: &str) -> Result<(BaseImage, Interpreter), Error> {
        let runtimes = &KNOWN.of(language).runtimes;
        let found = catalogue.of(language).filter(|found| self.allows(found.version)).find_map(|found| {
            let runtime = runtimes.iter().find(|runtime| runtime.is(found.version))?;
            Some((BaseImage::of_runtime(runtime), found.clone()))
        });
        found.ok_or_else(|| {
            let text = [Some(self.major), self.minor, self.patch].into_iter().flatten().map(|n| n.to_string()).collect::<Vec<_>>().join(".");
            let probe = Version { major: self.major, minor: self.minor.unwrap_or(0), patch: 0 };
            let how = match runtimes.iter().find(|runtime| runtime.is(probe)) {
                Some(runtime) if catalogue.interpreter(language, runtime).is_some() => {
                    format!("Ask for {} of any patch, or install that one by the host's own means and restart tanebi; then deploy again.", runtime.version)
                }
                Some(runtime) => format!("Install it with: tanebi runtimes install {}, then deploy again.", runtime.id),
                None => "It is none of Google's runtimes either: ask for another.".to_owned(),
            };
            user(format!("{name} asks for {} {text}, which is not installed on this host. Found: {}. {how}", language.name(), catalogue.found(language)))
        })
    }
}

// === For all languages ===

/// How an application is started: the variable, else the Procfile's line `web`.
pub(crate) fn entrypoint(question: &Question<'_>) -> Result<Option<String>, Error> {
    if let Some(entrypoint) = &question.variables.entrypoint {
        return Ok(Some(entrypoint.clone()));
    }
    let Some(text) = read(question.source, "Procfile")? else { return Ok(None) };
    let mut names = Vec::new();
    for line in text.lines() {
        let Some((name, command)) = line.split_once(':') else { continue };
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let command = command.trim();
        if !is_name || command.is_empty() || command.contains('\0') {
            continue;
        }
        if name == "web" {
            return Ok(Some(command.to_owned()));
        }
        names.push(name);
    }
    Err(user(match names.is_empty() {
        true => "did not find any processes in Procfile. Add a line \"web: COMMAND\", then deploy again.".to_owned(),
        false => format!("web process not found in Procfile, found processes: [{}]. Add a line \"web: COMMAND\", then deploy again.", names.join(" ")),
    }))
}

/// A command line, for a shell.
pub(crate) fn shell(line: String) -> Vec<String> {
    let shell = if std::path::Path::new("/usr/bin/bash").exists() { "/usr/bin/bash" } else { "/usr/bin/sh" };
    vec![shell.to_owned(), "-c".to_owned(), line]
}

pub(crate) fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn has(source: &TreeReader, name: &str) -> Result<bool, Error> {
    source.has_file(name).map_err(|e| Error::Internal(format!("reading the source: {e}")))
}

pub(crate) fn read(source: &TreeReader, name: &str) -> Result<Option<String>, Error> {
    match source.read(name, FILE_MAX_BYTES) {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => String::from_utf8(bytes).map(Some).map_err(|_| user(format!("{name} is not UTF-8 text."))),
        Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => Err(user(format!("{name} is larger than 4 MiB."))),
        Err(e) => Err(Error::Internal(format!("reading {name} of the source: {e}"))),
    }
}

/// Names at the top of the source, as text, sorted.
pub(crate) fn top(source: &TreeReader) -> Result<Vec<String>, Error> {
    let names = crate::tree::names(source.root(), model::limits::SOURCE_ENTRIES_MAX).map_err(|e| Error::Internal(format!("reading the source: {e}")))?;
    Ok(names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect())
}

/// Refused where the framework would have to be added and the user forbade it.
pub(crate) fn injection_allowed(variables: &Variables) -> Result<(), Error> {
    if variables.skip_framework_injection {
        return Err(user(
            "Functions Framework must be set as a dependency when skipping automatic framework injection has been enabled via \
             GOOGLE_SKIP_FRAMEWORK_INJECTION",
        ));
    }
    Ok(())
}

pub(crate) fn user(text: impl Into<String>) -> Error {
    Error::User(text.into())
}

#[cfg(test)]
pub(crate) mod tests;
