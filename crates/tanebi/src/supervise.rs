//! The process that a user starts: it runs the server as a child and starts it again when daemon or keeper died.
//!
//! It does nothing else, so that nothing a stranger sends can reach it. A server that says why it cannot start
//! (exit code other than [`EXIT_AGAIN`]) is not started again: a wrong setting does not get better.

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

/// The exit code of a server that wants to be started again: its keeper or one of its loops is broken.
pub const EXIT_AGAIN: u8 = 70;
/// A server that lived this long was well: the next start is at once.
const WELL: Duration = Duration::from_secs(10);
/// One that does not is started again within a second too, but not so often that the machine has nothing else to do.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Set in the child's environment: it serves instead of supervising.
pub const CHILD: &str = "TANEBI_SUPERVISED";

/// # Errors
/// When the child cannot be started at all.
pub fn supervise() -> Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the supervisor's runtime")?.block_on(run())
}

async fn run() -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut pause = Duration::ZERO;
    loop {
        let started = Instant::now();
        let mut child = spawn()?;
        let mut stopping = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.context("waiting for the server")?,
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            // A second signal reaches the child too: it then stops without draining.
            stopping = true;
            pass_on(&child);
        };
        let again = status.signal().is_some() || status.code() == Some(i32::from(EXIT_AGAIN));
        if stopping || !again {
            return Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)));
        }
        pause = if started.elapsed() > WELL { Duration::ZERO } else { (pause * 2 + Duration::from_millis(50)).min(PAUSE_MAX) };
        eprintln!("tanebi: the server ended ({}); starting it again", describe(status));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn spawn() -> Result<Child> {
    let program = std::env::current_exe().context("the path of this program")?;
    Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(CHILD, std::process::id().to_string())
        // Its own group: a Ctrl-C reaches it through this process, once.
        .process_group(0)
        .spawn()
        .context("starting the server")
}

fn pass_on(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Gone already: the wait says so.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "for no known reason".to_owned(),
    }
}
