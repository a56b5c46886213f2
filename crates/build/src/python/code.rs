//! The code of a function: the source as it came, with its bytecode beside it.
//!
//! Compiling finds syntax errors before anything is deployed, and spares each cold start the work. It runs in a sandbox
//! that sees the source read-only; only files that can be bytecode of a file of the source are taken back.

use std::{ffi::OsStr, io, os::fd::OwnedFd, os::unix::ffi::OsStrExt, path::Path};

use crate::{
    Error,
    environment::{Access, Reach, shown},
    job::Job,
    plan::{Plan, WORKSPACE},
    step::Outcome,
    tree::{self, Node, TreePath, TreeReader, TreeWriter},
};

/// Where the sandbox writes bytecode; below it the path of the source.
const OUT: &str = "/bytecode";
/// Bytes and files of bytecode.
const MAX_BYTES: u64 = 1 << 30;
const ENTRIES_MAX: usize = 40_000;

/// Compiles the source; the bytecode is left in a folder of the job.
/// # Errors
/// `User` with the compiler's lines for a syntax error.
pub(crate) async fn compile(job: &Job<'_>, plan: &Plan, is_function: bool) -> Result<(std::path::PathBuf, Outcome), Error> {
    let out = job.work.folder("bytecode")?;
    let python = plan.interpreter.path.display().to_string();
    let prefix = format!("pycache_prefix={OUT}");
    // -I -S: no module of the source stands in for the compiler's own. As Google: -f -q over the whole source.
    let command = [python.as_str(), "-I", "-S", "-X", &prefix, "-m", "compileall", "-f", "-q", "--invalidation-mode", "unchecked-hash", "."];
    let mut spec = job.spec(&plan.interpreter, Reach::Nothing, &command)?;
    spec.working_dir = WORKSPACE.into();
    spec.mounts.push(shown(job.source, WORKSPACE, Access::Read));
    spec.mounts.push(shown(&out, OUT, Access::Write));
    let outcome = job.runner.run(spec, &out).await?;
    match outcome.code {
        Some(0) => Ok((out, outcome)),
        Some(1) if is_function => Err(Error::User(syntax_text(&outcome.tail))),
        Some(1) => {
            // Google compiles a function's source only; of an application any file may be for another Python.
            job.runner.log.say(format!("WARNING: {}", syntax_text(&outcome.tail).lines().next().unwrap_or_default()));
            Ok((out, outcome))
        }
        _ => Err(Error::User(format!("The source could not be compiled: the compiler ended with {}.", outcome.how()))),
    }
}

/// The compiler's own words, shortest way to the line: its last error first.
fn syntax_text(tail: &[String]) -> String {
    let lines: Vec<&str> = tail.iter().map(String::as_str).filter(|line| !line.trim().is_empty()).collect();
    let place = lines.iter().find_map(|line| line.trim().strip_prefix("File "));
    let what = lines.iter().find(|line| {
        let name = line.split(':').next().unwrap_or("");
        name.ends_with("Error") && !name.contains(' ')
    });
    let first = match (what, place) {
        (Some(what), Some(place)) => format!("{what} (in {place})"),
        (Some(what), None) => (*what).to_owned(),
        (None, _) => "The source could not be compiled.".to_owned(),
    };
    let shown: Vec<&str> = lines.iter().take(12).copied().collect();
    format!("{first}. Mend it, then deploy again.\n{}", shown.join("\n"))
}

/// Lays the bytecode that a sandbox left beside the sources in `folder`. Returns how many files.
pub(crate) fn bytecode_take(out: &Path, folder: &Path) -> Result<usize, Error> {
    let fail = |e: io::Error| Error::Internal(format!("taking bytecode: {e}"));
    let mut taker = Taker { source: TreeReader::open(folder).map_err(fail)?, writer: TreeWriter::open(folder).map_err(fail)?, bytes: 0, files: 0 };
    let root = TreeReader::open(out).map_err(fail)?;
    // It lies below the absolute path of the source.
    match tree::node(root.root(), OsStr::new(WORKSPACE.trim_start_matches('/'))) {
        Ok(Node::Folder(top)) => taker.folder(&top, &mut Vec::new())?,
        // Nothing to compile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Ok(_) => {
            return Err(Error::Internal("taking bytecode: it is no folder".to_owned()));
        }
        Err(e) => return Err(fail(e)),
    }
    Ok(taker.files)
}

struct Taker {
    source: TreeReader,
    writer: TreeWriter,
    bytes: u64,
    files: usize,
}

impl Taker {
    fn folder(&mut self, folder: &OwnedFd, above: &mut Vec<String>) -> Result<(), Error> {
        let fail = |e: io::Error| Error::Internal(format!("taking bytecode: {e}"));
        for name in tree::names(folder, ENTRIES_MAX).map_err(fail)? {
            let Ok(text) = String::from_utf8(name.clone()) else {
                continue;
            };
            match tree::node(folder, OsStr::from_bytes(&name)).map_err(fail)? {
                Node::Folder(next) if above.len() < tree::DEPTH_MAX => {
                    above.push(text);
                    self.folder(&next, above)?;
                    above.pop();
                }
                Node::File { mut file, size, .. } => self.file(&mut file, size, above, &text)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `DIR/NAME.cpython-312.pyc` belongs to `DIR/NAME.py`, and goes to `DIR/__pycache__/`.
    fn file(&mut self, file: &mut std::fs::File, size: u64, above: &[String], name: &str) -> Result<(), Error> {
        let fail = |e: &dyn std::fmt::Display| Error::Internal(format!("taking bytecode: {e}"));
        let Some((stem, tag)) = name.strip_suffix(".pyc").and_then(|name| name.rsplit_once('.')) else {
            return Ok(());
        };
        let folder = above.join("/");
        let slash = if above.is_empty() { "" } else { "/" };
        if !tag.starts_with("cpython-") || !self.source.has_file(&format!("{folder}{slash}{stem}.py")).map_err(|e| fail(&e))? {
            return Ok(());
        }
        self.bytes += size;
        self.files += 1;
        if self.bytes > MAX_BYTES || self.files > ENTRIES_MAX {
            return Err(Error::User("The source compiles to more than 1 GiB. Leave out what is not needed (.gcloudignore).".to_owned()));
        }
        let path = TreePath::parse(format!("{folder}{slash}__pycache__/{name}").as_bytes()).map_err(|e| fail(&e))?;
        // The source may have brought an older one.
        self.writer.remove(&path).map_err(|e| fail(&e))?;
        let mut target = self.writer.file(&path, false).map_err(|e| fail(&e))?;
        io::copy(&mut io::Read::take(file, size), &mut target).map_err(|e| fail(&e))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytecode_of_the_source_is_taken() {
        let source = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let write = |path: std::path::PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(source.path().join("main.py"), "");
        write(source.path().join("pkg/a.b.py"), "");
        write(source.path().join("__pycache__/main.cpython-312.pyc"), "old");
        write(out.path().join("workspace/main.cpython-312.pyc"), "new");
        write(out.path().join("workspace/pkg/a.b.cpython-312.pyc"), "ab");
        write(out.path().join("workspace/evil.cpython-312.pyc"), "no source");
        write(out.path().join("workspace/main.py"), "replaced");
        write(out.path().join("elsewhere/main.cpython-312.pyc"), "x");
        std::os::unix::fs::symlink("/etc/passwd", out.path().join("workspace/pkg/main.cpython-312.pyc")).unwrap();
        assert_eq!(bytecode_take(out.path(), source.path()).unwrap(), 2);
        let read = |path: &str| std::fs::read_to_string(source.path().join(path)).unwrap_or_default();
        assert_eq!(read("__pycache__/main.cpython-312.pyc"), "new");
        assert_eq!(read("pkg/__pycache__/a.b.cpython-312.pyc"), "ab");
        assert_eq!(read("main.py"), "");
        assert!(!source.path().join("evil.py").exists() && !source.path().join("__pycache__/evil.cpython-312.pyc").exists());
    }

    #[test]
    fn a_bytecode_folder_that_is_a_link_is_refused() {
        let source = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(source.path().join("main.py"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), source.path().join("__pycache__")).unwrap();
        std::fs::create_dir(out.path().join("workspace")).unwrap();
        std::fs::write(out.path().join("workspace/main.cpython-312.pyc"), "x").unwrap();
        assert!(bytecode_take(out.path(), source.path()).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_syntax_error_is_told_with_its_line() {
        let tail = ["*** Error compiling './main.py'...", "  File \"./main.py\", line 3", "    def f(", "         ^", "SyntaxError: '(' was never closed"];
        let text = syntax_text(&tail.map(str::to_owned));
        assert!(text.starts_with("SyntaxError: '(' was never closed (in \"./main.py\", line 3). Mend it"), "{text}");
        assert!(text.contains("    def f("));
    }
}
