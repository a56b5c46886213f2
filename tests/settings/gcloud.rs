//! The real gcloud, loaded once for many commands (`gcloud.py`).

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use e2e::{Tanebi, program, repository};
use serde_json::Value;

pub struct Gcloud {
    child: Child,
    to: RefCell<ChildStdin>,
    from: RefCell<BufReader<ChildStdout>>,
    pub root: PathBuf,
    pub version: String,
    /// Every flag of a command that did what was expected of it.
    seen: RefCell<BTreeSet<String>>,
}

impl Gcloud {
    pub fn start(tanebi: &Tanebi) -> Result<Self> {
        let told = tanebi.script("gcloud info --format 'value(basic.python_location,installation.sdk_root,basic.version)'")?;
        let [python, root, version] = told.trim().split('\t').collect::<Vec<_>>().try_into().map_err(|_| anyhow::anyhow!("gcloud info: {told}"))?;
        let loader = repository().join("tests/settings/gcloud.py");
        // Where an API is not served gcloud would ask whether to enable it, and end.
        let script = format!(
            "eval \"$(tanebi env --data-dir '{}')\"\nexport CLOUDSDK_CORE_SHOULD_PROMPT_TO_ENABLE_API=0\nexec '{python}' '{}' '{root}'",
            tanebi.data.path().display(),
            loader.display()
        );
        let folder = program().parent().context("a folder")?.to_owned();
        let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())))?;
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .env("PATH", path)
            .env("CLOUDSDK_CORE_DISABLE_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let to = child.stdin.take().context("stdin")?;
        let mut from = BufReader::new(child.stdout.take().context("stdout")?);
        let mut line = String::new();
        from.read_line(&mut line)?;
        ensure!(line == "ready\n", "gcloud.py: {line}");
        Ok(Self { child, to: RefCell::new(to), from: RefCell::new(from), root: root.into(), version: version.to_owned(), seen: RefCell::default() })
    }

    /// Exit code and everything that it wrote.
    pub fn run(&self, command: &str) -> Result<(i64, String)> {
        writeln!(self.to.borrow_mut(), "--quiet {command}")?;
        let mut line = String::new();
        self.from.borrow_mut().read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("gcloud.py ended at: {command}"))?;
        let output = e2e::plain(answer["output"].as_str().unwrap_or_default().as_bytes());
        Ok((answer["code"].as_i64().context("an exit code")?, output))
    }

    /// The output of a command that must succeed.
    pub fn ok(&self, command: &str) -> Result<String> {
        let (code, output) = self.run(command)?;
        ensure!(code == 0, "gcloud {command}\n{output}");
        Ok(output)
    }

    /// The output of a command that must fail.
    pub fn refused(&self, command: &str) -> Result<String> {
        let (code, output) = self.run(command)?;
        ensure!(code != 0, "should have been refused: gcloud {command}\n{output}");
        Ok(output)
    }

    /// Runs `command`, and when `check` is content with what follows from it, its flags have been seen.
    pub fn step(&self, command: &str, check: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let output = self.ok(command)?;
        check(&output).with_context(|| format!("after gcloud {command}\n{output}"))?;
        self.saw(command);
        Ok(())
    }

    pub fn saw(&self, command: &str) {
        let flags = command.split_ascii_whitespace().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap_or(word));
        self.seen.borrow_mut().extend(flags.map(str::to_owned));
    }

    pub fn has_seen(&self, flag: &str) -> bool {
        self.seen.borrow().contains(flag)
    }
}

impl Drop for Gcloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
