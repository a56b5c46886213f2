//! What a revision answered to a copy, and where two replies differ.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderMap;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// As much of a body is read and compared; as much of it is shown.
const BODY_MAX_BYTES: usize = 256 << 10;
const SHOWN_MAX_BYTES: usize = 4 << 10;
/// Of one pair of replies that are told; characters of each value.
const DIFFERENCES_MAX: usize = 20;
const VALUE_MAX_CHARS: usize = 300;
/// Values of a JSON document that are told apart; the longest path of one: together they take about 1 MiB.
const VALUES_MAX: usize = 2000;
const PATH_MAX_BYTES: usize = 512;

/// One reply.
pub struct Reply {
    /// 0: there was none in time.
    pub status: u16,
    /// By name; several of one name together.
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    is_cut: bool,
    /// Until the last byte.
    pub latency: Duration,
    pub is_cold: bool,
}

/// One place where two replies are not the same.
pub struct Difference {
    /// `status`, `header` or `body`.
    pub what: &'static str,
    /// The header's name, or the path of a value in a JSON document.
    pub place: String,
    pub serving: String,
    pub candidate: String,
}

impl Difference {
    pub fn is_at(&self, other: &Self) -> bool {
        self.what == other.what && self.place == other.place
    }
}

impl Reply {
    pub fn none(latency: Duration) -> Self {
        Self { status: 0, headers: BTreeMap::new(), body: Vec::new(), is_cut: false, latency, is_cold: false }
    }

    pub async fn read(status: u16, headers: HeaderMap, mut body: serving::Body, began: std::time::Instant) -> Self {
        let mut reply = Self { is_cold: headers.contains_key("tanebi-cold-start"), ..Self::none(Duration::ZERO) };
        for (name, value) in super::told(&headers) {
            let all = reply.headers.entry(name.to_owned()).or_default();
            if !all.is_empty() {
                all.push_str(", ");
            }
            all.push_str(&value);
        }
        reply.status = status;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                // It broke in the middle.
                reply.status = 502;
                break;
            };
            let Some(data) = frame.data_ref() else { continue };
            let room = BODY_MAX_BYTES - reply.body.len();
            reply.body.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                reply.is_cut = true;
                break;
            }
        }
        reply.latency = began.elapsed();
        reply
    }

    pub fn is_failure(&self) -> bool {
        self.status == 0 || self.status >= 500
    }

    /// Its body only when it is `shown`.
    pub fn written(&self, shown: bool) -> Value {
        let body = &self.body[..self.body.len().min(SHOWN_MAX_BYTES)];
        let mut written = json!({
            "status": self.status, "latencyMs": self.latency.as_secs_f64() * 1e3, "isCold": self.is_cold,
            "bytes": self.body.len(), "isCut": self.is_cut || body.len() < self.body.len(),
        });
        if shown {
            written["text"] = json!(String::from_utf8_lossy(body));
        }
        written
    }
}

/// Where `serving` and `candidate` differ: status, headers, body; in a JSON document the values that do.
pub fn differences(serving: &Reply, candidate: &Reply) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut tell = |what, place: &str, one: &str, other: &str| {
        if one != other && found.len() < DIFFERENCES_MAX {
            found.push(Difference { what, place: place.to_owned(), serving: short(one), candidate: short(other) });
        }
    };
    let status = |reply: &Reply| if reply.status == 0 { "-".to_owned() } else { reply.status.to_string() };
    tell("status", "", &status(serving), &status(candidate));
    pairs(&serving.headers, &candidate.headers, |name, one, other| tell("header", name, one, other));
    if serving.body == candidate.body {
        return found;
    }
    match (values(serving), values(candidate)) {
        (Some(one), Some(other)) if one != other => pairs(&one, &other, |path, one, other| tell("body", path, one, other)),
        // As documents they are the same, or they are none: the texts tell.
        _ => tell("body", "", &String::from_utf8_lossy(&serving.body), &String::from_utf8_lossy(&candidate.body)),
    }
    found
}

/// Each key of either map, with what both have there; nothing is the empty text.
fn pairs(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>, mut tell: impl FnMut(&str, &str, &str)) {
    let keys: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    for key in keys {
        tell(key, one.get(key).map_or("", String::as_str), other.get(key).map_or("", String::as_str));
    }
}

/// The values of a JSON document by their paths; `None` when it is none, or too large to look into.
fn values(reply: &Reply) -> Option<BTreeMap<String, String>> {
    let document: Value = serde_json::from_slice(&reply.body).ok().filter(|document: &Value| document.is_object() || document.is_array())?;
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), &document)];
    while let Some((path, value)) = open.pop() {
        let (children, name_bytes) = match value {
            Value::Object(fields) => (fields.len(), fields.keys().map(String::len).max().unwrap_or_default()),
            Value::Array(items) => (items.len(), 0),
            _ => (0, 0),
        };
        // Before a path is made for any of them: the text of one may be as long as the document.
        if found.len() + open.len() + children.max(1) > VALUES_MAX || path.len() + name_bytes > PATH_MAX_BYTES {
            return None;
        }
        match value {
            Value::Object(fields) if !fields.is_empty() => open.extend(fields.iter().map(|(name, value)| (format!("{path}.{name}"), value))),
            Value::Array(items) if !items.is_empty() => open.extend(items.iter().enumerate().map(|(at, value)| (format!("{path}[{at}]"), value))),
            leaf => drop(found.insert(path, leaf.to_string())),
        }
    }
    Some(found)
}

fn short(text: &str) -> String {
    match text.char_indices().nth(VALUE_MAX_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
        Reply {
            status,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: body.as_bytes().to_vec(),
            ..Reply::none(Duration::ZERO)
        }
    }

    #[test]
    fn what_differs_is_told_by_its_place() {
        let check = |one: Reply, other: Reply, expect: &[&str]| {
            let found: Vec<_> = differences(&one, &other).iter().map(|d| format!("{} {} {} {}", d.what, d.place, d.serving, d.candidate)).collect();
            assert_eq!(found, expect);
        };
        check(reply(200, &[], "a"), reply(200, &[], "a"), &[]);
        check(reply(200, &[], ""), reply(500, &[], ""), &["status  200 500"]);
        check(reply(200, &[], ""), reply(0, &[], ""), &["status  200 -"]);
        check(reply(200, &[("a", "1"), ("b", "2")], ""), reply(200, &[("b", "3")], ""), &["header a 1 ", "header b 2 3"]);
        check(reply(200, &[], "one"), reply(200, &[], "two"), &["body  one two"]);
        let (one, other) = (r#"{"a":{"b":[1,2]},"at":"10:00"}"#, r#"{"a":{"b":[1,3]},"c":null,"at":"10:01"}"#);
        check(reply(200, &[], one), reply(200, &[], other), &["body .a.b[1] 2 3", "body .at \"10:00\" \"10:01\"", "body .c  null"]);
        // The same document in another order of its fields is another text.
        check(reply(200, &[], r#"{"a":1,"b":2}"#), reply(200, &[], r#"{"b":2,"a":1}"#), &[r#"body  {"a":1,"b":2} {"b":2,"a":1}"#]);
    }

    #[test]
    fn what_is_told_is_bounded() {
        let long = reply(200, &[], &"x".repeat(VALUE_MAX_CHARS + 1));
        let told = differences(&long, &reply(200, &[], ""));
        assert_eq!(told[0].serving.chars().count(), VALUE_MAX_CHARS + 1);
        let many = (0..VALUES_MAX + 1).map(|at| at.to_string()).collect::<Vec<_>>().join(",");
        assert!(values(&reply(200, &[], &format!("[{many}]"))).is_none());
        // A path of 128 KiB for each of 60,000 values would be 8 GiB.
        let key = "k".repeat(128 << 10);
        let zeros = |count: usize| vec!["0"; count].join(",");
        assert!(values(&reply(200, &[], &format!("{{\"{key}\":[{}]}}", zeros(60_000)))).is_none());
        assert!(values(&reply(200, &[], &format!("{{\"{key}\":[{}]}}", zeros(VALUES_MAX - 1)))).is_none());
        let deep = |name: &str, depth: usize| format!("{}0{}", format!("{{\"{name}\":").repeat(depth), "}".repeat(depth));
        assert!(values(&reply(200, &[], &deep(&"k".repeat(100), 100))).is_none());
        assert_eq!(values(&reply(200, &[], &deep("k", 100))).unwrap().len(), 1);
        assert_eq!(values(&reply(200, &[], &format!("[{}]", zeros(VALUES_MAX)))).unwrap().len(), VALUES_MAX);
        let some = |shift: usize| (shift..shift + 100).map(|at| at.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(differences(&reply(200, &[], &format!("[{}]", some(0))), &reply(200, &[], &format!("[{}]", some(1)))).len(), DIFFERENCES_MAX);
    }
}
