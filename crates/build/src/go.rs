//! Go: what a source needs, and how what is built of it is started.
//!
//! Reads the source as data and decides; runs nothing. Rules and texts: GoogleCloudPlatform/buildpacks, cmd/go and
//! pkg/golang. What is decided is carried out by `compile`.

use crate::{
    Error,
    catalogue::KNOWN,
    plan::{Parts, Question, Recipe as AnyRecipe, entrypoint, injection_allowed, pairs, read, shell, top, user},
    tree::TreeReader,
};

mod compile;
mod livefork;
mod syntax;

pub(crate) use compile::build;

/// Where the program lies in instances.
const BINARY_FOLDER: &str = "/layers/go/bin";
const FUNCTIONS: &str = "github.com/GoogleCloudPlatform/functions-framework-go/functions";
/// What a module that is made is called, before the name of its package.
const MADE_MODULE: &str = "functions.local";
/// Where a function's source lies below the workspace, as at Google.
const SOURCE_FOLDER: &str = "serverless_function_source_code";

/// What is built.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) modules: Modules,
    /// What of the source decides which packages of others are compiled.
    files: Vec<(String, Vec<u8>)>,
    /// All packages that the source imports.
    imports: Vec<String>,
    pub(crate) kind: Kind,
    flags: Vec<String>,
}

/// Where dependencies come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modules {
    /// go.mod.
    Module,
    /// go.mod and vendor/.
    Vendored,
    /// No go.mod: one is made, as its dependencies are those that it imports.
    None,
    /// vendor/ without go.mod: Go's way before modules.
    Path,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Function {
        /// Of the functions framework, by the source's own go.mod.
        is_own: bool,
        /// Package path and text of the program that is made around it.
        package: String,
        target: String,
        /// Registers itself at start.
        is_declarative: bool,
    },
    Application {
        /// What to build; else the one program of the source.
        buildable: Option<String>,
    },
}

/// Decides all of it.
/// # Errors
/// `User` with what to change.
pub(crate) fn parts(question: &Question<'_>, notes: &mut Vec<String>) -> Result<Parts, Error> {
    let (source, variables) = (question.source, question.variables);
    let module = read(source, "go.mod")?;
    let has_vendor = top(source)?.iter().any(|name| name == "vendor");
    let modules = match (&module, has_vendor) {
        (Some(_), true) => Modules::Vendored,
        (Some(_), false) => Modules::Module,
        (None, true) => Modules::Path,
        (None, false) => Modules::None,
    };
    if !source.has_file_below(&["node_modules"], ".go").map_err(|e| Error::Internal(format!("reading the source: {e}")))? {
        return Err(user("No buildpack groups passed detection: the source has no file of Go."));
    }
    let mut files = Vec::new();
    // Those of folders too: a replacement leads to them.
    source
        .files_below(&["vendor"], |name| matches!(name, "go.mod" | "go.sum" | "go.work" | "go.work.sum"), 4 << 20, |path, text| files.push((path, text)))
        .map_err(|e| Error::Internal(format!("reading the source: {e}")))?;
    files.sort();
    let own = module.as_deref().map(module_path).transpose()?;
    let (kind, imports) = match &variables.function_target {
        Some(target) => function(source, variables, target, own.as_deref(), module.as_deref(), modules)?,
        None => (Kind::Application { buildable: variables.buildable.clone() }, syntax::imports_below(source)?),
    };
    if modules == Modules::Module && !files.iter().any(|(name, _)| name == "go.sum") {
        notes.push("go.sum not found, generating using \"go mod tidy\"".to_owned());
    }
    if let Kind::Function { is_own: false, .. } = kind {
        notes.push(format!("Adding {} {}.", KNOWN.go.framework.package, KNOWN.go.framework.version));
    }
    if variables.buildable.is_some() && variables.function_target.is_some() {
        notes.push("GOOGLE_BUILDABLE has no meaning for a function of Go and is not used.".to_owned());
    }
    let mut flags = Vec::new();
    for (flag, value) in [("-gcflags", &variables.go_gcflags), ("-ldflags", &variables.go_ldflags)] {
        if let Some(value) = value {
            flags.extend([flag.to_owned(), value.clone()]);
        }
    }
    let command = match &kind {
        Kind::Function { .. } => vec![format!("{BINARY_FOLDER}/main")],
        Kind::Application { .. } => entrypoint(question)?.map_or_else(|| vec![format!("{BINARY_FOLDER}/main")], shell),
    };
    let path = format!("{BINARY_FOLDER}:/usr/local/bin:/usr/bin:/bin");
    let own = match &kind {
        Kind::Function { package, .. } if modules == Modules::None => package.clone(),
        _ => own.unwrap_or_default(),
    };
    let imports = imports.into_iter().filter(|import| own.is_empty() || (*import != own && !import.starts_with(&format!("{own}/")))).collect();
    let recipe = AnyRecipe::Go(Recipe { modules, files, imports, kind, flags });
    Ok(Parts { recipe, command, env: pairs(&[("PATH", &path)]), memory_env: Vec::new() })
}

fn function(
    source: &TreeReader,
    variables: &crate::variables::Variables,
    target: &str,
    own: Option<&str>,
    module: Option<&str>,
    modules: Modules,
) -> Result<(Kind, Vec<String>), Error> {
    let (package, top_imports) = syntax::package(source)?;
    let framework = &KNOWN.go.framework.package;
    let made = format!("{MADE_MODULE}/{package}");
    let (own, module) = match (own, module, modules) {
        (Some(own), Some(module), _) => (own, module),
        // By its own name, in the folder of all sources.
        (_, _, Modules::Path) => {
            let is_own = top_of(source, &format!("vendor/{framework}/funcframework"))?;
            if !is_own {
                injection_allowed(variables)?;
            }
            let is_declarative = top_imports.iter().any(|import| import == FUNCTIONS);
            return Ok((Kind::Function { is_own, package, target: target.to_owned(), is_declarative }, syntax::imports_below(source)?));
        }
        _ => (made.as_str(), ""),
    };
    if !own.split('/').next().is_some_and(|first| first.contains('.')) {
        return Err(user(format!(
            "the module path in the function's go.mod must contain a dot in the first path element before a slash, e.g. example.com/module, found: {own}"
        )));
    }
    let is_own = requires(module, framework);
    if modules == Modules::Vendored {
        let program = format!("vendor/{framework}/funcframework");
        let has_program = top_of(source, &program)?;
        if !is_own || !has_program {
            return Err(user(format!(
                "vendored dependencies must include {framework:?}; if your function does not depend on the module, please add a blank import: \
                 `_ \"{framework}/funcframework\"`"
            )));
        }
    } else if !is_own {
        injection_allowed(variables)?;
    }
    let is_declarative = top_imports.iter().any(|import| import == FUNCTIONS);
    if !is_declarative && !syntax::is_identifier(target) {
        return Err(user(format!("The function target {target:?} is no name of a function of Go.")));
    }
    // The module's root, as at Google, whatever folder has the package's name.
    let package = own.to_owned();
    Ok((Kind::Function { is_own, package, target: target.to_owned(), is_declarative }, syntax::imports_below(source)?))
}

/// Whether a folder of the source has a file of Go.
fn top_of(source: &TreeReader, folder: &str) -> Result<bool, Error> {
    let fail = |e: std::io::Error| Error::Internal(format!("reading the source: {e}"));
    match source.names_in(folder, model::limits::SOURCE_ENTRIES_MAX).map_err(fail)? {
        Some(names) => Ok(names.iter().any(|name| name.ends_with(b".go"))),
        None => Ok(false),
    }
}

/// The path after `module`.
fn module_path(text: &str) -> Result<String, Error> {
    let line = text.lines().map(|line| line.split("//").next().unwrap_or("").trim()).find_map(|line| line.strip_prefix("module ").map(str::trim));
    match line.map(|path| path.trim_matches(['"', '`'])) {
        Some(path) if !path.is_empty() && !path.contains(char::is_whitespace) => Ok(path.to_owned()),
        _ => Err(user("go: error reading go.mod: missing module declaration. To specify the module path: go mod edit -module=example.com/mod")),
    }
}

/// Whether a go.mod requires a module.
fn requires(text: &str, module: &str) -> bool {
    let mut is_block = false;
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or("").trim();
        let wish = match line {
            "require (" => {
                is_block = true;
                continue;
            }
            ")" => {
                is_block = false;
                continue;
            }
            line if is_block => line,
            line => line.strip_prefix("require ").unwrap_or(""),
        };
        if wish.split_whitespace().next().is_some_and(|path| path.trim_matches('"') == module) {
            return true;
        }
    }
    false
}

impl Kind {
    /// The program around a function.
    fn program(&self) -> Option<String> {
        let Kind::Function { package, target, is_declarative, .. } = self else { return None };
        Some(match is_declarative {
            true => include_str!("../../../runtimes/go/main_declarative.go").replace("example.com/function", package),
            false => include_str!("../../../runtimes/go/main_plain.go")
                .replace("example.com/function", package)
                .replace("userfunction.Target", &format!("userfunction.{target}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_file_is_read() {
        assert_eq!(module_path("// x\nmodule example.com/a // y\n\ngo 1.25\n").unwrap(), "example.com/a");
        assert_eq!(module_path("module \"example.com/a\"").unwrap(), "example.com/a");
        assert!(module_path("go 1.25").is_err());
        let text = "module a.b/c\nrequire x.y/z v1.0.0\nrequire (\n\tm.n/o v1.2.3 // indirect\n\t\"q.r/s\" v1\n)\n// require no.no/no v1\n";
        for (module, expect) in [("x.y/z", true), ("m.n/o", true), ("q.r/s", true), ("no.no/no", false), ("x.y", false)] {
            assert_eq!(requires(text, module), expect, "{module}");
        }
    }
}
