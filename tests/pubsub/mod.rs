//! Pub/Sub as its users use it: the real gcloud, Google's Python library, pushes into a deployed function, and kills in the middle.

mod schemas;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{PROJECT, Tanebi, children, eventually, http1, is_full, kill, repository, tests};
use serde_json::{Value, json};

use self::schemas::schemas;
use crate::clients::virtual_environment;

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["pubsub"; gcloud, schemas, python, pushes, kills_lose_no_message]
}

/// Every command of `gcloud pubsub` that is served, as a transcript.
fn gcloud() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let run = |script: &str| tanebi.script_all(&format!("export CLOUDSDK_CORE_DISABLE_PROMPTS=1\n{script}"));
    let check = |script: &str, expect: &[&str]| -> Result<()> {
        let told = run(&format!("gcloud pubsub {script}"))?;
        for part in expect {
            ensure!(told.contains(part), "gcloud pubsub {script}: {part:?} is not in\n{told}");
        }
        Ok(())
    };
    check("topics create top --labels a=b --message-retention-duration 1h", &["Created topic [projects/tanebi-local/topics/top]."])?;
    check("topics list", &["messageRetentionDuration: 3600s", "name: projects/tanebi-local/topics/top"])?;
    check("topics update top --clear-message-retention-duration --update-labels c=d", &["Updated topic [projects/tanebi-local/topics/top]."])?;
    let described = run("gcloud pubsub topics describe top")?;
    ensure!(described == "labels:\n  a: b\n  c: d\nname: projects/tanebi-local/topics/top\n", "{described}");
    check(
        "subscriptions create sub --topic top --ack-deadline 20 --enable-message-ordering --expiration-period never --min-retry-delay 10s",
        &["Created subscription [projects/tanebi-local/subscriptions/sub]."],
    )?;
    check(
        "subscriptions describe sub",
        &["ackDeadlineSeconds: 20", "expirationPolicy: {}", "messageRetentionDuration: 604800s", "minimumBackoff: 10s", "state: ACTIVE"],
    )?;
    check("topics list-subscriptions top", &["projects/tanebi-local/subscriptions/sub"])?;
    check("topics publish top --message hello --attribute k=v --ordering-key o", &["messageIds:"])?;
    let pulled = run("gcloud pubsub subscriptions pull sub --format 'value(message.data.decode(base64),message.attributes.k,ackId)'")?;
    let words: Vec<&str> = pulled.split_whitespace().collect();
    ensure!(words.len() == 3 && words[..2] == ["hello", "v"], "{pulled}");
    check(&format!("subscriptions modify-message-ack-deadline sub --ack-ids {} --ack-deadline 30", words[2]), &["Set ackDeadlineSeconds to [30]"])?;
    check("snapshots create snap --subscription sub", &["Created snapshot [projects/tanebi-local/snapshots/snap]."])?;
    check(&format!("subscriptions ack sub --ack-ids {}", words[2]), &["Acked the messages"])?;
    check("snapshots list", &["snap"])?;
    check("snapshots describe snap", &["expireTime:", "topic: projects/tanebi-local/topics/top"])?;
    check("subscriptions seek sub --snapshot snap", &["snapshotId: projects/tanebi-local/snapshots/snap"])?;
    check("subscriptions pull sub --auto-ack", &["hello", "SUCCESS"])?;
    check("subscriptions seek sub --time 2026-01-01T00:00:00Z", &["time:"])?;
    check("subscriptions update sub --dead-letter-topic top --max-delivery-attempts 7", &["Updated subscription"])?;
    check("subscriptions list", &["maxDeliveryAttempts: 7"])?;
    check("topics add-iam-policy-binding top --member allUsers --role roles/pubsub.publisher", &["allUsers"])?;
    check("topics remove-iam-policy-binding top --member allUsers --role roles/pubsub.publisher", &["etag:"])?;
    check("subscriptions get-iam-policy sub", &["etag: ACAB"])?;
    check("subscriptions add-iam-policy-binding sub --member allUsers --role roles/pubsub.subscriber", &["roles/pubsub.subscriber"])?;
    check("subscriptions set-iam-policy sub <(echo '{}')", &["etag:"])?;
    check("subscriptions modify-push-config sub --push-endpoint=", &["Updated subscription"])?;
    let fail = |script: &str, part: &str| -> Result<()> {
        let told = tanebi.script_failing(&format!("export CLOUDSDK_CORE_DISABLE_PROMPTS=1\ngcloud pubsub {script}"))?;
        ensure!(told.contains(part), "gcloud pubsub {script}: {part:?} is not in\n{told}");
        Ok(())
    };
    fail("topics create top", "Resource already exists in the project (resource=top).")?;
    fail("topics publish nothing --message x", "Resource not found (resource=nothing).")?;
    fail("subscriptions create out --topic top --push-endpoint https://example.com/x", "is not a URL of a service here")?;
    check("topics detach-subscription sub", &["Detached subscription"])?;
    check("snapshots delete snap", &["Deleted snapshot"])?;
    check("subscriptions delete sub", &["Deleted subscription"])?;
    check("topics delete top", &["Deleted topic"])
}

/// Each check of `python.py`.
fn python() -> Result<()> {
    let python = virtual_environment()?;
    let tanebi = Tanebi::start()?;
    let script = repository().join("tests/pubsub/python.py");
    let told = tanebi.script_all(&format!("tanebi exec -- '{}' -W ignore '{}'", python.display(), script.display()))?;
    println!("  {}", told.lines().last().unwrap_or_default());
    ensure!(told.contains(" checks passed"), "{told}");
    Ok(())
}

/// Refuses each message once, then takes it; says what it got.
const PUSHED: &str = r#"
import sys

seen = set()


def take(request):
    body = request.get_data(as_text=True)
    kind = request.headers.get("content-type", "none")
    # One write: two threads must not mix their lines.
    sys.stderr.write(f"PUSHED {request.path} {kind} {request.headers.get('x-goog-pubsub-message-id', '-')} {body}\n")
    if body in seen or kind == "none":
        return "", 204
    seen.add(body)
    return "not yet", 500
"#;

/// Into a function that only the subscription's account may call: wrapped, retried, and unwrapped; with the audience that is the default, and with one that is set.
fn pushes() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let source = e2e::folder(&[("main.py", PUSHED), ("requirements.txt", "functions-framework==3.*\n")])?;
    tanebi.deploy("take", source.path(), "--function take --no-allow-unauthenticated")?;
    let account = format!("{}-compute@developer.gserviceaccount.com", tanebi.number);
    let url = tanebi.url("take");
    tanebi.script_all(&format!(
        "export CLOUDSDK_CORE_DISABLE_PROMPTS=1\n\
         gcloud run services add-iam-policy-binding take --region asia-northeast1 --member serviceAccount:{account} --role roles/run.invoker\n\
         gcloud pubsub topics create top\n\
         gcloud pubsub subscriptions create wrapped --topic top --push-endpoint {url}/wrapped --push-auth-service-account {account}\n\
         gcloud pubsub subscriptions create bare --topic top --push-endpoint {url}/bare --push-auth-service-account {account} --push-auth-token-audience {url} --push-no-wrapper --push-no-wrapper-write-metadata\n\
         gcloud pubsub topics publish top --message hello
         tanebi wait-idle"
    ))?;
    // A push is under way from when its message was answered.
    let events = tanebi.script("tanebi events list")?;
    for subscription in ["wrapped", "bare"] {
        ensure!(events.contains(&format!("projects/{PROJECT}/subscriptions/{subscription}")), "{subscription} is not in\n{events}");
    }
    let described = tanebi.script("gcloud pubsub subscriptions describe bare")?;
    ensure!(described.contains("writeMetadata: true") && described.contains(&format!("serviceAccountEmail: {account}")), "{described}");
    let log = eventually("both pushes are in the log", || {
        let log = tanebi.script_all("gcloud run services logs read take --region asia-northeast1 --limit 100")?;
        let (wrapped, bare) = (log.matches("PUSHED /wrapped").count(), log.matches("PUSHED /bare").count());
        Ok((wrapped >= 2 && bare >= 1).then_some(log))
    })?;
    let line = |start: &str| log.lines().find_map(|line| line.split_once(start)).map(|(_, rest)| rest.to_owned()).context("a line");
    let wrapped = line("PUSHED /wrapped application/json - ")?;
    let body: Value = serde_json::from_str(&wrapped).with_context(|| wrapped.clone())?;
    ensure!(body["message"]["data"] == "aGVsbG8=" && body["subscription"] == format!("projects/{PROJECT}/subscriptions/wrapped"), "{body}");
    let bare = line("PUSHED /bare none ")?;
    ensure!(bare == format!("{} hello", body["message"]["messageId"].as_str().unwrap_or_default()), "{bare}");
    let events = tanebi.script("tanebi events list")?;
    ensure!(events.contains(&format!("projects/{PROJECT}/subscriptions/wrapped")), "{events}");
    // Refused once, taken once: nothing more comes.
    ensure!(log.matches("PUSHED").count() == 3, "{log}");
    Ok(())
}

/// The API by hand, as the owner.
struct Client<'a> {
    tanebi: &'a Tanebi,
    token: String,
}

impl<'a> Client<'a> {
    fn new(tanebi: &'a Tanebi) -> Result<Self> {
        let token = tanebi.script("gcloud auth print-access-token")?.trim().to_owned();
        Ok(Self { tanebi, token })
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let authorization = format!("Authorization: Bearer {}", self.token);
        let target = format!("/v1/projects/{PROJECT}/{path}");
        let answer = http1::call(
            self.tanebi.listen,
            method,
            &target,
            "pubsub.googleapis.com",
            &[&authorization, "Content-Type: application/json"],
            body.to_string().as_bytes(),
        )?;
        if answer.status != 200 {
            bail!("{method} {path}: {} {}", answer.status, answer.text());
        }
        Ok(serde_json::from_slice(&answer.body)?)
    }
}

/// What was answered, and how often each message came.
#[derive(Default)]
struct Ledger {
    published: HashSet<String>,
    received: BTreeMap<String, usize>,
    acked: HashSet<String>,
    /// Came again although their ack had been answered.
    resurrected: Vec<String>,
}

fn kills_lose_no_message() -> Result<()> {
    let kills = if is_full() { 300 } else { 8 };
    let mut tanebi = Tanebi::start()?;
    let client = Client::new(&tanebi)?;
    client.call("PUT", "topics/top", &json!({}))?;
    client.call("PUT", "subscriptions/sub", &json!({ "topic": format!("projects/{PROJECT}/topics/top") }))?;
    let (ledger, token) = (Mutex::new(Ledger::default()), client.token);
    for round in 0..kills {
        let seen = tanebi.ready_count();
        let stop = AtomicBool::new(false);
        let client = Client { tanebi: &tanebi, token: token.clone() };
        std::thread::scope(|scope| -> Result<()> {
            let (client, ledger, stop) = (&client, &ledger, &stop);
            for worker in 0..2 {
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) && publish(client, ledger, &format!("{round}-{worker}-{count}")).is_ok() {
                        count += 1;
                    }
                });
            }
            scope.spawn(move || while !stop.load(Ordering::Relaxed) && consume(client, ledger).is_ok() {});
            std::thread::sleep(Duration::from_millis(rand::random_range(50..600)));
            let daemon = *children(client.tanebi.pid()).first().context("no daemon")?;
            kill(daemon, "KILL")?;
            stop.store(true, Ordering::Relaxed);
            Ok(())
        })?;
        tanebi.ready_wait(seen)?;
    }
    let client = Client { tanebi: &tanebi, token };
    eventually("every message came", || {
        consume(&client, &ledger)?;
        let ledger = ledger.lock().expect("no panic");
        Ok(ledger.published.iter().all(|text| ledger.received.contains_key(text)).then_some(()))
    })?;
    let ledger = ledger.into_inner().expect("no panic");
    println!("  {kills} kills, {} messages published, {} acknowledged, 0 lost", ledger.published.len(), ledger.acked.len());
    ensure!(ledger.resurrected.is_empty(), "acknowledged messages came again: {:?}", ledger.resurrected);
    ensure!(ledger.acked.len() > kills && ledger.published.len() > 10 * kills, "hardly anything was under way");
    Ok(())
}

/// A batch of two.
fn publish(client: &Client, ledger: &Mutex<Ledger>, text: &str) -> Result<()> {
    let texts = [format!("{text}-a"), format!("{text}-b")];
    let messages: Vec<Value> = texts.iter().map(|text| json!({ "attributes": { "text": text } })).collect();
    client.call("POST", "topics/top:publish", &json!({ "messages": messages }))?;
    ledger.lock().expect("no panic").published.extend(texts);
    Ok(())
}

/// Pulls what there is and acknowledges it.
fn consume(client: &Client, ledger: &Mutex<Ledger>) -> Result<()> {
    let pulled = client.call("POST", "subscriptions/sub:pull", &json!({ "maxMessages": 100, "returnImmediately": true }))?;
    let (mut texts, mut ids) = (Vec::new(), Vec::new());
    {
        let mut ledger = ledger.lock().expect("no panic");
        for one in pulled["receivedMessages"].as_array().into_iter().flatten() {
            let text = one["message"]["attributes"]["text"].as_str().context("a text")?.to_owned();
            if ledger.acked.contains(&text) {
                ledger.resurrected.push(text.clone());
            }
            *ledger.received.entry(text.clone()).or_default() += 1;
            texts.push(text);
            ids.push(one["ackId"].clone());
        }
    }
    if !ids.is_empty() {
        client.call("POST", "subscriptions/sub:acknowledge", &json!({ "ackIds": ids }))?;
        ledger.lock().expect("no panic").acked.extend(texts);
    }
    Ok(())
}
