//! A look at a source for what each instance would have of its own at Google, and shares where instances are clones.
//!
//! What code makes while it loads is in the template, and so in every clone of it: identifiers, times, clients. This finds the calls that
//! make such values, where they stand in the global scope: parsed by tree-sitter, imports followed, nothing run. It does not follow calls
//! into functions, knows no types, and takes what it cannot read for nothing: it warns and never decides.
//!
//! The parsers are C and the source is a stranger's, so [`look`] is called in a sandbox only (`look::watch`; docs/decisions/0010-the-look-is-walled.md).

use std::{
    collections::BTreeSet,
    io::{self, Read},
    ops::{ControlFlow, Range},
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tree_sitter::{Node, ParseOptions, ParseState, Parser, Tree};

use crate::{
    Language,
    tree::{self, TreeReader},
};

mod go;
mod java;
mod nodejs;
mod python;
mod rules;
pub(crate) mod watch;

pub use watch::program;

/// Bytes of a file that is looked at; larger ones are generated.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// Files that are looked at, the nearest to the source's top first.
const FILES_MAX: usize = 2000;
/// Entries of folders that are listed to find them.
const ENTRIES_MAX: usize = 50_000;
/// For all files together; what is not reached by then is not looked at.
const TIME_MAX: Duration = Duration::from_secs(1);
/// Findings that are told.
pub(crate) const FOUND_MAX: usize = 20;
/// How deep nodes are followed: deeper ones were written to be deep.
const DEPTH_MAX: usize = 200;
/// Characters of a call that are told.
const WHAT_MAX_CHARS: usize = 60;
/// Folders of what others wrote, of what is made, and of tests, which do not run in instances.
const FOLDERS_PASSED: [&str; 12] =
    ["node_modules", "vendor", "site-packages", "target", "venv", "env", "__pycache__", "test", "tests", "__tests__", "testdata", "src/test"];

/// What a call makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A random number, or an identifier that nobody else should have.
    Random,
    Clock,
    /// A client of a service, or a connection.
    Client,
}

/// A call in the global scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Relative to the source's top.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// The call, as the source has it: `uuid.uuid4()`.
    pub what: String,
    pub kind: Kind,
}

impl Finding {
    /// What clones share by it, and what to do: one sentence.
    pub fn sentence(&self) -> String {
        let Self { file, line, what, kind } = self;
        let (shares, remedy) = match kind {
            Kind::Random => ("is drawn while the code loads, so all instances that are clones have the same value", "draw it in the function"),
            Kind::Clock => ("is read while the code loads, so all instances that are clones have the time of their template", "read it in the function"),
            Kind::Client => (
                "is made while the code loads, so each clone begins with a copy of it, and with a connection that it opens there are no such clones",
                "make it at first use and keep it from there on",
            ),
        };
        format!("{file}:{line}: {what} {shares}: {remedy}, or deploy with --start runtime.")
    }
}

/// What a look saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// The nearest to the source's top first, at most 20.
    pub findings: Vec<Finding>,
    /// Those beyond.
    pub more: usize,
    /// Whether a bound was reached before the end.
    pub is_partial: bool,
}

/// Looks at the source in `folder`. Blocks for at most about a second.
/// # Errors
/// When the folder cannot be read, or the language is none that is known here.
pub fn look(folder: &Path, language: Language) -> io::Result<Looked> {
    let grammars = Grammars::of(language).ok_or(io::ErrorKind::Unsupported)?;
    let until = Instant::now() + TIME_MAX;
    let reader = TreeReader::open(folder)?;
    let (files, mut is_partial) = files(&reader, &grammars)?;
    let around = Around::of(&files);
    let mut found = BTreeSet::new();
    let mut parser = Parser::new();
    for File { depth, path, .. } in &files {
        let Some((file, size)) = reader.open_file(path)? else { continue };
        if size > FILE_MAX_BYTES {
            is_partial = true;
            continue;
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let Some(tree) = parse(&mut parser, &grammars.of_file(path), &text, until) else {
            is_partial = true;
            break;
        };
        let calls = calls(language, &tree, &text, &around.of_file(path));
        let shown = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).collect() };
        found.extend(calls.into_iter().map(|call| (*depth, Finding { file: shown(path), line: call.line, what: shown(&call.what), kind: call.kind })));
    }
    let more = found.len().saturating_sub(FOUND_MAX);
    Ok(Looked { findings: found.into_iter().take(FOUND_MAX).map(|(_, finding)| finding).collect(), more, is_partial })
}

/// The grammars of a language, by the end of a file's name.
struct Grammars(Vec<(&'static str, tree_sitter::Language)>);

impl Grammars {
    fn of(language: Language) -> Option<Self> {
        Some(Self(match language {
            Language::Python => vec![(".py", tree_sitter_python::LANGUAGE.into())],
            Language::Nodejs => {
                let javascript = tree_sitter_javascript::LANGUAGE;
                let typescript = tree_sitter_typescript::LANGUAGE_TYPESCRIPT;
                let of_both = [".js", ".mjs", ".cjs"].map(|end| (end, javascript.into())).into_iter();
                of_both.chain([".ts", ".mts", ".cts"].map(|end| (end, typescript.into()))).collect()
            }
            Language::Go => vec![(".go", tree_sitter_go::LANGUAGE.into())],
            Language::Java => vec![(".java", tree_sitter_java::LANGUAGE.into())],
            _ => return None,
        }))
    }

    fn has(&self, name: &str) -> bool {
        let is_test = ["_test", ".test", ".spec", ".d", "test_", "conftest"];
        let Some((stem, _)) = name.rsplit_once('.') else { return false };
        let is_passed = is_test[..4].iter().any(|end| stem.ends_with(end)) || is_test[4..].iter().any(|start| stem.starts_with(start));
        !is_passed && self.0.iter().any(|(end, _)| name.ends_with(end))
    }

    fn of_file(&self, path: &str) -> tree_sitter::Language {
        self.0.iter().find(|(end, _)| path.ends_with(end)).map_or_else(|| self.0[0].1.clone(), |(_, grammar)| grammar.clone())
    }
}

/// A file that is looked at.
struct File {
    depth: usize,
    path: String,
    /// Bytes of `path` before its name.
    folder: usize,
}

/// Those of the language, the nearest to the top first; and whether there are more.
fn files(reader: &TreeReader, grammars: &Grammars) -> io::Result<(Vec<File>, bool)> {
    let mut found = Vec::new();
    let mut entries = 0;
    let mut level = vec![(reader.root().try_clone()?, String::new())];
    for depth in 0..tree::DEPTH_MAX {
        let mut next = Vec::new();
        for (folder, above) in level {
            for name in tree::names(&folder, ENTRIES_MAX)? {
                entries += 1;
                if entries > ENTRIES_MAX || found.len() == FILES_MAX {
                    return Ok((found, true));
                }
                let Ok(text) = std::str::from_utf8(&name) else { continue };
                let path = format!("{above}{text}");
                match tree::node(&folder, std::ffi::OsStr::from_bytes(&name))? {
                    tree::Node::Folder(_) if text.starts_with('.') || FOLDERS_PASSED.iter().any(|passed| path == *passed || text == *passed) => {}
                    tree::Node::Folder(open) => next.push((open, format!("{path}/"))),
                    tree::Node::File { .. } if grammars.has(text) => found.push(File { depth, path, folder: above.len() }),
                    _ => {}
                }
            }
        }
        level = next;
    }
    Ok((found, !level.is_empty()))
}

/// Names that other files of the source give to modules and types.
struct Around {
    /// Of files and folders at the source's top, without ending: `import secrets` means such a one first.
    top: BTreeSet<String>,
    /// Folder, name without ending.
    files: BTreeSet<(String, String)>,
}

impl Around {
    fn of(files: &[File]) -> Self {
        let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        Self {
            top: files.iter().map(|file| stem(file.path.split('/').next().unwrap_or_default())).collect(),
            files: files.iter().map(|file| (file.path[..file.folder].to_owned(), stem(&file.path[file.folder..]))).collect(),
        }
    }

    fn of_file(&self, path: &str) -> Beside {
        let folder = path.rfind('/').map_or("", |slash| &path[..=slash]);
        let own = path[folder.len()..].split('.').next().unwrap_or_default();
        let beside = self.files.iter().filter(|(there, name)| there == folder && name != own).map(|(_, name)| name.clone()).collect();
        Beside { top: self.top.clone(), beside }
    }
}

/// What lies around one file.
#[derive(Default)]
struct Beside {
    top: BTreeSet<String>,
    /// In its own folder, without itself.
    beside: BTreeSet<String>,
}

/// A call that one of the rules names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    line: usize,
    what: String,
    kind: Kind,
}

fn calls(language: Language, tree: &Tree, text: &str, beside: &Beside) -> Vec<Call> {
    match language {
        Language::Python => python::calls(tree, text, beside),
        Language::Nodejs => nodejs::calls(tree, text),
        Language::Go => go::calls(tree, text),
        Language::Java => java::calls(tree, text, beside),
        _ => Vec::new(),
    }
}

/// `None` when the time is over.
fn parse(parser: &mut Parser, grammar: &tree_sitter::Language, text: &str, until: Instant) -> Option<Tree> {
    parser.set_language(grammar).ok()?;
    let is_over = || Instant::now() >= until;
    if is_over() {
        return None;
    }
    let mut progress = |_: &ParseState| if is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let bytes = text.as_bytes();
    let options = ParseOptions::new().progress_callback(&mut progress);
    let tree = parser.parse_with_options(&mut |at, _| bytes.get(at..).unwrap_or_default(), None, Some(options));
    if tree.is_none() {
        // Or the next parse would go on with this one.
        parser.reset();
    }
    tree
}

/// What the languages share: text of nodes, children, calls that a rule names.
struct Page<'a> {
    text: &'a str,
    calls: BTreeSet<Call>,
}

impl<'a> Page<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, calls: BTreeSet::new() }
    }

    fn text(&self, node: Node<'_>) -> &'a str {
        self.text.get(node.byte_range()).unwrap_or_default()
    }

    /// Notes the call that begins at `node` and is told as the text of `shown`, when one of its possible paths is of a rule.
    fn note(&mut self, rules: &[rules::Rule], node: Node<'_>, shown: Range<usize>, paths: &[String]) {
        let Some(kind) = paths.iter().find_map(|path| rules::kind(rules, path)) else { return };
        let text = self.text.get(shown).unwrap_or_default();
        let mut what: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if what.chars().count() > WHAT_MAX_CHARS {
            what = what.chars().take(WHAT_MAX_CHARS - 1).chain(['…']).collect();
        }
        self.calls.insert(Call { line: node.start_position().row + 1, what: format!("{what}()"), kind });
    }

    fn done(self) -> Vec<Call> {
        self.calls.into_iter().collect()
    }
}

/// The named children of a node.
fn children(node: Node<'_>) -> Vec<Node<'_>> {
    node.named_children(&mut node.walk()).collect()
}

/// `()` for a call without arguments, `(…)` for one with some.
fn arguments(node: Option<Node<'_>>) -> &'static str {
    if node.is_none_or(|node| children(node).iter().all(|child| child.kind().contains("comment"))) { "()" } else { "(…)" }
}

#[cfg(test)]
mod tests;
