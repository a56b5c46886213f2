//! A folder of source as the archive that a deploy uploads: what `.gcloudignore` leaves, by gcloud's rules.

use std::{
    io::{Cursor, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use ignore::{
    WalkBuilder,
    gitignore::{Gitignore, GitignoreBuilder},
};
use zip::{ZipWriter, write::SimpleFileOptions};

/// What gcloud leaves out when there is neither `.gcloudignore` nor `.gitignore`.
const DEFAULT_RULES: [&str; 3] = [".gcloudignore", ".git", ".gitignore"];

/// The archive (zip) and how many files it has.
///
/// # Errors
/// A folder that is not there, a file that cannot be read, a rule that is not understood, an archive above the limit.
pub fn pack(folder: &Path) -> Result<(Vec<u8>, usize)> {
    if !folder.is_dir() {
        bail!("--source {}: is no folder", folder.display());
    }
    let rules = rules(folder)?;
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut files = 0;
    let mut bytes: u64 = 0;
    let walk = WalkBuilder::new(folder)
        .standard_filters(false)
        .follow_links(true)
        .sort_by_file_name(std::cmp::Ord::cmp)
        .filter_entry({
            let (rules, folder) = (rules.clone(), folder.to_owned());
            move |entry| entry.path() == folder || !rules.matched(entry.path(), entry.file_type().is_some_and(|t| t.is_dir())).is_ignore()
        })
        .build();
    for entry in walk {
        let entry = entry.context("reading the source")?;
        let path = entry.path();
        if !path.is_file() {
            continue;
        }
        let name = path.strip_prefix(folder).context("a file below the source")?;
        let name = name.to_str().with_context(|| format!("{}: a file's name must be UTF-8", path.display()))?;
        let content = std::fs::read(path).with_context(|| path.display().to_string())?;
        bytes += content.len() as u64;
        files += 1;
        if bytes > model::limits::SOURCE_MAX_BYTES || files > model::limits::SOURCE_ENTRIES_MAX {
            bail!(
                "the source has more than {} MiB or {} files: name what is not needed in .gcloudignore",
                model::limits::SOURCE_MAX_BYTES >> 20,
                model::limits::SOURCE_ENTRIES_MAX
            );
        }
        let executable = std::os::unix::fs::PermissionsExt::mode(&path.metadata()?.permissions()) & 0o100 != 0;
        // No times: the same source gives the same archive.
        zip.start_file(name, SimpleFileOptions::DEFAULT.unix_permissions(if executable { 0o755 } else { 0o644 }))?;
        zip.write_all(&content)?;
    }
    if files == 0 {
        bail!("the source {} has no files (after .gcloudignore)", folder.display());
    }
    let packed = zip.finish()?.into_inner();
    if packed.len() as u64 > model::limits::SOURCE_PACKED_MAX_BYTES {
        bail!(
            "the archive has {} MiB, the limit is {} MiB: name what is not needed in .gcloudignore",
            packed.len() >> 20,
            model::limits::SOURCE_PACKED_MAX_BYTES >> 20
        );
    }
    Ok((packed, files))
}

/// `.gcloudignore` with its `#!include:FILE` lines; without one, gcloud's default, which includes `.gitignore`.
fn rules(folder: &Path) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new(folder);
    let own = folder.join(".gcloudignore");
    if own.is_file() {
        lines_add(&mut builder, folder, &own, true)?;
    } else {
        for rule in DEFAULT_RULES {
            builder.add_line(None, rule)?;
        }
        let git = folder.join(".gitignore");
        if git.is_file() {
            lines_add(&mut builder, folder, &git, false)?;
        }
    }
    builder.build().context("the rules of .gcloudignore")
}

/// An included file cannot include another, as with gcloud.
fn lines_add(builder: &mut GitignoreBuilder, folder: &Path, file: &Path, includes: bool) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    for line in text.lines() {
        match line.strip_prefix("#!include:") {
            Some(name) if includes => {
                let name = name.trim();
                if name.contains('/') {
                    bail!("{}: #!include:{name} must name a file beside it", file.display());
                }
                let included = folder.join(name);
                if !included.is_file() {
                    bail!("{}: #!include:{name}: there is no such file", file.display());
                }
                lines_add(builder, folder, &included, false)?;
            }
            Some(name) => bail!("{}: #!include:{name}: an included file cannot include another", file.display()),
            None => {
                builder.add_line(None, line).with_context(|| format!("{}: rule {line:?}", file.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expect: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let (bytes, count) = pack(dir.path()).unwrap();
        let archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        let names: Vec<_> = archive.file_names().map(str::to_owned).collect();
        assert_eq!((names.iter().map(String::as_str).collect::<Vec<_>>(), count), (expect.to_vec(), expect.len()));
    }

    #[test]
    fn what_is_ignored_stays() {
        check(&[("main.py", "x"), (".git/config", "x"), ("a/b.txt", "x")], &["a/b.txt", "main.py"]);
        check(&[("main.py", "x"), (".gitignore", "*.log"), ("x.log", "x")], &["main.py"]);
        check(
            &[
                ("main.py", "x"),
                (".gitignore", "*.log\n"),
                (".gcloudignore", "#!include:.gitignore\n.g*\nvenv/\n!keep.log\n"),
                ("x.log", "x"),
                ("keep.log", "x"),
                ("venv/a", "x"),
            ],
            &["keep.log", "main.py"],
        );
        // Its own rules alone hold when there are some.
        check(&[("main.py", "x"), (".gitignore", "*.log"), (".gcloudignore", ".g*"), ("x.log", "x")], &["main.py", "x.log"]);
    }

    #[test]
    fn nothing_to_deploy_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(pack(dir.path()).unwrap_err().to_string().contains("no files"));
        std::fs::write(dir.path().join(".gcloudignore"), "#!include:none").unwrap();
        assert!(pack(dir.path()).unwrap_err().to_string().contains("no such file"));
    }
}
