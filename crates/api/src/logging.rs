//! Logging v2: entries to read and to write.
//!
//! Kept are the logs of Cloud Run, Cloud Build and Cloud Scheduler and the audit log, which is what [`model::log`] can say: entries of other logs or
//! resources are refused by name. Sinks, buckets, views, metrics and exclusions do not exist; TailLogEntries is not served.
//! Source: google/logging/v2/{logging,log_entry}.proto.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    Status, Timestamp,
    log::{Entry, HttpRequest, LogName, Payload, Severity, Source},
};
use proto::google::{
    api::MonitoredResource,
    logging::{r#type as kind, v2 as pb},
};
use telemetry::{Query, QueryError, entry_labels, log_id, log_name, resource_labels, resource_type};

use crate::{
    app::App,
    audit,
    convert::{refuse, time},
    grpc::{Context, Group, Method},
    permission::{Need, on, project_checked},
};

const HOSTS: &[&str] = &["logging.googleapis.com"];
/// Entries of a page when the client does not say.
const PAGE_DEFAULT: i32 = 50;
/// Projects that one list may name. Source: the proto.
const RESOURCES_MAX: usize = 100;
/// Entries of one write, and bytes of one entry's payload and labels.
const ENTRIES_MAX: usize = 1000;
const ENTRY_MAX_BYTES: usize = 256 << 10;
/// How many parts of the store are looked through for a log's first entry.
const LOOKS_MAX: usize = 20;
/// How far in the future an entry may lie. Source: the proto.
const AHEAD_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

pub(crate) fn methods(app: &App) -> Vec<Method> {
    const PROJECT: &str = "projects/{project}";
    // Lists and writes name their projects in the body.
    const ENTRIES: &str = "entries";
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.logging.v2.LoggingServiceV2/ListLogEntries",
            Need::Inside { permission: "logging.logEntries.list" },
            |_: &pb::ListLogEntriesRequest| ENTRIES.to_owned(),
            ("resource_names", ENTRIES),
            entry_list,
        )
        .unary(
            "google.logging.v2.LoggingServiceV2/WriteLogEntries",
            Need::Inside { permission: "logging.logEntries.create" },
            |_: &pb::WriteLogEntriesRequest| ENTRIES.to_owned(),
            ("log_name", ENTRIES),
            entry_write,
        )
        .unary(
            "google.logging.v2.LoggingServiceV2/ListLogs",
            on("logging.logs.list", PROJECT),
            |r: &pb::ListLogsRequest| r.parent.clone(),
            ("parent", PROJECT),
            log_list,
        )
        .into_methods()
}

async fn entry_list(app: App, context: Context, request: pb::ListLogEntriesRequest) -> Result<pb::ListLogEntriesResponse, Status> {
    if request.resource_names.is_empty() || request.resource_names.len() > RESOURCES_MAX {
        return Err(Status::invalid_field("resource_names", format!("it must name 1 to {RESOURCES_MAX} projects, such as projects/my-project")));
    }
    let mut projects = Vec::new();
    for name in &request.resource_names {
        let project = name.strip_prefix("projects/").filter(|id| !id.contains('/')).ok_or_else(|| {
            Status::invalid_field("resource_names", format!("{name:?} is no project; organizations, folders, billing accounts and views have no logs here"))
        })?;
        projects.push(project_checked(&app, &context.who, project, "logging.logEntries.list")?.to_string());
    }
    let newest_first = match request.order_by.trim() {
        "" | "timestamp" | "timestamp asc" => false,
        "timestamp desc" => true,
        other => return Err(Status::invalid_field("order_by", format!("{other:?} is neither \"timestamp asc\" nor \"timestamp desc\""))),
    };
    let scope = format!("logging.entries/{}/{newest_first}/{}", projects.join(","), request.filter);
    let size = if request.page_size == 0 { PAGE_DEFAULT } else { request.page_size };
    let asked = app.pages.read(&scope, &request.page_token, i64::from(size)).await?;
    let query = Query { projects, filter: request.filter, newest_first, limit: asked.size, page: asked.after };
    let page = entries(&app, query).await?;
    let next_page_token = match &page.next {
        Some(next) => app.pages.token(&scope, next).await?,
        None => String::new(),
    };
    Ok(pb::ListLogEntriesResponse { entries: page.entries.iter().map(|(id, entry)| entry_to(id, entry)).collect(), next_page_token })
}

/// Which of the logs have an entry.
async fn log_list(app: App, context: Context, request: pb::ListLogsRequest) -> Result<pb::ListLogsResponse, Status> {
    refuse(!request.resource_names.is_empty(), "resource_names")?;
    refuse(!request.page_token.is_empty(), "page_token")?;
    let project = context.project()?.to_string();
    let mut log_names = Vec::new();
    for log in LogName::ALL {
        let name = format!("projects/{project}/logs/{}", log_id(log).replace('/', "%2F"));
        let mut query = Query { projects: vec![project.clone()], filter: format!("logName=\"{name}\""), newest_first: true, limit: 1, page: None };
        for _ in 0..LOOKS_MAX {
            let page = entries(&app, query.clone()).await?;
            if !page.entries.is_empty() {
                log_names.push(name);
                break;
            }
            if page.next.is_none() {
                break;
            }
            query.page = page.next;
        }
    }
    Ok(pb::ListLogsResponse { log_names, next_page_token: String::new() })
}

async fn entries(app: &App, query: Query) -> Result<telemetry::Page, Status> {
    let telemetry = app.telemetry.clone();
    let found = tokio::task::spawn_blocking(move || telemetry.entries(&query)).await.map_err(Status::internal)?;
    found.map_err(|error| match error {
        QueryError::Read(error) => Status::internal(error),
        other => Status::invalid_field("filter", other.to_string()),
    })
}

fn entry_to(id: &str, entry: &Entry) -> pb::LogEntry {
    let payload = match &entry.payload {
        Payload::None => None,
        Payload::Text(text) => Some(pb::log_entry::Payload::TextPayload(text.clone())),
        // What was stored as an object is one; anything else would be shown as it is.
        Payload::Json(text) => Some(match serde_json::from_str(text) {
            Ok(serde_json::Value::Object(members)) => pb::log_entry::Payload::JsonPayload(struct_to(members)),
            _ => pb::log_entry::Payload::TextPayload(text.clone()),
        }),
        Payload::Audit(text) => Some(pb::log_entry::Payload::ProtoPayload(audit::payload(text))),
    };
    pb::LogEntry {
        log_name: log_name(entry),
        resource: Some(MonitoredResource { r#type: resource_type(entry).to_owned(), labels: resource_labels(entry).into_iter().collect() }),
        timestamp: Some(time(entry.time)),
        // Entries are taken in as they are made; their arrival has no record of its own.
        receive_timestamp: Some(time(entry.time)),
        severity: entry.severity as i32,
        insert_id: id.to_owned(),
        http_request: entry.http.as_ref().map(http_to),
        labels: entry_labels(entry).into_iter().collect(),
        trace: entry.trace.clone(),
        span_id: entry.span.clone(),
        trace_sampled: entry.trace_sampled,
        payload,
        ..Default::default()
    }
}

fn http_to(http: &HttpRequest) -> kind::HttpRequest {
    kind::HttpRequest {
        request_method: http.method.to_string(),
        request_url: http.url.clone(),
        request_size: i64::try_from(http.request_bytes).unwrap_or(i64::MAX),
        status: i32::from(http.status),
        response_size: i64::try_from(http.response_bytes).unwrap_or(i64::MAX),
        user_agent: http.user_agent.clone(),
        remote_ip: http.remote_ip.clone(),
        referer: http.referer.clone(),
        latency: Some(prost_types::Duration {
            seconds: i64::try_from(http.latency_us / 1_000_000).unwrap_or(i64::MAX),
            nanos: i32::try_from(http.latency_us % 1_000_000 * 1000).unwrap_or_default(),
        }),
        protocol: http.protocol.to_string(),
        ..Default::default()
    }
}

async fn entry_write(app: App, context: Context, request: pb::WriteLogEntriesRequest) -> Result<pb::WriteLogEntriesResponse, Status> {
    if request.entries.is_empty() || request.entries.len() > ENTRIES_MAX {
        return Err(Status::invalid_field("entries", format!("it must have 1 to {ENTRIES_MAX} entries")));
    }
    let now = app.clock.now();
    let (mut good, mut bad) = (Vec::new(), None);
    for (at, mut entry) in request.entries.into_iter().enumerate() {
        if entry.log_name.is_empty() {
            entry.log_name.clone_from(&request.log_name);
        }
        entry.resource = entry.resource.or_else(|| request.resource.clone());
        for (name, value) in &request.labels {
            entry.labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let read = entry_from(&format!("entries[{at}]"), entry, now).and_then(|mut entry| {
            let project = project_checked(&app, &context.who, &entry.source.project, "logging.logEntries.create")?;
            Arc::make_mut(&mut entry.source).project = project.to_string();
            Ok(entry)
        });
        match read {
            Ok(entry) => good.push(entry),
            Err(status) if request.partial_success => bad = bad.or(Some(status)),
            Err(status) => return Err(status),
        }
    }
    if !request.dry_run {
        for entry in good {
            app.telemetry.log(entry);
        }
        // Acknowledged is what can be read.
        app.telemetry.flush().await;
    }
    match bad {
        Some(status) => Err(status),
        None => Ok(pb::WriteLogEntriesResponse {}),
    }
}

/// An entry as a client writes it; `field` is its place in the request.
fn entry_from(field: &str, entry: pb::LogEntry, now: Timestamp) -> Result<Entry, Status> {
    let bad = |name: &str, why: String| Status::invalid_field(format!("{field}.{name}"), why);
    refuse(entry.operation.is_some(), &format!("{field}.operation"))?;
    refuse(entry.source_location.is_some(), &format!("{field}.source_location"))?;
    refuse(entry.split.is_some(), &format!("{field}.split"))?;
    if !entry.insert_id.is_empty() {
        return Err(bad("insert_id", "ids are given by this server; leave it out".to_owned()));
    }
    let severity = severity_from(entry.severity).ok_or_else(|| bad("severity", format!("{} is no severity", entry.severity)))?;
    let (project, log) = log_from(&entry.log_name).ok_or_else(|| {
        let known: Vec<&str> = LogName::ALL.into_iter().filter(|log| is_written(*log)).map(log_id).collect();
        bad(
            "log_name",
            format!(
                "{:?} is not kept by this server; projects/PROJECT/logs/ID with one of these ids (slashes as %2F) is: {}",
                entry.log_name,
                known.join(", ")
            ),
        )
    })?;
    let resource = entry.resource.ok_or_else(|| bad("resource", "it is missing".to_owned()))?;
    if resource.r#type != "cloud_run_revision" {
        return Err(bad("resource.type", format!("{:?} is not kept by this server; cloud_run_revision is", resource.r#type)));
    }
    let label = |name: &str| resource.labels.get(name).cloned().unwrap_or_default();
    if resource.labels.get("project_id").is_some_and(|id| *id != project) {
        return Err(bad("resource.labels.project_id", format!("it is not the project of the log, {project}")));
    }
    let mut labels: BTreeMap<String, String> = entry.labels.into_iter().collect();
    let source = Source {
        project,
        region: label("location"),
        service: label("service_name"),
        revision: label("revision_name"),
        instance: labels.remove("instanceId").unwrap_or_default(),
        build: String::new(),
        job: String::new(),
        managed_by: String::new(),
    };
    if source.service.is_empty() {
        return Err(bad("resource.labels.service_name", "it is missing".to_owned()));
    }
    let at = match entry.timestamp {
        None => now,
        Some(at) => Timestamp::new(at.seconds, at.nanos).map_err(|error| bad("timestamp", error.to_string()))?,
    };
    if at.duration_since(now) > AHEAD_MAX {
        return Err(bad("timestamp", "it is more than 24 hours in the future".to_owned()));
    }
    let payload = match entry.payload {
        None => Payload::None,
        Some(pb::log_entry::Payload::TextPayload(text)) => Payload::Text(text),
        Some(pb::log_entry::Payload::JsonPayload(fields)) => Payload::Json(struct_from(fields).to_string()),
        Some(pb::log_entry::Payload::ProtoPayload(_)) => {
            return Err(bad("proto_payload", "it is not kept by this server; use text_payload or json_payload".to_owned()));
        }
    };
    let bytes = match &payload {
        Payload::Text(text) | Payload::Json(text) | Payload::Audit(text) => text.len(),
        Payload::None => 0,
    } + labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if bytes > ENTRY_MAX_BYTES {
        return Err(bad("payload", format!("the entry has {bytes} bytes; at most {ENTRY_MAX_BYTES} are kept")));
    }
    let http = entry.http_request.map(|http| http_from(field, http)).transpose()?;
    Ok(Entry {
        source: Arc::new(source),
        log,
        time: at,
        severity,
        payload,
        http,
        trace: entry.trace,
        span: entry.span_id,
        trace_sampled: entry.trace_sampled,
        labels,
    })
}

fn http_from(field: &str, http: kind::HttpRequest) -> Result<HttpRequest, Status> {
    let field = format!("{field}.http_request");
    refuse(!http.server_ip.is_empty(), &format!("{field}.server_ip"))?;
    refuse(http.cache_lookup || http.cache_hit || http.cache_validated_with_origin_server || http.cache_fill_bytes != 0, &format!("{field}.cache_*"))?;
    let bad = |name: &str| Status::invalid_field(format!("{field}.{name}"), "it is out of range");
    let latency = match http.latency {
        None => std::time::Duration::ZERO,
        Some(latency) => latency.try_into().map_err(|_| bad("latency"))?,
    };
    Ok(HttpRequest {
        method: http.request_method.into(),
        url: http.request_url,
        request_bytes: u64::try_from(http.request_size).map_err(|_| bad("request_size"))?,
        status: u16::try_from(http.status).map_err(|_| bad("status"))?,
        response_bytes: u64::try_from(http.response_size).map_err(|_| bad("response_size"))?,
        user_agent: http.user_agent,
        remote_ip: http.remote_ip,
        referer: http.referer,
        latency_us: u64::try_from(latency.as_micros()).map_err(|_| bad("latency"))?,
        protocol: http.protocol.into(),
    })
}

/// Whether clients may write it: builds and jobs write their own logs, and who calls is written by [`crate::audit`] alone.
fn is_written(log: LogName) -> bool {
    !matches!(log, LogName::Build | LogName::Executions | LogName::Activity | LogName::Push)
}

/// Project and log of `projects/P/logs/ID`, whose slashes may be escaped.
fn log_from(name: &str) -> Option<(String, LogName)> {
    let (project, id) = name.strip_prefix("projects/")?.split_once("/logs/")?;
    let id = id.replace("%2F", "/").replace("%2f", "/");
    let log = LogName::ALL.into_iter().find(|log| is_written(*log) && log_id(*log) == id)?;
    (!project.is_empty() && !project.contains('/')).then(|| (project.to_owned(), log))
}

fn severity_from(severity: i32) -> Option<Severity> {
    telemetry::severity_parse(kind::LogSeverity::try_from(severity).ok()?.as_str_name())
}

fn struct_to(members: serde_json::Map<String, serde_json::Value>) -> prost_types::Struct {
    prost_types::Struct { fields: members.into_iter().map(|(name, value)| (name, value_to(value))).collect() }
}

fn value_to(value: serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    use serde_json::Value;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue { values: items.into_iter().map(value_to).collect() }),
        Value::Object(members) => Kind::StructValue(struct_to(members)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn struct_from(fields: prost_types::Struct) -> serde_json::Value {
    serde_json::Value::Object(fields.fields.into_iter().map(|(name, value)| (name, value_from(value))).collect())
}

fn value_from(value: prost_types::Value) -> serde_json::Value {
    use prost_types::value::Kind;
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        // Whole numbers stay whole in text.
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 9e15 => (number as i64).into(),
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(value_from).collect(),
        Some(Kind::StructValue(fields)) => struct_from(fields),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-27T00:00:00Z".parse().unwrap()
    }

    fn written() -> pb::LogEntry {
        pb::LogEntry {
            log_name: "projects/local-project/logs/run.googleapis.com%2Fstdout".into(),
            resource: Some(MonitoredResource {
                r#type: "cloud_run_revision".into(),
                labels: HashMap::from(
                    [("service_name", "s"), ("location", "asia-northeast1"), ("revision_name", "s-1"), ("project_id", "local-project")]
                        .map(|(k, v)| (k.into(), v.into())),
                ),
            }),
            timestamp: Some(time(now())),
            severity: 400,
            labels: HashMap::from([("instanceId".into(), "i1".into()), ("k".into(), "v".into())]),
            payload: Some(pb::log_entry::Payload::JsonPayload(struct_to(json!({ "n": 1, "list": [true, null, "x"] }).as_object().unwrap().clone()))),
            http_request: Some(kind::HttpRequest {
                request_method: "GET".into(),
                status: 200,
                latency: Some(prost_types::Duration { seconds: 0, nanos: 123_000_000 }),
                ..Default::default()
            }),
            trace: "projects/local-project/traces/t".into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_entry_that_was_written_is_read_back() {
        let entry = entry_from("entries[0]", written(), now()).unwrap();
        let mut expect = written();
        expect.insert_id = "id".into();
        expect.receive_timestamp = expect.timestamp;
        expect.resource.as_mut().unwrap().labels.insert("configuration_name".into(), "s".into());
        assert_eq!(entry_to("id", &entry), expect);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name() {
        let check = |change: fn(&mut pb::LogEntry), field: &str| {
            let mut entry = written();
            change(&mut entry);
            let error = entry_from("entries[0]", entry, now()).unwrap_err();
            assert!(error.outer.contains(field), "{field}: {error}");
        };
        check(|e| e.log_name = "projects/p/logs/python".into(), "entries[0].log_name");
        check(|e| e.log_name = "folders/p/logs/run.googleapis.com%2Fstdout".into(), "entries[0].log_name");
        check(|e| e.log_name = "projects/local-project/logs/cloudbuild".into(), "entries[0].log_name");
        check(|e| e.log_name = "projects/local-project/logs/cloudaudit.googleapis.com%2Factivity".into(), "entries[0].log_name");
        check(|e| e.resource = None, "entries[0].resource");
        check(|e| e.resource.as_mut().unwrap().r#type = "gce_instance".into(), "entries[0].resource.type");
        check(|e| _ = e.resource.as_mut().unwrap().labels.insert("project_id".into(), "other".into()), "project_id");
        check(|e| e.severity = 450, "severity");
        check(|e| e.insert_id = "x".into(), "insert_id");
        check(|e| e.operation = Some(Default::default()), "operation");
        check(|e| e.timestamp = Some(prost_types::Timestamp { seconds: now().as_second() + 90_000, nanos: 0 }), "timestamp");
        check(|e| e.payload = Some(pb::log_entry::Payload::TextPayload("x".repeat(300 << 10))), "payload");
        check(|e| e.http_request.as_mut().unwrap().status = -1, "http_request.status");
    }

    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            ".{0,8}".prop_map(Into::into),
            Just(json!(0.5))
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(|map| map.into_iter().collect())
            ]
        })
    }

    proptest! {
        #[test]
        fn json_payloads_come_back_as_they_were(value in json_value()) {
            prop_assert_eq!(value_from(value_to(value.clone())), value);
        }
    }
}
