//! Node.js: what a source needs, and how what is built of it is started.
//!
//! Reads the source as data and decides; runs nothing. Rules and texts: GoogleCloudPlatform/buildpacks, cmd/nodejs and
//! pkg/nodejs. What is decided is carried out by `install`.

use model::image::MemoryVariable;
use serde_json::Value;

use crate::{
    Error,
    catalogue::{KNOWN, Version},
    plan::{Parts, Question, Recipe as AnyRecipe, WORKSPACE, entrypoint, has, injection_allowed, pairs, read, shell, top, user},
    tree::TreeReader,
};

mod install;
mod package;
mod vulnerable;

pub(crate) use install::{build, fetch};
use package::Package;

/// Where the framework lies when the source does not name it.
const FRAMEWORK: &str = "/layers/framework";

/// What is built.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) manager: Manager,
    /// As the source asks for it; else the one that Node.js brings, or the catalogue's.
    pub(crate) manager_version: Option<String>,
    /// There is something to install.
    pub(crate) has_package: bool,
    /// The content of all files that decide what is installed, by name.
    files: Vec<(String, Vec<u8>)>,
    /// Whether anything of the source may decide the outcome: then all of it is part of the cache's key.
    is_local: bool,
    /// Whether all packages that it names are the registry's.
    is_of_registry: bool,
    /// Whether time changes the outcome: not with a lock file.
    is_locked: bool,
    /// node_modules comes with the source.
    is_vendored: bool,
    /// What `npm run` runs, in order, with the packages for development there.
    scripts: Vec<String>,
    /// Packages for development are taken away afterwards.
    prune: bool,
    /// The source's own scripts that npm runs at an install.
    own_scripts: Vec<String>,
    pub(crate) framework: Option<Framework>,
    /// File to check, if it is a function.
    main: Option<String>,
}

/// Where a function's framework comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framework {
    Own,
    Added,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Npm,
    Yarn,
    Pnpm,
    Bun,
}

impl Manager {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Manager::Npm => "npm",
            Manager::Yarn => "yarn",
            Manager::Pnpm => "pnpm",
            Manager::Bun => "bun",
        }
    }
}

/// What engines.node allows.
pub(crate) struct VersionRange {
    pub(crate) text: String,
    range: nodejs_semver::Range,
}

impl VersionRange {
    pub(crate) fn allows(&self, version: Version) -> bool {
        nodejs_semver::Version::parse(version.to_string()).is_ok_and(|version| self.range.satisfies(&version))
    }
}

/// What package.json asks for. `None` when it asks for nothing.
pub(crate) fn version_range(source: &TreeReader) -> Result<Option<VersionRange>, Error> {
    let Some(text) = Package::read(source)?.and_then(|package| package.text(&["engines", "node"])) else { return Ok(None) };
    if text.trim().is_empty() {
        return Ok(None);
    }
    let range = nodejs_semver::Range::parse(&text)
        .map_err(|_| user(format!("invalid Node.js version specified: {text:?} (engines.node of package.json). Write it as \">=24\" or \"24.x\".")))?;
    Ok(Some(VersionRange { text, range }))
}

/// Decides all of it.
/// # Errors
/// `User` with what to change.
pub(crate) fn parts(question: &Question<'_>, notes: &mut Vec<String>) -> Result<Parts, Error> {
    let package = Package::read(question.source)?;
    if let Some(range) = version_range(question.source)?
        && !range.allows(question.interpreter.version)
    {
        notes.push(format!("WARNING: package.json asks for Node.js {:?}, and this is built for {}.", range.text, question.interpreter.version));
    }
    let mut recipe = recipe(question, package.as_ref(), notes)?;
    if !question.variables.allow_vulnerable {
        vulnerable::check(&recipe.files)?;
    }
    let command = match question.variables.function_target {
        Some(_) => {
            function(question, package.as_ref(), &mut recipe)?;
            // Where the framework's program lies is known when it is installed.
            Vec::new()
        }
        None => application(question, package.as_ref(), &recipe)?,
    };
    let bin = question.interpreter.path.parent().map(|bin| bin.display().to_string()).unwrap_or_default();
    let own = question.variables.own.iter().find(|(name, _)| name == "NODE_ENV").map_or("production", |(_, value)| value.as_str());
    let mut env = pairs(&[("NODE_ENV", own)]);
    env.push(("PATH".to_owned(), format!("{WORKSPACE}/node_modules/.bin:{bin}:/usr/local/bin:/usr/bin:/bin")));
    if recipe.framework == Some(Framework::Added) && (recipe.has_package || recipe.is_vendored) {
        env.push(("NODE_PATH".to_owned(), format!("{WORKSPACE}/node_modules")));
    }
    // Google's heapsize.sh.
    let heap = MemoryVariable {
        name: "NODE_OPTIONS".to_owned(),
        before: "--max-old-space-size=".to_owned(),
        percent: 80,
        after: String::new(),
        unless: "max-old-space-size".to_owned(),
    };
    let memory_env = match question.variables.memory_hint {
        Some(mib) => {
            env.push(("NODE_OPTIONS".to_owned(), format!("--max-old-space-size={}", mib - 64)));
            Vec::new()
        }
        None => vec![heap],
    };
    Ok(Parts { recipe: AnyRecipe::Nodejs(recipe), command, env, memory_env })
}

fn recipe(question: &Question<'_>, package: Option<&Package>, notes: &mut Vec<String>) -> Result<Recipe, Error> {
    let (source, variables) = (question.source, question.variables);
    let (manager, lock) = manager(question, package)?;
    let names = top(source)?;
    let mut files = Vec::new();
    for name in ["package.json", ".npmrc", ".yarnrc", ".yarnrc.yml", "pnpm-workspace.yaml", "bunfig.toml"].into_iter().chain(lock) {
        if let Some(text) = read(source, name)? {
            files.push((name.to_owned(), text.into_bytes()));
        }
    }
    if lock == Some("bun.lockb")
        && let Ok(Some(bytes)) = source.read("bun.lockb", 4 << 20)
    {
        files.push(("bun.lockb".to_owned(), bytes));
    }
    if package.is_some() && lock.is_none() && !variables.vendored_npm {
        notes.push("*** Improve build performance by generating and committing a lock file (package-lock.json).".to_owned());
    }
    let scripts = match package {
        // Google's buildpack for yarn runs this one only.
        Some(package) if manager == Manager::Yarn => {
            if variables.node_run_scripts.is_some() {
                notes.push("GOOGLE_NODE_RUN_SCRIPTS has no meaning with yarn and is not used: a script named gcp-build is run.".to_owned());
            }
            package.text(&["scripts", "gcp-build"]).filter(|own| !own.trim().is_empty()).map(|_| "gcp-build".to_owned()).into_iter().collect()
        }
        Some(package) => scripts(package, variables.node_run_scripts.as_deref()),
        None => Vec::new(),
    };
    let has_workspaces = package.is_some_and(|package| package.value(&["workspaces"]).is_some()) || names.iter().any(|name| name == "pnpm-workspace.yaml");
    let is_local =
        has_workspaces || package.is_some_and(Package::is_local) || names.iter().any(|name| name == ".yarn" || name == ".pnpmfile.cjs" || name == "patches");
    let own_scripts = ["preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"];
    let own_scripts = own_scripts.into_iter().filter(|name| package.is_some_and(|package| package.text(&["scripts", name]).is_some()));
    Ok(Recipe {
        manager,
        manager_version: package.and_then(|package| package.manager_version(manager)),
        has_package: package.is_some(),
        is_of_registry: package.is_none_or(Package::is_of_registry),
        is_local,
        is_locked: lock.is_some(),
        is_vendored: variables.vendored_npm,
        // As Google: not where the user asked for development.
        prune: !scripts.is_empty()
            && !variables.vendored_npm
            && package.is_some_and(Package::has_development)
            && variables.own.iter().all(|(name, value)| name != "NODE_ENV" || value == "production"),
        scripts,
        own_scripts: own_scripts.map(str::to_owned).collect(),
        files,
        framework: None,
        main: None,
    })
}

/// The lock file picks it, or a variable; and the lock file.
fn manager(question: &Question<'_>, package: Option<&Package>) -> Result<(Manager, Option<&'static str>), Error> {
    let wanted = question.variables.package_manager.as_deref();
    let managers: [(Manager, &[&'static str]); 3] =
        [(Manager::Yarn, &["yarn.lock"]), (Manager::Pnpm, &["pnpm-lock.yaml"]), (Manager::Bun, &["bun.lockb", "bun.lock"])];
    for (manager, locks) in managers {
        let mut lock = None;
        for name in locks {
            if lock.is_none() && has(question.source, name)? {
                lock = Some(*name);
            }
        }
        if lock.is_some() || wanted == Some(manager.name()) {
            if let Some(package) = package {
                package.manager_check(manager)?;
            }
            return Ok((manager, lock));
        }
    }
    for lock in ["npm-shrinkwrap.json", "package-lock.json"] {
        if has(question.source, lock)? {
            return Ok((Manager::Npm, Some(lock)));
        }
    }
    Ok((Manager::Npm, None))
}

/// What is run after the install: the variable's scripts, else `gcp-build`, else `build`.
fn scripts(package: &Package, wanted: Option<&str>) -> Vec<String> {
    if let Some(wanted) = wanted {
        // One that is not there is npm's to name.
        return wanted.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }
    // An empty gcp-build turns the build off.
    if let Some(own) = package.text(&["scripts", "gcp-build"]) {
        return if own.trim().is_empty() { Vec::new() } else { vec!["gcp-build".to_owned()] };
    }
    package.text(&["scripts", "build"]).filter(|own| !own.trim().is_empty()).map(|_| "build".to_owned()).into_iter().collect()
}

fn function(question: &Question<'_>, package: Option<&Package>, recipe: &mut Recipe) -> Result<(), Error> {
    let (source, variables) = (question.source, question.variables);
    if variables.function_source.is_some() {
        return Err(user("GOOGLE_FUNCTION_SOURCE is not currently supported for Node.js buildpacks"));
    }
    if variables.function_signature_type.as_deref() == Some("typed") {
        return Err(user(
            "GOOGLE_FUNCTION_SIGNATURE_TYPE=\"typed\" is none of http, event, cloudevent: a typed function of Node.js is registered with functions.typed(), \
             and needs no signature type.",
        ));
    }
    let usual = if has(source, "index.js")? { "index.js" } else { "function.js" };
    let main = package.and_then(|package| package.text(&["main"])).filter(|main| !main.is_empty()).unwrap_or_else(|| usual.to_owned());
    let main = main.strip_prefix("./").unwrap_or(&main).to_owned();
    // What a script makes is not there yet.
    if recipe.scripts.is_empty() && !has(source, &main)? {
        return Err(user(format!("{main} does not exist")));
    }
    if main.starts_with('-') {
        return Err(user(format!("package.json has the main {main:?}, which begins with a hyphen. Rename the file, then deploy again.")));
    }
    recipe.main = Some(main);
    let is_own = package.is_some_and(|package| package.value(&["dependencies", &KNOWN.nodejs.framework.package]).is_some());
    if is_own {
        recipe.framework = Some(Framework::Own);
        return Ok(());
    }
    let without = |what: &str, add: &str| {
        Err(user(format!(
            "This project is using {what} but you have not included the Functions Framework in your dependencies. \
             Please add it by running: '{add} @google-cloud/functions-framework'."
        )))
    };
    match recipe.manager {
        Manager::Yarn if recipe.is_plug_and_play() => return without("Yarn Plug'n'Play", "yarn add"),
        Manager::Pnpm => return without("pnpm", "pnpm add"),
        Manager::Bun => return without("bun", "bun add"),
        Manager::Npm | Manager::Yarn => injection_allowed(variables)?,
    }
    recipe.framework = Some(Framework::Added);
    Ok(())
}

impl Recipe {
    /// Yarn 2 and later without node_modules.
    fn is_plug_and_play(&self) -> bool {
        let settings = self.files.iter().find(|(name, _)| name == ".yarnrc.yml").map(|(_, text)| String::from_utf8_lossy(text).into_owned());
        let lock = self.files.iter().find(|(name, _)| name == "yarn.lock").map(|(_, text)| String::from_utf8_lossy(text).into_owned());
        let is_modern = settings.is_some()
            || lock.is_some_and(|lock| lock.contains("__metadata:"))
            || self.manager_version.as_deref().is_some_and(|version| !version.starts_with("1."));
        let linker = settings.unwrap_or_default().lines().any(|line| line.trim().starts_with("nodeLinker:") && line.contains("node-modules"));
        self.manager == Manager::Yarn && is_modern && !linker
    }
}

fn application(question: &Question<'_>, package: Option<&Package>, recipe: &Recipe) -> Result<Vec<String>, Error> {
    if let Some(entrypoint) = entrypoint(question)? {
        return Ok(shell(entrypoint));
    }
    let source = question.source;
    let node = question.interpreter.path.display().to_string();
    let Some(package) = package else {
        return Err(user(
            "No buildpack groups passed detection: for Node.js, provide a package.json with a \"start\" script or \"main\" field, or set an \
             entrypoint with \"GOOGLE_ENTRYPOINT\" env var or by creating a \"Procfile\" file. For a function, give --function ENTRY_POINT.",
        ));
    };
    match recipe.manager {
        // Empty: it is run by the manager, whose place the build knows.
        Manager::Yarn | Manager::Pnpm => return Ok(Vec::new()),
        Manager::Bun => return Ok(shell("exec npm run start".to_owned())),
        Manager::Npm => {}
    }
    if let Some(script) = package.value(&["scripts"]).and_then(|scripts| strings(scripts).find(|(name, _)| name.starts_with("serve:ssr:"))) {
        return Ok(shell(format!("exec {}", script.1)));
    }
    // Without such a script npm runs server.js.
    if package.text(&["scripts", "start"]).is_some() || has(source, "server.js")? {
        return Ok(shell("exec npm run start".to_owned()));
    }
    let main = package.text(&["main"]).filter(|main| !main.is_empty()).unwrap_or_else(|| "index.js".to_owned());
    Ok(vec![node, main])
}

/// For logs: `npm`, `pnpm 9.1.0`.
fn named(manager: Manager, version: Option<&str>) -> String {
    version.map_or_else(|| manager.name().to_owned(), |version| format!("{} {version}", manager.name()))
}

fn strings(value: &Value) -> impl Iterator<Item = (&String, &str)> {
    value.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_str()?)))
}
