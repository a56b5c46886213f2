//! A job: what its owner set, and how far it has come. What is kept is checked here; when it runs is in `execution`.
//!
//! Source: google/cloud/scheduler/v1/{job,target}.proto; limits also from cloud.google.com/scheduler/quotas.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, HeaderValue};
use model::{ProjectId, Region, Status, Timestamp, limits, schedule::Schedule};
use serde::{Deserialize, Serialize};

use super::execution::Execution;

/// Which job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    pub project: ProjectId,
    pub region: Region,
    pub id: String,
}

/// A job's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub key: JobKey,
    /// Tells it from an earlier one of its name.
    pub uid: String,
    pub settings: Settings,
    pub is_paused: bool,
    /// When its owner made or changed it last.
    pub updated: Timestamp,
    /// The next instant of its schedule; none while it is paused.
    pub next: Option<Timestamp>,
    /// What is under way, or waits to be tried again.
    pub execution: Option<Execution>,
    /// When the last attempt began.
    pub attempted: Option<Timestamp>,
    /// What came of the last attempt.
    pub ended: Option<Ended>,
}

/// How an attempt ended: google.rpc.Status, `code` 0 for a good one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub code: i32,
    pub message: String,
}

/// What its owner set, with Google's defaults where nothing was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub description: String,
    /// As it was written.
    pub schedule: String,
    /// As it was written; empty is UTC.
    pub time_zone: String,
    pub target: Target,
    pub retry: Retry,
    /// How long one attempt may take. Only HTTP targets have one.
    pub attempt_deadline: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    Http(HttpTarget),
    Pubsub(PubsubTarget),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpTarget {
    pub uri: String,
    /// One of [`METHODS`].
    pub method: String,
    /// As they were written; [`sent_headers`] says which of them are sent.
    pub headers: BTreeMap<String, String>,
    #[serde(with = "base64_text")]
    pub body: Vec<u8>,
    pub token: Option<Token>,
}

/// As whom an HTTP target is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Token {
    /// `audience` is the target's URI when it was left out.
    Oidc {
        account: String,
        audience: String,
    },
    Oauth {
        account: String,
        scope: String,
    },
}

impl Token {
    pub fn account(&self) -> &str {
        match self {
            Self::Oidc { account, .. } | Self::Oauth { account, .. } => account,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PubsubTarget {
    /// `projects/P/topics/T`.
    pub topic: String,
    #[serde(with = "base64_text")]
    pub data: Vec<u8>,
    pub attributes: BTreeMap<String, String>,
}

/// How often and when a failed attempt is made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub count: u32,
    /// Zero: the count alone decides.
    pub duration_max: Duration,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    pub doublings_max: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            count: 0,
            duration_max: Duration::ZERO,
            backoff_min: limits::JOB_BACKOFF_MIN_DEFAULT,
            backoff_max: limits::JOB_BACKOFF_MAX_DEFAULT,
            doublings_max: limits::JOB_DOUBLINGS_DEFAULT,
        }
    }
}

/// The methods that an HTTP target can be called with, the default first.
pub const METHODS: [&str; 7] = ["POST", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"];
/// Those that may have a body.
const BODY_METHODS: [&str; 3] = ["POST", "PUT", "PATCH"];

impl JobKey {
    /// # Errors
    /// `INVALID_ARGUMENT` for an id against the proto's rule.
    pub fn new(project: ProjectId, region: Region, id: &str) -> Result<Self, Status> {
        let is_good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if id.is_empty() || id.len() > limits::JOB_ID_MAX_BYTES || !id.bytes().all(is_good) {
            return Err(Status::invalid_field(
                "job.name",
                format!("Job ID {id:?} must have 1 to {} letters ([A-Za-z]), numbers ([0-9]), hyphens (-) and underscores (_).", limits::JOB_ID_MAX_BYTES),
            ));
        }
        Ok(Self { project, region, id: id.to_owned() })
    }

    /// `projects/P/locations/R/jobs/ID`.
    pub fn resource(&self) -> String {
        format!("projects/{}/locations/{}/jobs/{}", self.project, self.region, self.id)
    }

    /// Where its record lies.
    pub(super) fn record(&self) -> String {
        model::key::job(&self.project, &self.region, &self.id)
    }
}

impl Settings {
    /// The schedule, understood.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming `schedule` or `time_zone`.
    pub fn schedule(&self) -> Result<Schedule, Status> {
        Schedule::parse(&self.schedule, &self.time_zone)
    }

    /// Everything that can be said without asking anybody.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field.
    pub fn check(&self) -> Result<(), Status> {
        self.schedule()?;
        let chars = self.description.chars().count();
        if chars > limits::JOB_DESCRIPTION_MAX_CHARS {
            return Err(bad("job.description", format!("it has {chars} characters; at most {} are allowed", limits::JOB_DESCRIPTION_MAX_CHARS)));
        }
        match &self.target {
            Target::Http(http) => {
                http.check()?;
                let (min, max) = (limits::JOB_DEADLINE_MIN, limits::JOB_DEADLINE_MAX);
                if self.attempt_deadline < min || self.attempt_deadline > max {
                    return Err(bad("job.attempt_deadline", format!("it must be from {}s to {}s", min.as_secs(), max.as_secs())));
                }
            }
            Target::Pubsub(pubsub) => pubsub.check()?,
        }
        self.retry.check()?;
        let bytes = serde_json::to_vec(self).map_err(Status::internal)?.len();
        if bytes > limits::JOB_MAX_BYTES {
            return Err(bad("job", format!("it has {bytes} bytes; at most {} are allowed", limits::JOB_MAX_BYTES)));
        }
        Ok(())
    }
}

impl HttpTarget {
    fn check(&self) -> Result<(), Status> {
        if self.uri.len() > limits::JOB_URI_MAX_BYTES {
            return Err(bad("job.http_target.uri", format!("it has {} bytes; at most {} are allowed", self.uri.len(), limits::JOB_URI_MAX_BYTES)));
        }
        if !METHODS.contains(&self.method.as_str()) {
            return Err(bad("job.http_target.http_method", format!("{:?} is none of {}", self.method, METHODS.join(", "))));
        }
        if !self.body.is_empty() && !BODY_METHODS.contains(&self.method.as_str()) {
            return Err(bad("job.http_target.body", format!("a body is allowed only with {}", BODY_METHODS.join(", "))));
        }
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes >= limits::JOB_HEADERS_MAX_BYTES {
            return Err(bad("job.http_target.headers", format!("they have {bytes} bytes; they must have less than {}", limits::JOB_HEADERS_MAX_BYTES)));
        }
        for (name, value) in &self.headers {
            if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err() {
                return Err(bad("job.http_target.headers", format!("{name:?} with {value:?} is no header")));
            }
        }
        match &self.token {
            Some(Token::Oidc { account, .. } | Token::Oauth { account, .. }) if account.is_empty() => {
                Err(bad("job.http_target.service_account_email", "it is missing".to_owned()))
            }
            Some(Token::Oauth { scope, .. }) if HeaderValue::from_str(scope).is_err() => {
                Err(bad("job.http_target.oauth_token.scope", "it is no scope".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl PubsubTarget {
    fn check(&self) -> Result<(), Status> {
        if self.data.is_empty() && self.attributes.is_empty() {
            return Err(bad("job.pubsub_target", "a message must have data or at least one attribute".to_owned()));
        }
        Ok(())
    }
}

impl Retry {
    fn check(&self) -> Result<(), Status> {
        if self.count > limits::JOB_RETRIES_MAX {
            return Err(bad("job.retry_config.retry_count", format!("{} is above {}", self.count, limits::JOB_RETRIES_MAX)));
        }
        if self.backoff_min > self.backoff_max {
            return Err(bad("job.retry_config.min_backoff_duration", "it is longer than max_backoff_duration".to_owned()));
        }
        Ok(())
    }

    /// How long to wait after the attempt `failed` (from 1) of an execution: doubled so many times, then longer by equal steps, up to the longest.
    pub fn backoff(&self, failed: u32) -> Duration {
        let before = failed.saturating_sub(1);
        let doubled = before.min(self.doublings_max);
        let step = self.backoff_min.saturating_mul(1_u32.checked_shl(doubled).unwrap_or(u32::MAX));
        step.saturating_mul(before - doubled + 1).min(self.backoff_max)
    }
}

/// Whether a header of a job's is sent: the others are ignored or replaced, by the proto's list.
pub fn is_sent(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let own = ["host", "content-length", "user-agent", "transfer-encoding", "connection", "x-cloudscheduler"];
    !own.contains(&name.as_str()) && !["x-google-", "x-appengine-", "x-cloudscheduler-"].iter().any(|start| name.starts_with(start))
}

fn bad(field: &str, why: String) -> Status {
    Status::invalid_field(field, why)
}

/// Bytes as text, so that a record is not made of numbers.
mod base64_text {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::scheduler) fn settings() -> Settings {
        Settings {
            description: String::new(),
            schedule: "* * * * *".to_owned(),
            time_zone: String::new(),
            target: Target::Http(HttpTarget {
                uri: "https://f-1.asia-northeast1.run.app/".to_owned(),
                method: "POST".to_owned(),
                headers: BTreeMap::new(),
                body: Vec::new(),
                token: None,
            }),
            retry: Retry::default(),
            attempt_deadline: limits::JOB_DEADLINE_DEFAULT,
        }
    }

    fn http(settings: &mut Settings) -> &mut HttpTarget {
        match &mut settings.target {
            Target::Http(http) => http,
            Target::Pubsub(_) => panic!("an HTTP target"),
        }
    }

    #[test]
    fn every_limit_and_default() {
        let check = |field: Option<&str>, change: &dyn Fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            let got = settings.check().err().map(|status| status.fields[0].field.clone());
            assert_eq!(got.as_deref(), field);
        };
        let defaults = settings();
        assert_eq!(
            (defaults.retry.count, defaults.retry.duration_max, defaults.retry.backoff_min, defaults.retry.backoff_max, defaults.retry.doublings_max),
            (0, Duration::ZERO, Duration::from_secs(5), Duration::from_secs(3600), 5)
        );
        assert_eq!((defaults.attempt_deadline, METHODS[0], model::schedule::ZONE_DEFAULT), (Duration::from_secs(180), "POST", "Etc/UTC"));
        check(None, &|_| {});
        for (seconds, field) in [(14, Some("job.attempt_deadline")), (15, None), (1800, None), (1801, Some("job.attempt_deadline"))] {
            check(field, &|s| s.attempt_deadline = Duration::from_secs(seconds));
        }
        for (count, field) in [(5, None), (6, Some("job.retry_config.retry_count"))] {
            check(field, &|s| s.retry.count = count);
        }
        check(Some("job.retry_config.min_backoff_duration"), &|s| s.retry.backoff_min = Duration::from_secs(3601));
        for (chars, field) in [(500, None), (501, Some("job.description"))] {
            check(field, &|s| s.description = "時".repeat(chars));
        }
        for (bytes, field) in [(2083, None), (2084, Some("job.http_target.uri"))] {
            check(field, &|s| http(s).uri = format!("https://f-1.asia-northeast1.run.app/{}", "a".repeat(bytes - 36)));
        }
        for (bytes, field) in [(80 * 1024 - 1, None), (80 * 1024, Some("job.http_target.headers"))] {
            check(field, &|s| _ = http(s).headers.insert("x".to_owned(), "a".repeat(bytes - 1)));
        }
        for (name, value) in [("a b", ""), ("", ""), ("a", "b\r\nc: d")] {
            check(Some("job.http_target.headers"), &|s| _ = http(s).headers.insert(name.to_owned(), value.to_owned()));
        }
        for method in METHODS {
            check((!BODY_METHODS.contains(&method)).then_some("job.http_target.body"), &|s| {
                http(s).method = method.to_owned();
                http(s).body = b"x".to_vec();
            });
        }
        check(Some("job.http_target.http_method"), &|s| http(s).method = "TRACE".to_owned());
        check(Some("job.http_target.service_account_email"), &|s| http(s).token = Some(Token::Oidc { account: String::new(), audience: String::new() }));
        check(Some("job"), &|s| http(s).body = vec![0; 1 << 20]);
        let message = |data: &[u8], pairs: &[(&str, &str)]| {
            let attributes = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Target::Pubsub(PubsubTarget { topic: "projects/demo-1/topics/t".to_owned(), data: data.to_vec(), attributes })
        };
        check(Some("job.pubsub_target"), &|s| s.target = message(b"", &[]));
        check(None, &|s| s.target = message(b"", &[("a", "")]));
        check(None, &|s| s.target = message(b"x", &[]));
        check(Some("schedule"), &|s| s.schedule = "0 9 * * * *".to_owned());
        check(Some("time_zone"), &|s| s.time_zone = "Asia/Edo".to_owned());
    }

    #[test]
    fn ids_follow_the_rule() {
        let check = |id: &str, is_good: bool| {
            let key = JobKey::new(ProjectId::parse("demo-1").unwrap(), Region::parse("asia-northeast1").unwrap(), id);
            assert_eq!(key.is_ok(), is_good, "{id:?}");
        };
        check("a", true);
        check("Every_day-9", true);
        check(&"a".repeat(500), true);
        check(&"a".repeat(501), false);
        for bad in ["", "a b", "a.b", "a/b", "日"] {
            check(bad, false);
        }
    }

    #[test]
    fn backoffs_are_the_protos_example() {
        let check = |(min, max, doublings): (u64, u64, u32), expect: &[u64]| {
            let retry = Retry { backoff_min: Duration::from_secs(min), backoff_max: Duration::from_secs(max), doublings_max: doublings, ..Retry::default() };
            let got: Vec<_> = (1..).take(expect.len()).map(|failed| retry.backoff(failed).as_secs()).collect();
            assert_eq!(got, expect);
        };
        check((10, 300, 3), &[10, 20, 40, 80, 160, 240, 300, 300]);
        check((5, 3600, 5), &[5, 10, 20, 40, 80, 160, 320, 480]);
        check((5, 3600, 0), &[5, 10, 15, 20]);
        check((1, 1, 16), &[1, 1, 1]);
        check((3600, 3600, 40), &[3600; 80]);
    }

    #[test]
    fn headers_that_are_replaced() {
        for (name, expect) in [
            ("Content-Type", true),
            ("Authorization", true),
            ("X-Mine", true),
            ("Host", false),
            ("content-length", false),
            ("USER-AGENT", false),
            ("X-Google-Anything", false),
            ("X-AppEngine-Cron", false),
            ("X-CloudScheduler", false),
            ("X-CloudScheduler-JobName", false),
        ] {
            assert_eq!(is_sent(name), expect, "{name}");
        }
    }
}
