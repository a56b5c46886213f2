//! The shell lines of README.md, played from the file itself: in Python as they stand there, and with the same examples in each other language.
//!
//! A line that begins with `$ ` is a command, and the lines below it are of its output, in order; `...` stands for anything, and so does any
//! number for another. A block that begins with what stays in the foreground is left to whoever reads it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{PATIENCE, Tanebi, plain, repository, tests};
use regex::Regex;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["readme"; python, nodejs, go, java]
}

/// What only looks, and may look before what it looks for is there.
const LOOKS: [&str; 2] = ["tanebi logs ", "tanebi events "];
/// What stays in the foreground.
const NOT_PLAYED: [&str; 2] = ["make ", "tanebi serve "];
/// How long one command may take.
const COMMAND_MAX: Duration = Duration::from_secs(300);

fn python() -> Result<()> {
    play("python", "python312", &[])
}

fn nodejs() -> Result<()> {
    play("nodejs", "nodejs20", &[("hello_http", "helloHttp"), ("hello_pubsub", "helloPubSub"), ("hello_storage", "helloStorage")])
}

fn go() -> Result<()> {
    play("go", "go126", &[("hello_http", "HelloHTTP"), ("hello_pubsub", "HelloPubSub"), ("hello_storage", "HelloStorage")])
}

fn java() -> Result<()> {
    let functions = [("hello_http", "functions.HelloHttp"), ("hello_pubsub", "functions.HelloPubSub"), ("hello_storage", "functions.HelloStorage")];
    play("java", "java17", &functions)
}

/// `functions`: what those of Python are called here.
fn play(language: &str, runtime: &str, functions: &[(&str, &str)]) -> Result<()> {
    // Its clock stands, so that a day is not waited for.
    let tanebi = Tanebi::start_with(tempfile::tempdir()?, &["--clock", "manual"])?;
    let ground = tempfile::tempdir()?;
    std::os::unix::fs::symlink(tanebi.data.path(), ground.path().join("data"))?;
    std::os::unix::fs::symlink(repository().join("examples"), ground.path().join("examples"))?;
    let mut shell = Shell::start(ground.path())?;
    let number = Regex::new(r"-[0-9]{13}\.")?;
    let (mut blocks, mut commands) = (0, 0);
    for block in blocks_read(&std::fs::read_to_string(repository().join("README.md"))?)? {
        blocks += 1;
        shell.run(&format!("cd '{}'", ground.path().display()))?;
        for (command, shown) in block {
            commands += 1;
            let mut command = command.replace("examples/python", &format!("examples/{language}")).replace("python312", runtime);
            for flag in ["--function", "--entry-point"] {
                for (python, name) in functions {
                    command = command.replace(&format!("{flag} {python} "), &format!("{flag} {name} "));
                }
            }
            let command = number.replace_all(&command, format!("-{}.", tanebi.number));
            let deadline = Instant::now() + PATIENCE;
            loop {
                let (told, status) = shell.run(&command)?;
                let missing = missing(&shown, &told)?;
                if status == 0 && missing.is_none() {
                    break;
                }
                let again = LOOKS.iter().any(|look| command.starts_with(look)) && Instant::now() < deadline;
                ensure!(again, "$ {command}\n{told}\nended with {status}; of what README.md shows it lacks {missing:?}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
    ensure!(commands >= 14, "only {commands} commands were found in README.md");
    println!("  {commands} commands in {blocks} blocks");
    Ok(())
}

/// A command, and the lines that are shown of its output.
type Block = Vec<(String, Vec<String>)>;

fn blocks_read(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line != "```" {
            continue;
        }
        let mut block = Block::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            match (line.strip_prefix("$ "), block.last_mut()) {
                (Some(command), _) => block.push((command.to_owned(), Vec::new())),
                (None, Some((command, _))) if command.ends_with('\\') => {
                    command.pop();
                    command.push_str(line.trim_start());
                }
                (None, Some((_, shown))) => shown.push(line.to_owned()),
                (None, None) => {}
            }
        }
        let is_played = block.first().is_some_and(|(command, _)| !NOT_PLAYED.iter().any(|start| command.starts_with(start)));
        if is_played {
            blocks.push(block);
        }
    }
    Ok(blocks)
}

/// The first line that is shown and was not told, in order.
fn missing(shown: &[String], told: &str) -> Result<Option<String>> {
    let mut told = told.lines().map(numberless);
    for line in shown.iter().filter(|line| !line.is_empty() && *line != "...") {
        let parts: Vec<_> = line.split("...").map(|part| regex::escape(&numberless(part))).collect();
        let pattern = Regex::new(&format!("^{}$", parts.join(".*")))?;
        if !told.any(|told| pattern.is_match(&told)) {
            return Ok(Some(line.clone()));
        }
    }
    Ok(None)
}

/// Each number replaced by one, and the ends of revisions' names.
fn numberless(line: &str) -> String {
    let revision = Regex::new("-[0-9]{5}-[a-z0-9]{3}\\b").expect("a constant pattern");
    let number = Regex::new("[0-9]+").expect("a constant pattern");
    number.replace_all(&revision.replace_all(line, "-0"), "0").into_owned()
}

/// A shell that keeps its variables from one command to the next.
struct Shell {
    child: Child,
    lines: Receiver<String>,
}

impl Shell {
    fn start(folder: &std::path::Path) -> Result<Self> {
        let program = e2e::program().parent().context("a folder")?.to_owned();
        let path = std::env::join_paths(std::iter::once(program).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())))?;
        let mut child = Command::new("timeout")
            .args(["-k", "5", "1200", "bash"])
            .current_dir(folder)
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("stdout")?;
        let (send, lines) = channel();
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut shell = Self { child, lines };
        shell.run("exec 2>&1")?;
        Ok(shell)
    }

    /// Both outputs together, and the status.
    fn run(&mut self, command: &str) -> Result<(String, i32)> {
        let mark = hex::encode(rand::random::<[u8; 16]>());
        let stdin = self.child.stdin.as_mut().context("stdin")?;
        writeln!(stdin, "{{ {command}\n}} </dev/null; echo \"{mark} $?\"")?;
        let deadline = Instant::now() + COMMAND_MAX;
        let mut told = String::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                bail!("{command}: no end in {COMMAND_MAX:?}\n{told}")
            };
            if let Some((before, status)) = line.split_once(&mark) {
                told.push_str(before);
                return Ok((plain(told.as_bytes()), status.trim().parse()?));
            }
            told.push_str(&line);
            told.push('\n');
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
