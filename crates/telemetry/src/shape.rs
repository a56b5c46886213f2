//! How Google names what an entry comes from: log names, monitored resources, severities.
//!
//! Truth: google.logging.v2.LogEntry, google.api.MonitoredResource, and what gcloud's recorded filters ask for.

use std::collections::BTreeMap;

use model::{
    function::MANAGED_BY,
    log::{Entry, LogName, Severity, Source},
};

/// The log's id as users write it, such as `run.googleapis.com/requests`.
pub fn log_id(log: LogName) -> &'static str {
    match log {
        LogName::Requests => "run.googleapis.com/requests",
        LogName::Stdout => "run.googleapis.com/stdout",
        LogName::Stderr => "run.googleapis.com/stderr",
        LogName::System => "run.googleapis.com/varlog/system",
        LogName::Build => "cloudbuild",
        LogName::Executions => "cloudscheduler.googleapis.com/executions",
        LogName::Activity => "cloudaudit.googleapis.com/activity",
        LogName::Push => "pubsub.googleapis.com/push",
    }
}

/// `logName`: `projects/P/logs/` and the log's id with its slashes as `%2F`.
pub fn log_name(entry: &Entry) -> String {
    log_name_of(&entry.source.project, entry.log)
}

pub(crate) fn log_name_of(project: &str, log: LogName) -> String {
    format!("projects/{project}/logs/{}", log_id(log).replace('/', "%2F"))
}

/// `resource.type`.
pub fn resource_type(entry: &Entry) -> &'static str {
    resource_type_of(&entry.source, entry.log)
}

pub(crate) fn resource_type_of(source: &Source, log: LogName) -> &'static str {
    match log {
        LogName::Activity => "audited_resource",
        LogName::Push => "pubsub_subscription",
        _ if !source.build.is_empty() => "build",
        _ if !source.job.is_empty() => "cloud_scheduler_job",
        _ => "cloud_run_revision",
    }
}

/// `resource.labels`.
pub fn resource_labels(entry: &Entry) -> BTreeMap<String, String> {
    RESOURCE_LABELS.iter().filter_map(|name| Some(((*name).to_owned(), resource_label(&entry.source, entry.log, name)?.to_owned()))).collect()
}

/// Of all types of resource.
pub(crate) const RESOURCE_LABELS: [&str; 10] =
    ["project_id", "location", "service_name", "revision_name", "configuration_name", "build_id", "job_id", "service", "method", "subscription_id"];

/// One label of the resource; `None` when its type has none of this name.
pub(crate) fn resource_label<'a>(source: &'a Source, log: LogName, name: &str) -> Option<&'a str> {
    let (is_build, is_job) = (!source.build.is_empty(), !source.job.is_empty());
    match name {
        "project_id" => Some(&source.project),
        "service" if log == LogName::Activity => Some(&source.service),
        "method" if log == LogName::Activity => Some(&source.revision),
        "subscription_id" if log == LogName::Push => Some(&source.service),
        _ if matches!(log, LogName::Activity | LogName::Push) => None,
        "build_id" if is_build => Some(&source.build),
        _ if is_build => None,
        "location" => Some(&source.region),
        "job_id" if is_job => Some(&source.job),
        _ if is_job => None,
        // A configuration has the name of its service.
        "service_name" | "configuration_name" => Some(&source.service),
        "revision_name" => Some(&source.revision),
        _ => None,
    }
}

/// `labels`: the entry's own, `instanceId` where an instance was involved, `goog-managed-by` where the service is a function's.
pub fn entry_labels(entry: &Entry) -> BTreeMap<String, String> {
    let mut labels = entry.labels.clone();
    if !entry.source.instance.is_empty() {
        labels.insert(INSTANCE_LABEL.to_owned(), entry.source.instance.clone());
    }
    if !entry.source.managed_by.is_empty() {
        labels.insert(MANAGED_BY.to_owned(), entry.source.managed_by.clone());
    }
    labels
}

pub(crate) const INSTANCE_LABEL: &str = "instanceId";

const SEVERITIES: [(Severity, &str); 9] = [
    (Severity::Default, "DEFAULT"),
    (Severity::Debug, "DEBUG"),
    (Severity::Info, "INFO"),
    (Severity::Notice, "NOTICE"),
    (Severity::Warning, "WARNING"),
    (Severity::Error, "ERROR"),
    (Severity::Critical, "CRITICAL"),
    (Severity::Alert, "ALERT"),
    (Severity::Emergency, "EMERGENCY"),
];

/// The name on the wire, such as `WARNING`.
pub fn severity_name(severity: Severity) -> &'static str {
    SEVERITIES.iter().find(|(known, _)| *known == severity).map_or("DEFAULT", |(_, name)| name)
}

/// The severity of this name, whatever its case, or of this number (`ERROR`, `error`, `500`).
pub fn severity_parse(text: &str) -> Option<Severity> {
    let by_name = SEVERITIES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
    by_name.map(|(severity, _)| *severity).or_else(|| severity_of(text.parse().ok()?))
}

/// The severity of exactly this number.
pub(crate) fn severity_of(number: i64) -> Option<Severity> {
    SEVERITIES.iter().map(|(severity, _)| *severity).find(|severity| *severity as i64 == number)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use model::{Timestamp, log::Payload};

    use super::*;

    pub(crate) fn source(service: &str) -> Source {
        Source {
            project: "local-project".into(),
            region: "asia-northeast1".into(),
            service: service.into(),
            revision: format!("{service}-00001-abc"),
            instance: "i1".into(),
            build: String::new(),
            job: String::new(),
            managed_by: String::new(),
        }
    }

    pub(crate) fn entry(text: &str) -> Entry {
        Entry {
            source: Arc::new(source("sample")),
            log: LogName::Stdout,
            time: Timestamp::UNIX_EPOCH,
            severity: Severity::Default,
            payload: Payload::Text(text.into()),
            http: None,
            trace: String::new(),
            span: String::new(),
            trace_sampled: false,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn names_are_googles() {
        let entry = entry("x");
        assert_eq!(log_name(&entry), "projects/local-project/logs/run.googleapis.com%2Fstdout");
        assert_eq!(log_name_of("p", LogName::System), "projects/p/logs/run.googleapis.com%2Fvarlog%2Fsystem");
        assert_eq!(resource_type(&entry), "cloud_run_revision");
        let labels = resource_labels(&entry);
        let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expect = [
            ("configuration_name", "sample"),
            ("location", "asia-northeast1"),
            ("project_id", "local-project"),
            ("revision_name", "sample-00001-abc"),
            ("service_name", "sample"),
        ];
        assert_eq!(labels, expect);
        assert_eq!(entry_labels(&entry), BTreeMap::from([("instanceId".to_owned(), "i1".to_owned())]));
    }

    #[test]
    fn a_build_is_another_resource() {
        let source = Source { build: "b1".into(), service: String::new(), ..source("") };
        let entry = Entry { source: Arc::new(source), log: LogName::Build, ..entry("step 1") };
        assert_eq!(log_name(&entry), "projects/local-project/logs/cloudbuild");
        assert_eq!(resource_type(&entry), "build");
        assert_eq!(resource_labels(&entry).into_iter().collect::<Vec<_>>(), [("build_id".into(), "b1".into()), ("project_id".into(), "local-project".into())]);
    }

    #[test]
    fn a_job_is_another_resource() {
        let source = Source { job: "j1".into(), service: String::new(), revision: String::new(), ..source("") };
        let entry = Entry { source: Arc::new(source), log: LogName::Executions, ..entry("") };
        assert_eq!(log_name(&entry), "projects/local-project/logs/cloudscheduler.googleapis.com%2Fexecutions");
        assert_eq!(resource_type(&entry), "cloud_scheduler_job");
        let expect = [("job_id", "j1"), ("location", "asia-northeast1"), ("project_id", "local-project")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(resource_labels(&entry).into_iter().collect::<Vec<_>>(), expect);
    }

    #[test]
    fn an_audited_call_is_of_its_api() {
        let source = Source { service: "run.googleapis.com".into(), revision: "google.cloud.run.v2.Services.CreateService".into(), ..source("") };
        let entry = Entry { source: Arc::new(source), log: LogName::Activity, ..entry("") };
        assert_eq!(log_name(&entry), "projects/local-project/logs/cloudaudit.googleapis.com%2Factivity");
        assert_eq!(resource_type(&entry), "audited_resource");
        let expect = [("method", "google.cloud.run.v2.Services.CreateService"), ("project_id", "local-project"), ("service", "run.googleapis.com")];
        assert_eq!(resource_labels(&entry).into_iter().collect::<Vec<_>>(), expect.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn severities_by_name_and_number() {
        for (severity, name) in SEVERITIES {
            assert_eq!(severity_name(severity), name);
            for text in [name.to_owned(), name.to_lowercase(), (severity as i64).to_string()] {
                assert_eq!(severity_parse(&text), Some(severity), "{text}");
            }
        }
        assert_eq!(severity_parse("LOUD"), None);
        assert_eq!(severity_parse("150"), None);
    }
}
