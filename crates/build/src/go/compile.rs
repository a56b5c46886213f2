//! Carrying a plan for Go out: other people's modules once, then the source by itself.
//!
//! Modules are downloaded and compiled in a sandbox that sees the source to know what it imports, and compiles nothing of it; so
//! what it leaves can be shared (see `cache`). The source is compiled in another one without a network, which sees both read-only.

use std::path::Path;

use sandbox::Spec;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{BINARY_FOLDER, Kind, Modules, Recipe, SOURCE_FOLDER, livefork::Overlay};
use crate::{
    Error, Interpreter,
    catalogue::KNOWN,
    environment::{Access, Reach, set, shown},
    fault::{self, Fault},
    job::{self, Job, Output, Whose, layer},
    plan::{Plan, WORKSPACE, user},
    script::{Script, quoted},
    step::Outcome,
};

/// Changes when the same wishes would be met in another way.
const FORMAT: u32 = 1;
/// Where the program around a function is made, below its source.
const PROGRAM_FOLDER: &str = "functions.local/app";
/// The same without modules, below the folder of all sources.
const PATH_PROGRAM: &str = "functions.local/app/main";
/// What vendored packages may lack.
const FRAMEWORK: &str = include_str!("../../../../runtimes/go/framework.go");
/// The packages that a program is compiled of and that are not of the source.
const OTHERS: &str = "{{if not .Module}}{{.ImportPath}}{{else if not .Module.Main}}{{.ImportPath}}{{end}}";
const STANDARD: &str = "{{if .Standard}}{{.ImportPath}}{{end}}";

/// Builds it.
pub(crate) async fn build(job: &Job<'_>, plan: &Plan, recipe: &Recipe, staging: store::Staging) -> Result<Output, Error> {
    let overlay = overlay(job, &plan.interpreter).await?;
    let build = Build { job, interpreter: &plan.interpreter, recipe, overlay };
    let modules = build.modules().await?;
    let binary = build.compile(modules.as_deref()).await?;
    let code = match recipe.kind {
        Kind::Function { .. } => {
            let moved = crate::step::blocking(move || source_move(staging)).await??;
            job.keep_source(moved, &[], &[]).await?
        }
        Kind::Application { .. } => job.keep_source(staging, &[], &[]).await?,
    };
    Ok(Output { layers: vec![layer(code, WORKSPACE), layer(binary, BINARY_FOLDER)], command: None })
}

/// Moves everything in the staging folder into [`SOURCE_FOLDER`], as Google's buildpack does.
fn source_move(staging: store::Staging) -> Result<store::Staging, Error> {
    let fail = |e: std::io::Error| Error::Internal(format!("moving the source: {e}"));
    let top = staging.path();
    let names: Vec<_> = std::fs::read_dir(top).map_err(fail)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>().map_err(fail)?;
    let folder = top.join(SOURCE_FOLDER);
    // One that the source brought is Google's to remove.
    if folder.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(&folder).or_else(|_| std::fs::remove_file(&folder)).map_err(fail)?;
    }
    std::fs::create_dir(&folder).map_err(fail)?;
    for name in names {
        let is_googles = name.to_str().is_some_and(|name| name.starts_with(".google"));
        if name != SOURCE_FOLDER && !is_googles {
            std::fs::rename(top.join(&name), folder.join(&name)).map_err(fail)?;
        }
    }
    Ok(staging)
}

/// What is changed in the toolchain's library, unless it is one that is not known.
async fn overlay(job: &Job<'_>, interpreter: &Interpreter) -> Result<Option<Overlay>, Error> {
    let Some(root) = interpreter.path.parent().and_then(Path::parent) else { return Ok(None) };
    let on_host = match &interpreter.layer {
        Some(layer) => job.layer_path(&layer.digest)?.join(root.strip_prefix(&layer.target).unwrap_or(Path::new(""))),
        None if root.join("src").read_dir().is_ok() => root.to_owned(),
        None => library_copy(job, interpreter, root).await?,
    };
    match Overlay::of(root, &on_host, interpreter.version.minor) {
        Ok(overlay) => Ok(Some(overlay)),
        Err(why) => {
            job.runner.log.say(format!("Instances will not be clones: Go {}: {why}.", interpreter.version));
            Ok(None)
        }
    }
}

/// A copy of the library's files that would be changed, made in a sandbox: a toolchain below another user's home is seen there alone.
async fn library_copy(job: &Job<'_>, interpreter: &Interpreter, root: &Path) -> Result<std::path::PathBuf, Error> {
    let copy = job.work.folder("library")?;
    let mut spec = job.spec(interpreter, Reach::Nothing, &[])?;
    spec.mounts.push(shown(&copy, "/library", Access::Write));
    let mut script = Script::new();
    for file in Overlay::changed(interpreter.version.minor) {
        let (from, to) = (root.join("src").join(file), Path::new("/library/src").join(file));
        let folder = to.parent().unwrap_or(Path::new("/library"));
        // A file that is not there is named by who reads the copy.
        script.line(&format!(
            "mkdir -p {} && cp {} {} || true",
            quoted(&folder.display().to_string()),
            quoted(&from.display().to_string()),
            quoted(&to.display().to_string())
        ));
    }
    script.install(&mut spec);
    job.runner.run(spec, &copy).await?;
    Ok(copy)
}

struct Build<'a> {
    job: &'a Job<'a>,
    interpreter: &'a Interpreter,
    recipe: &'a Recipe,
    overlay: Option<Overlay>,
}

impl Build<'_> {
    /// Whether nothing of the user's decides what the toolchain does with other people's code.
    fn is_shared(&self) -> bool {
        self.job.variables.is_empty()
    }

    fn wishes(&self) -> serde_json::Value {
        json!({
            "format": FORMAT,
            "what": "modules",
            "interpreter": self.interpreter.path.display().to_string(),
            "version": self.interpreter.version.to_string(),
            "modules": format!("{:?}", self.recipe.modules),
            "files": job::hashes(&self.recipe.files),
            "imports": self.recipe.imports,
            "program": self.recipe.kind.program(),
            "variables": self.job.variables,
            "overlay": self.overlay.as_ref().map(Overlay::hash),
            // A variable may lead to any file of the source.
            "archive": (!self.is_shared()).then_some(self.job.archive),
            "package_environment": self.job.base.package.variables,
        })
    }

    /// The layer with the modules of others, ready to be compiled with; none when there are none.
    async fn modules(&self) -> Result<Option<String>, Error> {
        let (job, value) = (self.job, self.wishes());
        let whose = if self.is_shared() { Whose::Everybodys } else { Whose::Projects };
        let wishes = job.wishes(&value, whose);
        // Marks in the shared folder that its cache has what these wishes need.
        let mark = hex::encode(Sha256::digest(value.to_string()));
        let is_compiled = job.caches.go.now().path().join("keys").join(&mark).exists();
        let known = job.known(&wishes)?.filter(|_| is_compiled || !self.is_shared());
        match &known {
            Some(known) if known.is_fresh => {
                job.runner.log.say("The dependencies are those of an earlier build.");
                return Ok(Some(known.layer.clone()));
            }
            Some(_) => job.runner.log.say("The dependencies are a day old: looking for newer ones."),
            None => {}
        }
        job.base.package.notes.iter().for_each(|note| job.runner.log.say(note.as_str()));
        let modules = job.work.folder("modules")?;
        let workspace = job.work.folder("modules-source")?;
        let shared = job.work.folder("downloads")?;
        let generation = job.caches.go.now();
        let mut spec = job.spec(self.interpreter, Reach::Registries, &[])?;
        spec.mounts.push(shown(job.source, "/source", Access::Read));
        spec.mounts.push(shown(&workspace, WORKSPACE, Access::Write));
        spec.mounts.push(shown(&modules, "/modules", Access::Write));
        spec.mounts.push(shown(&shared, "/go", Access::Write));
        spec.mounts.push(shown(generation.path(), "/go-shared", Access::Read));
        let mut script = Script::new();
        script.copy("/go-shared", "/go").run(&["mkdir", "-p", "/go/keys", "/go/download", "/go/cache", "/modules/mod"]);
        self.source_lay(&mut spec, &mut script);
        let proxy = spec.env.iter().find(|(name, _)| name == "GOPROXY").map_or("https://proxy.golang.org,direct", |(_, value)| value).to_owned();
        let cache = if self.is_shared() { "/go/cache" } else { "/modules/cache" };
        self.environment(&mut spec, "/modules/mod", cache, &format!("file:///go-shared/download,{proxy}"));
        let go = self.interpreter.path.display().to_string();
        let framework = &KNOWN.go.framework;
        match self.recipe.modules {
            Modules::Module | Modules::None if self.is_module() => {
                if let (Modules::None, Kind::Function { package, .. }) = (self.recipe.modules, &self.recipe.kind) {
                    script.run(&[go.as_str(), "mod", "init", package]);
                }
                if !self.recipe.files.iter().any(|(name, _)| name == "go.sum") {
                    script.run(&[go.as_str(), "mod", "tidy"]);
                }
                if let Kind::Function { is_own: false, .. } = self.recipe.kind {
                    script.run(&[go.as_str(), "mod", "edit", "-require", &format!("{}@{}", framework.package, framework.version)]);
                }
                if let Kind::Function { .. } = self.recipe.kind {
                    script.run(&[go.as_str(), "mod", "tidy"]);
                } else {
                    script.run(&[go.as_str(), "mod", "download"]);
                }
                script.line(&format!("{} list -deps -f {} {} > /tmp/others", quoted(&go), quoted(OTHERS), self.patterns()));
                script.line("cp go.mod /modules/; if [ -f go.sum ]; then cp go.sum /modules/; fi");
            }
            Modules::Path => {
                if let Kind::Function { is_own: false, .. } = self.recipe.kind {
                    // The framework and what it needs, laid beside the source as vendored packages would be.
                    let wish = format!("{}@{}", framework.package, framework.version);
                    spec.files.push(("/build/framework.go".into(), FRAMEWORK.as_bytes().to_vec()));
                    script.run(&["mkdir", "-p", "/tmp/framework"]).run(&["cp", "/build/framework.go", "/tmp/framework/framework.go"]);
                    script.line("(cd /tmp/framework; export GO111MODULE=on GOFLAGS=-modcacherw");
                    script.run(&[go.as_str(), "mod", "init", "functions.local/framework"]);
                    script.run(&[go.as_str(), "mod", "edit", "-require", &wish]);
                    script.run(&[go.as_str(), "mod", "tidy"]).run(&[go.as_str(), "mod", "vendor"]);
                    script.line(")");
                    script.copy("/tmp/framework/vendor", "/modules/src").run(&["rm", "-f", "/modules/src/modules.txt"]);
                    script.copy("/modules/src", "/workspace/src");
                }
                script.line(&format!("{} list -deps -f {} {} > /tmp/others", quoted(&go), quoted(STANDARD), self.patterns()));
            }
            Modules::Module | Modules::Vendored | Modules::None => {
                script.line(&format!("{} list -deps -f {} {} > /tmp/others", quoted(&go), quoted(STANDARD), self.patterns()));
            }
        }
        script.line(&format!("xargs -r {} build < /tmp/others", quoted(&go)));
        script.line("if [ -d /modules/mod/cache/download ]; then cp -R /modules/mod/cache/download/. /go/download; fi");
        script.line("find /modules/mod/cache -name '*.zip' -type f -delete 2>/dev/null || true");
        script.run(&["touch", &format!("/go/keys/{mark}")]);
        script.install(&mut spec);
        let outcome = job.runner.run(spec, &modules).await?;
        if !outcome.is_success() {
            let is_network = fault::explain(&outcome.tail, &[], &[]).is_network;
            return match known.filter(|_| is_network) {
                Some(known) => {
                    job.runner.log.say("WARNING: the module proxy cannot be reached; using the dependencies of an earlier build.");
                    Ok(Some(known.layer))
                }
                None => Err(self.failed(&outcome, "The modules could not be had")),
            };
        }
        if self.is_shared() {
            job.promote(&job.caches.go, &shared).await?;
        }
        let kept = job.keep(&modules, vec![], vec![], "the modules").await?;
        // Without go.sum the newest versions were taken.
        let is_locked = self.recipe.modules == Modules::Vendored || self.recipe.files.iter().any(|(name, _)| name == "go.sum");
        job.remember(&wishes, &kept, is_locked, whose)?;
        job.runner.log.say(format!(
            "Modules are downloaded and compiled ({:.1} s, at most {} MiB of memory).",
            outcome.took.as_secs_f64(),
            outcome.memory_peak_bytes >> 20
        ));
        Ok(Some(kept.layer))
    }

    /// Compiles the source; the layer with the program.
    async fn compile(&self, modules: Option<&str>) -> Result<String, Error> {
        // Go reads its cache and seldom has to write to it; where it has to, it gets a copy.
        let outcome = self.compile_with(modules, false).await?;
        let is_read_only = |line: &String| line.contains("/cache/") && line.contains("read-only file system");
        let outcome = if outcome.tail.iter().any(is_read_only) { self.compile_with(modules, true).await? } else { outcome };
        if !outcome.is_success() {
            return Err(self.failed(&outcome, "The source could not be compiled"));
        }
        self.job.runner.log.say(format!("Compiled ({:.1} s, at most {} MiB of memory).", outcome.took.as_secs_f64(), outcome.memory_peak_bytes >> 20));
        Ok(self.job.keep(&self.job.work.path("out"), vec![], vec![], "the program").await?.layer)
    }

    async fn compile_with(&self, modules: Option<&str>, is_copied: bool) -> Result<Outcome, Error> {
        let job = self.job;
        let workspace = job.work.folder("workspace")?;
        let out = job.work.folder("out")?;
        let generation = job.caches.go.now();
        let mut spec = job.spec(self.interpreter, Reach::Nothing, &[])?;
        spec.mounts.push(shown(job.source, "/source", Access::Read));
        spec.mounts.push(shown(&workspace, WORKSPACE, Access::Write));
        spec.mounts.push(shown(&out, "/out", Access::Write));
        spec.mounts.push(shown(generation.path(), "/go-shared", Access::Read));
        let mut script = Script::new();
        self.source_lay(&mut spec, &mut script);
        if let Some(modules) = modules {
            spec.mounts.push(shown(&job.layer_path(modules)?, "/modules", Access::Read));
            if self.recipe.modules == Modules::Path {
                script.line("if [ -d /modules/src ]; then cp -R /modules/src/. /workspace/src; fi");
            }
            script.line("for file in go.mod go.sum; do if [ -f /modules/$file ]; then cp /modules/$file .; fi; done");
        }
        let known = match (self.is_shared(), generation.path().join("cache").is_dir()) {
            (true, true) => Some("/go-shared/cache"),
            (true, false) => None,
            (false, _) => Some("/modules/cache"),
        };
        let cache = match known {
            Some(known) if is_copied => {
                spec.mounts.push(shown(&job.work.folder("go-cache")?, "/go-cache", Access::Write));
                script.copy(known, "/go-cache");
                "/go-cache"
            }
            Some(known) => known,
            None => "/tmp/go-cache",
        };
        self.environment(&mut spec, "/modules/mod", cache, "off");
        let go = self.interpreter.path.display().to_string();
        let mut words = vec![go.clone(), "build".to_owned()];
        words.extend(self.recipe.flags.iter().cloned());
        words.extend(["-o", "/out/main"].map(str::to_owned));
        match &self.recipe.kind {
            Kind::Function { .. } => {
                words.push(self.program());
                script.run(&words);
            }
            Kind::Application { buildable: Some(buildable) } => {
                words.push(buildable.clone());
                script.run(&words);
            }
            Kind::Application { buildable: None } => {
                script.line(&format!("set -- $({} list -f '{{{{if eq .Name \"main\"}}}}{{{{.Dir}}}}{{{{end}}}}' ./...)", quoted(&go)));
                script.line("if [ $# -eq 1 ]; then set -- \".${1#/workspace}\"; else set -- .; fi");
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                script.line(&format!("{} \"$1\"", words.join(" ")));
            }
        }
        script.install(&mut spec);
        job.runner.run(spec, &out).await
    }

    /// Lays the source where it is compiled, with the program around a function, and goes there.
    fn source_lay(&self, spec: &mut Spec, script: &mut Script) {
        let (folder, program) = match &self.recipe.kind {
            Kind::Function { package, .. } if self.recipe.modules == Modules::Path => {
                (format!("{WORKSPACE}/src/{package}"), format!("{WORKSPACE}/src/{PATH_PROGRAM}"))
            }
            Kind::Function { .. } => (format!("{WORKSPACE}/{SOURCE_FOLDER}"), PROGRAM_FOLDER.to_owned()),
            Kind::Application { .. } => (WORKSPACE.to_owned(), String::new()),
        };
        script.copy("/source", &folder).enter(&folder);
        if let Some(text) = self.recipe.kind.program() {
            spec.files.push(("/build/main.go".into(), text.into_bytes()));
            script.run(&["mkdir", "-p", &program]).run(&["cp", "/build/main.go", &format!("{program}/main.go")]);
            if let (Modules::Path, Kind::Function { is_own: true, .. }) = (self.recipe.modules, &self.recipe.kind) {
                script.copy(&format!("{folder}/vendor"), &format!("{program}/vendor"));
            }
        }
    }

    /// The program around a function, as the toolchain calls it.
    fn program(&self) -> String {
        match self.recipe.modules {
            Modules::Path => PATH_PROGRAM.to_owned(),
            _ => format!("./{PROGRAM_FOLDER}"),
        }
    }

    /// Whether there is a go.mod, or one is made.
    fn is_module(&self) -> bool {
        match self.recipe.modules {
            Modules::Module => true,
            Modules::None => matches!(self.recipe.kind, Kind::Function { .. }),
            Modules::Vendored | Modules::Path => false,
        }
    }

    /// What of the source is compiled.
    fn patterns(&self) -> String {
        match &self.recipe.kind {
            Kind::Function { .. } => self.program(),
            Kind::Application { buildable: Some(buildable) } => quoted(buildable),
            Kind::Application { buildable: None } => "./...".to_owned(),
        }
    }

    fn environment(&self, spec: &mut Spec, modules: &str, cache: &str, proxy: &str) {
        for (name, value) in self.job.variables {
            set(&mut spec.env, name, value);
        }
        let flags = self.job.variables.iter().find(|(name, _)| name == "GOFLAGS").map(|(_, flags)| flags.as_str()).unwrap_or_default();
        let vendored = if self.recipe.modules == Modules::Vendored { " -mod=vendor" } else { "" };
        // Older ones do not know them.
        let minor = self.interpreter.version.minor;
        let known = [(18, "-buildvcs=false "), (14, "-modcacherw")].map(|(since, flag)| if minor >= since { flag } else { "" });
        let overlay = if let Some(overlay) = &self.overlay {
            spec.files.extend(overlay.laid());
            Overlay::flag()
        } else {
            String::new()
        };
        let flags = format!("{}{vendored} {overlay} {flags}", known.concat());
        let bin = self.interpreter.path.parent().map(|bin| bin.display().to_string()).unwrap_or_default();
        let mut values = vec![
            ("PATH", format!("{bin}:/usr/local/bin:/usr/bin:/bin")),
            ("GOTOOLCHAIN", "local".to_owned()),
            ("GOMODCACHE", modules.to_owned()),
            ("GOCACHE", cache.to_owned()),
            ("GOPATH", "/tmp/go".to_owned()),
            ("GOFLAGS", flags.trim().to_owned()),
            ("GOENV", "off".to_owned()),
            ("GOTELEMETRY", "off".to_owned()),
        ];
        if proxy == "off" || !self.job.variables.iter().any(|(name, _)| name == "GOPROXY") {
            values.push(("GOPROXY", proxy.to_owned()));
        }
        if !self.is_module() && self.recipe.modules != Modules::Vendored {
            values.push(("GO111MODULE", "off".to_owned()));
        }
        if self.recipe.modules == Modules::Path {
            values.retain(|(name, _)| *name != "GOPATH");
            values.push(("GOPATH", WORKSPACE.to_owned()));
        }
        for (name, value) in values {
            set(&mut spec.env, name, value);
        }
    }

    /// The toolchain's own first line of an error, then the others.
    fn failed(&self, outcome: &Outcome, what: &str) -> Error {
        if let Kind::Function { target, .. } = &self.recipe.kind
            && outcome.tail.iter().any(|line| line.contains(&format!("undefined: userfunction.{target}")))
        {
            return user(format!(
                "The source has no exported function {target:?} (undefined: userfunction.{target}). Name one that its package has, and that begins with a capital, \
                 then deploy again."
            ));
        }
        let noise = ["go: downloading", "go: finding", "go: added", "go: upgraded", "go: found"];
        let Fault { shown, is_network, .. } = fault::explain(&outcome.tail, &[], &noise);
        let at = shown.iter().position(|line| line.contains(".go:") || line.starts_with("go: ")).unwrap_or(shown.len().saturating_sub(1));
        let mut cause = shown.get(at).map_or("it said nothing", |line| line.trim()).to_owned();
        // `go: x imports` and `go: errors parsing go.mod:` go on in the next lines.
        for next in shown.iter().skip(at + 1) {
            if !cause.ends_with([':']) && !cause.ends_with("imports") {
                break;
            }
            cause = format!("{cause} {}", next.trim());
        }
        let advice = if is_network { "Connect this host to a module proxy, then deploy again." } else { "Mend it, then deploy again." };
        let how = if outcome.code.is_none_or(|code| code >= 128) { format!(" (it ended with {})", outcome.how()) } else { String::new() };
        let tip = match self.recipe.kind {
            Kind::Application { .. } if shown.iter().any(|line| line.contains("no Go files in") || line.contains("cannot find module")) => {
                "\nTip: \"GOOGLE_BUILDABLE\" env var configures which Go package is built. Default is '.'"
            }
            _ => "",
        };
        user(format!("{what}{how}: {cause}. {advice}\n{}{tip}", shown.join("\n")))
    }
}
