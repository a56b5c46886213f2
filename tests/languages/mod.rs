//! Functions in four languages, deployed by the real gcloud: what must hold alike, events, the examples, and runtimes.
//!
//! A framework's own ways are expectations of its language: see [`Language`]. No row of a table is left out for one.

mod events;
mod examples;
mod runtimes;
mod table;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, ensure};
use e2e::{REGION, Tanebi, eventually, http1, is_full, repository, tests};
use events::{events_go, events_java, events_nodejs, events_python};
use examples::examples;
use runtimes::runtimes_are_listed_and_installed;
use table::{table_go, table_java, table_nodejs, table_python};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["languages";
        table_python, table_nodejs, table_go, table_java, events_python, events_nodejs, events_go, events_java, examples,
        runtimes_are_listed_and_installed,
    ]
}

/// A language, and what its framework forces on it.
struct Language {
    /// Its folder below tests/functions and examples.
    name: &'static str,
    /// The base image that must be there.
    main: &'static str,
    /// Those of the full tier, where this host has them.
    others: &'static [&'static str],
    /// Those of the full tier that tanebi fetches.
    fetched: &'static [&'static str],
    /// Targets of the functions in tests/functions.
    table: &'static str,
    events: &'static str,
    legacy: &'static str,
    /// What a deploy of that one needs more, to be cloned.
    table_flags: &'static str,
    /// What a deploy of a legacy function needs more.
    legacy_flags: &'static str,
    /// What a function for events answers.
    event_status: u16,
    /// What JSON that is none is answered before or by the function.
    malformed_status: u16,
    /// Whether the framework answers 404 to /favicon.ico itself.
    hides_favicon: bool,
    /// How long each of many slow requests takes, and how many of them the framework works on at a time.
    slow_ms: u32,
    threads: usize,
    /// What it loads before the code can be cloned.
    has_runtime_templates: bool,
}

const EVENT_SIGNATURE: &str = "--set-build-env-vars GOOGLE_FUNCTION_SIGNATURE_TYPE=event";

const PYTHON: Language = Language {
    name: "python",
    main: "python312",
    others: &["python38", "python39", "python310", "python311", "python313"],
    fetched: &[],
    table: "table",
    table_flags: "",
    events: "events",
    legacy: "legacy",
    legacy_flags: EVENT_SIGNATURE,
    event_status: 200,
    malformed_status: 200,
    hides_favicon: true,
    // Four threads a processor.
    slow_ms: 500,
    threads: 8,
    has_runtime_templates: true,
};

const NODEJS: Language = Language {
    name: "nodejs",
    main: "nodejs20",
    others: &[],
    fetched: &["nodejs24"],
    table: "table",
    table_flags: "",
    events: "events",
    legacy: "legacy",
    legacy_flags: EVENT_SIGNATURE,
    event_status: 204,
    malformed_status: 400,
    hides_favicon: true,
    slow_ms: 2000,
    threads: usize::MAX,
    has_runtime_templates: true,
};

const GO: Language = Language {
    name: "go",
    main: "go126",
    others: &["go125"],
    fetched: &[],
    table: "Table",
    table_flags: "",
    events: "Events",
    legacy: "Legacy",
    legacy_flags: "",
    event_status: 200,
    malformed_status: 200,
    hides_favicon: false,
    slow_ms: 2000,
    threads: usize::MAX,
    has_runtime_templates: false,
};

const JAVA: Language = Language {
    name: "java",
    main: "java17",
    others: &["java25"],
    fetched: &["java21"],
    table: "functions.Table",
    table_flags: "",
    events: "functions.Events",
    legacy: "functions.Legacy",
    legacy_flags: "",
    event_status: 200,
    malformed_status: 500,
    hides_favicon: true,
    slow_ms: 2000,
    threads: usize::MAX,
    has_runtime_templates: true,
};

impl Language {
    /// The base images to try: the main one, and in the full tier whatever else can be had.
    fn images(&self, tanebi: &Tanebi) -> Result<Vec<String>> {
        if is_full() {
            for id in self.fetched {
                tanebi.script_all(&format!("tanebi runtimes install {id}"))?;
            }
        }
        // A host with another version only.
        if !installed(tanebi)?.iter().any(|id| id == self.main) {
            tanebi.script_all(&format!("tanebi runtimes install {}", self.main))?;
        }
        let installed = installed(tanebi)?;
        ensure!(installed.iter().any(|id| id == self.main), "{} is not on this host: {installed:?}", self.main);
        let wanted = |id: &String| id == self.main || is_full() && self.others.iter().chain(self.fetched).any(|other| other == id);
        let images: Vec<_> = installed.into_iter().filter(wanted).collect();
        let is_there = |id: &&str| images.iter().any(|image| image == id);
        ensure!(!is_full() || self.fetched.iter().all(is_there), "of {:?} some are not listed: {images:?}", self.fetched);
        Ok(images)
    }
}

/// The base images that can be deployed with.
fn installed(tanebi: &Tanebi) -> Result<Vec<String>> {
    let listed: serde_json::Value = serde_json::from_str(&tanebi.script("tanebi runtimes list --installed --json")?)?;
    let id = |runtime: &serde_json::Value| runtime["id"].as_str().map(str::to_owned);
    listed.as_array().context("a list")?.iter().map(id).collect::<Option<_>>().context("each has an id")
}

/// A function that was deployed.
struct Service<'a> {
    tanebi: &'a Tanebi,
    name: String,
    host: String,
    /// Instances that were asked to end.
    stopped: AtomicUsize,
}

impl<'a> Service<'a> {
    /// Deploys by gcloud, as the article has it. `folder`: below the repository.
    fn deploy(tanebi: &'a Tanebi, name: &str, folder: &str, function: &str, base_image: &str, flags: &str) -> Result<Self> {
        let folder = repository().join(folder);
        tanebi.script_all(&deploy_command(name, &folder, function, base_image, flags)).with_context(|| format!("deploying {name}"))?;
        Ok(Self { tanebi, name: name.to_owned(), host: format!("{name}-{}.{REGION}.run.localhost", tanebi.number), stopped: AtomicUsize::new(0) })
    }

    /// Scale to zero; then waits until the next start is of that rung.
    fn anew(&self, rung: &str) -> Result<()> {
        let told = self.tanebi.script_all(&format!("tanebi instances stop {}", self.name))?;
        self.stopped.fetch_add(usize::from(told.contains("stopped 1")), Ordering::Relaxed);
        let template = || -> Result<Vec<String>> {
            let listed = self.tanebi.script("tanebi instances templates")?;
            let line = listed.lines().find(|line| line.starts_with(&format!("{}\t", self.name))).context("no line of its template")?;
            Ok(line.split('\t').map(str::to_owned).collect())
        };
        eventually("the next start is of that rung", || {
            let fields = template()?;
            ensure!(fields[2] != "refused" || rung == "ordinary", "{} has no template: {}", self.name, fields[5]);
            Ok((rung == "ordinary" || fields[2] == "ready" && (fields[3] == "1 armed") == (rung != "template")).then_some(()))
        })
    }

    /// How instances came to be that requests waited for.
    fn starts(&self) -> Result<Vec<String>> {
        let told = self.tanebi.script(&format!("tanebi trace cold-starts {} --limit 100 --format json", self.name))?;
        let told: Vec<serde_json::Value> = serde_json::from_str(&told)?;
        Ok(told.iter().filter_map(|one| one["rung"].as_str().map(str::to_owned)).collect())
    }

    fn call(&self, method: &str, target: &str, fields: &[&str], body: &[u8]) -> Result<http1::Answer> {
        http1::call(self.tanebi.listen, method, target, &self.host, fields, body).with_context(|| format!("{method} {target} of {}", self.name))
    }

    fn get(&self, target: &str) -> Result<http1::Answer> {
        self.call("GET", target, &[], b"")
    }

    fn post_json(&self, target: &str, body: &str) -> Result<http1::Answer> {
        self.call("POST", target, &["Content-Type: application/json"], body.as_bytes())
    }

    /// What it wrote, newest last.
    fn log(&self) -> Result<String> {
        self.tanebi.script(&format!("tanebi logs {} --limit 1000", self.name))
    }
}

fn json_of(answer: &http1::Answer) -> Result<serde_json::Value> {
    serde_json::from_slice(&answer.body).with_context(|| format!("no JSON: {answer:?}"))
}

/// By gcloud, but for what is tanebi's own.
fn deploy_command(name: &str, folder: &Path, function: &str, base_image: &str, flags: &str) -> String {
    let by = if flags.contains("--start ") { "tanebi run deploy" } else { "gcloud run deploy --quiet" };
    format!("{by} {name} --source '{}' --function {function} --base-image {base_image} --region {REGION} --allow-unauthenticated {flags}", folder.display())
}
