//! Every folder of examples/LANGUAGE is deployed and called once.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use e2e::{Tanebi, eventually, holds, repository};
use serde_json::json;

use super::{EVENT_SIGNATURE, GO, JAVA, Language, NODEJS, PYTHON, Service, deploy_command, json_of};

/// Folder, function, what the deploy needs more, how it is called.
type Example = (&'static str, &'static str, &'static str, fn(&Service) -> Result<()>);

const PYTHON_EXAMPLES: &[Example] = &[
    ("hello_http", "hello_http", "", greets),
    ("hello_cloudevent", "hello_cloudevent", "", logs_cloudevent),
    ("hello_event", "hello_event", EVENT_SIGNATURE, logs_legacy),
    ("hello_pubsub", "hello_pubsub", "", takes_message),
    ("hello_storage", "hello_storage", "", takes_object),
    ("streaming", "streaming", "", streams),
    ("typed", "typed", "", is_typed),
    ("pyproject", "hello_http", "", greets),
];
const NODEJS_EXAMPLES: &[Example] = &[
    ("hello_http", "helloHttp", "", greets),
    ("hello_cloudevent", "helloCloudEvent", "", logs_cloudevent),
    ("hello_event", "helloEvent", EVENT_SIGNATURE, logs_legacy),
    ("hello_pubsub", "helloPubSub", "", takes_message),
    ("hello_storage", "helloStorage", "", takes_object),
    ("streaming", "streaming", "", streams),
    ("typed", "typed", "", is_typed),
    ("typescript", "helloHttp", "", greets),
];
const GO_EXAMPLES: &[Example] = &[
    ("hello_http", "HelloHTTP", "", greets),
    ("hello_cloudevent", "HelloCloudEvent", "", logs_cloudevent),
    ("hello_event", "HelloEvent", "", logs_legacy),
    ("hello_pubsub", "HelloPubSub", "", takes_message),
    ("hello_storage", "HelloStorage", "", takes_object),
    ("streaming", "Streaming", "", streams),
    ("typed", "Typed", "", is_typed),
];
const JAVA_EXAMPLES: &[Example] = &[
    ("hello_http", "functions.HelloHttp", "", greets),
    ("hello_cloudevent", "functions.HelloCloudEvent", "", logs_cloudevent),
    ("hello_event", "functions.HelloEvent", "", logs_legacy),
    ("hello_pubsub", "functions.HelloPubSub", "", takes_message),
    ("hello_storage", "functions.HelloStorage", "", takes_object),
    ("streaming", "functions.Streaming", "", streams),
    ("typed", "functions.Typed", "", is_typed),
    ("gradle_http", "functions.HelloHttp", "", greets),
];

/// All languages at a time, the examples of each one after another: the first one fetches what the others have too.
pub fn examples() -> Result<()> {
    let all = [(&PYTHON, PYTHON_EXAMPLES), (&NODEJS, NODEJS_EXAMPLES), (&GO, GO_EXAMPLES), (&JAVA, JAVA_EXAMPLES)];
    let named: BTreeSet<_> = all.iter().flat_map(|(language, examples)| examples.iter().map(|(folder, ..)| format!("{}/{folder}", language.name))).collect();
    let there = folders()?;
    ensure!(named == there, "without a row: {:?}; without a folder: {:?}", there.difference(&named), named.difference(&there));
    let tanebi = &Tanebi::start()?;
    std::thread::scope(|scope| {
        let languages = all.map(|(language, examples)| scope.spawn(move || examples.iter().try_for_each(|example| tried(tanebi, language, example))));
        languages.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

/// `LANGUAGE/NAME` of each folder.
fn folders() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for language in std::fs::read_dir(repository().join("examples"))? {
        let language = language?;
        if !language.file_type()?.is_dir() {
            continue;
        }
        for example in std::fs::read_dir(language.path())? {
            found.insert(format!("{}/{}", language.file_name().display(), example?.file_name().display()));
        }
    }
    Ok(found)
}

fn tried(tanebi: &Tanebi, language: &Language, (name, function, flags, check): &Example) -> Result<()> {
    let folder = format!("examples/{}/{name}", language.name);
    let service = format!("{}-{}", language.name, name.replace('_', "-"));
    if *name == "gradle_http" && tanebi.script("command -v gradle || true")?.is_empty() {
        let command = deploy_command(&service, &repository().join(&folder), function, language.main, flags);
        return holds(&tanebi.script_failing(&command)?, "The source is built by Gradle, and neither it nor this host has one.");
    }
    let service = Service::deploy(tanebi, &service, &folder, function, language.main, flags)?;
    check(&service).with_context(|| folder)
}

fn greets(service: &Service) -> Result<()> {
    for (answer, expect) in
        [(service.get("/")?, "Hello World!"), (service.get("/?name=Taro")?, "Hello Taro!"), (service.post_json("/", r#"{"name":"世界"}"#)?, "Hello 世界!")]
    {
        ensure!(answer.status == 200 && answer.text() == expect, "{answer:?}, not {expect:?}");
    }
    Ok(())
}

fn streams(service: &Service) -> Result<()> {
    let answer = service.get("/")?;
    ensure!(answer.status == 200 && answer.text() == "line 1\nline 2\nline 3\nline 4\nline 5\n", "{answer:?}");
    Ok(())
}

fn is_typed(service: &Service) -> Result<()> {
    let answer = service.post_json("/", r#"{"name":"Taro"}"#)?;
    ensure!(answer.status == 200 && json_of(&answer)? == json!({ "greeting": "Hello Taro!" }), "{answer:?}");
    Ok(())
}

fn logs_cloudevent(service: &Service) -> Result<()> {
    logs(service, "google.cloud.pubsub.topic.v1.messagePublished")
}

fn logs_legacy(service: &Service) -> Result<()> {
    logs(service, "google.pubsub.topic.publish")
}

/// A message of Pub/Sub.
fn logs(service: &Service, kind: &str) -> Result<()> {
    let lines = [format!("type: {kind}, id: 4711"), "text: 夏の星".to_owned()];
    logs_message(service, "夏の星", &lines)
}

fn takes_message(service: &Service) -> Result<()> {
    logs_message(service, "夏", &["Hello, 夏!".to_owned()])
}

fn logs_message(service: &Service, text: &str, lines: &[String]) -> Result<()> {
    let message = json!({ "data": BASE64_STANDARD.encode(text), "messageId": "4711", "publishTime": "2026-05-17T08:09:10.123Z" });
    let body = json!({ "message": message, "subscription": "projects/hoshi-works/subscriptions/orders-push" });
    logs_event(service, "google.cloud.pubsub.topic.v1.messagePublished", "//pubsub.googleapis.com/projects/hoshi-works/topics/orders", &body, lines)
}

/// An object that was put into a bucket.
fn takes_object(service: &Service) -> Result<()> {
    let body = json!({ "kind": "storage#object", "bucket": "hoshi", "name": "a/夏.txt", "size": "9", "generation": "1" });
    let kind = "google.cloud.storage.object.v1.finalized";
    let lines = [format!("{kind}: gs://hoshi/a/夏.txt, 9 bytes")];
    logs_event(service, kind, "//storage.googleapis.com/projects/_/buckets/hoshi", &body, &lines)
}

/// Calls with a CloudEvent in binary form, and waits for lines of the log.
fn logs_event(service: &Service, kind: &str, source: &str, body: &serde_json::Value, lines: &[String]) -> Result<()> {
    let (kind, source) = (format!("ce-type: {kind}"), format!("ce-source: {source}"));
    let fields = ["ce-specversion: 1.0", "ce-id: 4711", &kind, &source, "ce-time: 2026-05-17T08:09:10.123Z", "Content-Type: application/json"];
    let answer = service.call("POST", "/", &fields, body.to_string().as_bytes())?;
    ensure!([200, 204].contains(&answer.status), "{answer:?}");
    let mut log = String::new();
    eventually("the event is in the log", || {
        log = service.log()?;
        Ok(lines.iter().all(|line| log.contains(line)).then_some(()))
    })
    .with_context(|| format!("{lines:?} are not in:\n{log}"))
}
