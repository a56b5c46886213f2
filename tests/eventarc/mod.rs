//! Eventarc as its users use it: the real gcloud, Google's Python library, functions that events call, and kills in the middle.

mod loops;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{PROJECT, REGION, Tanebi, children, eventually, folder, holds, http1, is_full, kill, repository, tests};
use serde_json::{Value, json};

use self::loops::{calls_are_stopped, loops_are_stopped, loops_are_stopped_after_kills_too};
use crate::clients::{program, python_command};

pub fn tests() -> Vec<e2e::runner::Test> {
    tests!["eventarc"; triggers, functions, languages, python, kills_lose_no_event, loops_are_stopped, loops_are_stopped_after_kills_too, calls_are_stopped]
}

/// Says what it got, as one line of JSON; what a message of `fail` asks for, it refuses.
const WATCH: &str = r#"
import json
import sys


def watch(request):
    body = request.get_data(as_text=True)
    events = {name.lower(): value for name, value in request.headers.items() if name.lower().startswith("ce-")}
    seen = {"path": request.full_path, "type": request.headers.get("content-type"), "agent": request.headers.get("user-agent"), "ce": events, "body": json.loads(body)}
    sys.stderr.write("SAW " + json.dumps(seen) + "\n")
    return ("no", 500) if body.count("ZmFpbA==") else ("", 204)
"#;

/// The same for functions of events.
const TAKE: &str = r#"
import json

import functions_framework


@functions_framework.cloud_event
def take(event):
    print("SAW " + json.dumps({"ce": {name: event[name] for name in event}, "body": event.data}), flush=True)
    if "ZmFpbA==" in json.dumps(event.data):
        raise ValueError("told to fail")
"#;

const REQUIREMENTS: (&str, &str) = ("requirements.txt", "functions-framework==3.*\n");

/// What a service wrote of the events that it got, once `is_enough` of them.
fn saw(tanebi: &Tanebi, service: &str, what: &str, is_enough: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
    eventually(what, || {
        let log = tanebi.script(&format!("tanebi logs {service} --limit 1000"))?;
        let lines = log.lines().filter_map(|line| line.split_once("SAW ")).map(|(_, json)| serde_json::from_str(json));
        let all: Vec<Value> = lines.collect::<Result<_, _>>().with_context(|| log.clone())?;
        Ok(is_enough(&all).then_some(all))
    })
}

fn is_type(event: &Value, kind: &str) -> bool {
    event["ce"]["ce-type"] == kind || event["ce"]["type"] == kind
}

/// A service that nobody else may reach: events of each source, with every attribute.
fn triggers() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let source = folder(&[("main.py", WATCH), REQUIREMENTS])?;
    tanebi.deploy("watch", source.path(), "--function watch --no-allow-unauthenticated --ingress internal")?;
    let account = format!("{}-compute@developer.gserviceaccount.com", tanebi.number);
    let run = |script: &str| tanebi.script_all(&format!("export CLOUDSDK_CORE_DISABLE_PROMPTS=1 CLOUDSDK_EVENTARC_LOCATION={REGION}\n{script}"));
    let fail = |script: &str, part: &str| -> Result<()> {
        let told = tanebi.script_failing(&format!("export CLOUDSDK_CORE_DISABLE_PROMPTS=1 CLOUDSDK_EVENTARC_LOCATION={REGION}\n{script}"))?;
        ensure!(told.contains(part), "{script}: {part:?} is not in\n{told}");
        Ok(())
    };
    run(&format!(
        "gcloud storage buckets create gs://watched-of-tanebi --location {REGION}\n\
         gcloud storage buckets update gs://watched-of-tanebi --versioning\n\
         gcloud storage buckets create gs://far-of-tanebi --location us\n\
         gcloud iam service-accounts create caller\n\
         gcloud iam service-accounts create stranger\n\
         gcloud run services add-iam-policy-binding watch --region {REGION} --member serviceAccount:caller@{PROJECT}.iam.gserviceaccount.com --role roles/run.invoker"
    ))?;
    let caller = format!("caller@{PROJECT}.iam.gserviceaccount.com");
    let to = format!("--destination-run-service watch --service-account {caller}");
    let finalized = "--event-filters type=google.cloud.storage.object.v1.finalized";
    fail(
        &format!("gcloud eventarc triggers create made {to} {finalized} --event-filters bucket=watched-of-tanebi"),
        &format!("Permission \"eventarc.events.receiveEvent\" denied on \"{caller}\""),
    )?;
    run(&format!("gcloud projects add-iam-policy-binding {PROJECT} --member serviceAccount:{caller} --role roles/eventarc.eventReceiver"))?;
    let made = |id: &str, kind: &str| {
        format!(
            "gcloud eventarc triggers create {id} {to} --destination-run-path /{id} --event-filters type=google.cloud.storage.object.v1.{kind} --event-filters bucket=watched-of-tanebi"
        )
    };
    let told = eventually("the account may receive", || Ok(run(&made("finalized", "finalized")).ok()))?;
    holds(&told, "Creating trigger [finalized]")?;
    run(&[made("archived", "archived"), made("deleted", "deleted"), made("changed", "metadataUpdated")].join("\n"))?;
    let audit = "--event-filters type=google.cloud.audit.log.v1.written --event-filters serviceName=secretmanager.googleapis.com \
                 --event-filters methodName=google.cloud.secretmanager.v1.SecretManagerService.AddSecretVersion";
    run(&format!(
        "gcloud eventarc triggers create audited {to} --destination-run-path audited --destination-run-region {REGION} --location global {audit} \
         --event-filters-path-pattern 'resourceName=/projects/*/secrets/watched-*'"
    ))?;
    let told = run(&format!("gcloud eventarc triggers create messages {to} --event-filters type=google.cloud.pubsub.topic.v1.messagePublished"))?;
    holds(&told, "Publish to this topic to receive events in Cloud Run service [watch].")?;
    run(&format!(
        "gcloud pubsub topics create mine\n\
         gcloud eventarc triggers create mine {to} --destination-run-path mine --transport-topic mine --event-filters type=google.cloud.pubsub.topic.v1.messagePublished"
    ))?;

    // As they are seen.
    let listed = run("gcloud eventarc triggers list --location -")?;
    ensure!(listed.lines().count() == 8 && listed.contains("Cloud Run service: watch"), "{listed}");
    let described = run("gcloud eventarc triggers describe finalized")?;
    for part in ["eventDataContentType: application/json", "attribute: bucket", "path: /finalized", &format!("serviceAccount: {caller}"), "uid:", "etag:"] {
        holds(&described, part)?;
    }
    let value = |script: &str| Ok::<_, anyhow::Error>(tanebi.script(script)?.trim().to_owned());
    let transport = |id: &str| -> Result<(String, String)> {
        let both = value(&format!(
            "gcloud eventarc triggers describe {id} --location {REGION} --format 'value(transport.pubsub.topic.basename(),transport.pubsub.subscription.basename())'"
        ))?;
        both.split_once('\t').map(|(topic, subscription)| (topic.to_owned(), subscription.to_owned())).with_context(|| both.clone())
    };
    let (topic, subscription) = transport("messages")?;
    ensure!(topic.starts_with(&format!("eventarc-{REGION}-messages-")) && subscription.starts_with(&format!("eventarc-{REGION}-messages-sub-")), "{topic}");
    let pushed = run(&format!("gcloud pubsub subscriptions describe {subscription}"))?;
    for part in [
        "__GCP_CloudEventsMode=CUSTOM_PUBSUB_projects%2F",
        "messageRetentionDuration: 86400s",
        "minimumBackoff: 10s",
        "maximumBackoff: 600s",
        &format!("serviceAccountEmail: {caller}"),
    ] {
        holds(&pushed, part)?;
    }
    let providers = run(&format!("gcloud eventarc providers list --location {REGION}"))?;
    for part in ["cloudaudit.googleapis.com", "pubsub.googleapis.com", "storage.googleapis.com"] {
        holds(&providers, part)?;
    }
    let provider = run(&format!("gcloud eventarc providers describe cloudaudit.googleapis.com --location {REGION}"))?;
    for part in ["attribute: resourceName", "pathPatternSupported: true", "type: google.cloud.audit.log.v1.written"] {
        holds(&provider, part)?;
    }

    // Events: two generations of an object, its metadata, its end; messages; a secret that is watched, and one that is not.
    run(&format!(
        "printf one | gcloud storage cp - 'gs://watched-of-tanebi/a/first 夏.txt'\n\
         printf more | gcloud storage cp - 'gs://watched-of-tanebi/a/first 夏.txt'\n\
         gcloud storage objects update 'gs://watched-of-tanebi/a/first 夏.txt' --custom-metadata x=y\n\
         gcloud storage rm --all-versions 'gs://watched-of-tanebi/a/first 夏.txt'\n\
         gcloud pubsub topics publish {topic} --message hello --attribute k=v\n\
         gcloud pubsub topics publish mine --message mine\n\
         gcloud secrets create other-1 --replication-policy automatic\n\
         gcloud secrets create watched-1 --replication-policy automatic\n\
         printf canary | gcloud secrets versions add other-1 --data-file -\n\
         printf canary | gcloud secrets versions add watched-1 --data-file -"
    ))?;
    let all = saw(&tanebi, "watch", "each source's events came", |all| {
        let count = |path: &str| all.iter().filter(|event| event["path"].as_str().is_some_and(|found| found.starts_with(path))).count();
        [("/?", 1), ("/mine?", 1), ("/audited?", 1), ("/finalized?", 2), ("/archived?", 1), ("/deleted?", 2), ("/changed?", 1)]
            .iter()
            .all(|(path, least)| count(path) >= *least)
    })?;
    let at = |path: &str| all.iter().find(|event| event["path"].as_str().is_some_and(|found| found.starts_with(path))).with_context(|| path.to_owned());
    let check = |event: &Value, attributes: &[(&str, &str)]| -> Result<()> {
        for (name, expect) in attributes {
            ensure!(event["ce"][format!("ce-{name}")] == *expect, "{name} is not {expect:?} in {event:#}");
        }
        ensure!(event["ce"]["ce-id"].as_str().is_some_and(|id| !id.is_empty()), "{event:#}");
        ensure!(event["ce"]["ce-time"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{event:#}");
        ensure!(event["agent"] == "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)", "{event:#}");
        Ok(())
    };
    let message = at("/?")?;
    check(
        message,
        &[
            ("specversion", "1.0"),
            ("type", "google.cloud.pubsub.topic.v1.messagePublished"),
            ("source", &format!("//pubsub.googleapis.com/projects/{PROJECT}/topics/{topic}")),
        ],
    )?;
    let inner = &message["body"]["message"];
    ensure!(inner["data"] == "aGVsbG8=" && inner["attributes"] == json!({ "k": "v" }) && inner["messageId"] == inner["message_id"], "{message:#}");
    ensure!(
        message["body"]["subscription"] == format!("projects/{PROJECT}/subscriptions/{subscription}") && message["ce"]["ce-id"] == inner["messageId"],
        "{message:#}"
    );
    ensure!(at("/mine?")?["body"]["message"]["data"] == "bWluZQ==");
    for (path, kind) in [("/finalized?", "finalized"), ("/archived?", "archived"), ("/deleted?", "deleted"), ("/changed?", "metadataUpdated")] {
        let event = at(path)?;
        check(
            event,
            &[
                ("specversion", "1.0"),
                ("type", &format!("google.cloud.storage.object.v1.{kind}")),
                ("source", "//storage.googleapis.com/projects/_/buckets/watched-of-tanebi"),
                ("subject", "objects/a/first%20%E5%A4%8F.txt"),
                ("bucket", "watched-of-tanebi"),
            ],
        )?;
        ensure!(event["type"] == "application/json" && event["body"]["kind"] == "storage#object" && event["body"]["name"] == "a/first 夏.txt", "{event:#}");
        ensure!(event["path"].as_str().is_some_and(|path| path.ends_with("?__GCP_CloudEventsMode=GCS_NOTIFICATION")), "{event:#}");
    }
    let audited = at("/audited?")?;
    let resource = format!("projects/{PROJECT}/secrets/watched-1");
    check(
        audited,
        &[
            ("specversion", "1.0"),
            ("type", "google.cloud.audit.log.v1.written"),
            ("source", &format!("//cloudaudit.googleapis.com/projects/{PROJECT}/logs/activity")),
            ("subject", &format!("secretmanager.googleapis.com/{resource}")),
            ("servicename", "secretmanager.googleapis.com"),
            ("methodname", "google.cloud.secretmanager.v1.SecretManagerService.AddSecretVersion"),
            ("resourcename", &resource),
        ],
    )?;
    ensure!(audited["ce"]["ce-recordedtime"] == audited["ce"]["ce-time"] && audited["body"]["protoPayload"]["resourceName"] == resource, "{audited:#}");
    ensure!(!audited.to_string().contains("canary"), "no payload is in an event");
    ensure!(all.iter().filter(|event| is_type(event, "google.cloud.audit.log.v1.written")).count() == 1, "the other secret is not watched");
    // Looked at and sent again by hand.
    let events = tanebi.script("tanebi events list")?;
    let line = events.lines().find(|line| line.contains(&format!("projects/{PROJECT}/locations/{REGION}/triggers/mine"))).with_context(|| events.clone())?;
    let id = line.split('\t').next().unwrap_or_default();
    holds(&tanebi.script(&format!("tanebi events show {id}"))?, "google.cloud.pubsub.topic.v1.messagePublished")?;
    tanebi.script(&format!("tanebi events replay {id}"))?;
    saw(&tanebi, "watch", "the event came again", |all| {
        all.iter().filter(|event| event["path"].as_str().is_some_and(|path| path.starts_with("/mine?"))).count() == 2
    })?;

    // A dead-letter topic of the transport takes what was refused often enough, and the rest stays an event.
    run(&format!(
        "gcloud pubsub topics create dead\n\
         gcloud pubsub subscriptions create dead --topic dead\n\
         gcloud pubsub subscriptions update {subscription} --dead-letter-topic dead --max-delivery-attempts 5 --min-retry-delay 0s --max-retry-delay 1s\n\
         gcloud pubsub topics publish {topic} --message fail"
    ))?;
    eventually("the event is a dead letter", || {
        Ok(Some(run("gcloud pubsub subscriptions pull dead --auto-ack --format 'value(message.data.decode(base64))'")?).filter(|text| text.trim() == "fail"))
    })?;

    // Changed, refused, deleted.
    run("gcloud eventarc triggers update mine --destination-run-path /other --update-labels a=b")?;
    let described = run("gcloud eventarc triggers describe mine")?;
    ensure!(described.contains("path: /other") && described.contains("a: b") && described.contains("topics/mine"), "{described}");
    run("gcloud pubsub topics publish mine --message again")?;
    saw(&tanebi, "watch", "it goes to the other path", |all| all.iter().any(|event| event["path"].as_str().is_some_and(|path| path.starts_with("/other?"))))?;
    let create = |rest: &str| format!("gcloud eventarc triggers create refused {rest}");
    fail(&create(&format!("{to} --event-filters type=google.cloud.firestore.document.v1.written")), "is not supported by this server")?;
    fail(&create(&format!("{to} {finalized}")), "missing required attribute \"bucket\" in trigger.event_filters")?;
    fail(
        &create(&format!("{to} {finalized} --event-filters bucket=far-of-tanebi")),
        &format!("Bucket \"far-of-tanebi\" location \"us\" does not match trigger location \"{REGION}\". Try again by creating the trigger in \"us\"."),
    )?;
    fail(&create(&format!("{to} {finalized} --event-filters bucket=nowhere-of-tanebi")), "could not be validated. Please verify that the bucket exists")?;
    fail(
        &create(&format!("--destination-run-service nothing --service-account {account} {finalized} --event-filters bucket=watched-of-tanebi")),
        "was not found",
    )?;
    fail(
        &create(&format!(
            "--destination-run-service watch --service-account nobody@{PROJECT}.iam.gserviceaccount.com {finalized} --event-filters bucket=watched-of-tanebi"
        )),
        "actAs",
    )?;
    fail("gcloud eventarc triggers describe refused", "was not found")?;
    fail("gcloud eventarc channels create any", "not served by this server")?;
    for id in ["finalized", "archived", "deleted", "changed", "messages", "mine"] {
        holds(&run(&format!("gcloud eventarc triggers delete {id}"))?, "Deleting trigger")?;
    }
    let left = run("gcloud pubsub topics list --format 'value(name.basename())'\ngcloud storage buckets notifications list gs://watched-of-tanebi")?;
    ensure!(left.contains("mine") && !left.contains(&format!("eventarc-{REGION}")), "{left}");
    ensure!(run("gcloud eventarc triggers list --location - --format 'value(name.basename())'")?.trim() == "audited");
    Ok(())
}

/// Functions with triggers of their own, deployed by the real gcloud.
fn functions() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let source = folder(&[("main.py", TAKE), REQUIREMENTS])?;
    let value = |script: &str| Ok::<_, anyhow::Error>(tanebi.script(script)?.trim().to_owned());
    let deploy = |name: &str, flags: &str| {
        format!(
            "gcloud --quiet functions deploy {name} --runtime python312 --source '{}' --entry-point take --region {REGION} {flags}",
            source.path().display()
        )
    };
    let deployed = tanebi.script_all(&deploy("topic-fn", "--gen2 --trigger-topic greetings"))?;
    for part in [
        "[Trigger]",
        "eventType: google.cloud.pubsub.topic.v1.messagePublished",
        &format!("pubsubTopic: projects/{PROJECT}/topics/greetings"),
        "retryPolicy: RETRY_POLICY_DO_NOT_RETRY",
        &format!("trigger: projects/{PROJECT}/locations/{REGION}/triggers/topic-fn-"),
        "state: ACTIVE",
    ] {
        holds(&deployed, part)?;
    }
    holds(&tanebi.script("gcloud eventarc triggers list --location -")?, "Cloud Functions: topic-fn")?;
    tanebi.script_all("gcloud pubsub topics publish greetings --message hello\ngcloud pubsub topics publish greetings --message fail\ngcloud pubsub topics publish greetings --message last")?;
    let data = |event: &Value| event["body"]["message"]["data"].as_str().unwrap_or_default().to_owned();
    let all = saw(&tanebi, "topic-fn", "the messages came", |all| {
        ["aGVsbG8=", "ZmFpbA==", "bGFzdA=="].iter().all(|text| all.iter().any(|event| data(event) == *text))
    })?;
    let first = all.iter().find(|event| data(event) == "aGVsbG8=").context("the first")?;
    ensure!(first["ce"]["source"] == format!("//pubsub.googleapis.com/projects/{PROJECT}/topics/greetings"), "{first:#}");

    // Without a place the trigger is where the function is, and the bucket is elsewhere.
    tanebi.script_all("gcloud storage buckets create gs://uploads-of-tanebi --location us")?;
    let refused = tanebi.script_failing(&deploy("bucket-fn", "--gen2 --trigger-bucket gs://uploads-of-tanebi"))?;
    holds(&refused, &format!("Bucket 'uploads-of-tanebi' is in location 'us', but the trigger location is '{REGION}'."))?;
    // gcloud deploys to the second generation when nothing is said.
    tanebi.script_all(&deploy("bucket-fn", "--trigger-bucket gs://uploads-of-tanebi --trigger-location us --retry"))?;
    let config = "eventTrigger.triggerRegion,eventTrigger.retryPolicy,eventTrigger.eventFilters[0].value";
    let described = value(&format!("gcloud functions describe bucket-fn --region {REGION} --format 'value({config})'"))?;
    ensure!(described == "us\tRETRY_POLICY_RETRY\tuploads-of-tanebi", "{described}");
    tanebi.script_all("printf photo | gcloud storage cp - gs://uploads-of-tanebi/photo.jpg")?;
    let all = saw(&tanebi, "bucket-fn", "the upload came", |all| !all.is_empty())?;
    ensure!(
        all[0]["ce"]["type"] == "google.cloud.storage.object.v1.finalized" && all[0]["ce"]["subject"] == "objects/photo.jpg" && all[0]["body"]["size"] == "5",
        "{:#}",
        all[0]
    );

    // Calls of an API, by a pattern of what they are about.
    tanebi.script_all(&deploy(
        "audit-fn",
        "--gen2 --trigger-event-filters type=google.cloud.audit.log.v1.written,serviceName=pubsub.googleapis.com,methodName=google.pubsub.v1.Publisher.CreateTopic \
         --trigger-event-filters-path-pattern 'resourceName=/projects/*/topics/new-*' --trigger-location global",
    ))?;
    tanebi.script_all("gcloud pubsub topics create old-1\ngcloud pubsub topics create new-1")?;
    let all = saw(&tanebi, "audit-fn", "the call came", |all| !all.is_empty())?;
    ensure!(all.len() == 1 && all[0]["ce"]["resourcename"] == format!("projects/{PROJECT}/topics/new-1"), "{all:#?}");
    ensure!(all[0]["body"]["protoPayload"]["authenticationInfo"]["principalEmail"] == "developer@tanebi.local", "{:#}", all[0]);

    // What failed without --retry has not come again, though there was time; then a redeploy with it keeps the trigger.
    let fails = |all: &[Value]| all.iter().filter(|event| data(event) == "ZmFpbA==").count();
    ensure!(fails(&saw(&tanebi, "topic-fn", "the log", |_| true)?) == 1);
    let trigger = |name: &str| value(&format!("gcloud functions describe {name} --region {REGION} --format 'value(eventTrigger.trigger)'"));
    let before = trigger("topic-fn")?;
    tanebi.script_all(&deploy("topic-fn", "--gen2 --trigger-topic greetings --retry"))?;
    ensure!(trigger("topic-fn")? == before);
    tanebi.script_all("gcloud pubsub topics publish greetings --message fail")?;
    saw(&tanebi, "topic-fn", "it is tried again", |all| fails(all) >= 3)?;

    let listed = value("gcloud functions list --format 'csv[no-heading](name.basename(),state)'")?;
    ensure!(listed.lines().count() == 3, "{listed}");
    for name in ["topic-fn", "bucket-fn", "audit-fn"] {
        tanebi.script_all(&format!("gcloud --quiet functions delete {name} --region {REGION}"))?;
    }
    ensure!(value("gcloud eventarc triggers list --location - --format 'value(name)' 2>/dev/null")?.is_empty());
    let left =
        value("gcloud pubsub topics list --format 'value(name.basename())'\ngcloud pubsub subscriptions list --format 'value(name.basename())' 2>/dev/null")?;
    ensure!(left.contains("greetings") && !left.contains("eventarc-"), "{left}");
    Ok(())
}

/// The examples of all languages, called by one message.
fn languages() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let rows = [
        ("python", "python312", "hello_cloudevent"),
        ("nodejs", "nodejs20", "helloCloudEvent"),
        ("go", "go126", "HelloCloudEvent"),
        ("java", "java17", "functions.HelloCloudEvent"),
    ];
    for (language, runtime, target) in rows {
        let source = repository().join("examples").join(language).join("hello_cloudevent");
        tanebi.script_all(&format!(
            "gcloud --quiet functions deploy on-{language} --gen2 --runtime {runtime} --source '{}' --entry-point {target} --region {REGION} --trigger-topic greetings",
            source.display()
        ))?;
    }
    tanebi.script_all("gcloud pubsub topics publish greetings --message 'hello to all'")?;
    for (language, ..) in rows {
        eventually(&format!("{language} got the message"), || {
            let log = tanebi.script(&format!("tanebi logs on-{language} --limit 100"))?;
            Ok((log.contains("type: google.cloud.pubsub.topic.v1.messagePublished, id: ") && log.contains("text: hello to all")).then_some(()))
        })?;
    }
    Ok(())
}

/// Each check of `python.py`, by gRPC and by REST.
fn python() -> Result<()> {
    let tanebi = Tanebi::start()?;
    let source = folder(&[("main.py", WATCH), REQUIREMENTS])?;
    tanebi.deploy("watch", source.path(), "--function watch")?;
    program(&tanebi, &python_command("tests/eventarc/python.py")?)
}

/// Writes down in a bucket what each event is about, before it says that it took it.
const KEEP: &str = r#"
import json
import urllib.parse
import urllib.request


def keep(request):
    body = request.get_json()
    about = {
        "/message": lambda: body["message"]["attributes"]["text"],
        "/object": lambda: body["name"],
        "/audit": lambda: body["protoPayload"]["resourceName"].rsplit("/", 1)[1],
    }[request.path]()
    asked = urllib.request.Request("http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token", headers={"Metadata-Flavor": "Google"})
    token = json.load(urllib.request.urlopen(asked, timeout=10))["access_token"]
    url = "https://storage.googleapis.com/upload/storage/v1/b/ledger-of-events/o?uploadType=media&name=" + urllib.parse.quote(about)
    urllib.request.urlopen(urllib.request.Request(url, data=b"x", headers={"Authorization": "Bearer " + token}, method="POST"), timeout=10)
    return "", 204
"#;

/// The APIs by hand, as the owner.
struct Client<'a> {
    tanebi: &'a Tanebi,
    token: String,
}

impl Client<'_> {
    fn call(&self, method: &str, host: &str, target: &str, body: &Value) -> Result<Value> {
        let authorization = format!("Authorization: Bearer {}", self.token);
        let answer = http1::call(
            self.tanebi.listen,
            method,
            target,
            &format!("{host}.googleapis.com"),
            &[&authorization, "Content-Type: application/json"],
            body.to_string().as_bytes(),
        )?;
        if answer.status != 200 {
            bail!("{method} {host}{target}: {} {}", answer.status, answer.text());
        }
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Makes something happen that is an event of `source`, called `name`.
    fn happen(&self, source: &str, name: &str) -> Result<()> {
        match source {
            "message" => {
                let messages = json!({ "messages": [{ "attributes": { "text": name } }] });
                self.call("POST", "pubsub", &format!("/v1/projects/{PROJECT}/topics/top:publish"), &messages)
            }
            "object" => self.call("POST", "storage", &format!("/upload/storage/v1/b/events-of-tanebi/o?uploadType=media&name={name}"), &json!("x")),
            _ => self.call("PUT", "pubsub", &format!("/v1/projects/{PROJECT}/topics/{name}"), &json!({})),
        }
        .map(drop)
    }
}

fn kills_lose_no_event() -> Result<()> {
    let kills = if is_full() { 100 } else { 10 };
    let mut tanebi = Tanebi::start()?;
    let source = folder(&[("main.py", KEEP), REQUIREMENTS])?;
    tanebi.deploy("keep", source.path(), "--function keep --concurrency 20 --max-instances 1")?;
    let to =
        format!("--destination-run-service keep --service-account {}-compute@developer.gserviceaccount.com --destination-run-region {REGION}", tanebi.number);
    let create = |id: &str, flags: &str| format!("gcloud eventarc triggers create {id} {to} --destination-run-path {id} {flags}");
    tanebi.script_all(
        &[
            format!("gcloud storage buckets create gs://events-of-tanebi gs://ledger-of-events --location {REGION}"),
            "gcloud pubsub topics create top".to_owned(),
            create("message", &format!("--location {REGION} --transport-topic top --event-filters type=google.cloud.pubsub.topic.v1.messagePublished")),
            create(
                "object",
                &format!("--location {REGION} --event-filters type=google.cloud.storage.object.v1.finalized --event-filters bucket=events-of-tanebi"),
            ),
            create(
                "audit",
                "--location global --event-filters type=google.cloud.audit.log.v1.written --event-filters serviceName=pubsub.googleapis.com \
                 --event-filters methodName=google.pubsub.v1.Publisher.CreateTopic",
            ),
        ]
        .join("\n"),
    )?;
    let token = tanebi.script("gcloud auth print-access-token")?.trim().to_owned();
    let done: Mutex<BTreeSet<String>> = Mutex::default();
    for round in 0..kills {
        let seen = tanebi.ready_count();
        let stop = AtomicBool::new(false);
        let client = Client { tanebi: &tanebi, token: token.clone() };
        std::thread::scope(|scope| -> Result<()> {
            let (client, done, stop) = (&client, &done, &stop);
            for source in ["message", "object", "audit"] {
                scope.spawn(move || {
                    for count in 0.. {
                        let name = format!("{source}-{round}-{count}");
                        if stop.load(Ordering::Relaxed) || client.happen(source, &name).is_err() {
                            return;
                        }
                        done.lock().expect("no panic").insert(name);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(rand::random_range(200..1500)));
            let daemon = *children(client.tanebi.pid()).first().context("no daemon")?;
            kill(daemon, "KILL")?;
            stop.store(true, Ordering::Relaxed);
            Ok(())
        })?;
        tanebi.ready_wait(seen)?;
    }
    let client = Client { tanebi: &tanebi, token };
    let done = done.into_inner().expect("no panic");
    let missing = || -> Result<Vec<String>> {
        let (mut kept, mut page) = (BTreeSet::new(), String::new());
        loop {
            let found = client.call("GET", "storage", &format!("/storage/v1/b/ledger-of-events/o?pageToken={page}"), &Value::Null)?;
            kept.extend(found["items"].as_array().into_iter().flatten().filter_map(|object| object["name"].as_str().map(str::to_owned)));
            match found["nextPageToken"].as_str() {
                Some(next) => page = next.to_owned(),
                None => return Ok(done.difference(&kept).cloned().collect()),
            }
        }
    };
    let waited = eventually("each event came", || Ok(missing()?.is_empty().then_some(())));
    waited.with_context(|| format!("{:?}", missing()))?;
    println!("  {kills} kills, {} acknowledged changes, 0 events lost", done.len());
    for source in ["message", "object", "audit"] {
        ensure!(done.iter().filter(|name| name.starts_with(source)).count() > kills, "hardly anything was under way: {source}");
    }
    Ok(())
}
