//! Functions that take all they can get: their neighbours answer, the API answers, and afterwards nothing is left.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, Tanebi, eventually, http1};
use serde_json::Value;

use super::{Client, OWNER, answers, daemon, here, host, resident_bytes};

/// Path, and statuses that its caller may get. The function's own timeout is 5 s.
const BOMBS: [(&str, &[u16]); 13] = [
    ("fork", &[503, 504]),
    ("threads", &[503, 504]),
    ("memory", &[503, 504]),
    ("shared_memory", &[500, 503, 504]),
    ("descriptors", &[503, 504]),
    ("files", &[500, 503, 504]),
    ("names", &[500, 503, 504]),
    ("log", &[503, 504]),
    ("long_line", &[503, 504]),
    ("spin", &[503, 504]),
    ("orphans", &[200]),
    ("headers", &[500, 502, 503]),
    // It answers at once and never ends; the deadline cuts it.
    ("endless", &[200]),
];
/// What a neighbour and the API may take meanwhile, on two cores that others use too.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// From the request to its answer: the timeout of 5 s, and what a busy machine adds.
const BOMB_MAX: Duration = Duration::from_secs(40);
/// What all bombs together may leave in the daemon's memory, and in the data folder.
const GROWTH_MAX_BYTES: u64 = 200 << 20;

pub(super) fn bombs_hurt_nobody_else() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let source = e2e::folder(&[("main.py", &std::fs::read_to_string(here().join("bombs.py"))?), ("requirements.txt", "functions-framework==3.*\n")])?;
    tanebi.deploy("calm", &e2e::repository().join("examples/python/hello_http"), "--function hello_http --allow-unauthenticated")?;
    tanebi.deploy("bombed", source.path(), "--function function --allow-unauthenticated --memory 256Mi --timeout 5 --max-instances 2")?;
    answers(&tanebi, "calm")?;
    answers(&tanebi, "bombed")?;
    let client = Client::new(&tanebi, OWNER)?;
    let (daemon_before, memory, disk) = (daemon(&tanebi)?, resident_bytes(daemon(&tanebi)?)?, folder_bytes(tanebi.data.path()));

    for (bomb, expect) in BOMBS {
        let mut slowest = Duration::ZERO;
        let (status, took) = std::thread::scope(|scope| -> Result<_> {
            let bombed = scope.spawn(|| drop_bomb(&tanebi, bomb));
            let mut calls = 0;
            while !bombed.is_finished() || calls < 3 {
                let began = Instant::now();
                let calm = http1::call(tanebi.listen, "GET", "/?name=calm", &host(&tanebi, "calm"), &[], b"")?;
                ensure!(calm.text() == "Hello calm!", "the neighbour during {bomb}: {calm:?}");
                slowest = slowest.max(began.elapsed());
                let began = Instant::now();
                let listed = client.json("GET", "run.googleapis.com", &format!("/v2/projects/{PROJECT}/locations/{REGION}/services"), &Value::Null)?;
                ensure!(listed["services"].as_array().is_some_and(|all| all.len() == 2), "the API during {bomb}: {listed}");
                slowest = slowest.max(began.elapsed());
                calls += 1;
                // Ten rounds a second see all that matters and leave the machine to the bomb.
                std::thread::sleep(Duration::from_millis(100));
            }
            bombed.join().expect("no panic").with_context(|| bomb.to_owned())
        })?;
        println!("  {bomb}: {status} after {:.1} s, others took at most {} ms", took.as_secs_f64(), slowest.as_millis());
        ensure!(expect.contains(&status), "{bomb}: status {status}");
        ensure!(took < BOMB_MAX, "{bomb}: answered after {took:?}");
        ensure!(slowest < ANSWER_MAX, "{bomb}: another had to wait for {slowest:?}");
        answers(&tanebi, "bombed").with_context(|| format!("after {bomb}"))?;
    }

    ensure!(daemon(&tanebi)? == daemon_before, "the daemon was started again:\n{}", tanebi.output());
    let grown = resident_bytes(daemon_before)?.saturating_sub(memory);
    let written = folder_bytes(tanebi.data.path()).saturating_sub(disk);
    println!("  the daemon grew by {} MiB, the data folder by {} MiB", grown >> 20, written >> 20);
    ensure!(grown < GROWTH_MAX_BYTES, "the daemon grew by {} MiB", grown >> 20);
    ensure!(written < GROWTH_MAX_BYTES, "the data folder grew by {} MiB", written >> 20);
    eventually("the log says why memory was too little", || {
        Ok(tanebi.script("tanebi logs bombed")?.contains("Memory limit of 256 MiB exceeded").then_some(()))
    })?;

    tanebi.script_all("tanebi instances stop")?;
    let keeper = *e2e::children(daemon_before).first().context("the daemon has a keeper")?;
    // Templates stay, and clones that wait, with their engines and inits: they are stopped and get no request.
    eventually("no process of an instance is left", || {
        let runs = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let (name, state) = stat.rsplit_once(") ").map_or(("", ""), |(head, rest)| (head.split_once('(').map_or("", |(_, name)| name), rest));
            !name.is_empty() && !["tanebi-template", "tanebi-init"].contains(&name) && !state.starts_with('t')
        };
        Ok((!descendants(keeper).iter().any(runs)).then_some(()))
    })?;
    answers(&tanebi, "bombed")
}

/// The status that the caller of a bomb gets, and after how long its answer has ended.
fn drop_bomb(tanebi: &Tanebi, bomb: &str) -> Result<(u16, Duration)> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(tanebi.listen)?;
    stream.set_read_timeout(Some(BOMB_MAX))?;
    stream.write_all(format!("GET /{bomb} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host(tanebi, "bombed")).as_bytes())?;
    // An endless answer is not kept.
    let mut head = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) if head.len() < 4096 => head.extend_from_slice(&buffer[..n.min(4096)]),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => anyhow::bail!("no answer in {BOMB_MAX:?}"),
            Err(_) => break,
        }
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.split(' ').nth(1).with_context(|| format!("no answer: {head:?}"))?.parse()?;
    Ok((status, began.elapsed()))
}

/// All processes below `parent`.
fn descendants(parent: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut todo = vec![parent];
    while let Some(next) = todo.pop() {
        todo.extend(e2e::children(next).into_iter().filter(|child| found.insert(*child)));
    }
    found
}

fn folder_bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.metadata().map_or(0, |data| if data.is_dir() { folder_bytes(&entry.path()) } else { data.len() })).sum()
}
