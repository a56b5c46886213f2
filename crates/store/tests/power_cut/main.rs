//! A power cut loses nothing that was acknowledged, and a store that does not sync is found out.
//!
//! The store works on a disk (`disk`) that forgets, tears and reorders what was not synced, mounted by FUSE (`mount`). One
//! process works (`work`) and is killed at a random moment; the disk decides what survives; another process opens the store
//! on that and checks it (`check`). The next round goes on with what is there.
//!
//! ```sh
//! cargo test -p store --test power_cut                              # 10 cuts; nothing may be lost
//! TANEBI_TIER=full cargo test -p store --test power_cut             # 100 cuts
//! cargo test -p store --features unsafe-no-fsync --test power_cut   # no syncs; something must be lost
//! ```
//!
//! `TANEBI_POWER_CUT_SEED=N` repeats the choices of a run (moments, what survives). The scheduling of the working threads
//! is not among them, so a failure may need more than one attempt.
//!
//! Needs root and `/dev/fuse`; without them it says that it is skipped. Not covered: layers above 64 entries, which the
//! store makes durable by syncfs, and syncfs does not reach FUSE; a fsync that fails.

mod check;
mod content;
mod disk;
mod mount;
mod work;

use std::{
    fmt::Display,
    io::{BufRead as _, BufReader, Write as _},
    ops::AddAssign,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    disk::{Disk, Lie, Toll},
    mount::{Mount, mounts_own},
};

const SEED: &str = "TANEBI_POWER_CUT_SEED";
const ROLE: &str = "STORE_POWER_CUT_ROLE";
const DATA: &str = "STORE_POWER_CUT_DATA";
const ROUND: &str = "STORE_POWER_CUT_ROUND";
const ACKNOWLEDGED: &str = "STORE_POWER_CUT_ACKNOWLEDGED";

/// Rounds that one disk lives through. The next one begins empty, so that making a store is cut as well.
const ROUNDS_OF_DISK: u64 = 5;
/// Generous: the machine may be busy with builds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The processes that the tests start. Nothing when it is not one of them.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let data = PathBuf::from(std::env::var_os(DATA).unwrap());
    let round = std::env::var(ROUND).unwrap().parse().unwrap();
    let acknowledged = PathBuf::from(std::env::var_os(ACKNOWLEDGED).unwrap());
    match role.as_str() {
        "work" => work::work(&data, round),
        "check" => check::check(&data, round, &acknowledged, false),
        "check-and-close" => check::check(&data, round, &acknowledged, true),
        other => panic!("{other}"),
    }
}

#[cfg(not(feature = "unsafe-no-fsync"))]
#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let full = std::env::var("TANEBI_TIER").is_ok_and(|tier| tier == "full");
    let cuts = if full { 100 } else { 10 };
    let Some(report) = run(cuts, None, "power cuts", &[]) else {
        return;
    };
    assert!(report.findings.is_empty(), "seed {}: {:#?}", report.seed, report.findings);
    let [commits, blobs, layers, logs] = report.acknowledged;
    assert!(commits >= cuts && blobs > 0 && layers > 0 && logs > 0 && report.toll.dropped > 0, "too little was tested: {report:?}");
}

/// Each sync that the store does is one that it needs: when the disk only claims to do it, the test sees the loss.
#[cfg(not(feature = "unsafe-no-fsync"))]
#[test]
fn syncs_that_are_not_done_are_found_out() {
    let lies: [(Lie, &[&str]); 7] = [
        (Lie::Database, &["lost: commit"]),
        (Lie::Wal, &["lost: commit"]),
        (Lie::LogDatabase, &["lost: log"]),
        (Lie::LogWal, &["lost: log"]),
        (Lie::Blobs, &["lost: Blob", "lost: log"]),
        (Lie::Layers, &["lost: Layer"]),
        (Lie::Folders, &["lost"]),
    ];
    for (lie, sought) in lies {
        let Some(report) = run(20, Some(lie), &format!("power cuts, no sync of {lie:?}"), sought) else {
            return;
        };
        assert!(report.has(sought), "seed {}: no sync of {lie:?}, and not all of {sought:?} in {:#?}", report.seed, report.findings);
    }
}

#[cfg(feature = "unsafe-no-fsync")]
#[test]
fn a_store_without_fsync_loses_what_it_acknowledged() {
    let sought = ["lost: commit", "lost: log"];
    let Some(report) = run(20, None, "power cuts, a store without fsync", &sought) else {
        return;
    };
    assert!(report.has(&sought), "seed {}: no fsync, and not all of {sought:?} in {:#?}", report.seed, report.findings);
}

#[derive(Debug, Default)]
struct Report {
    seed: u64,
    cuts: u64,
    /// Commits, blobs, layers, steps of logs.
    acknowledged: [u64; 4],
    toll: Toll,
    /// What was lost or broken.
    findings: Vec<String>,
}

impl Report {
    /// Whether each of `sought` begins a finding.
    fn has(&self, sought: &[&str]) -> bool {
        sought.iter().all(|sought| self.findings.iter().any(|finding| finding.starts_with(sought)))
    }
}

impl AddAssign<Toll> for Toll {
    fn add_assign(&mut self, other: Toll) {
        self.unsynced += other.unsynced;
        self.dropped += other.dropped;
        self.in_checkpoint += other.in_checkpoint;
    }
}

/// Past the capture of the harness: what was skipped, and what a run was worth, must be seen.
fn tell(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Cuts the power `cuts` times, or until something is found that begins with each of `sought`; anything, when there is none.
/// `None` where it cannot be done.
fn run(cuts: u64, lie: Option<Lie>, title: &str, sought: &[&str]) -> Option<Report> {
    let mount = mounts_own().and_then(|()| Mount::new(Disk::new(lie)));
    let mut mount = match mount {
        Ok(mount) => mount,
        Err(error) => {
            tell(format_args!("SKIPPED: {title}: cannot mount a FUSE file system here (needs root and /dev/fuse): {error}"));
            return None;
        }
    };
    let begin = Instant::now();
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    tell(format_args!("{title}: at most {cuts}, {SEED}={seed}"));
    let mut report = Report { seed, ..Report::default() };
    let mut acknowledged = Vec::new();
    let mut is_spoiled = false;
    for round in 0..cuts {
        if is_spoiled || (round > 0 && round % ROUNDS_OF_DISK == 0) {
            mount.end().unwrap();
            mount = Mount::new(Disk::new(lie)).unwrap();
            acknowledged.clear();
        }
        let mut random = StdRng::seed_from_u64(seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let moment = Moment::of(round, &mut random);
        let worked = Process::start("work", &mount.data(), round, Path::new("")).kill_at(moment, &mount);
        acknowledged.extend(worked.lines.iter().filter(|line| check::is_acknowledgement(line)).cloned());
        for (kind, count) in ["commit ", "blob ", "layer ", "log "].iter().zip(&mut report.acknowledged) {
            *count += worked.lines.iter().filter(|line| line.starts_with(kind)).count() as u64;
        }
        let before = report.findings.len();
        report.findings.extend(worked.trouble);

        let (disk, toll) = mount.end().unwrap().cut(&mut random);
        report.toll += toll;
        report.cuts += 1;
        mount = Mount::new(disk).unwrap();
        let closes = random.random_bool(0.25);
        let checked = checked(&mount.data(), round, &acknowledged, closes);
        acknowledged.extend(checked.iter().filter(|line| check::is_acknowledgement(line)).cloned());
        report.findings.extend(checked.into_iter().filter(|line| line.starts_with("lost") || line.starts_with("broken")));
        let found = &report.findings[before..];
        is_spoiled = !found.is_empty();
        if is_spoiled {
            tell(format_args!("{title}: at cut {round}, {moment:?}, {toll:?}: {} findings, first {:?}", found.len(), found[0]));
            if report.has(sought) {
                break;
            }
        }
    }
    mount.end().unwrap();
    let [commits, blobs, layers, logs] = report.acknowledged;
    tell(format_args!(
        "{title}: {} cuts ({} in a checkpoint), {commits} commits, {blobs} blobs, {layers} layers and {logs} steps of logs acknowledged, {} of {} unsynced writes and names dropped, {} lost, {:.1} s",
        report.cuts,
        report.toll.in_checkpoint,
        report.toll.dropped,
        report.toll.unsynced,
        report.findings.iter().filter(|finding| finding.starts_with("lost")).count(),
        begin.elapsed().as_secs_f64()
    ));
    Some(report)
}

/// The lines of a process that checks the store.
fn checked(data: &Path, round: u64, acknowledged: &[String], closes: bool) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(acknowledged.join("\n").as_bytes()).unwrap();
    let role = if closes { "check-and-close" } else { "check" };
    let mut process = Process::start(role, data, round, file.path());
    let ended = process.read_until(Instant::now() + PATIENCE, |_| false);
    let mut lines = std::mem::take(&mut process.lines);
    let is_finding = |line: &String| line.starts_with("lost") || line.starts_with("broken");
    if ended != Ended::Itself || !lines.iter().any(|line| line == check::CHECKED || is_finding(line)) {
        lines.push(format!("broken: the check ended early: {ended:?}"));
    }
    lines
}

/// When the working process is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    AfterStart(Duration),
    AfterOpen(Duration),
    /// After so many commits, at least one blob, one layer, one step of a log, and this time.
    AfterWork(usize, Duration),
    /// When SQLite moves what is in a WAL to its database.
    InCheckpoint,
}

impl Moment {
    fn of(round: u64, random: &mut StdRng) -> Self {
        let mut millis = |range| Duration::from_millis(random.random_range(range));
        let (long, short) = (millis(10..=300), millis(0..=20));
        match round % ROUNDS_OF_DISK {
            // While the store is made.
            0 => Self::AfterStart(long),
            // However slow the machine is, something is acknowledged.
            1 => Self::AfterWork(random.random_range(1..100), short),
            3 => Self::InCheckpoint,
            _ => match random.random_range(0..4) {
                0 => Self::AfterStart(long),
                1 => Self::AfterOpen(long),
                _ => Self::AfterWork(random.random_range(1..100), short),
            },
        }
    }
}

/// A process of this test. Killed on drop.
struct Process {
    child: Child,
    output: Receiver<String>,
    lines: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The lines are there.
    Not,
    TimedOut,
    Itself,
}

struct Worked {
    lines: Vec<String>,
    trouble: Option<String>,
}

impl Process {
    fn start(role: &str, data: &Path, round: u64, acknowledged: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, role)
            .env(DATA, data)
            .env(ROUND, round.to_string())
            .env(ACKNOWLEDGED, acknowledged)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Ends with the process, whose end of the pipe it reads.
        thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if let Some((_, line)) = line.split_once(work::MARK) {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        Self { child, output, lines: Vec::new() }
    }

    /// Collects lines until `is_enough`, the deadline or the end of the process.
    fn read_until(&mut self, deadline: Instant, is_enough: impl Fn(&[String]) -> bool) -> Ended {
        loop {
            if is_enough(&self.lines) {
                return Ended::Not;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Timeout) => return Ended::TimedOut,
                Err(RecvTimeoutError::Disconnected) => return Ended::Itself,
            }
        }
    }

    fn read_until_checkpoint(&mut self, deadline: Instant, mount: &Mount) -> Ended {
        // Making the store writes to it too.
        let mut ended = self.read_until(deadline, |lines| !lines.is_empty());
        while ended == Ended::Not && !mount.disk().is_in_checkpoint() {
            ended = match self.read_until(Instant::now() + Duration::from_millis(1), |_| false) {
                Ended::TimedOut if Instant::now() < deadline => Ended::Not,
                other => other,
            };
        }
        ended
    }

    fn kill_at(mut self, moment: Moment, mount: &Mount) -> Worked {
        let limit = Instant::now() + PATIENCE;
        let (ready, time) = match moment {
            Moment::AfterStart(time) => (Ended::Not, time),
            Moment::AfterOpen(time) => (self.read_until(limit, |lines| !lines.is_empty()), time),
            Moment::AfterWork(count, time) => {
                let ready = self.read_until(limit, |lines| {
                    let count_of = |kind: &str| lines.iter().filter(|line| line.starts_with(kind)).count();
                    count_of("commit ") >= count && ["blob ", "layer ", "log "].iter().all(|kind| count_of(kind) > 0)
                });
                (ready, time)
            }
            Moment::InCheckpoint => (self.read_until_checkpoint(limit, mount), Duration::ZERO),
        };
        let rest = self.read_until(Instant::now() + time, |_| false);
        self.child.kill().unwrap();
        // What was acknowledged until then counts too.
        self.read_until(Instant::now() + PATIENCE, |_| false);
        self.child.wait().unwrap();
        let error = self.lines.iter().find(|line| line.starts_with("error")).cloned();
        let trouble = match (error, ready, rest) {
            (Some(error), ..) => Some(format!("broken: the working process met an {error}")),
            (None, Ended::Not, Ended::TimedOut) => None,
            (None, ready, _) => Some(format!("broken: the working process did not work on: {ready:?}")),
        };
        Worked { lines: std::mem::take(&mut self.lines), trouble }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file system and the processes see the same: a wrong answer of the shim itself would otherwise look like a loss.
#[cfg(not(feature = "unsafe-no-fsync"))]
#[test]
fn without_a_cut_everything_is_there() {
    let mount = mounts_own().and_then(|()| Mount::new(Disk::new(None)));
    let Ok(mount) = mount else {
        return;
    };
    let moment = Moment::AfterWork(100, Duration::ZERO);
    let worked = Process::start("work", &mount.data(), 0, Path::new("")).kill_at(moment, &mount);
    assert_eq!(worked.trouble, None);
    let lines = checked(&mount.data(), 0, &worked.lines, true);
    assert_eq!(lines.last().map(String::as_str), Some(check::CHECKED), "{lines:#?}");
    mount.end().unwrap();
}
