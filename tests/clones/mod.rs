//! Instances that are clones: each language's first ones after the template is there, what they draw, what they share, and what happens
//! when a template cannot be, is killed, or is not wanted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{REGION, Tanebi, descendants, eventually, folder, holds, http1, is_full, kill, name_of, repository, tests};
use serde_json::Value;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["clones";
        clones_of_python, clones_of_nodejs, clones_of_go, clones_of_java, a_burst_is_answered, where_the_time_went_is_told, what_cannot_be_cloned_says_why, what_dies_is_made_anew,
    ]
}

struct Service {
    tanebi: Tanebi,
    host: String,
}

impl Service {
    fn deploy(source: &Path, flags: &str) -> Result<Self> {
        let tanebi = Tanebi::start()?;
        tanebi.script(&format!("tanebi run deploy f --source '{}' --allow-unauthenticated {flags}", source.display()))?;
        let host = format!("f-{}.{REGION}.run.localhost", tanebi.number);
        Ok(Self { tanebi, host })
    }

    fn get(&self, target: &str) -> Result<http1::Answer> {
        http1::call(self.tanebi.listen, "GET", target, &self.host, &[], b"")
    }

    /// The fields of the template of the newest revision: service, revision, state, armed, size, why.
    fn template(&self) -> Result<Vec<String>> {
        let listed = self.tanebi.script("tanebi instances templates")?;
        let line = listed.lines().rfind(|line| line.starts_with("f\t")).with_context(|| format!("no template of f: {listed:?}"))?;
        Ok(line.split('\t').map(str::to_owned).collect())
    }

    /// Waits until a clone is armed.
    fn armed(&self) -> Result<()> {
        eventually("a clone waits", || {
            let fields = self.template()?;
            if fields[2] == "refused" {
                bail!("no template: {}", fields[5]);
            }
            Ok((fields[2] == "ready" && fields[3] == "1 armed").then_some(()))
        })
    }

    /// Scale to zero, then the answer of a new instance and how that came to be.
    fn anew(&self) -> Result<(Value, String)> {
        self.tanebi.script("tanebi instances stop f")?;
        let answer = self.get("/")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok((serde_json::from_slice(&answer.body)?, self.rung()?))
    }

    fn rung(&self) -> Result<String> {
        let listed = self.tanebi.script("tanebi instances list")?;
        let last = listed.lines().rfind(|line| line.starts_with("f\t")).with_context(|| format!("no instance of f: {listed:?}"))?;
        Ok(last.split('\t').nth(5).unwrap_or_default().to_owned())
    }
}

fn clones_of_python() -> Result<()> {
    clones_of("python", "draw", "--base-image python312")
}

fn clones_of_nodejs() -> Result<()> {
    clones_of("nodejs", "draw", "--base-image nodejs20")
}

fn clones_of_go() -> Result<()> {
    // It draws an identifier while it loads, which is refused unless its owner has chosen so.
    clones_of("go", "Draw", "--base-image go126 --start revision")
}

fn clones_of_java() -> Result<()> {
    clones_of("java", "Draw", "--base-image java17 --memory 1Gi")
}

/// Each clone is called for the first time, is a host of its own, and draws what none of the others has drawn.
fn clones_of(language: &str, target: &str, flags: &str) -> Result<()> {
    let source = repository().join("tests/clones").join(language);
    let f = Service::deploy(&source, &format!("--function {target} {flags}"))?;
    let count = if is_full() { 100 } else { 10 };
    let mut drawn: HashMap<String, HashSet<String>> = HashMap::new();
    let mut same: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    let mut hosts = HashSet::new();
    f.armed()?;
    for number in 0..count {
        let (answer, rung) = f.anew()?;
        ensure!(rung == "armed", "clone {number} came to be as {rung:?}");
        ensure!(answer["calls"].to_string().trim_matches('"') == "1", "somebody has called the function before: {answer}");
        ensure!(hosts.insert(answer["host"].to_string()), "two clones have one host name: {answer}");
        for (name, value) in answer["differs"].as_object().context("what differs")? {
            ensure!(drawn.entry(name.clone()).or_default().insert(value.to_string()), "{language}: clone {number} repeats {name}: {value}");
        }
        for (name, value) in answer["same"].as_object().context("what is the same")? {
            same.entry(name.clone()).or_default().insert(value.to_string());
        }
        f.armed()?;
    }
    for (name, values) in &same {
        ensure!(values.len() == 1, "{language}: {name} is the owner's own choice and shared, but was {values:?}");
    }
    // The template's words begin each instance's log: the first instance's, and each clone's.
    eventually("each instance has loaded, says its log", || {
        let read = f.tanebi.script("tanebi logs f --limit 1000")?;
        Ok((read.matches("loading").count() > count).then_some(()))
    })?;
    // Of Go there is no template of the runtime: the program is the function.
    let runtime = if language == "go" { 0 } else { count / 2 };
    if runtime > 0 {
        f.tanebi.script(&format!("tanebi run deploy f --source '{}' --function {target} --start runtime", source.display()))?;
        f.armed()?;
    }
    for number in 0..runtime {
        let (answer, rung) = f.anew()?;
        ensure!(rung == "runtime" && answer["calls"].to_string().trim_matches('"') == "1", "clone {number} of the runtime, {rung:?}: {answer}");
        let loaded = [("what is drawn while it loads".to_owned(), answer["same"]["loaded"].clone())];
        for (name, value) in answer["differs"].as_object().context("what differs")?.clone().into_iter().chain(loaded) {
            ensure!(drawn.entry(name.clone()).or_default().insert(value.to_string()), "{language}: clone {number} of the runtime repeats {name}: {value}");
        }
        f.armed()?;
    }
    println!("  {language}: {count} clones and {runtime} of the runtime, {} generators", drawn.len());
    Ok(())
}

/// Each rung's parts are told to who may see the service, add up, and are kept and counted.
fn where_the_time_went_is_told() -> Result<()> {
    let source = repository().join("tests/clones/python");
    let f = Service::deploy(&source, "--function draw --base-image python312")?;
    f.armed()?;
    let token = f.tanebi.script("gcloud auth print-identity-token")?;
    let permitted = format!("Authorization: Bearer {token}");
    let guest = String::from_utf8(f.tanebi.shell_as(Some("guest@example.com"), "gcloud auth print-identity-token")?.stdout)?;
    let not_permitted = format!("Authorization: Bearer {}", guest.trim());
    let cold = |field: &[&str]| {
        f.tanebi.script("tanebi instances stop f")?;
        let begun = std::time::Instant::now();
        let answer = http1::call(f.tanebi.listen, "GET", "/", &f.host, field, b"")?;
        let took = begun.elapsed();
        ensure!(answer.status == 200, "{answer:?}");
        f.armed()?;
        Ok((answer.field("tanebi-cold-start").map(str::to_owned), took))
    };
    let (told, took) = cold(&[&permitted])?;
    let told = told.context("the header of a cold start")?;
    let parts: Vec<(&str, f64)> = told
        .split(", ")
        .map(|part| part.split_once(";dur=").and_then(|(name, ms)| Some((name, ms.parse().ok()?))).with_context(|| format!("a part: {told}")))
        .collect::<Result<_>>()?;
    let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
    ensure!(names == ["armed", "queue", "rung", "clone", "repair", "unlock", "user_code"], "{told}");
    let sum: f64 = parts[1..].iter().map(|(_, ms)| ms).sum();
    ensure!((sum - parts[0].1).abs() < 0.01 && parts[0].1 <= took.as_secs_f64() * 1e3, "{told} in {took:?}");
    ensure!(cold(&[&not_permitted])?.0.is_none() && cold(&[])?.0.is_none(), "who may not see the service is told about its starts");
    // Warm.
    let warm = http1::call(f.tanebi.listen, "GET", "/", &f.host, &[&permitted], b"")?;
    ensure!(warm.field("tanebi-cold-start").is_none(), "{warm:?}");

    let kept: Vec<Value> = serde_json::from_str(&f.tanebi.script("tanebi trace cold-starts f --format json")?)?;
    ensure!(kept.len() == 3 && kept.iter().all(|one| one["rung"] == "armed"), "{kept:?}");
    for one in &kept {
        let parts = one["partsUs"].as_object().context("parts")?;
        let sum: u64 = parts.values().filter_map(Value::as_u64).sum();
        let whole = one["wholeUs"].as_u64().context("the whole")?;
        ensure!(parts.len() == 7 && sum.abs_diff(whole) * 20 <= whole, "{one}");
    }
    let table = f.tanebi.script("tanebi trace cold-starts f --limit 2")?;
    ensure!(table.lines().count() == 4 && table.contains("armed: 2 starts, median "), "{table}");
    let metrics = f
        .tanebi
        .script(&format!("curl -s http://localhost:{}/metrics -H \"Authorization: Bearer $(cat $TANEBI_DATA_DIR/client/secret)\"", f.tanebi.listen.port()))?;
    let counted = metrics.lines().any(|line| line.starts_with("tanebi_cold_start_seconds_count{") && line.contains("rung=\"armed\"") && line.ends_with("} 3"));
    ensure!(counted, "{metrics}");
    Ok(())
}

/// More requests at once than there are clones ready for.
fn a_burst_is_answered() -> Result<()> {
    let source = repository().join("tests/clones/python");
    let f = Service::deploy(&source, "--function draw --base-image python312 --concurrency 1 --max-instances 50")?;
    f.armed()?;
    f.tanebi.script("tanebi instances stop f")?;
    let requests = if is_full() { 100 } else { 20 };
    let (listen, host) = (f.tanebi.listen, f.host.clone());
    let answers: Vec<Result<http1::Answer>> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..requests).map(|_| scope.spawn(|| http1::call(listen, "GET", "/", &host, &[], b""))).collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).collect()
    });
    let mut drawn = HashSet::new();
    for answer in answers {
        let answer = answer?;
        ensure!(answer.status == 200, "{answer:?}");
        let value: Value = serde_json::from_slice(&answer.body)?;
        ensure!(drawn.insert(value["differs"]["random"].to_string()), "two answers drew the same: {value}");
    }
    Ok(())
}

/// The reason is in the revision's log, and the revision serves.
fn what_cannot_be_cloned_says_why() -> Result<()> {
    let function = |load: &str| {
        let main = format!("import functions_framework\n{load}\n@functions_framework.http\ndef f(request):\n    return {{'ok': True}}\n");
        folder(&[("main.py", &main), ("requirements.txt", "functions-framework==3.*\n")])
    };
    let tanebi = Tanebi::start()?;
    let cases = [
        ("file", "open('/tmp/made', 'w').write('x')", "it has made /tmp/made"),
        ("child", "import subprocess, uuid\nchild = subprocess.Popen(['sleep', '900'])\nid = uuid.uuid4()", "it has a child process"),
        ("writes", "import os\nlog = os.memfd_create('log')", "/memfd:log"),
    ];
    for (name, load, _) in cases {
        tanebi.deploy(name, function(load)?.path(), "--function f --allow-unauthenticated")?;
    }
    for (name, _, why) in cases {
        let told = eventually("the log says why", || {
            let read = tanebi.script(&format!("tanebi logs {name}"))?;
            Ok(read.lines().find(|line| line.contains("are clones of its runtime, and each loads the code itself")).map(str::to_owned))
        })?;
        holds(&told, why)?;
        let revision = tanebi.script(&format!("gcloud run services describe {name} --region {REGION} --format 'value(status.latestReadyRevisionName)'"))?;
        let described = tanebi.script(&format!("gcloud run revisions describe {} --region {REGION} --format json", revision.trim()))?;
        let described: Value = serde_json::from_str(&described)?;
        holds(described["metadata"]["annotations"]["tanebi.dev/start-refused"].as_str().unwrap_or_default(), why)?;
        let notes = described["metadata"]["annotations"]["tanebi.dev/start-notes"].as_str();
        match name {
            "child" => holds(notes.unwrap_or_default(), "main.py:4: uuid.uuid4() is drawn while the code loads")?,
            _ => ensure!(notes.is_none(), "{name}: {notes:?}"),
        }
        tanebi.script(&format!("tanebi instances stop {name}"))?;
        ensure!(tanebi.script(&format!("tanebi run call {name}"))?.contains("ok"), "{name} does not serve");
        let starts: Value = serde_json::from_str(&tanebi.script(&format!("tanebi trace cold-starts {name} --format json"))?)?;
        ensure!(starts.as_array().is_some_and(|all| all.iter().any(|one| one["rung"] == "runtime")), "{name} came to be as {starts}");
    }
    let told = tanebi.script("gcloud logging read 'logName:cloudbuild severity=WARNING' --format 'value(textPayload)'")?;
    holds(&told, "WARNING: main.py:4: uuid.uuid4() is drawn while the code loads")?;
    // Not wanted: not made, and nothing is said.
    let tanebi_off = "tanebi run deploy off --source . --function f --allow-unauthenticated --start off";
    let source = function("import uuid\nid = uuid.uuid4()")?;
    tanebi.script(&format!("cd {} && {tanebi_off}", source.path().display()))?;
    std::thread::sleep(Duration::from_secs(3));
    let listed = tanebi.script("tanebi instances templates")?;
    ensure!(listed.lines().any(|line| line.starts_with("off\t") && line.contains("\tnone\t")), "{listed}");
    let revision = tanebi.script(&format!("gcloud run services describe off --region {REGION} --format 'value(status.latestReadyRevisionName)'"))?;
    let described = tanebi.script(&format!("gcloud run revisions describe {} --region {REGION} --format json", revision.trim()))?;
    ensure!(!described.contains("start-notes"), "{described}");
    let refused = tanebi.script_failing(&format!("cd {} && tanebi run deploy off --source . --function f --start warm", source.path().display()))?;
    holds(&refused, "tanebi.dev/start")
}

/// Engines, and templates with their armed clones, are killed: the service serves all the same, and clones come back.
fn what_dies_is_made_anew() -> Result<()> {
    let f = Service::deploy(&repository().join("tests/clones/python"), "--function draw --base-image python312")?;
    f.armed()?;
    for victim in ["tanebi-template", "python"] {
        let found: Vec<u32> = descendants(f.tanebi.pid()).into_iter().filter(|pid| name_of(*pid).starts_with(victim)).collect();
        ensure!(!found.is_empty(), "no process is called {victim}");
        // With one of them others may have ended.
        ensure!(found.into_iter().filter(|pid| kill(*pid, "KILL").is_ok()).count() > 0, "none was killed");
        let (answer, _) = f.anew().with_context(|| format!("after {victim} was killed"))?;
        ensure!(answer["differs"].is_object(), "{answer}");
        f.armed().with_context(|| format!("after {victim} was killed"))?;
    }
    Ok(())
}
