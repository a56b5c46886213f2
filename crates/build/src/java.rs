//! Java: what a source needs, and how what is built of it is started.
//!
//! Reads the source as data and decides; runs nothing. Rules and texts: GoogleCloudPlatform/buildpacks, cmd/java and
//! pkg/java. What is decided is carried out by `compile`.

use model::image::MemoryVariable;
use sha2::{Digest, Sha256};

use crate::{
    Error,
    plan::{Parts, Question, Recipe as AnyRecipe, entrypoint, has, pairs, shell, top, user},
    tree::TreeReader,
    variables::Variables,
};

mod compile;

pub(crate) use compile::build;

/// By which the machine believes in the roots of its sandbox.
const TRUST: &str = "-Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts";

/// What is built.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) tool: Tool,
    /// Everything by which the build is told what to do: path and hash.
    files: Vec<(String, String)>,
    /// Whether time changes the outcome.
    is_locked: bool,
    /// Class of the function, if it is one.
    target: Option<String>,
    /// Module to build, of several.
    buildable: Option<String>,
    /// Further arguments of the tool.
    more_arguments: Vec<String>,
    /// All arguments of the tool.
    own_arguments: Option<Vec<String>>,
    /// Java's version when it has no compiler: another one compiles for it.
    release: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// With the source's own wrapper, or ours.
    Maven {
        wrapper: bool,
    },
    Gradle {
        wrapper: bool,
    },
    /// A jar that is built already, or a folder of classes.
    Jar(String),
    /// Unpacked, with this main class.
    Classes(String),
}

/// Decides all of it.
/// # Errors
/// `User` with what to change.
pub(crate) fn parts(question: &Question<'_>, notes: &mut Vec<String>) -> Result<Parts, Error> {
    let (source, variables) = (question.source, question.variables);
    if variables.own.iter().any(|(name, value)| name == "USE_JAVA_FF_2" && ["1", "t", "true"].contains(&value.to_ascii_lowercase().as_str())) {
        return Err(user("USE_JAVA_FF_2 is not supported on this host: functions run by java-function-invoker 1.4.1. Remove the variable."));
    }
    let names = top(source)?;
    let tool = tool(source, &names, variables)?;
    let mut files = Vec::new();
    let is_build_file = |name: &str| {
        matches!(
            name,
            "pom.xml"
                | "gradle.properties"
                | "maven.config"
                | "jvm.config"
                | "extensions.xml"
                | "maven-wrapper.properties"
                | "gradle-wrapper.properties"
                | "mvnw"
                | "gradlew"
        ) || name.ends_with(".gradle")
            || name.ends_with(".gradle.kts")
            || name.ends_with(".lockfile")
    };
    let mut is_locked = true;
    source
        .files_below(&["target", "build", ".gradle"], is_build_file, 1 << 20, |path, text| {
            is_locked &= !is_open(&path, &text);
            files.push((path, hex::encode(Sha256::digest(&text))));
        })
        .map_err(|e| Error::Internal(format!("reading the source: {e}")))?;
    files.sort();
    if question.interpreter.packager.is_none() {
        notes.push(format!("Java {} here has no compiler: another Java of this host compiles for it.", question.interpreter.version.major));
    }
    let release = question.interpreter.packager.is_none().then_some(question.interpreter.version.major);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let own_arguments = match &tool {
        Tool::Maven { .. } => variables.maven_build_args.as_deref().map(words),
        Tool::Gradle { .. } => variables.gradle_build_args.as_deref().map(words),
        Tool::Jar(_) | Tool::Classes(_) => None,
    };
    let is_maven = matches!(tool, Tool::Maven { .. });
    let is_gradle = matches!(tool, Tool::Gradle { .. });
    for (name, is_set, is_used) in [
        ("GOOGLE_BUILD_ARGS", variables.build_args.is_some(), is_maven || is_gradle),
        ("GOOGLE_MAVEN_BUILD_ARGS", variables.maven_build_args.is_some(), is_maven),
        ("GOOGLE_GRADLE_BUILD_ARGS", variables.gradle_build_args.is_some(), is_gradle),
    ] {
        if is_set && !is_used {
            notes.push(format!("{name} has no meaning for this source and is not used: another tool builds it, or none."));
        }
    }
    let command = match variables.function_target {
        Some(_) => Vec::new(),
        None => application(question, &tool)?,
    };
    let home = question.interpreter.path.parent().and_then(|bin| bin.parent()).map(|home| home.display().to_string()).unwrap_or_default();
    let env = pairs(&[("JAVA_HOME", &home), ("PATH", &format!("{home}/bin:/usr/local/bin:/usr/bin:/bin"))]);
    // Google's launch.sh: the machine takes 70 % of the memory, unless its owner gives it options of his own.
    let memory = MemoryVariable {
        name: "JAVA_TOOL_OPTIONS".to_owned(),
        before: "-XX:MaxRAM=".to_owned(),
        percent: 100,
        after: format!("m -XX:MaxRAMPercentage=70 {TRUST}"),
        unless: String::new(),
    };
    let recipe = AnyRecipe::Java(Recipe {
        tool,
        files,
        is_locked,
        target: variables.function_target.clone(),
        buildable: variables.buildable.clone(),
        more_arguments: variables.build_args.as_deref().map(words).unwrap_or_default(),
        own_arguments,
        release,
    });
    Ok(Parts { recipe, command, env, memory_env: vec![memory] })
}

/// Whether a build file asks for versions that change with time. The project's own version is none of them.
fn is_open(path: &str, text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    if path.ends_with("pom.xml") {
        let Ok(document) = roxmltree::Document::parse(&text) else { return false };
        let versions = document.descendants().filter(|node| node.tag_name().name() == "version" && node.parent() != Some(document.root_element()));
        return versions
            .filter_map(|node| node.text())
            .map(str::trim)
            .any(|version| version.ends_with("-SNAPSHOT") || matches!(version, "LATEST" | "RELEASE") || version.starts_with(['[', '(']));
    }
    ["latest.release", "latest.integration", ".+'", ".+\"", "-SNAPSHOT'", "-SNAPSHOT\""].iter().any(|part| text.contains(part))
}

fn tool(source: &TreeReader, names: &[String], variables: &Variables) -> Result<Tool, Error> {
    let is_function = variables.function_target.is_some();
    let has_name = |name: &str| names.iter().any(|known| known == name);
    if !is_function && has(source, "META-INF/MANIFEST.MF")? {
        let manifest = crate::plan::read(source, "META-INF/MANIFEST.MF")?.unwrap_or_default();
        let main = manifest.lines().find_map(|line| line.strip_prefix("Main-Class:").map(|main| main.trim().to_owned()));
        return main
            .filter(|main| !main.is_empty())
            .map(Tool::Classes)
            .ok_or_else(|| user(format!("no Main-Class manifest entry found in the manifest:\n{manifest}")));
    }
    // A function's jar is looked for at the top only.
    let buildable = variables.buildable.as_deref().filter(|_| !is_function).map(|folder| has(source, &format!("{folder}/pom.xml"))).transpose()?;
    if has_name("pom.xml") || buildable == Some(true) || has(source, ".mvn/extensions.xml")? {
        return Ok(Tool::Maven { wrapper: has_name("mvnw") });
    }
    let gradle = ["build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"];
    // A function's classes are found in build.gradle only.
    if gradle.iter().any(|name| has_name(name)) && (!is_function || has_name("build.gradle")) {
        return Ok(Tool::Gradle { wrapper: has_name("gradlew") });
    }
    let mut jars: Vec<&str> = names.iter().map(String::as_str).filter(|name| name.ends_with(".jar")).collect();
    if !is_function && (variables.entrypoint.is_some() || has(source, "Procfile")?) {
        // Whoever says how it is started knows its jar.
        return Ok(Tool::Jar(String::new()));
    }
    if !is_function {
        jars.retain(|jar| compile::is_runnable(source, jar));
    }
    match jars[..] {
        [jar] => Ok(Tool::Jar(jar.to_owned())),
        [] if is_function => {
            let entries = if names.is_empty() { "directory is empty".to_owned() } else { format!("directory has these entries: {}", names.join(", ")) };
            Err(user(format!("function has neither pom.xml nor already-built jar file; {entries}")))
        }
        [] => Err(user("did not find any jar files with a Main-Class manifest entry")),
        _ if is_function => Err(user(format!("function has no pom.xml and more than one jar file: {}", jars.join(", ")))),
        _ => Err(user(format!("found more than one jar with a Main-Class manifest entry in [.]: [{}], please specify an entrypoint", jars.join(" ")))),
    }
}

/// Empty where the jar is known after the build only.
fn application(question: &Question<'_>, tool: &Tool) -> Result<Vec<String>, Error> {
    let java = question.interpreter.path.display().to_string();
    if let Tool::Classes(main) = tool {
        return Ok(vec![java, TRUST.to_owned(), "-classpath".to_owned(), ".".to_owned(), main.clone()]);
    }
    if let Some(entrypoint) = entrypoint(question)? {
        return Ok(shell(entrypoint));
    }
    match tool {
        Tool::Jar(jar) => Ok(vec![java, TRUST.to_owned(), "-jar".to_owned(), jar.clone()]),
        _ => Ok(Vec::new()),
    }
}
