//! Carrying a plan for Java out: the build tool in one sandbox, one virtual machine, and what it made told apart.
//!
//! Maven and Gradle run any code that a build file names. So what they downloaded is kept for later builds of the same project
//! with the same build files only, read-only; a change of code then needs no network.

use std::{
    io,
    path::{Path, PathBuf},
};

use sandbox::Spec;
use serde_json::json;

use super::{Recipe, Tool};
use crate::{
    Error, Interpreter, Language,
    archive::{self, Jar},
    catalogue::KNOWN,
    environment::{Access, Reach, set, shown},
    fault,
    job::{Job, Output, Whose, layer},
    plan::{Plan, WORKSPACE, user},
    script::Script,
    step::{Outcome, blocking},
    tree::{TreePath, TreeReader, TreeWriter},
};

/// Changes when the same wishes would be met in another way.
const FORMAT: u32 = 1;
const FETCH: &str = include_str!("../../../../runtimes/java/Fetch.java");
const PACK: &str = include_str!("../../../../runtimes/java/Pack.java");
const LAUNCHER: [(&str, &str); 3] = [
    ("Launch.java", include_str!("../../../../runtimes/java/launch/tanebi/Launch.java")),
    ("Renewal.java", include_str!("../../../../runtimes/java/launch/tanebi/Renewal.java")),
    ("Warming.java", include_str!("../../../../runtimes/java/launch/tanebi/Warming.java")),
];
/// Where it lies in instances; `serving` knows it.
const LAUNCHER_FOLDER: &str = "/layers/launcher";
const TASKS: &str = include_str!("../../../../runtimes/java/tasks.gradle");
const CENTRAL: &str = "https://repo.maven.apache.org/maven2";
/// Where the host's choice of a registry stands in a step's environment.
const REPOSITORY: &str = "TANEBI_MAVEN_REPOSITORY";
/// Where the program that runs functions lies in instances.
const INVOKER_FOLDER: &str = "/layers/java";
const INVOKER: &str = "java-function-invoker.jar";
const INVOKER_CLASS: &str = "com.google.cloud.functions.invoker.runner.Invoker";
/// What is downloaded lies here in the sandbox.
const REPOSITORY_FOLDER: &str = "/repository";
/// Bytes of what one project's builds downloaded; above, the next one starts from nothing.
const SEED_MAX_BYTES: u64 = 1 << 30;
/// Bytes of a jar that is looked into.
const JAR_MAX_BYTES: u64 = 512 << 20;

/// Builds it.
pub(crate) async fn build(job: &Job<'_>, plan: &Plan, recipe: &Recipe, staging: store::Staging) -> Result<Output, Error> {
    let build = Build { job, recipe, compiler: compiler(job, &plan.interpreter)? };
    let java = plan.interpreter.path.display().to_string();
    let mut layers = Vec::new();
    // The jar, and a folder with the others, as paths below the workspace.
    let (jar, dependencies) = match &recipe.tool {
        Tool::Jar(jar) => {
            build.class_check(job.source, Some(jar), None).await?;
            layers.push(layer(job.keep_source(staging, &[], &[]).await?, WORKSPACE));
            (jar.clone(), None)
        }
        Tool::Classes(_) => {
            layers.push(layer(job.keep_source(staging, &[], &[]).await?, WORKSPACE));
            return Ok(Output { layers, command: None });
        }
        Tool::Maven { .. } | Tool::Gradle { .. } => {
            let (made, others) = match recipe.target {
                // Nearly every function needs it, and it is fetched while the tool works.
                Some(_) => {
                    let (ran, invoker, launcher) = tokio::join!(build.run(), build.invoker(), build.launcher());
                    let ran = ran?;
                    drop((invoker?, launcher?));
                    ran
                }
                None => build.run().await?,
            };
            if recipe.target.is_none() {
                // A jar may need what lies beside it.
                let command =
                    if plan.command.is_empty() { Some(vec![java, crate::java::TRUST.to_owned(), "-jar".to_owned(), build.jar(&made)?]) } else { None };
                let code = job.keep(&made, vec![], vec![".gradle", ".git"], "what was built").await?;
                layers.push(layer(code.layer, WORKSPACE));
                return Ok(Output { layers, command });
            }
            let jar = build.jar(&made)?;
            let others = others.filter(|others| made.join(others).is_dir());
            build.class_check(&made, Some(&jar), others.as_deref()).await?;
            let top = jar.split('/').next().unwrap_or_default();
            let without: &[&'static str] = if top == "build" { &["build", ".gradle"] } else { &["target"] };
            let staging = jar_take(staging, &made, &jar, without).await?;
            let place: &[&'static str] = match &recipe.tool {
                Tool::Gradle { .. } => &["build/_javaFunctionDependencies"],
                _ => &["target/dependency"],
            };
            layers.push(layer(job.keep_source(staging, &[], place).await?, WORKSPACE));
            if let Some(others) = &others {
                let kept = job.keep(&made.join(others), vec![], vec![], "the dependencies").await?;
                layers.push(layer(kept.layer, &format!("{WORKSPACE}/{others}")));
            }
            (jar, place.first().map(|place| (*place).to_owned()))
        }
    };
    if recipe.target.is_none() {
        return Ok(Output { layers, command: None });
    }
    let own = match (&dependencies, layers.get(1)) {
        (Some(folder), Some(layer)) => {
            let path = job.layer_path(&layer.digest)?;
            let found = blocking(move || invoker_of(&path)).await?.map_err(|e| Error::Internal(format!("reading the dependencies: {e}")))?;
            found.map(|name| format!("{folder}/{name}"))
        }
        _ => None,
    };
    let invoker = match own {
        Some(own) => {
            job.runner.log.say("The functions framework is among the source's own dependencies.");
            own
        }
        None => {
            layers.push(layer(build.invoker().await?, INVOKER_FOLDER));
            format!("{INVOKER_FOLDER}/{INVOKER}")
        }
    };
    layers.push(layer(build.launcher().await?, LAUNCHER_FOLDER));
    let classpath = dependencies.map_or_else(|| jar.clone(), |folder| format!("{jar}:{folder}/*"));
    // Whatever options its owner gives the machine, it believes in our roots.
    let command = [java.as_str(), crate::java::TRUST, "-jar", &invoker, "--classpath", &classpath].map(str::to_owned).to_vec();
    Ok(Output { layers, command: Some(command) })
}

/// The Java that compiles: the one that runs, or a newer one of this host.
fn compiler<'a>(job: &'a Job<'_>, interpreter: &'a Interpreter) -> Result<&'a Interpreter, Error> {
    if interpreter.packager.is_some() {
        return Ok(interpreter);
    }
    let newer = job.catalogue.of(Language::Java).filter(|found| found.packager.is_some() && found.version.major >= interpreter.version.major);
    newer.last().ok_or_else(|| {
        user(format!(
            "Java {} is here without a compiler, and no newer Java of this host has one. Install a JDK (for example openjdk-{}-jdk), restart tanebi, then deploy again.",
            interpreter.version.major, interpreter.version.major
        ))
    })
}

struct Build<'a> {
    job: &'a Job<'a>,
    recipe: &'a Recipe,
    compiler: &'a Interpreter,
}

/// A file of known content.
struct Wanted {
    what: String,
    url: String,
    /// Algorithm, and value in hex.
    hash: (&'static str, &'static str),
    /// Without one it is a zip, and unpacked.
    name: Option<&'static str>,
}

impl Wanted {
    fn wishes(&self) -> serde_json::Value {
        json!({ "format": FORMAT, "what": "tool of Java", "hash": self.hash.1 })
    }
}

/// How a run of the tool ended.
enum Run {
    Made,
    /// Something is not there that was not needed before.
    Incomplete,
}

impl Build<'_> {
    /// Runs the tool; the folder of the source with what was made, and below it where the other jars lie.
    async fn run(&self) -> Result<(PathBuf, Option<String>), Error> {
        let job = self.job;
        let made = job.work.folder("built")?;
        let others = self.recipe.target.as_ref().map(|_| match self.recipe.tool {
            Tool::Gradle { .. } => "build/_javaFunctionDependencies".to_owned(),
            _ => "target/dependency".to_owned(),
        });
        let wishes = job.wishes(&self.wishes(), Whose::Projects);
        let known = job.known(&wishes)?;
        if let Some(known) = known.as_ref().filter(|known| known.is_fresh) {
            match self.run_with(&made, Some(&known.layer), true).await? {
                Run::Made => {
                    job.runner.log.say("The dependencies are those of an earlier build.");
                    return Ok((made, others));
                }
                Run::Incomplete => job.runner.log.say("Something more is needed than earlier builds downloaded: asking the registry."),
            }
        }
        // A dependency more is no reason to download all the others again.
        let seed_wishes = job.wishes(&json!({ "format": FORMAT, "what": "repository of a project", "tool": self.tool_name() }), Whose::Projects);
        let seed = job.known(&seed_wishes)?;
        let made = job.work.folder("built")?;
        self.run_with(&made, seed.as_ref().map(|seed| seed.layer.as_str()), false).await?;
        // What cannot be kept is downloaded again: no reason to fail a build that succeeded.
        let wishes = [(&wishes, self.recipe.is_locked, u64::MAX), (&seed_wishes, true, SEED_MAX_BYTES)];
        job.keep_later(&job.work.path("repository"), &wishes, "what was downloaded")?;
        Ok((made, others))
    }

    fn tool_name(&self) -> &'static str {
        match self.recipe.tool {
            Tool::Gradle { .. } => "gradle",
            _ => "maven",
        }
    }

    fn wishes(&self) -> serde_json::Value {
        json!({
            "format": FORMAT,
            "what": "repository",
            "compiler": self.compiler.path.display().to_string(),
            "version": self.compiler.version.to_string(),
            "tool": format!("{:?}", self.recipe.tool),
            "maven": KNOWN.java.maven.version,
            "files": self.recipe.files,
            "is_function": self.recipe.target.is_some(),
            "buildable": self.recipe.buildable,
            "arguments": [&self.recipe.more_arguments, self.recipe.own_arguments.as_ref().unwrap_or(&Vec::new())],
            "variables": self.job.variables,
            "package_environment": self.job.base.package.variables,
        })
    }

    async fn run_with(&self, made: &Path, known: Option<&str>, is_offline: bool) -> Result<Run, Error> {
        let job = self.job;
        let mut spec = job.spec(self.compiler, Reach::Registries, &[])?;
        spec.mounts.push(shown(job.source, "/source", Access::Read));
        spec.mounts.push(shown(made, WORKSPACE, Access::Write));
        let mut script = Script::new();
        script.copy("/source", WORKSPACE).enter(WORKSPACE);
        let known = known.map(|known| job.layer_path(known)).transpose()?;
        let is_maven = matches!(self.recipe.tool, Tool::Maven { .. });
        // Maven reads a repository that it cannot write to; Gradle does not.
        match known {
            Some(known) if is_offline && is_maven => spec.mounts.push(shown(&known, REPOSITORY_FOLDER, Access::Read)),
            known => {
                spec.mounts.push(shown(&job.work.folder("repository")?, REPOSITORY_FOLDER, Access::Write));
                if let Some(known) = known {
                    spec.mounts.push(shown(&known, "/known", Access::Read));
                    script.copy("/known", REPOSITORY_FOLDER);
                }
            }
        }
        self.environment(&mut spec);
        match &self.recipe.tool {
            Tool::Maven { wrapper } => self.maven(&mut spec, &mut script, *wrapper, is_offline).await?,
            Tool::Gradle { wrapper } => self.gradle(&mut spec, &mut script, *wrapper, is_offline)?,
            Tool::Jar(_) | Tool::Classes(_) => {}
        }
        script.install(&mut spec);
        let outcome = job.runner.run(spec, made).await?;
        if outcome.is_success() {
            job.runner.log.say(format!(
                "Built by {} ({:.1} s, at most {} MiB of memory).",
                self.tool_name(),
                outcome.took.as_secs_f64(),
                outcome.memory_peak_bytes >> 20
            ));
            return Ok(Run::Made);
        }
        let is_missing =
            |line: &String| line.contains("offline mode") || line.contains("has not been downloaded from it before") || line.contains("No cached version");
        if is_offline && outcome.tail.iter().any(is_missing) {
            return Ok(Run::Incomplete);
        }
        Err(self.failed(&outcome))
    }

    async fn maven(&self, spec: &mut Spec, script: &mut Script, has_wrapper: bool, is_offline: bool) -> Result<(), Error> {
        let maven: Vec<String> = if has_wrapper {
            // As it comes from a Windows machine.
            script.line("sed -i 's/\\r$//' mvnw");
            ["/usr/bin/sh", "./mvnw"].map(str::to_owned).to_vec()
        } else {
            // Nearly every function needs the framework too: one machine fetches both.
            let wanted = [Some(self.maven_wanted()), self.recipe.target.as_ref().map(|_| self.invoker_wanted())];
            let wanted: Vec<Wanted> = wanted.into_iter().flatten().collect();
            let wishes: Vec<_> = wanted.iter().map(Wanted::wishes).collect();
            let places = self.job.tools(&wishes, async |missing| self.fetch(&missing.iter().map(|at| &wanted[*at]).collect::<Vec<_>>()).await).await?;
            spec.mounts.push(shown(&places[0], "/tools/maven", Access::Read));
            vec!["/usr/bin/sh".to_owned(), format!("/tools/maven/apache-maven-{}/bin/mvn", KNOWN.java.maven.version)]
        };
        let mut common = ["--batch-mode", "--quiet", "-Dstyle.color=never", "-Dmaven.repo.local=/repository/maven"].map(str::to_owned).to_vec();
        if is_offline {
            common.push("--offline".to_owned());
        }
        if let Some(release) = self.recipe.release {
            common.push(format!("-Dmaven.compiler.release={release}"));
        }
        if self.repository() != CENTRAL {
            let mirror = self.repository().replace('&', "&amp;").replace('<', "&lt;");
            let settings = format!("<settings><mirrors><mirror><id>host</id><mirrorOf>central</mirrorOf><url>{mirror}</url></mirror></mirrors></settings>\n");
            spec.files.push(("/build/settings.xml".into(), settings.into_bytes()));
            common.extend(["--global-settings", "/build/settings.xml"].map(str::to_owned));
        }
        let copy = ["dependency:copy-dependencies", "-Dmdep.prependGroupId=true", "-DincludeScope=runtime"].map(str::to_owned);
        let mut words = maven.clone();
        words.extend(common.iter().cloned());
        match &self.recipe.own_arguments {
            Some(own) => {
                words.extend(own.iter().cloned());
                script.run(&words);
                if self.recipe.target.is_some() {
                    script.run(&[maven, common, copy.to_vec()].concat());
                }
            }
            None => {
                words.extend(["-DskipTests", "-Dhttp.keepAlive=false"].map(str::to_owned));
                if let Some(buildable) = &self.recipe.buildable {
                    words.push(format!("-f={buildable}/pom.xml"));
                }
                words.extend(self.recipe.more_arguments.iter().cloned());
                words.extend(["clean", "package"].map(str::to_owned));
                if self.recipe.target.is_some() {
                    words.extend(copy);
                }
                script.run(&words);
            }
        }
        Ok(())
    }

    fn gradle(&self, spec: &mut Spec, script: &mut Script, has_wrapper: bool, is_offline: bool) -> Result<(), Error> {
        let gradle: Vec<String> = if has_wrapper {
            script.line("sed -i 's/\\r$//' gradlew");
            ["/usr/bin/sh", "./gradlew"].map(str::to_owned).to_vec()
        } else {
            let gradle = self.job.catalogue.gradle().ok_or_else(|| {
                user(
                    "The source is built by Gradle, and neither it nor this host has one. Add Gradle's wrapper to the source (gradle wrapper), \
                     or install gradle and restart tanebi, then deploy again.",
                )
            })?;
            if !gradle.starts_with("/usr") {
                let home = gradle.parent().and_then(Path::parent).unwrap_or(gradle);
                spec.mounts.push(shown(home, home, Access::Read));
            }
            vec![gradle.display().to_string()]
        };
        let mut words = gradle;
        words.extend(["--no-daemon", "--quiet", "--console=plain", "--build-cache"].map(str::to_owned));
        if is_offline {
            words.push("--offline".to_owned());
        }
        match &self.recipe.own_arguments {
            Some(own) => words.extend(own.iter().cloned()),
            None => {
                words.extend(["clean", "assemble", "-x", "test"].map(str::to_owned));
                words.extend(self.recipe.more_arguments.iter().cloned());
            }
        }
        if self.recipe.target.is_some() {
            spec.files.push(("/build/tasks.gradle".into(), TASKS.as_bytes().to_vec()));
            script.line("cat /build/tasks.gradle >> build.gradle");
            words.extend(["tanebiDependencies", "tanebiJar"].map(str::to_owned));
        }
        script.run(&words);
        Ok(())
    }

    /// The jar that was made, as a path below the source.
    fn jar(&self, made: &Path) -> Result<String, Error> {
        let reader = TreeReader::open(made).map_err(|e| Error::Internal(format!("reading what was built: {e}")))?;
        let fail = |e: io::Error| Error::Internal(format!("reading what was built: {e}"));
        let jars_in = |folder: &str| -> Result<Vec<String>, Error> {
            let names = reader.names_in(folder, 10_000).map_err(fail)?.unwrap_or_default();
            let names = names.into_iter().filter_map(|name| String::from_utf8(name).ok());
            Ok(names.filter(|name| name.ends_with(".jar")).map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") }).collect())
        };
        if self.recipe.target.is_some() {
            if let Tool::Gradle { .. } = self.recipe.tool {
                let path = reader.read("build/tanebi-jar", 4096).map_err(fail)?.unwrap_or_default();
                let path = String::from_utf8_lossy(&path).trim().to_owned();
                return if reader.has_file(&path).map_err(fail)? { Ok(path) } else { Err(user(format!("expected output jar {path} does not exist"))) };
            }
            let pom = reader.read("pom.xml", 4 << 20).map_err(fail)?.unwrap_or_default();
            let usual = format!("target/{}.jar", final_name(&String::from_utf8_lossy(&pom)).unwrap_or_default());
            let is_side =
                |jar: &String| ["-sources.jar", "-javadoc.jar", "-tests.jar"].iter().any(|end| jar.ends_with(end)) || jar.starts_with("target/original-");
            let jars: Vec<String> = jars_in("target")?.into_iter().filter(|jar| !is_side(jar)).collect();
            return match &jars[..] {
                [jar] => Ok(jar.clone()),
                jars if jars.contains(&usual) => Ok(usual),
                [] => Err(user(format!("expected output jar {usual} does not exist. Is its packaging jar?"))),
                jars => Err(user(format!("The build made more than one jar: {}. Leave one, then deploy again.", jars.join(", ")))),
            };
        }
        let mut folders = Vec::new();
        if let Some(buildable) = &self.recipe.buildable {
            folders.extend([format!("{buildable}/target"), buildable.clone()]);
        }
        folders.extend(["target", "build", "build/libs"].map(str::to_owned));
        let top = crate::tree::names(reader.root(), model::limits::SOURCE_ENTRIES_MAX).map_err(fail)?;
        folders.extend(top.into_iter().filter_map(|name| String::from_utf8(name).ok()).map(|name| format!("{name}/build/libs")));
        folders.push(String::new());
        for folder in folders {
            let mut runnable = Vec::new();
            for jar in jars_in(&folder)? {
                if is_runnable(&reader, &jar) {
                    runnable.push(jar);
                }
            }
            match &runnable[..] {
                [] => {}
                [jar] => return Ok(jar.clone()),
                jars => {
                    return Err(user(format!(
                        "found more than one jar with a Main-Class manifest entry in [{folder}]: [{}], please specify an entrypoint",
                        jars.join(" ")
                    )));
                }
            }
        }
        Err(user("did not find any jar files with a Main-Class manifest entry"))
    }

    /// What `javap` would say of the target.
    async fn class_check(&self, folder: &Path, jar: Option<&str>, others: Option<&str>) -> Result<(), Error> {
        let Some(target) = self.recipe.target.clone() else { return Ok(()) };
        let (wanted, folder) = (target.clone(), folder.to_owned());
        let (jar, others) = (jar.map(str::to_owned), others.map(str::to_owned));
        let found = blocking(move || {
            let reader = TreeReader::open(&folder)?;
            let mut jars: Vec<String> = jar.into_iter().collect();
            if let Some(others) = others {
                let names = reader.names_in(&others, 10_000)?.unwrap_or_default();
                jars.extend(names.into_iter().filter_map(|name| Some(format!("{others}/{}", String::from_utf8(name).ok()?))));
            }
            Ok(jars.iter().any(|jar| jar_open(&reader, jar).is_some_and(|jar| has_class(&jar, &wanted))))
        })
        .await?
        .map_err(|e: io::Error| Error::Internal(format!("reading what was built: {e}")))?;
        if !found {
            return Err(user(format!(
                "build succeeded but did not produce the class {target:?} specified as the function target: Error: class not found: {target}"
            )));
        }
        Ok(())
    }

    // === Tools ===

    async fn invoker(&self) -> Result<String, Error> {
        let wanted = self.invoker_wanted();
        let fetch = async || self.fetch(&[&wanted]).await?.pop().ok_or_else(|| Error::Internal("nothing was fetched".to_owned()));
        self.job.tool(&wanted.wishes(), fetch).await
    }

    /// What templates of functions are started with beside the invoker.
    async fn launcher(&self) -> Result<String, Error> {
        let job = self.job;
        let wishes = json!({ "format": FORMAT, "what": "launcher of Java", "sources": LAUNCHER.map(|(_, text)| text), "pack": PACK });
        job.tool(&wishes, async || {
            job.runner.log.say("Compiling the launcher for Java, once for this host.");
            let folder = job.work.folder("launcher")?;
            let mut spec = job.spec(self.compiler, Reach::Nothing, &[])?;
            spec.files.push(("/build/Pack.java".into(), PACK.as_bytes().to_vec()));
            spec.files.extend(LAUNCHER.map(|(name, text)| (format!("/build/launch/tanebi/{name}").into(), text.as_bytes().to_vec())));
            self.environment_own(&mut spec);
            spec.mounts.push(shown(&folder, "/tool", Access::Write));
            let words = [&self.compiler.path.display().to_string(), "/build/Pack.java", "/build/launch", "/tool/launch.jar"];
            spec.command = words.map(str::to_owned).to_vec();
            let outcome = job.runner.run(spec, job.dir).await?;
            if outcome.is_success() {
                return Ok(folder);
            }
            let fault = fault::explain(&outcome.tail, &["Exception in thread \"main\"", "error:"], &[]);
            Err(Error::Internal(fault.text("the launcher for Java does not compile", "")))
        })
        .await
    }

    fn invoker_wanted(&self) -> Wanted {
        let tool = &KNOWN.java.invoker;
        let (group, artifact) = tool.artifact.split_once(':').unwrap_or(("", &tool.artifact));
        Wanted {
            what: format!("the functions framework for Java {}", tool.version),
            url: format!("{}/{}/{artifact}/{v}/{artifact}-{v}.jar", self.repository(), group.replace('.', "/"), v = tool.version),
            hash: ("SHA-256", &tool.sha256),
            name: Some(INVOKER),
        }
    }

    fn maven_wanted(&self) -> Wanted {
        let tool = &KNOWN.java.maven;
        Wanted {
            what: format!("Maven {}", tool.version),
            url: format!("{}/org/apache/maven/apache-maven/{v}/apache-maven-{v}-bin.zip", self.repository(), v = tool.version),
            hash: ("SHA-512", &tool.sha512),
            name: None,
        }
    }

    /// Fetches files of known content in one sandbox; a folder for each.
    async fn fetch(&self, wanted: &[&Wanted]) -> Result<Vec<PathBuf>, Error> {
        let job = self.job;
        let names = wanted.iter().map(|wanted| wanted.what.as_str()).collect::<Vec<_>>().join(" and ");
        job.runner.log.say(format!("Fetching {names}, once for this host."));
        let mut spec = job.spec(self.compiler, Reach::Registries, &[])?;
        spec.files.push(("/build/Fetch.java".into(), FETCH.as_bytes().to_vec()));
        self.environment_own(&mut spec);
        spec.command = vec![self.compiler.path.display().to_string(), "/build/Fetch.java".to_owned()];
        let mut folders = Vec::new();
        for (at, Wanted { url, hash, name, .. }) in wanted.iter().enumerate() {
            let folder = job.work.folder(&format!("tool-{}", hash.1))?;
            let place = format!("/tool/{at}");
            let (target, how) = name.map_or((place.clone(), "unpack"), |name| (format!("{place}/{name}"), "file"));
            spec.mounts.push(shown(&folder, &place, Access::Write));
            spec.command.extend([url, hash.0, hash.1, &target, how].map(str::to_owned));
            folders.push(folder);
        }
        let outcome = job.runner.run(spec, job.dir).await?;
        if !outcome.is_success() {
            let fault = fault::explain(&outcome.tail, &["Exception in thread \"main\"", "Caused by:"], &[]);
            return Err(user(fault.text(&format!("{names} could not be fetched"), "Connect this host to Maven Central, then deploy again.")));
        }
        Ok(folders)
    }

    fn repository(&self) -> &str {
        let own = self.job.base.package.variables.iter().find(|(name, _)| name == REPOSITORY);
        own.map_or(CENTRAL, |(_, url)| url.trim_end_matches('/'))
    }

    /// Ours, and over it the user's build variables; of Java's own options both.
    fn environment(&self, spec: &mut Spec) {
        self.environment_own(spec);
        for (name, value) in self.job.variables {
            let own = spec.env.iter().find(|(known, _)| known == name).map(|(_, own)| own.clone());
            match own {
                Some(own) if name == "JAVA_TOOL_OPTIONS" => set(&mut spec.env, name, format!("{own} {value}")),
                Some(_) if !matches!(name.as_str(), "MAVEN_OPTS" | "GRADLE_OPTS" | "JDK_JAVA_OPTIONS") => {}
                _ => set(&mut spec.env, name, value),
            }
        }
    }

    fn environment_own(&self, spec: &mut Spec) {
        let home = self.compiler.path.parent().and_then(Path::parent).map(|home| home.display().to_string()).unwrap_or_default();
        // One compiler stage and the plain collector: a build is short. A plugin of old needs the opened package.
        let options = format!(
            "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:MaxRAM={}m -XX:MaxRAMPercentage=60 -Duser.home=/tmp --add-opens=java.base/java.lang=ALL-UNNAMED",
            spec.limits.memory_bytes >> 20
        );
        for (name, value) in [
            ("JAVA_HOME", home.clone()),
            ("PATH", format!("{home}/bin:/usr/local/bin:/usr/bin:/bin")),
            ("JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts".to_owned()),
            ("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1".to_owned()),
            ("MAVEN_OPTS", options.clone()),
            ("GRADLE_OPTS", options),
            ("MAVEN_USER_HOME", format!("{REPOSITORY_FOLDER}/maven-home")),
            ("GRADLE_USER_HOME", format!("{REPOSITORY_FOLDER}/gradle")),
        ] {
            set(&mut spec.env, name, value);
        }
        spec.files.push(("/etc/ssl/certs/java/cacerts".into(), self.job.base.java_trust_store.clone()));
    }

    /// The compiler's lines, without the tool's advice.
    fn failed(&self, outcome: &Outcome) -> Error {
        let noise = [
            "[Help 1]",
            "To see the full stack trace",
            "Re-run Maven using",
            "For more information about the errors",
            "Picked up JAVA_TOOL_OPTIONS",
            "NOTE: Picked up JDK_JAVA_OPTIONS",
            "Picked up JDK_JAVA_OPTIONS",
            "COMPILATION ERROR",
            "-> [Help",
            "* Try:",
        ];
        let fault = fault::explain(&outcome.tail, &["[ERROR]", "error:", "* What went wrong:"], &noise);
        let cause = fault.shown.iter().find(|line| line.contains(".java:[")).or(fault.shown.first()).map_or("it said nothing", String::as_str);
        let cause = cause.trim().trim_start_matches("/workspace/");
        let advice = if fault.is_network { "Connect this host to Maven Central, then deploy again." } else { "Mend it, then deploy again." };
        let how = if outcome.code.is_none_or(|code| code >= 128) { format!(" (it ended with {})", outcome.how()) } else { String::new() };
        user(format!("{} could not build the source{how}: {cause}. {advice}\n{}", self.tool_name(), fault.shown.join("\n")))
    }
}

/// What Maven calls a project's jar, as far as its own pom.xml says.
fn final_name(pom: &str) -> Option<String> {
    let document = roxmltree::Document::parse(pom).ok()?;
    let child = |node: roxmltree::Node<'_, '_>, name: &str| node.children().find(|child| child.tag_name().name() == name).map(|child| child.id());
    let at = |id: roxmltree::NodeId| document.get_node(id);
    let text = |node: roxmltree::Node<'_, '_>, name: &str| child(node, name).and_then(at)?.text().map(|text| text.trim().to_owned());
    let project = document.root_element();
    if let Some(name) = child(project, "build").and_then(at).and_then(|build| text(build, "finalName")).filter(|name| !name.contains("${")) {
        return Some(name);
    }
    let parent = child(project, "parent").and_then(at);
    let version = text(project, "version").or_else(|| text(parent?, "version"))?;
    Some(format!("{}-{version}", text(project, "artifactId")?))
}

/// A jar of a tree that others wrote.
fn jar_open(reader: &TreeReader, path: &str) -> Option<Jar> {
    let (file, bytes) = reader.open_file(path).ok()??;
    (bytes <= JAR_MAX_BYTES).then(|| archive::jar(file))?
}

/// Whether a jar has the class `a.b.C`, or `a.b.C.D` for one inside another.
fn has_class(jar: &Jar, target: &str) -> bool {
    let mut name = target.replace('.', "/");
    loop {
        if jar.index_for_name(&format!("{name}.class")).is_some() {
            return true;
        }
        let Some(at) = name.rfind('/') else { return false };
        name.replace_range(at..=at, "$");
    }
}

/// Whether a jar of a tree has a main class.
pub(super) fn is_runnable(reader: &TreeReader, path: &str) -> bool {
    main_class(reader, path).is_some()
}

fn main_class(reader: &TreeReader, path: &str) -> Option<String> {
    let mut jar = jar_open(reader, path)?;
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(jar.by_name("META-INF/MANIFEST.MF").ok()?, 64 << 10), &mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Main-Class:").map(|name| name.trim().to_owned()))
}

/// The invoker among a function's own jars.
fn invoker_of(folder: &Path) -> io::Result<Option<String>> {
    let reader = TreeReader::open(folder)?;
    let names = crate::tree::names(reader.root(), 10_000)?;
    let names = names.into_iter().filter_map(|name| String::from_utf8(name).ok()).filter(|name| name.contains("java-function-invoker-"));
    Ok(names.into_iter().find(|name| main_class(&reader, name).as_deref() == Some(INVOKER_CLASS)))
}

/// Lays the jar beside the source, in the place where the tool made it; what else the source brought there is taken away.
async fn jar_take(staging: store::Staging, made: &Path, jar: &str, without: &'static [&'static str]) -> Result<store::Staging, Error> {
    let (made, jar) = (made.to_owned(), jar.to_owned());
    blocking(move || {
        let fail = |e: &dyn std::fmt::Display| Error::Internal(format!("keeping the jar: {e}"));
        for name in without {
            match std::fs::remove_dir_all(staging.path().join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(&e)),
                _ => {}
            }
        }
        let path = TreePath::parse(jar.as_bytes()).map_err(|e| fail(&e))?;
        let mut writer = TreeWriter::open(staging.path()).map_err(|e| fail(&e))?;
        writer.remove(&path).map_err(|e| fail(&e))?;
        let mut target = writer.file(&path, false).map_err(|e| fail(&e))?;
        let reader = TreeReader::open(&made).map_err(|e| fail(&e))?;
        let bytes = reader.read(&jar, JAR_MAX_BYTES).map_err(|e| fail(&e))?.ok_or_else(|| fail(&"it is gone"))?;
        io::Write::write_all(&mut target, &bytes).map_err(|e| fail(&e))?;
        Ok(staging)
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jar_is_called_as_its_pom_says() {
        let own =
            "<project xmlns='http://maven.apache.org/POM/4.0.0'><parent><artifactId>p</artifactId><version>9</version></parent><artifactId> a </artifactId>";
        for (rest, expect) in [
            ("<version>1.0</version></project>", Some("a-1.0")),
            ("</project>", Some("a-9")),
            ("<version>1.0</version><build><finalName>own</finalName></build></project>", Some("own")),
            ("<version>1.0</version><build><finalName>${x}</finalName></build></project>", Some("a-1.0")),
        ] {
            assert_eq!(final_name(&format!("{own}{rest}")).as_deref(), expect, "{rest}");
        }
        assert_eq!(final_name("<project>"), None);
    }

    #[test]
    fn a_class_is_found_in_a_jar() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jar");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for name in ["functions/Hello.class", "functions/Outer$Inner.class", "Top.class"] {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        }
        zip.finish().unwrap();
        let jar = jar_open(&TreeReader::open(dir.path()).unwrap(), "a.jar").unwrap();
        for (target, expect) in [
            ("functions.Hello", true),
            ("functions.Outer$Inner", true),
            ("functions.Outer.Inner", true),
            ("Top", true),
            ("Hello", false),
            ("functions.Nope", false),
            ("functions", false),
        ] {
            assert_eq!(has_class(&jar, target), expect, "{target}");
        }
    }
}
