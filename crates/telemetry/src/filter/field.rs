//! The fields of an entry: their names, as Google's `LogEntry` has them in JSON or in protos, and their values.

use model::{
    Timestamp,
    function::MANAGED_BY,
    log::{HttpRequest, Payload, Severity},
};
use serde_json::Value as Json;

use super::Subject;
use crate::{
    database::insert_id,
    shape::{INSTANCE_LABEL, RESOURCE_LABELS, log_name_of, resource_label, resource_type_of, severity_name},
};

/// What a filter can name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    LogName,
    /// `resource`: its type and labels.
    Resource,
    ResourceType,
    ResourceLabels,
    ResourceLabel(String),
    Severity,
    /// `timestamp`, and `receiveTimestamp`: entries are received when they are made.
    Timestamp,
    InsertId,
    TextPayload,
    /// `jsonPayload` and a path in it; empty for all of it.
    Json(Vec<String>),
    /// `protoPayload` and a path in it.
    Proto(Vec<String>),
    Http,
    HttpField(HttpField),
    Labels,
    Label(String),
    Trace,
    SpanId,
    TraceSampled,
    /// One of Google's that no entry here has.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum HttpField {
    Method,
    Url,
    RequestSize,
    Status,
    ResponseSize,
    UserAgent,
    RemoteIp,
    Referer,
    Latency,
    Protocol,
}

const HTTP_FIELDS: [(&str, HttpField); 10] = [
    ("requestMethod", HttpField::Method),
    ("requestUrl", HttpField::Url),
    ("requestSize", HttpField::RequestSize),
    ("status", HttpField::Status),
    ("responseSize", HttpField::ResponseSize),
    ("userAgent", HttpField::UserAgent),
    ("remoteIp", HttpField::RemoteIp),
    ("referer", HttpField::Referer),
    ("latency", HttpField::Latency),
    ("protocol", HttpField::Protocol),
];
/// Google's that requests here do not have.
const HTTP_MISSING: [&str; 5] = ["serverIp", "cacheLookup", "cacheHit", "cacheValidatedWithOriginServer", "cacheFillBytes"];

/// Parts of a field's path.
const PATH_MAX: usize = 32;

const KNOWN: &str =
    "logName, resource, severity, timestamp, insertId, textPayload, jsonPayload, protoPayload, httpRequest, labels, trace, spanId, traceSampled";

impl Field {
    /// # Errors
    /// With a text that names the field and what there is.
    pub(super) fn parse(path: &[String]) -> Result<Self, String> {
        if path.len() > PATH_MAX {
            return Err(format!("a field has at most {PATH_MAX} parts"));
        }
        let (first, rest) = path.split_first().ok_or("a field has no name")?;
        let rest_text = rest.first().map(String::as_str);
        let whole = |field: Field| {
            if rest.is_empty() { Ok(field) } else { Err(format!("field {first} has no field {}", rest.join("."))) }
        };
        match camel(first).to_ascii_lowercase().as_str() {
            "logname" => whole(Field::LogName),
            "severity" => whole(Field::Severity),
            "timestamp" | "receivetimestamp" => whole(Field::Timestamp),
            "insertid" => whole(Field::InsertId),
            "textpayload" => whole(Field::TextPayload),
            "trace" => whole(Field::Trace),
            "spanid" => whole(Field::SpanId),
            "tracesampled" => whole(Field::TraceSampled),
            "jsonpayload" => Ok(Field::Json(rest.to_vec())),
            "protopayload" => Ok(Field::Proto(rest.iter().map(|part| camel(part)).collect())),
            "labels" => match rest {
                [] => Ok(Field::Labels),
                // A label's name may hold dots; Google takes them with and without quotes.
                names => Ok(Field::Label(names.join("."))),
            },
            "resource" => match (rest_text, rest.len()) {
                (None, _) => Ok(Field::Resource),
                (Some("type"), 1) => Ok(Field::ResourceType),
                (Some("labels"), 1) => Ok(Field::ResourceLabels),
                (Some("labels"), 2) => Ok(Field::ResourceLabel(rest[1].clone())),
                _ => Err(format!("field resource has no field {}; it has type and labels", rest.join("."))),
            },
            "httprequest" => match (rest_text, rest.len()) {
                (None, _) => Ok(Field::Http),
                (Some(name), 1) => http_field(&camel(name)),
                _ => Err(format!("field httpRequest has no field {}", rest.join("."))),
            },
            "operation" | "sourcelocation" | "metadata" | "split" | "errorgroups" => Ok(Field::Missing),
            _ => Err(format!("unknown field '{first}'; the fields of an entry are {KNOWN}; quote it to search for it as text")),
        }
    }
}

fn http_field(name: &str) -> Result<Field, String> {
    let known = HTTP_FIELDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    match known {
        Some((_, field)) => Ok(Field::HttpField(*field)),
        None if HTTP_MISSING.iter().any(|known| known.eq_ignore_ascii_case(name)) => Ok(Field::Missing),
        None => Err(format!("field httpRequest has no field {name}; it has {}", HTTP_FIELDS.map(|(name, _)| name).join(", "))),
    }
}

/// `text_payload` is `textPayload`.
fn camel(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut upper = false;
    for char in name.chars() {
        match char {
            '_' if !text.is_empty() => upper = true,
            char if std::mem::take(&mut upper) => text.extend(char.to_uppercase()),
            char => text.push(char),
        }
    }
    text
}

/// One value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Number(f64),
    Bool(bool),
    Null,
    Time(Timestamp),
    /// In microseconds.
    Duration(u64),
    Severity(Severity),
}

/// Shows `test` the values of `field` until it says true; arrays and maps have many, a missing field none.
///
/// `None` when the field is in the body and the subject has none.
pub(super) fn any(subject: &Subject<'_>, field: &Field, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> Option<bool> {
    // What the head alone can tell.
    match field {
        Field::LogName => {
            return Some(test(Scalar::Text(&log_name_of(&subject.source.project, subject.log))));
        }
        Field::Severity => return Some(test(Scalar::Severity(subject.severity))),
        Field::Timestamp => return Some(test(Scalar::Time(subject.time))),
        Field::InsertId => return Some(test(Scalar::Text(&insert_id(subject.id)))),
        Field::ResourceType => return Some(test(Scalar::Text(resource_type_of(subject.source, subject.log)))),
        Field::ResourceLabel(name) => {
            return Some(resource_label(subject.source, subject.log, name).is_some_and(|value| test(Scalar::Text(value))));
        }
        Field::ResourceLabels => return Some(resource_labels_any(subject, test)),
        Field::Resource => {
            return Some(test(Scalar::Text(resource_type_of(subject.source, subject.log))) || resource_labels_any(subject, test));
        }
        Field::Missing => return Some(false),
        _ => {}
    }
    let body = subject.body?;
    Some(match field {
        Field::TextPayload => {
            matches!(&body.payload, Payload::Text(text) if test(Scalar::Text(text)))
        }
        Field::Json(path) => match &body.payload {
            Payload::Json(text) => json_any(subject.json.get_or_init(|| serde_json::from_str(text).unwrap_or_default()), path, test),
            _ => false,
        },
        Field::Proto(path) => match &body.payload {
            Payload::Audit(text) => json_any(subject.json.get_or_init(|| serde_json::from_str(text).unwrap_or_default()), path, test),
            _ => false,
        },
        Field::Http => body.http.as_ref().is_some_and(|http| HTTP_FIELDS.iter().any(|(_, field)| http_any(http, *field, test))),
        Field::HttpField(field) => body.http.as_ref().is_some_and(|http| http_any(http, *field, test)),
        Field::Labels => {
            label_instance_any(&body.source.instance, test)
                || text_any(&body.source.managed_by, test)
                || body.labels.values().any(|value| test(Scalar::Text(value)))
        }
        Field::Label(name) if name == INSTANCE_LABEL && !body.source.instance.is_empty() => test(Scalar::Text(&body.source.instance)),
        Field::Label(name) if name == MANAGED_BY && !body.source.managed_by.is_empty() => test(Scalar::Text(&body.source.managed_by)),
        Field::Label(name) => body.labels.get(name).is_some_and(|value| test(Scalar::Text(value))),
        Field::Trace => text_any(&body.trace, test),
        Field::SpanId => text_any(&body.span, test),
        // Google's JSON leaves a false one out.
        Field::TraceSampled => body.trace_sampled && test(Scalar::Bool(true)),
        _ => false,
    })
}

/// Shows `test` every value of the entry.
pub(super) fn any_of_all(subject: &Subject<'_>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> Option<bool> {
    let fields = [
        Field::LogName,
        Field::Resource,
        Field::Severity,
        Field::InsertId,
        Field::TextPayload,
        Field::Json(Vec::new()),
        Field::Proto(Vec::new()),
        Field::Http,
        Field::Labels,
        Field::Trace,
        Field::SpanId,
    ];
    let mut known = true;
    for field in fields {
        match any(subject, &field, test) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => known = false,
        }
    }
    known.then_some(false)
}

fn resource_labels_any(subject: &Subject<'_>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
    RESOURCE_LABELS.iter().filter_map(|name| resource_label(subject.source, subject.log, name)).any(|value| test(Scalar::Text(value)))
}

fn label_instance_any(instance: &str, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
    text_any(instance, test)
}

/// An empty text is a missing field.
fn text_any(text: &str, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
    !text.is_empty() && test(Scalar::Text(text))
}

fn http_any(http: &HttpRequest, field: HttpField, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
    match field {
        HttpField::Method => text_any(&http.method, test),
        HttpField::Url => text_any(&http.url, test),
        HttpField::UserAgent => text_any(&http.user_agent, test),
        HttpField::RemoteIp => text_any(&http.remote_ip, test),
        HttpField::Referer => text_any(&http.referer, test),
        HttpField::Protocol => text_any(&http.protocol, test),
        HttpField::RequestSize => test(Scalar::Number(http.request_bytes as f64)),
        HttpField::ResponseSize => test(Scalar::Number(http.response_bytes as f64)),
        HttpField::Status => http.status != 0 && test(Scalar::Number(f64::from(http.status))),
        HttpField::Latency => test(Scalar::Duration(http.latency_us)),
    }
}

fn json_any(json: &Json, path: &[String], test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
    match (json, path) {
        (Json::Array(items), path) => items.iter().any(|item| json_any(item, path, test)),
        (Json::Object(map), []) => map.values().any(|value| json_any(value, &[], test)),
        // A key with dots may be written without quotes: then its parts are tried together.
        (Json::Object(map), path) => {
            map.get(&path[0]).is_some_and(|value| json_any(value, &path[1..], test))
                || (2..=path.len()).any(|count| map.get(&path[..count].join(".")).is_some_and(|value| json_any(value, &path[count..], test)))
        }
        (Json::String(text), []) => test(Scalar::Text(text)),
        (Json::Number(number), []) => number.as_f64().is_some_and(|number| test(Scalar::Number(number))),
        (Json::Bool(value), []) => test(Scalar::Bool(*value)),
        (Json::Null, []) => test(Scalar::Null),
        (_, _) => false,
    }
}

/// The text of a value, for those who search in texts.
pub(super) fn with_text<T>(scalar: Scalar<'_>, use_text: impl FnOnce(&str) -> T) -> T {
    match scalar {
        Scalar::Text(text) => use_text(text),
        Scalar::Number(number) => use_text(&number.to_string()),
        Scalar::Bool(value) => use_text(if value { "true" } else { "false" }),
        Scalar::Null => use_text("NULL_VALUE"),
        Scalar::Time(time) => use_text(&time.to_string()),
        Scalar::Duration(us) => use_text(&format!("{}s", us as f64 / 1e6)),
        Scalar::Severity(severity) => use_text(severity_name(severity)),
    }
}
