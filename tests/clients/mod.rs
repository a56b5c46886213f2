//! Google's own client libraries, unmodified, in a shell that `tanebi exec` has set up.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use e2e::{Tanebi, holds, repository, tests};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["clients"; python, storage]
}

/// Each check of `python.py` by gRPC and by REST, where a library has both.
fn python() -> Result<()> {
    let python = virtual_environment()?;
    let tanebi = Tanebi::start()?;
    let example = repository().join("examples/python/hello_http");
    tanebi.deploy("open", &example, "--function hello_http --allow-unauthenticated")?;
    tanebi.deploy("closed", &example, "--function hello_http")?;
    let script = repository().join("tests/clients/python.py");
    let told = tanebi.script_all(&format!("tanebi exec -- '{}' -W ignore '{}'", python.display(), script.display()))?;
    println!("  {}", told.lines().last().unwrap_or_default());
    holds(&told, " checks passed")
}

/// Cloud Storage, each thing that its library does.
fn storage() -> Result<()> {
    let python = virtual_environment()?;
    let tanebi = Tanebi::start()?;
    let script = repository().join("tests/clients/storage.py");
    let told = tanebi.script_all(&format!("tanebi exec -- '{}' -W ignore '{}'", python.display(), script.display()))?;
    println!("  {}", told.lines().last().unwrap_or_default());
    holds(&told, " checks passed")
}

/// A Python with the libraries, made once for each list of them.
pub(crate) fn virtual_environment() -> Result<PathBuf> {
    let list = repository().join("tests/clients/requirements.txt");
    let target = e2e::program().parent().context("a folder")?.join("clients");
    let (python, mark) = (target.join("bin/python"), target.join("requirements.txt"));
    if std::fs::read(&mark).ok() != Some(std::fs::read(&list)?) {
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| e2e::text(Command::new(program).args(arguments).output()?, program);
        run("python3", &["-m".as_ref(), "venv".as_ref(), "--clear".as_ref(), target.as_ref()])?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"].map(std::ffi::OsStr::new);
        run(&python.to_string_lossy(), &[&pip[..], &[list.as_ref()]].concat())?;
        std::fs::copy(&list, &mark)?;
    }
    Ok(python)
}
