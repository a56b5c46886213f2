//! Long runs: functions of four languages come and go under load, a thousand times in a row, and while what they are made of is killed.
//! Every answer is looked at, and at the end nothing is left that was not there at the beginning.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    net::SocketAddr,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{PATIENCE, REGION, Tanebi, descendants, eventually, http1, is_full, kill, name_of, repository, tests};
use rand::RngExt;
use serde_json::Value;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["soak"; functions_come_and_go, starts_in_a_row_leave_nothing, what_is_killed_serves_again]
}

const LANGUAGES: [(&str, &str, &str); 4] =
    [("python", "table", "python312"), ("nodejs", "table", "nodejs20"), ("go", "Table", "go126"), ("java", "functions.Table", "java17")];

/// A deployed function of tests/functions.
struct Function {
    name: String,
    host: String,
}

impl Function {
    fn deploy(tanebi: &Tanebi, (language, target, image): (&str, &str, &str), number: usize, flags: &str) -> Result<Self> {
        let (name, source) = (format!("{language}-{number}"), repository().join("tests/functions").join(language));
        let source = source.display();
        tanebi.script_all(&format!("tanebi run deploy {name} --source '{source}' --function {target} --base-image {image} --allow-unauthenticated {flags}"))?;
        let host = format!("{name}-{}.{REGION}.run.localhost", tanebi.number);
        Ok(Self { name, host })
    }

    /// A request whose answer nobody else would give.
    fn call(&self, listen: SocketAddr) -> Result<()> {
        let number: u32 = rand::rng().random();
        let (target, expect) = match number % 3 {
            0 => ("/environment?name=K_SERVICE".to_owned(), self.name.clone()),
            _ => (format!("/hello?name={number}"), format!("Hello {number}!")),
        };
        let answer = http1::call(listen, "GET", &target, &self.host, &[], b"").with_context(|| self.name.clone())?;
        ensure!(answer.status == 200 && answer.text() == expect, "{} answered {answer:?}, not {expect:?}", self.name);
        Ok(())
    }
}

/// What the server has of each kind of thing.
#[derive(Debug)]
struct Usage {
    counts: BTreeMap<&'static str, usize>,
    resident_mib: usize,
}

impl Usage {
    /// At rest: no instance, and for each function a template and a clone that waits, unless its template had to go.
    fn at_rest(tanebi: &Tanebi) -> Result<Self> {
        tanebi.script_all("tanebi instances stop")?;
        eventually("rest", || {
            let templates = tanebi.script("tanebi instances templates")?;
            let rests = |line: &str| {
                let fields: Vec<&str> = line.split('\t').collect();
                fields[2] == "none" && fields[3] == "0 armed" || fields[2] == "ready" && fields[3] == "1 armed"
            };
            Ok((templates.lines().all(rests) && tanebi.script("tanebi instances list")?.is_empty()).then_some(()))
        })?;
        let mut processes = descendants(tanebi.pid());
        processes.push(tanebi.pid());
        let own: Vec<u32> = processes.iter().copied().filter(|pid| matches!(name_of(*pid).as_str(), "tanebi" | "tanebi-keeper")).collect();
        let entries = |path: String| std::fs::read_dir(path).map_or(0, Iterator::count);
        let lines = |path: String| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
        let networks: HashSet<_> = processes.iter().filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()).collect();
        let keeper = own.iter().find(|pid| name_of(**pid) == "tanebi-keeper").context("a keeper")?;
        let counts = BTreeMap::from([
            ("processes", processes.len()),
            ("descriptors", own.iter().map(|pid| entries(format!("/proc/{pid}/fd"))).sum()),
            ("threads", own.iter().map(|pid| entries(format!("/proc/{pid}/task"))).sum()),
            ("networks", networks.len()),
            ("mounts", own.iter().map(|pid| lines(format!("/proc/{pid}/mountinfo"))).sum()),
            ("groups", groups(Path::new("/sys/fs/cgroup"), &format!("tanebi-{keeper}-"))),
        ]);
        let pages = |pid: &u32| -> Option<usize> { std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split(' ').nth(1)?.parse().ok() };
        Ok(Self { counts, resident_mib: own.iter().filter_map(pages).sum::<usize>() * 4 / 1024 })
    }

    /// `allowed`: of each kind, for what a runtime's pool of threads may keep.
    fn grew_by(&self, before: &Self, allowed: usize) -> Result<()> {
        for (what, count) in &self.counts {
            let was = before.counts[what];
            // Threads that wait for blocking work come and go.
            let allowed = if *what == "threads" { 600 } else { allowed };
            ensure!(*count <= was + allowed, "{what}: {was} before, {count} after; {before:?} {self:?}");
        }
        ensure!(self.resident_mib <= before.resident_mib + 64, "memory: {before:?} {self:?}");
        Ok(())
    }
}

/// Control groups of a keeper, in every hierarchy.
fn groups(above: &Path, prefix: &str) -> usize {
    fn below(folder: &Path) -> usize {
        folders(folder).iter().map(|folder| 1 + below(folder)).sum()
    }
    fn folders(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
    }
    let is_keepers = |folder: &Path| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let found = |folder: &Path| folders(folder).into_iter().map(|one| if is_keepers(&one) { below(&one) } else { 0 }).sum::<usize>();
    found(above) + folders(above).iter().map(|folder| found(folder)).sum::<usize>()
}

/// Forty functions, called at random and scaled to zero at random: each answer is right.
fn functions_come_and_go() -> Result<()> {
    let (copies, span) = if is_full() { (10, Duration::from_secs(1800)) } else { (2, Duration::from_secs(120)) };
    let tanebi = Tanebi::start()?;
    let mut functions = Vec::new();
    for number in 0..copies {
        for language in LANGUAGES {
            functions.push(Function::deploy(&tanebi, language, number, "--concurrency 4 --max-instances 3")?);
        }
    }
    let callers = 6;
    let run = |span: Duration| -> Result<(u64, u64)> {
        let until = Instant::now() + span;
        let (calls, stops, failures) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
        let random = || &functions[rand::rng().random_range(0..functions.len())];
        let goes_on = || Instant::now() < until && failures.lock().expect("no panic").is_empty();
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    while goes_on() {
                        if let Err(error) = random().call(tanebi.listen) {
                            failures.lock().expect("no panic").push(error);
                        }
                        calls.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..300)));
                    }
                });
            }
            scope.spawn(|| {
                while goes_on() {
                    let _ = tanebi.script_all(&format!("tanebi instances stop {}", random().name));
                    stops.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..500)));
                }
            });
        });
        match failures.into_inner().expect("no panic").pop() {
            Some(failure) => Err(failure),
            None => Ok((calls.into_inner(), stops.into_inner())),
        }
    };
    // What comes once, comes first.
    run(span / 6)?;
    let before = Usage::at_rest(&tanebi)?;
    let (calls, stops) = run(span)?;
    let after = Usage::at_rest(&tanebi)?;
    // A template that was dropped for another's sake, and the clone that waited, are no leak where they are missing before and there after.
    after.grew_by(&before, functions.len() * 8)?;
    let rungs = rungs(&tanebi, &functions)?;
    println!("  {} functions: {calls} calls, {stops} times to zero in {} s; {rungs}; {before:?} {after:?}", functions.len(), span.as_secs());
    Ok(())
}

/// How often each rung was used lately.
fn rungs(tanebi: &Tanebi, functions: &[Function]) -> Result<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for function in functions {
        let told: Vec<Value> = serde_json::from_str(&tanebi.script(&format!("tanebi trace cold-starts {} --limit 100 --format json", function.name))?)?;
        for one in told {
            *counts.entry(one["rung"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let mut text = String::new();
    for (rung, count) in counts {
        write!(text, "{count} {rung} ")?;
    }
    Ok(text.trim_end().to_owned())
}

/// One instance after another.
fn starts_in_a_row_leave_nothing() -> Result<()> {
    let count = if is_full() { 1000 } else { 12 };
    for language in LANGUAGES {
        let tanebi = Tanebi::start()?;
        let function = Function::deploy(&tanebi, language, 0, "")?;
        let start = || -> Result<f64> {
            tanebi.script_all(&format!("tanebi instances stop {}", function.name))?;
            let begun = Instant::now();
            function.call(tanebi.listen)?;
            Ok(begun.elapsed().as_secs_f64() * 1e3)
        };
        for _ in 0..6 {
            start()?;
        }
        let before = Usage::at_rest(&tanebi)?;
        let mut took = (0..count).map(|_| start()).collect::<Result<Vec<_>>>()?;
        let after = Usage::at_rest(&tanebi)?;
        after.grew_by(&before, 4)?;
        let median = |part: &mut [f64]| {
            part.sort_by(f64::total_cmp);
            part[part.len() / 2]
        };
        let (first, last) = (median(&mut took[..count / 4].to_vec()), median(&mut took[count - count / 4..]));
        println!("  {}: {count} starts, {first:.1} ms the first, {last:.1} ms the last quarter; {before:?} {after:?}", language.0);
    }
    Ok(())
}

/// For so long it is looked at whether anything fails after a kill.
const SERVES_AGAIN: Duration = Duration::from_secs(1);

/// Templates, instances, keeper and daemon are killed at random: only what was in flight may fail, and all is served again.
fn what_is_killed_serves_again() -> Result<()> {
    let rounds = if is_full() { 100 } else { 12 };
    let tanebi = Tanebi::start()?;
    let functions: Vec<Function> = LANGUAGES[..3].iter().map(|language| Function::deploy(&tanebi, *language, 0, "")).collect::<Result<_>>()?;
    let mut longest: BTreeMap<&str, Duration> = BTreeMap::new();
    for round in 0..rounds {
        for function in &functions {
            function.call(tanebi.listen).with_context(|| format!("before kill {round}"))?;
        }
        let victims = ["tanebi-template", "instance", "tanebi-keeper", "daemon"];
        let victim = victims[round % victims.len()];
        let is_chosen = |pid: &u32| match victim {
            "daemon" => name_of(*pid) == "tanebi",
            // Its forks have its name until they have another.
            "tanebi-keeper" => name_of(*pid) == victim && parent_of(*pid).is_some_and(|parent| name_of(parent) == "tanebi"),
            "instance" => ["python", "node", "main"].contains(&name_of(*pid).as_str()),
            name => name_of(*pid) == name,
        };
        // After a restart a template is made behind the first requests.
        let found = eventually(&format!("a {victim}"), || {
            let found: Vec<u32> = descendants(tanebi.pid()).into_iter().filter(is_chosen).collect();
            Ok((!found.is_empty()).then_some(found))
        })?;
        let busy = AtomicBool::new(true);
        let ready = tanebi.ready_count();
        let took = std::thread::scope(|scope| -> Result<Duration> {
            // Somebody is in the middle of something.
            for function in &functions {
                let (function, busy, listen) = (function, &busy, tanebi.listen);
                scope.spawn(move || {
                    while busy.load(Ordering::Relaxed) {
                        let _ = function.call(listen);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..100)));
            kill(found[rand::rng().random_range(0..found.len())], "KILL")?;
            let killed = Instant::now();
            busy.store(false, Ordering::Relaxed);
            if matches!(victim, "daemon" | "tanebi-keeper") {
                // The supervisor starts another, at the same address.
                eventually("another server", || Ok((tanebi.ready_count() > ready).then_some(())))?;
            }
            // What still answers may be about to end with what was killed. Until there is another server, all fails.
            let mut last_failure = if matches!(victim, "daemon" | "tanebi-keeper") { Instant::now() } else { killed };
            while killed.elapsed() < SERVES_AGAIN || last_failure.elapsed() < SERVES_AGAIN / 4 {
                for function in &functions {
                    match function.call(tanebi.listen) {
                        Ok(()) => {}
                        Err(error) if error.to_string().contains("status: 200") => bail!("a wrong answer in round {round}: {error}"),
                        Err(error) => {
                            last_failure = Instant::now();
                            ensure!(killed.elapsed() < PATIENCE, "round {round}, {victim}: {error:#}");
                        }
                    }
                }
            }
            Ok(last_failure - killed)
        })?;
        let longest = longest.entry(victim).or_default();
        *longest = took.max(*longest);
    }
    println!("  {rounds} kills; the last failure came after, at the longest: {longest:?}");
    Ok(())
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
