//! What the end-to-end tests share: a built tanebi, started as a user starts it, and a user's shell set up for it.
//!
//! Nothing here reaches into the program: commands, ports, files and pages only.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

pub mod api;
pub mod http1;
pub mod runner;

/// How long anything may take on a busy machine before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const REGION: &str = "asia-northeast1";
pub const PROJECT: &str = "tanebi-local";

/// The folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// The program under test: beside this test binary in the target folder.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let program = own.parent().and_then(Path::parent).expect("target/PROFILE/deps").join("tanebi");
    assert!(program.is_file(), "{} is not built: cargo build -p tanebi", program.display());
    program
}

/// Whether the sizes that an issue names are wanted, not CI's.
pub fn is_full() -> bool {
    std::env::var("TANEBI_TIER").is_ok_and(|tier| tier == "full")
}

/// A running server with a data folder of its own.
pub struct Tanebi {
    child: Child,
    pub data: tempfile::TempDir,
    pub listen: SocketAddr,
    pub tls_listen: SocketAddr,
    pub number: String,
    output: Arc<Mutex<String>>,
}

impl Tanebi {
    pub fn start() -> Result<Self> {
        Self::start_with(tempfile::Builder::new().prefix("tanebi-e2e-").tempdir()?, &[])
    }

    /// Starts the server of `data` with further flags, and waits for `ready`.
    pub fn start_with(data: tempfile::TempDir, flags: &[&str]) -> Result<Self> {
        Self::start_under(&[], data, flags)
    }

    /// The same by way of another program, such as `nsenter ...`; without the proxies of this shell when there is one.
    pub fn start_under(way: &[&str], data: tempfile::TempDir, flags: &[&str]) -> Result<Self> {
        let program = program();
        let mut words = way.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().context("a program")?);
        if !way.is_empty() {
            for name in ["http_proxy", "https_proxy", "all_proxy"] {
                command.env_remove(name).env_remove(name.to_ascii_uppercase());
            }
        }
        let mut child = command
            .args(words)
            .args(["serve", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = Arc::new(Mutex::new(String::new()));
        follow(child.stdout.take().context("stdout")?, output.clone());
        follow(child.stderr.take().context("stderr")?, output.clone());
        let mut tanebi = Self { child, data, listen: ([127, 0, 0, 1], 0).into(), tls_listen: ([127, 0, 0, 1], 0).into(), number: String::new(), output };
        tanebi.ready_wait(0)?;
        Ok(tanebi)
    }

    /// Waits for the `ready` line after the first `seen` ones and reads the addresses.
    pub fn ready_wait(&mut self, seen: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.output();
            let ready: Vec<_> = output.lines().filter(|line| line.starts_with("ready ")).collect();
            let number = output
                .lines()
                .rev()
                .find_map(|line| line.split_once("(number ").and_then(|(_, rest)| rest.split_once(')')))
                .map(|(number, _)| number.to_owned());
            if let (Some(line), Some(number), true) = (ready.last(), number, ready.len() > seen) {
                let mut urls = line.split(' ').skip(1);
                self.listen = urls.next().and_then(|u| u.strip_prefix("http://")).context("ready names the plain address")?.parse()?;
                self.tls_listen = urls.next().and_then(|u| u.strip_prefix("https://")).context("ready names the TLS address")?.parse()?;
                self.number = number;
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("tanebi serve ended ({status}) before it was ready:\n{output}");
            }
            ensure!(Instant::now() < deadline, "tanebi serve was not ready in {PATIENCE:?}:\n{output}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn ready_count(&self) -> usize {
        self.output().lines().filter(|line| line.starts_with("ready ")).count()
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("no panic while held").clone()
    }

    /// The pid of the supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it as Ctrl-C does and gives the data folder back.
    pub fn stop(mut self) -> Result<tempfile::TempDir> {
        self.terminate()?;
        let empty = tempfile::tempdir()?;
        Ok(std::mem::replace(&mut self.data, empty))
    }

    fn terminate(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(self.child.id(), "TERM")?;
        let deadline = Instant::now() + Duration::from_secs(40);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                bail!("tanebi serve did not end on SIGTERM:\n{}", self.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The URL of a service as gcloud and the article write it.
    pub fn url(&self, service: &str) -> String {
        format!("https://{service}-{}.{REGION}.run.app", self.number)
    }

    /// Runs a script in a shell that `eval "$(tanebi env)"` has set up. `$URL` etc. can be passed as variables.
    pub fn shell(&self, script: &str) -> Result<Output> {
        self.shell_as(None, script)
    }

    pub fn shell_as(&self, identity: Option<&str>, script: &str) -> Result<Output> {
        let identity = identity.map(|email| format!("--as '{email}'")).unwrap_or_default();
        let script = format!("set -e\neval \"$(tanebi env --data-dir '{}' {identity})\"\nset +e\n{script}", self.data.path().display());
        let folder = program().parent().context("a folder")?.to_owned();
        let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())))?;
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "300", "bash", "-c", &script]).env("PATH", path).stdin(Stdio::null());
        Ok(command.output()?)
    }

    /// The script's standard output; an error with everything when it failed.
    pub fn script(&self, script: &str) -> Result<String> {
        text(self.shell(script)?, script)
    }

    /// The same, both outputs together.
    pub fn script_all(&self, script: &str) -> Result<String> {
        self.script(&format!("{{ {script}\n}} 2>&1"))
    }

    /// What a script that must fail wrote, on both outputs.
    pub fn script_failing(&self, script: &str) -> Result<String> {
        let output = self.shell(&format!("{{ {script}\n}} 2>&1"))?;
        let all = plain(&output.stdout);
        ensure!(!output.status.success(), "should have failed: {script}\n{all}");
        Ok(all)
    }

    /// `tanebi run deploy` of a folder.
    pub fn deploy(&self, service: &str, folder: &Path, flags: &str) -> Result<String> {
        self.script_all(&format!("tanebi run deploy {service} --source '{}' --base-image python312 {flags}", folder.display()))
    }
}

impl Drop for Tanebi {
    fn drop(&mut self) {
        let _ = self.terminate();
        if std::thread::panicking() || std::env::var_os("TANEBI_E2E_VERBOSE").is_some() {
            eprintln!("{}", self.output());
        }
    }
}

/// The output of a command that must succeed.
pub fn text(output: Output, what: &str) -> Result<String> {
    let (stdout, stderr) = (plain(&output.stdout), plain(&output.stderr));
    ensure!(output.status.success(), "failed ({}): {what}\n{stdout}\n{stderr}", output.status);
    Ok(stdout)
}

/// What was written, without the colours that gcloud gives it.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}

pub fn kill(pid: u32, signal: &str) -> Result<()> {
    let status = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "kill -{signal} {pid}");
    Ok(())
}

/// Children of `parent` that run this program.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
            let after = stat.rsplit_once(')')?.1;
            (after.split_ascii_whitespace().nth(1)?.parse() == Ok(parent)).then_some(pid)
        })
        .collect()
}

/// A process's children, their children, and so on.
pub fn descendants(parent: u32) -> Vec<u32> {
    children(parent).into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

pub fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Tries until `check` gives something, for as long as patience lasts.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check()? {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "never happened in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A folder with these files.
pub fn folder(files: &[(&str, &str)]) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().context("a parent")?)?;
        std::fs::write(path, content)?;
    }
    Ok(dir)
}

fn follow(stream: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut into = into.lock().expect("no panic while held");
            into.push_str(&line);
            into.push('\n');
        }
    });
}

/// `text` must hold `part`.
pub fn holds(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "{part:?} is not in:\n{text}");
    Ok(())
}
