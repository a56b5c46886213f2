//! One line of a function's output as an entry: JSON objects are understood as Google's agent does.
//!
//! Truth: "Special fields in structured payloads" of Cloud Logging's documentation. What an entry here has no place for
//! (`logging.googleapis.com/insertId`, `.../operation`, `.../sourceLocation`) stays in the payload.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use model::{
    Timestamp,
    log::{HttpRequest, Payload, Severity},
};
use serde_json::{Map, Value};

use crate::shape::{severity_of, severity_parse};

/// The longest line. Google takes entries of up to 256 KiB.
pub const LINE_MAX_BYTES: usize = 256 << 10;
/// Times that a line may claim, from when it was read: Google's own bounds.
const PAST_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const FUTURE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Labels taken of one line.
const LABELS_MAX: usize = 64;

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub struct LineParsed {
    pub severity: Severity,
    pub payload: Payload,
    pub time: Timestamp,
    pub http: Option<HttpRequest>,
    /// `projects/P/traces/ID`.
    pub trace: String,
    pub span: String,
    pub trace_sampled: bool,
    pub labels: BTreeMap<String, String>,
}

/// One line of a function's output as an entry's severity, payload, time, trace...: JSON objects are understood as Google's agent does.
///
/// `line` comes with or without its end. Bytes that are no UTF-8 are replaced; a line longer than [`LINE_MAX_BYTES`] is cut
/// and says so. `project` completes a trace's id. Never fails: what is not understood is text, or stays in the payload.
pub fn line_parse(project: &str, line: &[u8], now: Timestamp, default: Severity) -> LineParsed {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = line_text(line);
    let mut parsed = LineParsed {
        severity: default,
        payload: Payload::None,
        time: now,
        http: None,
        trace: String::new(),
        span: String::new(),
        trace_sampled: false,
        labels: BTreeMap::new(),
    };
    parsed.payload = match object(&text) {
        Some(map) => object_parse(map, project, now, &mut parsed),
        None => Payload::Text(text.into_owned()),
    };
    parsed
}

fn line_text(line: &[u8]) -> Cow<'_, str> {
    if line.len() <= LINE_MAX_BYTES {
        return String::from_utf8_lossy(line);
    }
    // Not in the middle of a character, if it is one: a continuation byte begins with the bits 10.
    let end = (LINE_MAX_BYTES - 3..=LINE_MAX_BYTES).rev().find(|end| line[*end] & 0xC0 != 0x80).unwrap_or(LINE_MAX_BYTES);
    let text = String::from_utf8_lossy(&line[..end]);
    Cow::Owned(format!("{text}... [cut: the line has {} bytes, at most {LINE_MAX_BYTES} are kept]", line.len()))
}

fn object(text: &str) -> Option<Map<String, Value>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Takes what is understood out of `map`; what is left is the payload.
fn object_parse(mut map: Map<String, Value>, project: &str, now: Timestamp, parsed: &mut LineParsed) -> Payload {
    if let Some(severity) = take(&mut map, "severity", severity_value) {
        parsed.severity = severity;
    }
    if let Some(time) = time_take(&mut map, now) {
        parsed.time = time;
    }
    parsed.http = http_take(&mut map);
    if let Some(trace) = take(&mut map, "logging.googleapis.com/trace", text_value) {
        parsed.trace = if trace.contains('/') { trace } else { format!("projects/{project}/traces/{trace}") };
    }
    parsed.span = take(&mut map, "logging.googleapis.com/spanId", text_value).unwrap_or_default();
    parsed.trace_sampled = take(&mut map, "logging.googleapis.com/trace_sampled", bool_value).unwrap_or_default();
    parsed.labels = take(&mut map, "logging.googleapis.com/labels", labels_value).unwrap_or_default();
    match map.get("message") {
        Some(Value::String(message)) if map.len() == 1 => Payload::Text(message.clone()),
        _ => Payload::Json(Value::Object(map).to_string()),
    }
}

/// Removes the field `name` when `read` understands it.
fn take<T>(map: &mut Map<String, Value>, name: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
    let value = read(map.get(name)?)?;
    map.remove(name);
    Some(value)
}

/// Google's names, in any case, what other loggers call them, or a number, rounded down to one of Google's.
fn severity_value(value: &Value) -> Option<Severity> {
    match value {
        Value::String(text) => severity_parse(text).or_else(|| severity_alias(text)),
        Value::Number(number) => severity_of(number.as_i64()?.clamp(0, 800) / 100 * 100),
        _ => None,
    }
}

/// As Google's agent translates them.
fn severity_alias(text: &str) -> Option<Severity> {
    Some(match text.to_ascii_uppercase().as_str() {
        "TRACE" | "TRACE_INT" | "VERBOSE" | "FINE" | "FINER" | "FINEST" | "CONFIG" | "D" | "T" | "V" => Severity::Debug,
        "INFORMATION" | "INFORMATIONAL" | "I" => Severity::Info,
        "N" => Severity::Notice,
        "WARN" | "W" => Severity::Warning,
        "ERR" | "E" | "SEVERE" => Severity::Error,
        "CRIT" | "C" | "FATAL" | "F" => Severity::Critical,
        "A" => Severity::Alert,
        "EMERG" | "PANIC" => Severity::Emergency,
        _ => return None,
    })
}

/// `timestamp` as {seconds, nanos} or text, `timestampSeconds` with `timestampNanos`, or `time` as text: the first one there is.
///
/// A time out of bounds stays in the payload.
fn time_take(map: &mut Map<String, Value>, now: Timestamp) -> Option<Timestamp> {
    let in_bounds = |time: Timestamp| {
        let (past, future) = (now.saturating_sub(PAST_MAX).ok()?, now.saturating_add(FUTURE_MAX).ok()?);
        (past..=future).contains(&time).then_some(time)
    };
    let timestamp = take(map, "timestamp", |value| match value {
        Value::Object(parts) => time_of_parts(parts.get("seconds")?, parts.get("nanos")).and_then(in_bounds),
        other => text_value(other)?.parse().ok().and_then(in_bounds),
    });
    if timestamp.is_some() {
        return timestamp;
    }
    if let Some(time) = map.get("timestampSeconds").and_then(|seconds| time_of_parts(seconds, map.get("timestampNanos"))).and_then(in_bounds) {
        map.remove("timestampSeconds");
        map.remove("timestampNanos");
        return Some(time);
    }
    take(map, "time", |value| text_value(value)?.parse().ok().and_then(in_bounds))
}

fn time_of_parts(seconds: &Value, nanos: Option<&Value>) -> Option<Timestamp> {
    let nanos = nanos.map_or(Some(0), number_value)?;
    Timestamp::new(number_value(seconds)?, i32::try_from(nanos).ok()?).ok()
}

/// Takes what `HttpRequest` has a place for; what it has none for stays.
fn http_take(map: &mut Map<String, Value>) -> Option<HttpRequest> {
    let Some(Value::Object(fields)) = map.get_mut("httpRequest") else {
        return None;
    };
    let mut http = HttpRequest::default();
    let mut understood = false;
    {
        let mut text = |name: &str| {
            let value = take(fields, name, text_value);
            understood |= value.is_some();
            value.unwrap_or_default()
        };
        http.method = text("requestMethod").into();
        http.url = text("requestUrl");
        http.user_agent = text("userAgent");
        http.remote_ip = text("remoteIp");
        http.referer = text("referer");
        http.protocol = text("protocol").into();
    }
    let mut number = |name: &str| {
        let value = take(fields, name, |value| u64::try_from(number_value(value)?).ok());
        understood |= value.is_some();
        value.unwrap_or_default()
    };
    http.request_bytes = number("requestSize");
    http.response_bytes = number("responseSize");
    if let Some(status) = take(fields, "status", |value| u16::try_from(number_value(value)?).ok()) {
        http.status = status;
        understood = true;
    }
    if let Some(latency_us) = take(fields, "latency", latency_value) {
        http.latency_us = latency_us;
        understood = true;
    }
    if fields.is_empty() {
        map.remove("httpRequest");
    }
    understood.then_some(http)
}

/// `"0.25s"`, or {seconds, nanos}.
fn latency_value(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => {
            let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
            (seconds.is_finite() && seconds >= 0.0).then(|| (seconds * 1e6).round() as u64)
        }
        Value::Object(parts) => {
            let seconds = parts.get("seconds").map_or(Some(0), number_value)?;
            let nanos = parts.get("nanos").map_or(Some(0), number_value)?;
            u64::try_from(seconds.checked_mul(1_000_000)?.checked_add(nanos / 1000)?).ok()
        }
        _ => None,
    }
}

fn text_value(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn bool_value(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => text.to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

/// ProtoJSON writes 64-bit numbers as text.
fn number_value(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// All or nothing: a label that is no text, number or bool leaves them in the payload.
fn labels_value(value: &Value) -> Option<BTreeMap<String, String>> {
    let map = value.as_object().filter(|map| map.len() <= LABELS_MAX)?;
    map.iter()
        .map(|(key, value)| match value {
            Value::String(text) => Some((key.clone(), text.clone())),
            Value::Number(_) | Value::Bool(_) => Some((key.clone(), value.to_string())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T06:21:38Z".parse().unwrap()
    }

    fn parse(line: &str) -> LineParsed {
        line_parse("p", line.as_bytes(), now(), Severity::Default)
    }

    #[test]
    fn payloads() {
        let text = |text: &str| Payload::Text(text.into());
        let json = |text: &str| Payload::Json(text.into());
        let check = |line: &str, expect: Payload| assert_eq!(parse(line).payload, expect, "{line}");
        check("hello\n", text("hello"));
        check("hello\r\n", text("hello"));
        check("", text(""));
        check("  indented", text("  indented"));
        check(r#"{"message":"hi"}"#, text("hi"));
        check(r#"{"message":"hi","severity":"ERROR"}"#, text("hi"));
        check(r#"{"message":"hi","a":1}"#, json(r#"{"a":1,"message":"hi"}"#));
        check(r#"{"message":{"deep":1}}"#, json(r#"{"message":{"deep":1}}"#));
        check(r#"{"severity":"INFO"}"#, json("{}"));
        check(r#"{"a":"#, text(r#"{"a":"#));
        check(r#"{"a":1} and more"#, text(r#"{"a":1} and more"#));
        check("[1,2]", text("[1,2]"));
        check("{not json}", text("{not json}"));
        // No place for it in an entry: kept.
        check(r#"{"message":"m","logging.googleapis.com/insertId":"7"}"#, json(r#"{"logging.googleapis.com/insertId":"7","message":"m"}"#));
        check(&format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200)), text(&format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200))));
    }

    #[test]
    fn severities() {
        let check = |value: &str, expect: Severity| {
            assert_eq!(parse(&format!("{{\"severity\":{value}}}")).severity, expect, "{value}");
        };
        check("\"ERROR\"", Severity::Error);
        check("\"error\"", Severity::Error);
        check("\"WARN\"", Severity::Warning);
        check("\"fatal\"", Severity::Critical);
        check("500", Severity::Error);
        check("\"500\"", Severity::Error);
        check("555", Severity::Error);
        check("99999", Severity::Emergency);
        check("\"LOUD\"", Severity::Default);
        check("true", Severity::Default);
        assert_eq!(parse(r#"{"severity":"LOUD"}"#).payload, Payload::Json(r#"{"severity":"LOUD"}"#.into()));
        assert_eq!(line_parse("p", b"x", now(), Severity::Error).severity, Severity::Error);
    }

    #[test]
    fn times() {
        let check = |fields: &str, expect: &str| {
            let parsed = parse(&format!("{{{fields},\"message\":\"m\"}}"));
            assert_eq!(parsed.time.to_string(), expect, "{fields}");
            assert_eq!(parsed.payload, Payload::Text("m".into()), "{fields}");
        };
        check(r#""time":"2026-11-24T01:02:03.5Z""#, "2026-11-24T01:02:03.5Z");
        check(r#""time":"2026-11-24T10:02:03+09:00""#, "2026-11-24T01:02:03Z");
        check(r#""timestamp":"2026-11-24T01:02:03Z""#, "2026-11-24T01:02:03Z");
        check(r#""timestamp":{"seconds":1795500000,"nanos":5}"#, "2026-11-24T06:00:00.000000005Z");
        check(r#""timestampSeconds":"1795500000","timestampNanos":"5""#, "2026-11-24T06:00:00.000000005Z");
        check(r#""timestampSeconds":1795500000"#, "2026-11-24T06:00:00Z");
        // What is no time, or one out of bounds, stays.
        for fields in [r#""time":"soon""#, r#""time":"1999-01-01T00:00:00Z""#, r#""time":"2030-01-01T00:00:00Z""#, r#""timestamp":7"#] {
            let parsed = parse(&format!("{{{fields},\"message\":\"m\"}}"));
            assert_eq!(parsed.time, now(), "{fields}");
            assert!(matches!(parsed.payload, Payload::Json(_)), "{fields}");
        }
    }

    #[test]
    fn traces_and_labels() {
        let parsed = parse(
            r#"{"message":"m","logging.googleapis.com/trace":"abc","logging.googleapis.com/spanId":"7","logging.googleapis.com/trace_sampled":true,"logging.googleapis.com/labels":{"a":"b","n":1}}"#,
        );
        assert_eq!((parsed.trace.as_str(), parsed.span.as_str(), parsed.trace_sampled), ("projects/p/traces/abc", "7", true));
        assert_eq!(parsed.labels, BTreeMap::from([("a".into(), "b".into()), ("n".into(), "1".into())]));
        assert_eq!(parsed.payload, Payload::Text("m".into()));
        assert_eq!(parse(r#"{"logging.googleapis.com/trace":"projects/q/traces/x"}"#).trace, "projects/q/traces/x");
        let odd = parse(r#"{"logging.googleapis.com/labels":{"a":[1]}}"#);
        assert!(odd.labels.is_empty());
        assert_eq!(odd.payload, Payload::Json(r#"{"logging.googleapis.com/labels":{"a":[1]}}"#.into()));
    }

    #[test]
    fn http_requests() {
        let parsed = parse(
            r#"{"message":"m","httpRequest":{"requestMethod":"GET","requestUrl":"/x","requestSize":"12","status":404,"responseSize":7,"userAgent":"ua","remoteIp":"1.2.3.4","referer":"r","latency":"0.25s","protocol":"HTTP/2"}}"#,
        );
        assert_eq!(
            parsed.http,
            Some(HttpRequest {
                method: "GET".into(),
                url: "/x".into(),
                request_bytes: 12,
                status: 404,
                response_bytes: 7,
                user_agent: "ua".into(),
                remote_ip: "1.2.3.4".into(),
                referer: "r".into(),
                latency_us: 250_000,
                protocol: "HTTP/2".into(),
            })
        );
        assert_eq!(parsed.payload, Payload::Text("m".into()));
        let rest = parse(r#"{"httpRequest":{"status":"200","cacheHit":true}}"#);
        assert_eq!(rest.http.map(|http| http.status), Some(200));
        assert_eq!(rest.payload, Payload::Json(r#"{"httpRequest":{"cacheHit":true}}"#.into()));
        assert_eq!(parse(r#"{"httpRequest":"x"}"#).http, None);
    }

    #[test]
    fn long_and_broken_lines() {
        let exact = "x".repeat(LINE_MAX_BYTES);
        assert_eq!(parse(&exact).payload, Payload::Text(exact.clone()));
        for line in [format!("{exact}y"), format!("{}é{}", &exact[1..], "z".repeat(9))] {
            let Payload::Text(text) = parse(&line).payload else { panic!("text stays text") };
            assert!(text.ends_with(&format!("... [cut: the line has {} bytes, at most 262144 are kept]", line.len())), "{}", &text[text.len() - 90..]);
            assert!(text.len() < LINE_MAX_BYTES + 100 && !text.contains('\u{FFFD}'));
        }
        assert_eq!(line_parse("p", b"a\xFFb", now(), Severity::Default).payload, Payload::Text("a\u{FFFD}b".into()));
        assert!(matches!(line_parse("p", b"{\"a\":\"\xFF\"}", now(), Severity::Default).payload, Payload::Json(_)));
    }

    proptest! {
        #[test]
        fn any_line_becomes_an_entry(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            line_parse("p", &line, now(), Severity::Default);
        }

        #[test]
        fn any_object_keeps_its_other_fields(key in "[a-z]{1,8}", value in any::<i64>()) {
            prop_assume!(!["severity", "time", "timestamp", "message"].contains(&key.as_str()));
            let parsed = parse(&format!("{{\"{key}\":{value},\"severity\":\"INFO\"}}"));
            prop_assert_eq!(parsed.payload, Payload::Json(format!("{{\"{key}\":{value}}}")));
        }
    }
}
