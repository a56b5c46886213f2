//! Canaries: many secrets through a soak and kills of the daemon, and then looked for in all that could hold them.
//!
//! All of them begin alike, so that one search finds any of them, as it is or in base64.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use e2e::{PROJECT, REGION, Tanebi, api::Client, children, descendants, eventually, folder, http1, is_full, kill};
use rand::RngExt;
use serde_json::{Value, json};

const SECRETS: &str = "secretmanager.googleapis.com";

/// Digests of what the instance was given, and nothing of it.
const MAIN: &str = r#"import glob
import hashlib
import os


def digests(request):
    given = [value for name, value in os.environ.items() if name.startswith("SECRET_")]
    for path in glob.glob("/secrets/*/value"):
        with open(path) as file:
            given.append(file.read())
    return {"digests": sorted(hashlib.sha256(one.encode()).hexdigest() for one in given)}
"#;

struct Canaries {
    /// What all of them begin with; a multiple of three bytes, so that base64 of each begins alike too.
    mark: String,
    /// The newest payload of each secret.
    newest: Vec<String>,
    made: usize,
}

impl Canaries {
    fn new() -> Self {
        Self { mark: format!("canary-{:016x}-", rand::rng().random::<u64>()), newest: Vec::new(), made: 0 }
    }

    fn next(&mut self) -> String {
        self.made += 1;
        format!("{}{:016x}-{}", self.mark, rand::rng().random::<u64>(), self.made)
    }

    /// Adds a version to a secret.
    fn add(&mut self, client: &Client, secret: usize) -> Result<()> {
        let payload = self.next();
        let body = json!({ "payload": { "data": BASE64_STANDARD.encode(&payload) } });
        client.call("POST", SECRETS, &format!("/v1/projects/{PROJECT}/secrets/c{secret}:addVersion"), body.to_string().as_bytes())?;
        self.newest[secret] = payload;
        Ok(())
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        let coded = BASE64_STANDARD.encode(&self.mark);
        [self.mark.as_bytes(), coded.as_bytes()].iter().any(|mark| bytes.windows(mark.len()).any(|window| window == *mark))
    }

    fn digests(&self, secrets: impl Iterator<Item = usize>) -> Vec<String> {
        let digest = |secret: usize| hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.newest[secret].as_bytes()));
        let mut digests: Vec<_> = secrets.map(digest).collect();
        digests.sort();
        digests
    }
}

/// The first half are variables of `own`, the next quarter its files, the rest nobody's; `other` has none.
pub fn canaries_are_where_they_belong() -> Result<()> {
    let (count, rounds) = if is_full() { (100, 20) } else { (8, 2) };
    let (variables, given) = (count / 2, count / 4 * 3);
    let mut tanebi = Tanebi::start()?;
    let mut canaries = Canaries::new();
    let source = folder(&[("main.py", MAIN), ("requirements.txt", "functions-framework==3.*\n")])?;
    for service in ["own", "other"] {
        tanebi.deploy(service, source.path(), "--function digests --allow-unauthenticated --max-instances 1")?;
    }
    let account = format!("serviceAccount:{}-compute@developer.gserviceaccount.com", tanebi.number);
    let client = Client::new(&tanebi)?;
    for secret in 0..count {
        canaries.newest.push(String::new());
        let path = format!("/v1/projects/{PROJECT}/secrets");
        client.call("POST", SECRETS, &format!("{path}?secretId=c{secret}"), br#"{"replication":{"automatic":{}}}"#)?;
        let policy = json!({ "policy": { "bindings": [{ "role": "roles/secretmanager.secretAccessor", "members": [account] }] } });
        client.call("POST", SECRETS, &format!("{path}/c{secret}:setIamPolicy"), policy.to_string().as_bytes())?;
        canaries.add(&client, secret)?;
    }
    let named = (0..given).map(|n| if n < variables { format!("SECRET_{n}=c{n}:latest") } else { format!("/secrets/c{n}/value=c{n}:latest") });
    tanebi.script_all(&format!("gcloud --quiet run services update own --region {REGION} --set-secrets {}", named.collect::<Vec<_>>().join(",")))?;

    let (mut told, mut closed) = (Vec::new(), BTreeSet::new());
    for round in 0..rounds {
        let client = Client::new(&tanebi)?;
        for secret in (0..count).filter(|secret| secret % rounds == round || secret % 7 == 0) {
            canaries.add(&client, secret)?;
            let version = format!("/v1/projects/{PROJECT}/secrets/c{secret}/versions");
            let read = client.call("GET", SECRETS, &format!("{version}/latest:access"), b"")?;
            ensure!(read["payload"]["data"] == BASE64_STANDARD.encode(&canaries.newest[secret]), "{}", read["name"]);
            // What is destroyed can be disabled no more.
            if closed.insert(secret) {
                client.call("POST", SECRETS, &format!("{version}/1:{}", if round % 2 == 0 { "disable" } else { "destroy" }), b"{}")?;
                let refused = client.call("GET", SECRETS, &format!("{version}/1:access"), b"").err().context("version 1 is there no more")?;
                told.push(refused.to_string());
            }
        }
        tanebi.script_all("tanebi instances stop own")?;
        let expect = canaries.digests(0..given);
        eventually("a new instance has the newest payloads", || Ok(answered(&tanebi, "own").is_ok_and(|seen| seen == expect).then_some(())))?;
        ensure!(answered(&tanebi, "other")?.is_empty());
        if round % 2 == 1 {
            let seen = tanebi.ready_count();
            let daemon = *children(tanebi.pid()).first().context("a daemon")?;
            kill(daemon, "KILL")?;
            tanebi.ready_wait(seen)?;
            eventually("the server answers again", || Ok(answered(&tanebi, "own").is_ok_and(|seen| seen == expect).then_some(())))?;
            eventually("the other answers again", || Ok(answered(&tanebi, "other").is_ok().then_some(())))?;
        }
    }
    told.push(said(&tanebi)?);
    let leaks: Vec<_> = told.iter().filter(|text| canaries.is_in(text.as_bytes())).collect();
    ensure!(leaks.is_empty(), "a payload was told:\n{leaks:?}");
    processes(&tanebi, &canaries, variables)?;
    files(tanebi.data.path(), &canaries)?;
    let data = tanebi.stop()?;
    files(data.path(), &canaries)?;
    println!("  {} payloads of {count} secrets, {rounds} rounds", canaries.made);
    Ok(())
}

fn answered(tanebi: &Tanebi, service: &str) -> Result<Vec<String>> {
    let host = format!("{service}-{}.{REGION}.run.localhost", tanebi.number);
    let answer = http1::call(tanebi.listen, "GET", "/", &host, &[], b"")?;
    let body: Value = serde_json::from_slice(&answer.body)?;
    Ok(serde_json::from_value(body["digests"].clone())?)
}

/// What the server says of all this, by every way that does not ask for a payload.
fn said(tanebi: &Tanebi) -> Result<String> {
    let client = Client::new(tanebi)?;
    let mut said = tanebi.output();
    let services = format!("/v2/projects/{PROJECT}/locations/{REGION}");
    for (host, path) in [
        ("run.googleapis.com", format!("{services}/services")),
        ("run.googleapis.com", format!("{services}/services/own/revisions")),
        (SECRETS, format!("/v1/projects/{PROJECT}/secrets?pageSize=1000")),
        (SECRETS, format!("/v1/projects/{PROJECT}/secrets/c0/versions?pageSize=1000")),
    ] {
        said += &client.call("GET", host, &path, b"")?.to_string();
    }
    let entries = json!({ "resourceNames": [format!("projects/{PROJECT}")], "pageSize": 1000 }).to_string();
    let entries = client.call("POST", "logging.googleapis.com", "/v2/entries:list", entries.as_bytes())?;
    ensure!(entries["entries"].as_array().is_some_and(|entries| !entries.is_empty()), "{entries}");
    said += &entries.to_string();
    for command in ["logs own --limit 1000", "logs other --limit 1000", "instances list", "instances templates", "events list", "trace cold-starts own"] {
        said += &tanebi.script_all(&format!("tanebi {command}"))?;
    }
    Ok(said)
}

/// Only instances of `own` have them, and of those that are variables; the other's memory has none.
fn processes(tanebi: &Tanebi, canaries: &Canaries, variables: usize) -> Result<()> {
    let mut seen = BTreeSet::new();
    for pid in std::iter::once(tanebi.pid()).chain(descendants(tanebi.pid())) {
        let process = Path::new("/proc").join(pid.to_string());
        // It may have ended by now.
        let (Ok(environment), Ok(command)) = (fs::read(process.join("environ")), fs::read(process.join("cmdline"))) else { continue };
        ensure!(!canaries.is_in(&command), "the command of {pid}: {}", String::from_utf8_lossy(&command));
        let is_of = |service: &str| environment.windows(service.len()).any(|window| window == service.as_bytes());
        if is_of("K_SERVICE=own\0") {
            // The instance itself; a framework's own process may be started with less.
            seen.insert("own");
            let held = environment.split(|byte| *byte == 0).filter(|variable| canaries.is_in(variable)).count();
            ensure!(held == variables, "{held} variables of {pid}, not {variables}");
            continue;
        }
        ensure!(!canaries.is_in(&environment), "the environment of {pid}");
        if is_of("K_SERVICE=other\0") {
            seen.insert("other");
            ensure!(!canaries.is_in(&memory(&process)?), "the memory of {pid}");
        }
    }
    // Who is not root sees nobody else's processes.
    let is_root = fs::metadata("/proc/self")?.uid() == 0;
    ensure!(!is_root || seen.len() == 2, "instances of {seen:?} alone were looked at");
    Ok(())
}

/// All that a process can write to.
fn memory(process: &Path) -> Result<Vec<u8>> {
    let (maps, memory) = (fs::read_to_string(process.join("maps"))?, fs::File::open(process.join("mem"))?);
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split([' ', '-']).take(2).map(|number| u64::from_str_radix(number, 16)).collect::<Result<Vec<_>, _>>()?;
        let mut bytes = vec![0; usize::try_from(range[1] - range[0])?];
        // What was never touched may not be there to be read.
        if memory.read_exact_at(&mut bytes, range[0]).is_ok() {
            all.extend(bytes);
        }
    }
    ensure!(all.len() > 1 << 20, "{} bytes of {}", all.len(), process.display());
    Ok(all)
}

fn files(data: &Path, canaries: &Canaries) -> Result<()> {
    let coded = BASE64_STANDARD.encode(&canaries.mark);
    let found = std::process::Command::new("grep").args(["-rlaF", "-e", &canaries.mark, "-e", &coded]).arg(data).output()?;
    ensure!(found.status.code() == Some(1), "payloads lie in {}{}", String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
    Ok(())
}
