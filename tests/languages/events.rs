//! Every event of tests/events/vectors.json, sent through tanebi to the real framework: what it answers and what the function sees.
//!
//! Truth: the answers in vectors.json, which the frameworks gave without tanebi. How to read them: tests/events/frameworks.json.
//! The functions (tests/functions/LANGUAGE) write what they see as a line of JSON; an attribute that they do not write
//! (specversion, datacontenttype, extensions) is not compared.

use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use e2e::{Tanebi, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{GO, JAVA, Language, NODEJS, PYTHON, Service};

pub fn events_python() -> Result<()> {
    events(&PYTHON)
}

pub fn events_nodejs() -> Result<()> {
    events(&NODEJS)
}

pub fn events_go() -> Result<()> {
    events(&GO)
}

pub fn events_java() -> Result<()> {
    events(&JAVA)
}

static VECTORS: LazyLock<Vec<Value>> = LazyLock::new(|| serde_json::from_str(include_str!("../events/vectors.json")).expect("it is a list"));

/// One of the two kinds of functions.
struct Direction {
    name: &'static str,
    /// The member of an expectation, and what the function calls its lines.
    kind: &'static str,
    /// Names in an expectation, and in a line.
    names: &'static [(&'static str, &'static str)],
    time: &'static str,
}

const TO_CLOUDEVENT: Direction = Direction {
    name: "to_cloudevent",
    kind: "cloudevent",
    names: &[("id", "id"), ("source", "source"), ("type", "type"), ("subject", "subject"), ("time", "time"), ("data", "data")],
    time: "time",
};
const TO_LEGACY: Direction = Direction {
    name: "to_legacy",
    kind: "event",
    names: &[("eventId", "id"), ("timestamp", "timestamp"), ("eventType", "eventType"), ("resource", "resource"), ("data", "data")],
    time: "timestamp",
};

fn events(language: &Language) -> Result<()> {
    let tanebi = Tanebi::start()?;
    let folder = format!("tests/functions/{}", language.name);
    let deploy = |name, target, flags: &str| Service::deploy(&tanebi, name, &folder, target, language.main, &format!("--max-instances 1 {flags}"));
    let events = deploy("events", language.events, "")?;
    let (events, legacy) = std::thread::scope(|scope| {
        let events = scope.spawn(|| compared(&events, language, &TO_CLOUDEVENT));
        // This one finds the dependencies of the first.
        let legacy = deploy("legacy", language.legacy, language.legacy_flags).and_then(|legacy| compared(&legacy, language, &TO_LEGACY));
        (events.join().expect("no panic"), legacy)
    });
    println!("  {} {}: {}", language.name, TO_CLOUDEVENT.name, events?);
    println!("  {} {}: {}", language.name, TO_LEGACY.name, legacy?);
    Ok(())
}

/// What a language is expected to do with a vector.
enum Expected {
    /// The function is called with this.
    Called {
        status: u16,
        with: Value,
    },
    Refused {
        status: u16,
    },
    /// The function is called and cannot write what it sees.
    Failed,
}

impl Expected {
    fn status(&self) -> u16 {
        match self {
            Self::Called { status, .. } | Self::Refused { status } => *status,
            Self::Failed => 500,
        }
    }
}

/// A call of the function that is expected.
struct Call {
    name: String,
    with: Value,
    span: Span,
}

/// When a request was answered.
struct Span {
    since: Timestamp,
    until: Timestamp,
}

/// Sends each vector, reads the log once, and compares; the counts.
fn compared(service: &Service, language: &Language, direction: &Direction) -> Result<String> {
    let vectors: Vec<_> = VECTORS.iter().filter(|vector| vector["direction"] == direction.name).collect();
    let mut wrong = Vec::new();
    let mut calls = Vec::new();
    let mut failed = 0;
    for vector in &vectors {
        let expected = expected(vector, language, direction).with_context(|| vector["name"].to_string())?;
        let since = Timestamp::now();
        let status = sent(service, &vector["request"])?;
        if status != expected.status() {
            wrong.push(format!("{}: answered {status}, not {}", vector["name"], expected.status()));
        }
        match expected {
            Expected::Called { with, .. } => calls.push(Call { name: vector["name"].to_string(), with, span: Span { since, until: Timestamp::now() } }),
            Expected::Failed => failed += 1,
            Expected::Refused { .. } => {}
        }
    }
    let entries = entries(service, direction)?;
    if entries.len() != calls.len() {
        wrong.push(format!("{} events were written, not {}: what follows may be of another event", entries.len(), calls.len()));
    }
    for (call, entry) in calls.iter().zip(&entries) {
        wrong.extend(differences(language, direction, call, entry));
    }
    ensure!(wrong.is_empty(), "{} {}: {} differences, first\n{}", language.name, direction.name, wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    let refused = vectors.len() - calls.len() - failed;
    let values = calls.len() * direction.names.len();
    Ok(format!("{} vectors: {} calls with {values} values, {refused} refused, {failed} that the function cannot write", vectors.len(), calls.len()))
}

/// What of an entry is not as expected.
fn differences(language: &Language, direction: &Direction, call: &Call, entry: &Value) -> Vec<String> {
    let line = &entry["jsonPayload"];
    let difference = |(name, name_in_line): &(&str, &str)| {
        let (expect, mut seen) = (member(&call.with, name), member(line, name_in_line));
        let mut as_instant = *name == direction.time && language.has_time(direction);
        // The Logging API takes a time of these days out of a line: it is the entry's then.
        if *name == direction.time && line.get(name_in_line).is_none() && !expect.is_null() {
            (seen, as_instant) = (entry["timestamp"].clone(), true);
        }
        let is_alike = match (as_instant, *name) {
            (true, _) if !is_now(&expect) => language.is_same_time(&expect, &seen),
            (_, "resource") if expect.is_object() => language.is_same_resource(&expect, &seen),
            _ => is_alike(&expect, &seen, &call.span),
        };
        (!is_alike).then(|| format!("{}: {name} is {seen}, not {expect}", call.name))
    };
    direction.names.iter().filter_map(difference).collect()
}

/// What stands in an expectation for the time of the request.
const NOW: &str = "$NOW";

fn is_now(value: &Value) -> bool {
    value == NOW
}

/// A member; null where there is none.
fn member(of: &Value, name: &str) -> Value {
    of.get(name).cloned().unwrap_or_default()
}

/// POSTs a request of the vectors; the status.
fn sent(service: &Service, request: &Value) -> Result<u16> {
    let text = |name: &str| request[name].as_str();
    let body = match (text("body_text"), text("body_base64")) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(bytes)) => BASE64_STANDARD.decode(bytes)?,
        _ => request.get("body").context("a body")?.to_string().into_bytes(),
    };
    let headers = request["headers"].as_object().context("headers")?;
    let fields: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or_default())).collect();
    let fields: Vec<_> = fields.iter().map(String::as_str).collect();
    Ok(service.call("POST", text("path").context("a path")?, &fields, &body)?.status)
}

/// What the vector says of the language, as the language's test function can show it.
fn expected(vector: &Value, language: &Language, direction: &Direction) -> Result<Expected> {
    let kind = direction.kind;
    let agreed = &vector["expect"][kind];
    // The test function of Node.js has version 3 of the framework.
    let own = vector["languages"].get(format!("{}_3", language.name)).unwrap_or(&vector["languages"][language.name]);
    let expected = match (own.as_str(), own["differs"].as_object()) {
        (Some("same"), _) if agreed.is_object() => Expected::Called { status: language.event_status, with: agreed.clone() },
        (Some("same"), _) => Expected::Refused { status: status(&vector["expect"]["error"])? },
        // Google answers for a function that does not.
        (Some("error connection closed"), _) => Expected::Refused { status: 503 },
        (Some(error), _) => Expected::Refused { status: error.strip_prefix("error ").context("an error")?.parse()? },
        (_, Some(differs)) if agreed.is_object() => Expected::Called { status: language.event_status, with: differing(agreed, differs)? },
        (_, Some(differs)) => Expected::Called { status: status(&differs["status"])?, with: differs.get(kind).context("what it is called with")?.clone() },
        _ => bail!("no answer of {}", language.name),
    };
    Ok(match expected {
        Expected::Called { with, .. } if language.cannot_write(direction, &with) => Expected::Failed,
        other => other,
    })
}

fn status(value: &Value) -> Result<u16> {
    Ok(value.as_u64().with_context(|| format!("no status: {value}"))?.try_into()?)
}

/// `agreed` with the values at these JSON pointers.
fn differing(agreed: &Value, differs: &Map<String, Value>) -> Result<Value> {
    let mut with = agreed.clone();
    for (pointer, value) in differs {
        let (parent, name) = pointer.rsplit_once('/').context("a JSON pointer")?;
        let name = name.replace("~1", "/").replace("~0", "~");
        let parent = with.pointer_mut(parent).and_then(Value::as_object_mut).with_context(|| format!("nothing at {pointer}"))?;
        if value == "$ABSENT" {
            parent.remove(&name).with_context(|| format!("nothing at {pointer}"))?;
        } else {
            parent.insert(name, value.clone());
        }
    }
    Ok(with)
}

impl Language {
    /// Whether the language's test function fails on it: those of Go and Node.js without a context, that of Python on bytes that are
    /// no text.
    fn cannot_write(&self, direction: &Direction, with: &Value) -> bool {
        match self.name {
            "go" => direction.kind == "event" && with.get("eventId").is_none(),
            "nodejs" => direction.kind == "event" && with.as_object().is_some_and(|with| with.keys().eq(["data"])),
            "python" => {
                with["data"]["$base64"].as_str().is_some_and(|bytes| BASE64_STANDARD.decode(bytes).map(String::from_utf8).is_ok_and(|text| text.is_err()))
            }
            _ => false,
        }
    }

    /// Whether a time is not text for the language.
    fn has_time(&self, direction: &Direction) -> bool {
        self.name == "go" || self.name == "java" && direction.kind == "cloudevent"
    }

    fn is_same_time(&self, expect: &Value, seen: &Value) -> bool {
        match (instant(expect), instant(seen)) {
            // Go has a time always; the function leaves out the one that is none.
            (Some(expect), None) => self.name == "go" && expect.to_string() == "0001-01-01T00:00:00Z" && seen.is_null(),
            (None, None) => expect == seen,
            (expect, seen) => expect == seen,
        }
    }

    fn is_same_resource(&self, expect: &Value, seen: &Value) -> bool {
        match self.name {
            "java" => seen.as_str().and_then(|json| serde_json::from_str::<Value>(json).ok()).is_some_and(|seen| seen == *expect),
            // A struct: what is not set is empty.
            "go" => ["service", "name", "type"].iter().all(|part| expect[part].as_str().unwrap_or_default() == seen[part]),
            _ => expect == seen,
        }
    }
}

fn instant(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// The same, but for the marks of vectors.json.
fn is_alike(expect: &Value, seen: &Value, span: &Span) -> bool {
    if is_now(expect) {
        // Some frameworks have less than a second of precision.
        return instant(seen).is_some_and(|time| (span.since - SignedDuration::from_secs(1)..=span.until).contains(&time));
    }
    if let Some(text) = expect["$bytes"].as_str() {
        let json = |text: &str| serde_json::from_str::<Value>(text).ok();
        return seen.as_str().is_some_and(|seen| seen == text || json(seen).is_some_and(|seen| Some(seen) == json(text)));
    }
    if let Some(bytes) = expect["$base64"].as_str() {
        return BASE64_STANDARD.decode(bytes).is_ok_and(|bytes| seen.as_str() == Some(&String::from_utf8_lossy(&bytes)));
    }
    match (expect, seen) {
        (Value::Object(expect), Value::Object(seen)) => {
            expect.len() == seen.len() && expect.iter().all(|(name, value)| seen.get(name).is_some_and(|seen| is_alike(value, seen, span)))
        }
        // Numbers are doubles in the Logging API.
        (Value::Number(expect), Value::Number(seen)) => expect.as_f64() == seen.as_f64(),
        (Value::Array(expect), Value::Array(seen)) => expect.len() == seen.len() && expect.iter().zip(seen).all(|(expect, seen)| is_alike(expect, seen, span)),
        _ => expect == seen,
    }
}

/// The entries of all events so far, oldest first. An event more is sent: when its entry is there, all are.
fn entries(service: &Service, direction: &Direction) -> Result<Vec<Value>> {
    const LAST: &str = "the last event";
    let context = json!({
        "eventId": LAST,
        "timestamp": "2026-05-17T08:09:10.123Z",
        "eventType": "google.pubsub.topic.publish",
        "resource": { "service": "pubsub.googleapis.com", "name": "projects/hoshi-works/topics/orders", "type": "type.googleapis.com/google.pubsub.v1.PubsubMessage" },
    });
    let answer = service.post_json("/", &json!({ "context": context, "data": { "data": "" } }).to_string())?;
    ensure!([200, 204].contains(&answer.status), "the last event: {answer:?}");
    let kind = direction.kind;
    let filter = format!(r#"resource.labels.service_name="{}" AND (jsonPayload.kind="{kind}" OR textPayload:"\"kind\":\"{kind}\"")"#, service.name);
    eventually("the last event is in the log", || {
        let read = service.tanebi.script(&format!("gcloud logging read '{filter}' --freshness 60d --limit 1000 --format json"))?;
        let mut entries: Vec<Value> = serde_json::from_str(&read)?;
        // Ids rise in the order of writing; a time may be one that the line itself told.
        entries.sort_by_key(|entry| entry["insertId"].as_str().unwrap_or_default().to_owned());
        entries.iter_mut().try_for_each(own_line)?;
        Ok(entries.pop_if(|entry| entry["jsonPayload"]["id"] == LAST).map(|_| entries))
    })
}

/// The framework of Go warns without ending the line, so that the function's own follows in it.
fn own_line(entry: &mut Value) -> Result<()> {
    let Some(text) = entry["textPayload"].as_str() else { return Ok(()) };
    ensure!(text.starts_with("WARNING: failed to extract Pub/Sub topic name"), "not a line of the function: {text}");
    let (_, line) = text.split_once("TOPIC_NAME'").context("the end of the warning")?;
    entry["jsonPayload"] = serde_json::from_str(line)?;
    Ok(())
}
