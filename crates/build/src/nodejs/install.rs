//! Carrying a plan for Node.js out: packages into a layer, the source's scripts, a look at the code.
//!
//! npm installs without running packages' scripts, so what it downloads can be shared; scripts run afterwards in a sandbox
//! of their own. The other managers run packages' code as they like, and keep nothing for others.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use sandbox::Spec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{FRAMEWORK, Framework, Manager, Recipe, named};
use crate::{
    Error, Interpreter,
    catalogue::KNOWN,
    environment::{Access, Reach, set, shown},
    fault,
    job::{self, Job, Kept, Output, Whose, layer},
    plan::{Plan, WORKSPACE, user},
    script::Script,
    step::{Outcome, blocking},
    tree::TreeReader,
};

/// Changes when the same wishes would be installed in another way.
const FORMAT: u32 = 1;
const MODULES: &str = "node_modules";
/// Where the package manager lies in instances of applications that it starts.
const MANAGER: &str = "/layers/manager";
/// Where the files that decide what is installed lie in the sandbox.
const FILES: &str = "/build/source";
/// Bytes of node_modules/.package-lock.json.
const LOCK_MAX_BYTES: u64 = 64 << 20;
/// package.json and package-lock.json of the framework.
const FRAMEWORK_LOCK: [&str; 2] =
    [include_str!("../../../../runtimes/nodejs/framework/package.json"), include_str!("../../../../runtimes/nodejs/framework/package-lock.json")];
const MARKS: [&str; 6] = ["npm error", "npm ERR!", "error ", "ERR_PNPM", "error:", "➤ YN"];
const NOISE: [&str; 3] = ["A complete log of this run", "If you need help, you may report", "info Visit "];

/// Builds it.
pub(crate) async fn build(job: &Job<'_>, plan: &Plan, recipe: &Recipe, staging: store::Staging) -> Result<Output, Error> {
    let build = Build { job, interpreter: &plan.interpreter, recipe };
    if recipe.manager == Manager::Yarn && recipe.is_plug_and_play() {
        return Err(user(
            "Yarn Plug'n'Play is not supported on this host. Write nodeLinker: node-modules to .yarnrc.yml and run yarn install, then deploy again.",
        ));
    }
    let mut layers = Vec::new();
    if recipe.framework == Some(Framework::Added) {
        let framework = &KNOWN.nodejs.framework;
        job.runner.log.say(format!("Adding {} {}.", framework.package, framework.version));
        layers.push(layer(build.tool(&framework.package, &framework.version, Some(FRAMEWORK_LOCK)).await?, FRAMEWORK));
    }
    // Where the modules can be looked at on this host.
    let modules: Option<PathBuf>;
    if recipe.is_whole() {
        let code = build.whole().await?;
        modules = Some(job.layer_path(&code)?.join(MODULES));
        layers.push(layer(code, WORKSPACE));
    } else if !recipe.scripts.is_empty() {
        let (code, kept) = build.scripts().await?;
        modules = Some(job.layer_path(&kept)?);
        layers.push(layer(code, WORKSPACE));
        layers.push(layer(kept, &format!("{WORKSPACE}/{MODULES}")));
    } else {
        let installing = async { if recipe.has_package { build.modules(false).await.map(Some) } else { Ok(None) } };
        let (kept, ()) = tokio::try_join!(installing, build.check())?;
        let places: &[&str] = if kept.is_some() { &[MODULES] } else { &[] };
        layers.push(layer(job.keep_source(staging, &[MODULES], places).await?, WORKSPACE));
        modules = kept.as_deref().map(|kept| job.layer_path(kept)).transpose()?;
        layers.extend(kept.map(|kept| layer(kept, &format!("{WORKSPACE}/{MODULES}"))));
    }
    let command = match recipe.framework {
        // Yarn and pnpm start an application, so they are there.
        None if plan.command.is_empty() => {
            let (package, program) = build.manager_package()?;
            layers.push(layer(build.tool(package, build.version()?, None).await?, MANAGER));
            Some([build.node(), format!("{MANAGER}/{MODULES}/{program}"), "run".to_owned(), "start".to_owned()].to_vec())
        }
        None => None,
        Some(Framework::Own) => Some(build.framework_command(modules.as_deref(), &format!("{WORKSPACE}/{MODULES}"))?),
        Some(Framework::Added) => {
            let own = layers.iter().find(|layer| layer.target == Path::new(FRAMEWORK)).map(|layer| job.layer_path(&layer.digest)).transpose()?;
            Some(build.framework_command(own.map(|own| own.join(MODULES)).as_deref(), &format!("{FRAMEWORK}/{MODULES}"))?)
        }
    };
    Ok(Output { layers, command })
}

/// Fetches a Node.js that npm has, by another one of this host; its folder below `out`.
/// # Errors
/// `User` when there is no other, and when npm has no such version.
pub(crate) async fn fetch(job: &Job<'_>, out: &Path, version: &str) -> Result<PathBuf, Error> {
    let other = job.catalogue.of(crate::Language::Nodejs).find(|found| found.packager.is_some());
    let other = other
        .ok_or_else(|| user("Fetching this one needs npm, and so any Node.js of this host. Install one, then try again: tanebi runtimes install nodejs24."))?;
    let mut spec = job.spec(other, Reach::Registries, &[])?;
    spec.mounts.push(shown(out, "/out", Access::Write));
    let arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "x64" };
    let package = format!("node-linux-{arch}");
    set(&mut spec.env, "NODE_EXTRA_CA_CERTS", "/etc/ssl/certs/ca-certificates.crt");
    let npm = other.packager.as_ref().map(|npm| npm.display().to_string()).unwrap_or_default();
    let wish = format!("{package}@{version}");
    let words = [
        &other.path.display().to_string(),
        &npm,
        "install",
        "--prefix",
        "/out",
        "--ignore-scripts",
        "--no-save",
        "--no-fund",
        "--no-audit",
        "--cache",
        "/tmp/npm",
        &wish,
    ];
    spec.command = words.map(str::to_owned).to_vec();
    let outcome = job.runner.run(spec, out).await?;
    if !outcome.is_success() {
        let fault = fault::explain(&outcome.tail, &MARKS, &NOISE);
        return Err(user(
            fault.text(&format!("{wish} could not be fetched"), "Ask for another version, or connect this host to npm's registry, then try again."),
        ));
    }
    Ok(Path::new(MODULES).join(package))
}

struct Build<'a> {
    job: &'a Job<'a>,
    interpreter: &'a Interpreter,
    recipe: &'a Recipe,
}

impl Recipe {
    /// Whether packages and code cannot be told apart: packages of the source, or scripts of its own at the install.
    fn is_whole(&self) -> bool {
        self.is_vendored || self.is_local || (self.has_package && !self.own_scripts.is_empty())
    }
}

impl Build<'_> {
    // === Packages ===

    /// The layer of node_modules: known, or installed now.
    async fn modules(&self, is_development: bool) -> Result<String, Error> {
        let (job, recipe) = (self.job, self.recipe);
        let whose = if self.is_plain() { Whose::Everybodys } else { Whose::Projects };
        let wishes = json!({
            "format": FORMAT,
            "what": "node_modules",
            "interpreter": self.interpreter.path.display().to_string(),
            "version": self.interpreter.version.to_string(),
            "platform": self.interpreter.platform,
            "manager": named(recipe.manager, recipe.manager_version.as_deref()),
            "files": job::hashes(&recipe.files),
            "development": is_development,
            "variables": job.variables,
            "package_environment": job.base.package.variables,
        });
        let wishes = job.wishes(&wishes, whose);
        let known = job.known(&wishes)?;
        match &known {
            Some(known) if known.is_fresh => {
                job.runner.log.say("The dependencies are those of an earlier build.");
                return Ok(known.layer.clone());
            }
            Some(_) => job.runner.log.say("The dependencies are a day old: looking for newer ones."),
            None => job.base.package.notes.iter().for_each(|note| job.runner.log.say(note.as_str())),
        }
        match self.install(is_development).await {
            Ok((kept, whose)) => {
                job.remember(&wishes, &kept, recipe.is_locked, whose)?;
                Ok(kept.layer)
            }
            Err(Failed { is_network: true, error: Error::User(text) }) if known.is_some() => {
                job.runner.log.say(format!("WARNING: the package registry cannot be reached; using the dependencies of an earlier build. ({text})"));
                Ok(known.map(|known| known.layer).unwrap_or_default())
            }
            Err(failed) => Err(failed.error),
        }
    }

    /// Whether nothing but npm runs at the install: no variable, no file and no package leads it elsewhere.
    fn is_plain(&self) -> bool {
        let recipe = self.recipe;
        recipe.manager == Manager::Npm && recipe.is_of_registry && self.job.variables.is_empty() && !recipe.files.iter().any(|(name, _)| name == ".npmrc")
    }

    /// The packages, and whose they are: those of packages that ran code are the project's.
    async fn install(&self, is_development: bool) -> Result<(Kept, Whose), Failed> {
        let job = self.job;
        let folder = job.work.folder("modules")?;
        let downloads = job.work.folder("downloads")?;
        let generation = job.caches.npm.now();
        let mut spec = job.spec(self.interpreter, Reach::Registries, &[])?;
        spec.mounts.push(shown(&folder, WORKSPACE, Access::Write));
        spec.mounts.push(shown(&downloads, "/cache", Access::Write));
        spec.mounts.push(shown(generation.path(), "/cache-shared", Access::Read));
        for (name, bytes) in &self.recipe.files {
            spec.files.push((format!("{FILES}/{name}").into(), bytes.clone()));
        }
        let mut script = Script::new();
        script.copy(FILES, WORKSPACE).copy("/cache-shared", "/cache").enter(WORKSPACE);
        self.install_commands(&mut spec, &mut script, is_development, true).await?;
        script.install(&mut spec);
        let outcome = job.runner.run(spec, &folder).await?;
        self.succeeded(&outcome, "The dependencies could not be installed", "Mend package.json, then deploy again.")?;
        let mut whose = Whose::Projects;
        if self.is_plain() {
            whose = Whose::Everybodys;
            job.promote_later(&job.caches.npm, &downloads)?;
        }
        let mut modules = folder.join(MODULES);
        let looked_at = modules.clone();
        if self.recipe.manager == Manager::Npm && blocking(move || has_install_scripts(&looked_at)).await?? {
            whose = Whose::Projects;
            modules = self.rebuild(&folder, is_development).await?.join(MODULES);
        }
        if !modules.is_dir() {
            // A package.json without dependencies.
            modules = job.work.folder("no-modules")?;
        }
        let kept = job.keep(&modules, vec![], vec![], "the dependencies").await?;
        job.runner.log.say(format!(
            "Dependencies are installed by {} ({:.1} s, at most {} MiB of memory).",
            named(self.recipe.manager, self.recipe.manager_version.as_deref()),
            outcome.took.as_secs_f64(),
            outcome.memory_peak_bytes >> 20
        ));
        Ok((kept, whose))
    }

    /// Runs the install scripts of packages, in a sandbox whose downloads are not kept; what comes of it is the project's.
    async fn rebuild(&self, installed: &Path, is_development: bool) -> Result<PathBuf, Failed> {
        let job = self.job;
        job.runner.log.say("Some dependencies have install scripts: running them.");
        let folder = job.work.folder("rebuilt")?;
        let mut spec = job.spec(self.interpreter, Reach::Registries, &[])?;
        spec.mounts.push(shown(installed, "/installed", Access::Read));
        spec.mounts.push(shown(&folder, WORKSPACE, Access::Write));
        self.environment(&mut spec, is_development);
        let mut script = Script::new();
        script.copy("/installed", WORKSPACE).enter(WORKSPACE);
        script.run(&self.npm(&mut spec, &["rebuild", "--foreground-scripts", "--cache", "/tmp/npm"])?);
        script.install(&mut spec);
        let outcome = job.runner.run(spec, &folder).await?;
        self.succeeded(&outcome, "An install script of a dependency failed", "Mend package.json, then deploy again.")?;
        Ok(folder)
    }

    /// What installs packages into the folder where the script is.
    async fn install_commands(&self, spec: &mut Spec, script: &mut Script, is_development: bool, is_alone: bool) -> Result<(), Error> {
        let recipe = self.recipe;
        self.environment(spec, is_development);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match recipe.manager {
            Manager::Npm => {
                let npm = match &recipe.manager_version {
                    Some(version) => {
                        let tool = self.tool("npm", version, None).await?;
                        spec.mounts.push(shown(&self.job.layer_path(&tool)?, "/tools/npm", Access::Read));
                        vec![self.node(), "/tools/npm/node_modules/npm/bin/npm-cli.js".to_owned()]
                    }
                    None => self.npm(spec, &[])?,
                };
                let mut run = |arguments: &[&str]| {
                    let mut words = npm.clone();
                    words.extend(arguments.iter().map(|word| (*word).to_owned()));
                    // Alone, packages' scripts run in a sandbox of their own.
                    words.extend(if is_alone { vec!["--ignore-scripts".to_owned()] } else { vec![] });
                    words.extend(["--quiet", "--no-fund", "--no-audit", "--cache", "/cache"].map(str::to_owned));
                    script.run(&words);
                };
                if !recipe.is_locked {
                    run(&["install", "--package-lock-only"]);
                }
                run(&["ci"]);
            }
            Manager::Yarn => {
                let is_modern = !self.version()?.starts_with("1.");
                let program = self.manager_program(spec).await?;
                let mut install = vec![self.node(), program.clone(), "install".to_owned()];
                if is_modern {
                    set(&mut spec.env, "YARN_GLOBAL_FOLDER", "/cache/yarn");
                    set(&mut spec.env, "YARN_ENABLE_TELEMETRY", "0");
                    install.extend(if recipe.is_locked { words(&["--immutable"]) } else { vec![] });
                } else {
                    install.extend(words(&["--non-interactive", "--cache-folder", "/cache/yarn"]));
                    install.extend(if recipe.is_locked { words(&["--frozen-lockfile"]) } else { vec![] });
                    install.push(format!("--production={}", !is_development));
                }
                script.run(&install);
                self.wrapper(script, "yarn", &[&self.node(), &program]);
            }
            Manager::Pnpm => {
                let program = self.manager_program(spec).await?;
                let mut install = vec![self.node(), program.clone()];
                install.extend(words(&["install", "--store-dir", "/cache/pnpm", "--package-import-method", "copy", "--reporter", "append-only"]));
                install.extend(if recipe.is_locked { words(&["--frozen-lockfile"]) } else { vec![] });
                install.extend(if is_development { vec![] } else { words(&["--prod"]) });
                script.run(&install);
                self.wrapper(script, "pnpm", &[&self.node(), &program]);
            }
            Manager::Bun => {
                let program = self.manager_program(spec).await?;
                set(&mut spec.env, "BUN_INSTALL_CACHE_DIR", "/cache/bun");
                let mut install = vec![program.clone(), "install".to_owned()];
                install.extend(if recipe.is_locked { words(&["--frozen-lockfile"]) } else { vec![] });
                install.extend(if is_development { vec![] } else { words(&["--production"]) });
                script.run(&install);
                self.wrapper(script, "bun", &[&program]);
            }
        }
        Ok(())
    }

    /// So that scripts find the manager by its name.
    fn wrapper(&self, script: &mut Script, name: &str, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| crate::script::quoted(word)).collect();
        let text = format!("#!/usr/bin/sh\nexec {} \"$@\"\n", words.join(" "));
        script.line("mkdir -p /tmp/bin");
        script.line(&format!("printf %s {} > /tmp/bin/{name}", crate::script::quoted(&text)));
        script.line(&format!("chmod 755 /tmp/bin/{name}"));
    }

    async fn manager_program(&self, spec: &mut Spec) -> Result<String, Error> {
        let (package, program) = self.manager_package()?;
        let tool = self.tool(package, self.version()?, None).await?;
        spec.mounts.push(shown(&self.job.layer_path(&tool)?, "/tools/manager", Access::Read));
        Ok(format!("/tools/manager/{MODULES}/{program}"))
    }

    /// The package that the manager is in, and its program below node_modules.
    fn manager_package(&self) -> Result<(&'static str, String), Error> {
        let arch = if std::env::consts::ARCH == "aarch64" { "aarch64" } else { "x64" };
        Ok(match self.recipe.manager {
            Manager::Npm => ("npm", "npm/bin/npm-cli.js".to_owned()),
            Manager::Yarn if self.version()?.starts_with("1.") => ("yarn", "yarn/bin/yarn.js".to_owned()),
            Manager::Yarn => ("@yarnpkg/cli-dist", "@yarnpkg/cli-dist/bin/yarn.js".to_owned()),
            Manager::Pnpm => ("pnpm", "pnpm/bin/pnpm.cjs".to_owned()),
            Manager::Bun => ("bun", format!("@oven/bun-linux-{arch}/bin/bun")),
        })
    }

    fn version(&self) -> Result<&str, Error> {
        let usual = KNOWN.nodejs.managers.get(self.recipe.manager.name());
        let version = self.recipe.manager_version.as_deref().or(usual.map(String::as_str));
        version.ok_or_else(|| Error::Internal(format!("the catalogue has no version of {}", self.recipe.manager.name())))
    }

    /// The layer of a package of npm's that is a tool of ours, with what it needs. With `lock` exactly that.
    async fn tool(&self, package: &str, version: &str, lock: Option<[&str; 2]>) -> Result<String, Error> {
        let job = self.job;
        let wishes = json!({
            "format": FORMAT, "what": "tool of Node.js", "package": package, "version": version, "lock": lock,
            "platform": self.interpreter.platform, "node": self.interpreter.version.major, "package_environment": job.base.package.variables,
        });
        job.tool(&wishes, async || {
            job.runner.log.say(format!("Fetching {package} {version}, once for this host."));
            let folder = job.work.folder("tool")?;
            let mut spec = job.spec(self.interpreter, Reach::Registries, &[])?;
            spec.mounts.push(shown(&folder, "/tool", Access::Write));
            self.environment_own(&mut spec, false);
            let mut script = Script::new();
            script.enter("/tool");
            let common = ["--ignore-scripts", "--quiet", "--no-fund", "--no-audit", "--cache", "/tmp/npm"];
            match lock {
                Some([package, lock]) => {
                    spec.files.push((format!("{FILES}/package.json").into(), package.into()));
                    spec.files.push((format!("{FILES}/package-lock.json").into(), lock.into()));
                    script.copy(FILES, "/tool");
                    script.run(&self.npm(&mut spec, &[&["ci"], &common[..]].concat())?);
                }
                None => {
                    let wish = format!("{package}@{version}");
                    script.run(&self.npm(&mut spec, &[&["install", "--prefix", "/tool", "--no-save"], &common[..], &[wish.as_str()]].concat())?);
                }
            }
            script.install(&mut spec);
            let outcome = job.runner.run(spec, &folder).await?;
            let what = format!("{package} {version} could not be fetched");
            self.succeeded(&outcome, &what, "Ask for a version that the registry has, then deploy again.").map_err(|failed| failed.error)?;
            Ok(folder)
        })
        .await
    }

    // === The source's own scripts ===

    /// Runs the build scripts with the packages for development; the layers of code and packages.
    async fn scripts(&self) -> Result<(String, String), Error> {
        let job = self.job;
        let modules = self.modules(true).await?;
        let folder = job.work.folder("built")?;
        let mut spec = job.spec(self.interpreter, Reach::Registries, &[])?;
        spec.mounts.push(shown(job.source, "/source", Access::Read));
        spec.mounts.push(shown(&job.layer_path(&modules)?, "/modules", Access::Read));
        spec.mounts.push(shown(&folder, WORKSPACE, Access::Write));
        let mut script = Script::new();
        script.copy("/source", WORKSPACE).run(&["rm", "-rf", "/workspace/node_modules"]).copy("/modules", "/workspace/node_modules").enter(WORKSPACE);
        self.environment(&mut spec, true);
        self.own_commands(&mut spec, &mut script)?;
        if self.recipe.prune && self.recipe.manager == Manager::Npm {
            script.run(&self.npm(&mut spec, &["prune", "--omit=dev", "--ignore-scripts", "--no-fund", "--no-audit", "--cache", "/tmp/npm"])?);
        }
        self.check_commands(&mut script);
        script.install(&mut spec);
        let outcome = job.runner.run(spec, &folder).await?;
        self.built(&outcome)?;
        let code = job.keep_with(&folder, vec![], vec![MODULES], &[MODULES], "the code").await?;
        let modules = folder.join(MODULES);
        let modules = if modules.is_dir() { modules } else { job.work.folder("no-modules")? };
        let kept = job.keep(&modules, vec![], vec![".cache"], "the dependencies").await?;
        Ok((code.layer, kept.layer))
    }

    /// Installs, runs scripts and keeps all as one: for packages that are part of the source.
    async fn whole(&self) -> Result<String, Error> {
        let (job, recipe) = (self.job, self.recipe);
        let folder = job.work.folder("built")?;
        let downloads = job.work.folder("downloads")?;
        let generation = job.caches.npm.now();
        let mut spec = job.spec(self.interpreter, Reach::Registries, &[])?;
        spec.mounts.push(shown(job.source, "/source", Access::Read));
        spec.mounts.push(shown(&folder, WORKSPACE, Access::Write));
        spec.mounts.push(shown(&downloads, "/cache", Access::Write));
        spec.mounts.push(shown(generation.path(), "/cache-shared", Access::Read));
        let mut script = Script::new();
        script.copy("/source", WORKSPACE).copy("/cache-shared", "/cache").enter(WORKSPACE);
        if recipe.is_vendored {
            self.environment(&mut spec, !recipe.scripts.is_empty());
            if recipe.has_package {
                script.run(&self.npm(&mut spec, &["rebuild", "--cache", "/cache"])?);
            }
        } else {
            script.run(&["rm", "-rf", "/workspace/node_modules"]);
            self.install_commands(&mut spec, &mut script, !recipe.scripts.is_empty(), false).await?;
        }
        self.own_commands(&mut spec, &mut script)?;
        if recipe.prune && recipe.manager == Manager::Npm {
            script.run(&self.npm(&mut spec, &["prune", "--omit=dev", "--ignore-scripts", "--no-fund", "--no-audit", "--cache", "/cache"])?);
        }
        self.check_commands(&mut script);
        script.install(&mut spec);
        let outcome = job.runner.run(spec, &folder).await?;
        self.built(&outcome)?;
        Ok(job.keep(&folder, vec![], vec![], "the code").await?.layer)
    }

    fn own_commands(&self, spec: &mut Spec, script: &mut Script) -> Result<(), Error> {
        for name in &self.recipe.scripts {
            script.run(&["echo", &format!("> npm run {name}")]);
            script.run(&self.npm(spec, &["run", "--", name])?);
        }
        Ok(())
    }

    // === A look at the code ===

    fn check_commands(&self, script: &mut Script) {
        if let Some(main) = &self.recipe.main {
            let main = crate::script::quoted(main);
            script.line(&format!("if [ ! -f {main} ]; then printf '%s does not exist\\n' {main}; exit 86; fi"));
            script.line(&format!("{} --check {main}", crate::script::quoted(&self.node())));
        }
    }

    /// Finds syntax errors before anything is deployed.
    async fn check(&self) -> Result<(), Error> {
        if self.recipe.main.is_none() {
            return Ok(());
        }
        let job = self.job;
        let folder = job.work.folder("check")?;
        let mut spec = job.spec(self.interpreter, Reach::Nothing, &[])?;
        spec.mounts.push(shown(job.source, WORKSPACE, Access::Read));
        let mut script = Script::new();
        script.enter(WORKSPACE);
        self.check_commands(&mut script);
        script.install(&mut spec);
        let outcome = job.runner.run(spec, &folder).await?;
        self.built(&outcome)
    }

    /// Says what a script or the check said.
    fn built(&self, outcome: &Outcome) -> Result<(), Error> {
        if outcome.is_success() {
            return Ok(());
        }
        if outcome.code == Some(86)
            && let Some(line) = outcome.tail.last()
        {
            return Err(user(line.as_str()));
        }
        if let Some(at) = outcome.tail.iter().rposition(|line| line.starts_with("SyntaxError")) {
            let place = outcome.tail.iter().find(|line| line.starts_with('/') && line.contains(':')).map(|line| line.trim_start_matches("/workspace/"));
            let shown = outcome.tail[..=at].iter().rev().take(8).rev().cloned().collect::<Vec<_>>().join("\n");
            let place = place.map(|place| format!(" (in {place})")).unwrap_or_default();
            return Err(user(format!("{}{place}. Mend it, then deploy again.\n{shown}", outcome.tail[at])));
        }
        let is_default = self.recipe.manager == Manager::Npm && self.recipe.scripts == ["build"];
        let fault = fault::explain(&outcome.tail, &MARKS, &NOISE);
        let note =
            "\nNOTE: Running the default build script can be skipped by passing the empty environment variable \"GOOGLE_NODE_RUN_SCRIPTS=\" to the build";
        let how = outcome.how();
        Err(user(format!(
            "{}{}",
            fault.text(&format!("The source could not be built ({how})"), "Mend it, then deploy again."),
            if is_default { note } else { "" }
        )))
    }

    // === Words ===

    fn node(&self) -> String {
        self.interpreter.path.display().to_string()
    }

    /// A command of npm's: this Node.js's own, else another's of this host, which is then shown to the sandbox too.
    fn npm(&self, spec: &mut Spec, arguments: &[&str]) -> Result<Vec<String>, Error> {
        let all = std::iter::once(self.interpreter).chain(self.job.catalogue.of(crate::Language::Nodejs));
        // What lies in another's layer is not there.
        let with_npm = all.filter(|found| found.layer.is_none() || found.layer == self.interpreter.layer);
        let found = with_npm.filter_map(|found| Some((found, found.packager.as_ref()?))).next();
        let (owner, npm) =
            found.ok_or_else(|| user("npm is needed to install dependencies, and is not on this host. Install it, restart tanebi, then deploy again."))?;
        for path in &owner.runtime_paths {
            if !spec.mounts.iter().any(|mount| path.starts_with(&mount.target)) {
                spec.mounts.push(shown(path, path, Access::Read));
            }
        }
        // By its own Node.js: an old one would not run it. Scripts find the source's on their PATH.
        let words = [owner.path.display().to_string(), npm.display().to_string()];
        Ok(words.into_iter().chain(arguments.iter().map(|word| (*word).to_owned())).collect())
    }

    /// Ours, and the user's build variables.
    fn environment(&self, spec: &mut Spec, is_development: bool) {
        for (name, value) in self.job.variables {
            set(&mut spec.env, name, value);
        }
        self.environment_own(spec, is_development);
    }

    fn environment_own(&self, spec: &mut Spec, is_development: bool) {
        let bin = self.interpreter.path.parent().map(|bin| bin.display().to_string()).unwrap_or_default();
        let values = [
            ("PATH", format!("/tmp/bin:{bin}:/usr/local/bin:/usr/bin:/bin")),
            ("NODE_ENV", if is_development { "development" } else { "production" }.to_owned()),
            ("NODE_EXTRA_CA_CERTS", "/etc/ssl/certs/ca-certificates.crt".to_owned()),
            ("npm_config_update_notifier", "false".to_owned()),
            ("CI", "true".to_owned()),
            ("COREPACK_ENABLE_DOWNLOAD_PROMPT", "0".to_owned()),
        ];
        for (name, value) in values {
            let is_users = name == "NODE_ENV" && spec.env.iter().any(|(known, _)| known == name);
            if !is_users {
                set(&mut spec.env, name, value);
            }
        }
    }

    fn succeeded(&self, outcome: &Outcome, what: &str, advice: &str) -> Result<(), Failed> {
        if outcome.is_success() {
            return Ok(());
        }
        let fault = fault::explain(&outcome.tail, &MARKS, &NOISE);
        let advice = if fault.is_network {
            "A build reaches the package registries that this host is set to, and nothing else. Is the registry there? Then deploy again."
        } else {
            advice
        };
        let mut text = fault.text(what, advice);
        if outcome.code.is_none_or(|code| code >= 128) {
            text = format!("{what}: it ended with {}. {text}", outcome.how());
        }
        Err(Failed { is_network: fault.is_network, error: Error::User(text) })
    }

    /// How the framework is started: by its program where that can be read, else as npm would.
    fn framework_command(&self, modules: Option<&Path>, inside: &str) -> Result<Vec<String>, Error> {
        let package = &KNOWN.nodejs.framework.package;
        let program = modules.and_then(|modules| {
            let text = TreeReader::open(modules).ok()?.read(&format!("{package}/package.json"), 1 << 20).ok()??;
            let value: Value = serde_json::from_slice(&text).ok()?;
            let bin = value.get("bin")?;
            bin.as_str().or_else(|| bin.get("functions-framework")?.as_str()).map(|bin| bin.trim_start_matches("./").to_owned())
        });
        Ok(match program {
            Some(program) => vec![self.node(), format!("{inside}/{package}/{program}")],
            None => crate::plan::shell(format!("exec {inside}/.bin/functions-framework")),
        })
    }
}

struct Failed {
    is_network: bool,
    error: Error,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { is_network: false, error }
    }
}

/// Whether npm noted packages whose install scripts it did not run.
fn has_install_scripts(modules: &Path) -> Result<bool, Error> {
    let fail = |e: std::io::Error| Error::Internal(format!("reading what npm installed: {e}"));
    let reader = match TreeReader::open(modules) {
        Ok(reader) => reader,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(fail(e)),
    };
    let text = reader.read(".package-lock.json", LOCK_MAX_BYTES).map_err(fail)?.unwrap_or_default();
    let lock: Lock = serde_json::from_slice(&text).unwrap_or_default();
    Ok(lock.packages.values().any(|package| package.has_install_script))
}

/// node_modules/.package-lock.json, as far as it is asked.
#[derive(Default, Deserialize)]
struct Lock {
    #[serde(default)]
    packages: BTreeMap<String, LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    #[serde(default, rename = "hasInstallScript")]
    has_install_script: bool,
}
