//! Faults: the daemon is killed at random moments, and nothing that it acknowledged is lost.
//!
//! Power cuts are tested where the bytes are written: `crates/store/tests`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{PROJECT, REGION, Tanebi, api::Client, children, eventually, http1, is_full, kill, tests};
use rand::RngExt;
use serde_json::{Value, json};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["faults"; kills_lose_nothing]
}

/// What was acknowledged, and what was being asked for when the daemon died: either may hold afterwards.
#[derive(Default)]
struct Ledger {
    /// Object to content.
    objects: BTreeMap<String, Vec<u8>>,
    object_pending: Option<(String, Vec<u8>)>,
    /// Members of the service's policy, in order.
    members: Vec<String>,
    member_pending: Option<String>,
    /// The service's label `n`.
    label: u64,
    label_pending: Option<u64>,
    /// The template's variable `N`: each is a deploy of a new revision.
    deployed: u64,
    deploy_pending: Option<u64>,
}

const SERVICE: &str = "steady";
const FUNCTION: &str = "import os\n\n\ndef n(request):\n    return os.environ['N']\n";

fn service_path() -> String {
    format!("/v2/projects/{PROJECT}/locations/{REGION}/services/{SERVICE}")
}

fn kills_lose_nothing() -> Result<()> {
    let kills = if is_full() { 200 } else { 10 };
    let mut tanebi = Tanebi::start()?;
    let source = e2e::folder(&[("main.py", FUNCTION), ("requirements.txt", "functions-framework==3.*\n")])?;
    tanebi.deploy(SERVICE, source.path(), "--function n --allow-unauthenticated --set-env-vars N=0")?;
    Client::new(&tanebi)?.call(
        "POST",
        "storage.googleapis.com",
        &format!("/storage/v1/b?project={PROJECT}"),
        json!({ "name": "ledger-of-kills" }).to_string().as_bytes(),
    )?;
    let members = Client::new(&tanebi)?.call("GET", "run.googleapis.com", &format!("{}:getIamPolicy", service_path()), b"")?;
    ensure!(members["bindings"][0]["members"] == json!(["allUsers"]), "{members}");

    let ledger = Mutex::new(Ledger::default());
    let acknowledged = AtomicU64::new(0);
    let mut restarts = Vec::new();
    for round in 0..kills {
        let seen = tanebi.ready_count();
        let stop = AtomicBool::new(false);
        let client = Client::new(&tanebi)?;
        std::thread::scope(|scope| -> Result<()> {
            let workers = [
                scope.spawn(|| until(&stop, || upload(&client, &ledger, &acknowledged))),
                scope.spawn(|| until(&stop, || bind(&client, &ledger, &acknowledged))),
                scope.spawn(|| until(&stop, || label(&client, &ledger, &acknowledged))),
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..500)));
                    // Cut short or not: `verify` decides.
                    let _ = deploy(&client, &ledger, &acknowledged);
                }),
            ];
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(50..700)));
            let daemon = *children(tanebi.pid()).first().context("no daemon")?;
            kill(daemon, "KILL")?;
            stop.store(true, Ordering::Relaxed);
            for worker in workers {
                worker.join().expect("no panic");
            }
            Ok(())
        })?;
        let killed = Instant::now();
        tanebi.ready_wait(seen)?;
        restarts.push(killed.elapsed());
        verify(&tanebi, &ledger).with_context(|| format!("after kill {}", round + 1))?;
    }
    restarts.sort();
    println!(
        "  {kills} kills, {} acknowledged changes, 0 lost; ready again in {:?} (median)",
        acknowledged.load(Ordering::Relaxed),
        restarts[restarts.len() / 2]
    );
    ensure!(acknowledged.load(Ordering::Relaxed) > kills, "the changes were hardly under way");
    Ok(())
}

fn until(stop: &AtomicBool, change: impl Fn() -> Result<()>) {
    // The error of the change that the kill cut short is expected; `verify` decides what it may mean.
    while !stop.load(Ordering::Relaxed) && change().is_ok() {}
}

fn upload(client: &Client, ledger: &Mutex<Ledger>, acknowledged: &AtomicU64) -> Result<()> {
    let mut random = rand::rng();
    let name = format!("object-{}", random.random_range(0..50));
    let mut content = vec![0; random.random_range(1..200_000)];
    random.fill(&mut content[..]);
    ledger.lock().expect("no panic").object_pending = Some((name.clone(), content.clone()));
    let stored = if random.random() {
        client.call("POST", "storage.googleapis.com", &format!("/upload/storage/v1/b/ledger-of-kills/o?uploadType=media&name={name}"), &content)?
    } else {
        // Longer than a chunk, so that a kill finds a session with bytes in it.
        content.resize(content.len() + (256 << 10), 7);
        ledger.lock().expect("no panic").object_pending = Some((name.clone(), content.clone()));
        upload_in_chunks(client, &name, &content)?
    };
    ensure!(stored["name"] == name);
    let mut ledger = ledger.lock().expect("no panic");
    ledger.objects.insert(name, content);
    ledger.object_pending = None;
    acknowledged.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// A resumable upload in two requests.
fn upload_in_chunks(client: &Client, name: &str, content: &[u8]) -> Result<Value> {
    let authorization = format!("Authorization: Bearer {}", client.token);
    let call =
        |method: &str, target: &str, fields: &[&str], body: &[u8]| http1::call(client.tanebi.listen, method, target, "storage.googleapis.com", fields, body);
    let target = format!("/upload/storage/v1/b/ledger-of-kills/o?uploadType=resumable&name={name}");
    let session = call("POST", &target, &[&authorization, "Content-Type: application/json"], b"{}")?;
    let location = session.field("location").with_context(|| session.text())?.to_owned();
    let target = location.split_once("googleapis.com").context("a session on the host that was asked")?.1;
    let (first, rest) = content.split_at(256 << 10);
    let chunk = call("PUT", target, &[&format!("Content-Range: bytes 0-{}/*", first.len() - 1)], first)?;
    ensure!(chunk.status == 308, "{} {}", chunk.status, chunk.text());
    let last = call("PUT", target, &[&format!("Content-Range: bytes {}-{}/{}", first.len(), content.len() - 1, content.len())], rest)?;
    ensure!(last.status == 200, "{} {}", last.status, last.text());
    Ok(serde_json::from_slice(&last.body)?)
}

fn bind(client: &Client, ledger: &Mutex<Ledger>, acknowledged: &AtomicU64) -> Result<()> {
    let (members, new) = {
        let mut ledger = ledger.lock().expect("no panic");
        let new = format!("user:u{}@example.com", rand::rng().random_range(0..1_000_000));
        // A bounded policy: the oldest goes.
        let from = ledger.members.len().saturating_sub(20);
        let mut members = ledger.members[from..].to_vec();
        members.push(new.clone());
        ledger.member_pending = Some(new.clone());
        (members, new)
    };
    let mut all = vec!["allUsers".to_owned()];
    all.extend(members.iter().cloned());
    let policy = json!({ "policy": { "bindings": [{ "role": "roles/run.invoker", "members": all }] } });
    client.call("POST", "run.googleapis.com", &format!("{}:setIamPolicy", service_path()), policy.to_string().as_bytes())?;
    let mut ledger = ledger.lock().expect("no panic");
    ledger.members = members;
    ensure!(ledger.members.last() == Some(&new));
    ledger.member_pending = None;
    acknowledged.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// A deploy: another value of the template's variable, which makes a revision. Acknowledged when its operation is answered.
fn deploy(client: &Client, ledger: &Mutex<Ledger>, acknowledged: &AtomicU64) -> Result<()> {
    let next = {
        let mut ledger = ledger.lock().expect("no panic");
        let next = ledger.deployed + 1;
        ledger.deploy_pending = Some(next);
        next
    };
    let mut service = client.call("GET", "run.googleapis.com", &service_path(), b"")?;
    let mut template = service["template"].take();
    template["containers"][0]["env"] = json!([{ "name": "N", "value": next.to_string() }]);
    let change = json!({ "template": template });
    client.call("PATCH", "run.googleapis.com", &format!("{}?updateMask=template", service_path()), change.to_string().as_bytes())?;
    let mut ledger = ledger.lock().expect("no panic");
    ledger.deployed = next;
    ledger.deploy_pending = None;
    acknowledged.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// A change of the service: its label, which makes no revision.
fn label(client: &Client, ledger: &Mutex<Ledger>, acknowledged: &AtomicU64) -> Result<()> {
    let next = {
        let mut ledger = ledger.lock().expect("no panic");
        let next = ledger.label_pending.unwrap_or(ledger.label) + 1;
        ledger.label_pending = Some(next);
        next
    };
    let change = json!({ "labels": { "n": next.to_string() } });
    client.call("PATCH", "run.googleapis.com", &format!("{}?updateMask=labels", service_path()), change.to_string().as_bytes())?;
    let mut ledger = ledger.lock().expect("no panic");
    ledger.label = next;
    ledger.label_pending = None;
    acknowledged.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn verify(tanebi: &Tanebi, ledger: &Mutex<Ledger>) -> Result<()> {
    let client = Client::new(tanebi)?;
    let mut ledger = ledger.lock().expect("no panic");
    let authorization = format!("Authorization: Bearer {}", client.token);
    let get = |name: &str| {
        http1::call(tanebi.listen, "GET", &format!("/storage/v1/b/ledger-of-kills/o/{name}?alt=media"), "storage.googleapis.com", &[&authorization], b"")
    };
    let pending = ledger.object_pending.take();
    for (name, content) in &ledger.objects {
        let answer = get(name)?;
        let is_pending = pending.as_ref().is_some_and(|(n, c)| n == name && *c == answer.body);
        ensure!(
            answer.status == 200 && (answer.body == *content || is_pending),
            "object {name}: {} {} bytes, {} were acknowledged",
            answer.status,
            answer.body.len(),
            content.len()
        );
    }
    if let Some((name, content)) = pending {
        let answer = get(&name)?;
        let whole = answer.status == 200 && answer.body == content;
        let before = match ledger.objects.get(&name) {
            Some(before) => answer.body == *before,
            None => answer.status == 404,
        };
        ensure!(whole || before, "object {name} is half visible: {} {} bytes", answer.status, answer.body.len());
        if whole {
            ledger.objects.insert(name, content);
        }
    }
    let policy = client.call("GET", "run.googleapis.com", &format!("{}:getIamPolicy", service_path()), b"")?;
    let members: Vec<String> = policy["bindings"][0]["members"]
        .as_array()
        .context("members")?
        .iter()
        .filter_map(|m| m.as_str().map(str::to_owned))
        .filter(|m| m != "allUsers")
        .collect();
    let pending = ledger.member_pending.take();
    let last = ledger.members.last().cloned();
    ensure!(
        last.is_none() || members.contains(last.as_ref().expect("some")) || pending.as_ref().is_some_and(|p| members.contains(p)),
        "the policy lost {last:?}: {members:?}"
    );
    if let Some(pending) = pending.filter(|p| members.contains(p)) {
        let from = ledger.members.len().saturating_sub(20);
        ledger.members = ledger.members[from..].to_vec();
        ledger.members.push(pending);
    }
    let service = client.call("GET", "run.googleapis.com", &service_path(), b"")?;
    let found: u64 = service["labels"]["n"].as_str().map_or(Ok(0), str::parse)?;
    let pending = ledger.label_pending.take();
    ensure!(found == ledger.label || Some(found) == pending, "label {found}, {} was acknowledged, {pending:?} under way", ledger.label);
    ledger.label = found;
    let wanted = &service["template"]["containers"][0]["env"][0]["value"];
    let wanted: u64 = wanted.as_str().context("N")?.parse()?;
    let pending = ledger.deploy_pending.take();
    ensure!(wanted == ledger.deployed || Some(wanted) == pending, "N is {wanted}, {} was acknowledged, {pending:?} under way", ledger.deployed);
    ledger.deployed = wanted;
    // It answers at once, by an older revision, and then by the one that was being deployed.
    let host = format!("{SERVICE}-{}.{REGION}.run.localhost", tanebi.number);
    let answered = || -> Result<u64> {
        let reply = http1::call(tanebi.listen, "GET", "/", &host, &[], b"")?;
        reply.text().parse().with_context(|| format!("{reply:?}"))
    };
    let first = answered()?;
    ensure!(first == wanted || first + 1 == wanted, "revision {first} answers, {wanted} was asked for");
    eventually("the deploy goes on", || Ok((answered()? == wanted).then_some(())))
}
