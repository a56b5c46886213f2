//! Google's own client libraries, unmodified: in a shell that `tanebi exec` has set up, and within functions (`inside.rs`).

mod inside;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, Tanebi, eventually, holds, repository, tests};
use inside::{inside_go, inside_java, inside_nodejs, inside_python};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["clients"; python, storage, nodejs, go, java, inside_python, inside_nodejs, inside_go, inside_java, hosts_that_are_not_played]
}

/// Each check of `python.py` by gRPC and by REST, where a library has both.
fn python() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let example = repository().join("examples/python/hello_http");
    tanebi.deploy("open", &example, "--function hello_http --allow-unauthenticated")?;
    tanebi.deploy("closed", &example, "--function hello_http")?;
    program(&tanebi, &python_command("tests/clients/python.py")?)
}

/// Cloud Storage, each thing that its library does.
fn storage() -> Result<()> {
    program(&Tanebi::start()?, &python_command("tests/clients/storage.py")?)
}

fn nodejs() -> Result<()> {
    let folder = copied("nodejs")?;
    let lock = folder.join("package-lock.json");
    let mark = folder.join("node_modules/installed.json");
    if std::fs::read(&mark).ok() != Some(std::fs::read(&lock)?) {
        run("npm", &["ci", "--no-audit", "--no-fund", "--ignore-scripts"], &folder)?;
        std::fs::copy(&lock, &mark)?;
    }
    World::start()?.program("node", &format!("node '{}'", folder.join("main.js").display()))
}

fn go() -> Result<()> {
    let folder = copied("go")?;
    run("go", &["build", "-o", "clients", "."], &folder)?;
    World::start()?.program("go", &format!("'{}'", folder.join("clients").display()))
}

fn java() -> Result<()> {
    let folder = copied("java")?;
    run("mvn", &["--quiet", "--batch-mode", "package"], &folder)?;
    let target = folder.join("target");
    World::start()?.program("java", &format!("java -cp '{0}/clients-1.0.0.jar:{0}/dependency/*' clients.Clients", target.display()))
}

/// A host of Google's that no API is played on: nothing is sent to it, unless the operator says that it is the real one.
fn hosts_that_are_not_played() -> Result<()> {
    let ask = "curl -sS https://translation.googleapis.com/v3/projects 2>&1 || true";
    let start = |flags: &[&str]| Tanebi::start_with(tempfile::tempdir()?, flags);
    let told = start(&["--offline"])?.script(ask)?;
    holds(&told, "\"message\": \"No API of translation.googleapis.com is played by this server, and nothing is sent to the real one.")?;
    holds(&told, "\"status\": \"NOT_FOUND\"")?;
    // What is not played goes out by the proxy, which --offline forbids.
    let told = start(&["--offline", "--google-host", "translation.googleapis.com"])?.script(ask)?;
    ensure!(told.contains("403") && !told.contains("NOT_FOUND"), "{told}");
    Ok(())
}

/// A server with what the programs ask for: the function `hello`, an account that may call it, and a key of one that has objects.
struct World {
    tanebi: Tanebi,
    account: String,
}

impl World {
    fn start() -> Result<Self> {
        let tanebi = Tanebi::start()?;
        let account = format!("{}-compute@developer.gserviceaccount.com", tanebi.number);
        let signer = format!("signer@{PROJECT}.iam.gserviceaccount.com");
        let source = repository().join("examples/python/hello_http");
        tanebi.script_all(&format!(
            "set -e\n\
             gcloud functions deploy hello --gen2 --runtime python312 --trigger-http --entry-point hello_http --region {REGION} --source '{}' --no-allow-unauthenticated\n\
             gcloud run services add-iam-policy-binding hello --region {REGION} --member serviceAccount:{account} --role roles/run.invoker\n\
             gcloud iam service-accounts create signer\n\
             gcloud iam service-accounts keys create '{}' --iam-account {signer}\n\
             gcloud projects add-iam-policy-binding {PROJECT} --member serviceAccount:{signer} --role roles/storage.objectAdmin",
            source.display(),
            tanebi.data.path().join("key.json").display(),
        ))?;
        Ok(Self { tanebi, account })
    }

    /// Runs a program of these and looks whether what it pushed at last has arrived. `name`: what its resources' names begin with.
    fn program(&self, name: &str, command: &str) -> Result<()> {
        let key = self.tanebi.data.path().join("key.json");
        program(&self.tanebi, &format!("{command} '{}' {}", key.display(), self.account))?;
        let subscription = format!("projects/{PROJECT}/subscriptions/{name}-push");
        eventually("the push arrives", || {
            let events = self.tanebi.script("tanebi events list")?;
            Ok(events.lines().any(|line| line.contains(&subscription) && line.contains("\t200\t")).then_some(()))
        })
    }
}

/// Runs a program of checks, which tells how many passed.
pub(crate) fn program(tanebi: &Tanebi, command: &str) -> Result<()> {
    let told = tanebi.script_all(&format!("tanebi exec -- {command}"))?;
    println!("  {}", told.lines().last().unwrap_or_default());
    holds(&told, " checks passed")
}

/// Runs one of the Python programs, with the libraries and the helpers that they share. `script`: below the repository.
pub(crate) fn python_command(script: &str) -> Result<String> {
    let helpers = repository().join("tests/clients");
    let python = virtual_environment()?;
    Ok(format!("env PYTHONPATH='{}' '{}' -W ignore '{}'", helpers.display(), python.display(), repository().join(script).display()))
}

/// A Python with the libraries, made once for each list of them.
fn virtual_environment() -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let list = repository().join("tests/clients/requirements.txt");
    let target = e2e::program().parent().context("a folder")?.join("clients");
    let (python, mark) = (target.join("bin/python"), target.join("requirements.txt"));
    if std::fs::read(&mark).ok() != Some(std::fs::read(&list)?) {
        let run = |program: &str, arguments: &[&OsStr]| e2e::text(Command::new(program).args(arguments).output()?, program);
        run("python3", &["-m".as_ref(), "venv".as_ref(), "--clear".as_ref(), target.as_ref()])?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"].map(OsStr::new);
        run(&python.to_string_lossy(), &[&pip[..], &[list.as_ref()]].concat())?;
        std::fs::copy(&list, &mark)?;
    }
    Ok(python)
}

/// The folder of one of the programs, copied beside the built program: what is installed and compiled lies there.
fn copied(name: &str) -> Result<PathBuf> {
    let to = e2e::program().parent().context("a folder")?.join(format!("clients-{name}"));
    std::fs::create_dir_all(&to)?;
    let from = repository().join("tests/clients").join(name);
    run("cp", &["-R".as_ref(), from.join(".").as_os_str(), to.as_os_str()], &from)?;
    Ok(to)
}

/// A tool of a language's, in `folder`.
fn run(program: &str, arguments: &[impl AsRef<OsStr>], folder: &Path) -> Result<String> {
    e2e::text(Command::new(program).args(arguments).current_dir(folder).output().with_context(|| program.to_owned())?, program)
}
