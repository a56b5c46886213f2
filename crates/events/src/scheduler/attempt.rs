//! One attempt of a job: the call of its target, what its end means, and the two log entries about it.
//!
//! Source of headers: google/cloud/scheduler/v1/target.proto. Source of `debugInfo` and of the entries: entries that users of Cloud Scheduler
//! have published; which words stand for which status is not documented.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use iam::{Iam, Identity};
use model::{
    Clock, Code, ProjectId, Status,
    log::{Entry, HttpRequest, LogName, Payload, Severity, Source},
};
use serde_json::json;

use super::{
    Attempt, Shared, Way,
    job::{Ended, HttpTarget, Job, PubsubTarget, Settings, Target, Token, is_sent},
};
use crate::{
    deliver::{self, Answer, Call, Deliverer, Failure},
    history::About,
    pubsub::{Kind, Message, Name, PubSub},
};

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub ended: Ended,
    /// The HTTP status, or the one that stands for none.
    pub http_status: Option<u16>,
    /// Google's word for it, in the log.
    pub debug_info: String,
}

impl Outcome {
    pub fn failed(code: Code, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { ended: Ended { code: code as i32, message: why.clone() }, http_status: None, debug_info: why }
    }

    pub fn good() -> Self {
        Self { ended: Ended { code: 0, message: String::new() }, http_status: None, debug_info: String::new() }
    }
}

/// The way of attempts: to URLs, and to topics.
pub struct Sender {
    pub deliverer: Deliverer,
    pub iam: Iam,
    pub clock: Arc<dyn Clock>,
    pub topics: PubSub,
}

impl Way for Sender {
    fn check(&self, who: &Identity, project: &ProjectId, settings: &Settings) -> Result<(), Status> {
        match &settings.target {
            Target::Http(http) => {
                let url = self.deliverer.url("job.http_target.uri", &http.uri)?;
                if let Some(token) = http.token.clone().map(token).filter(|_| self.deliverer.is_of_the_world(&url)) {
                    deliver::token_check(&token, &url).map_err(|failure| Status::invalid_field("job.http_target", failure.to_string()))?;
                }
                http.token.as_ref().map_or(Ok(()), |token| self.may_act_as(who, project, token.account()))
            }
            Target::Pubsub(pubsub) => topic(project, &pubsub.topic).map(drop),
        }
    }

    fn attempt<'a>(&'a self, job: &'a Job, attempt: &'a Attempt) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(async move {
            match &job.settings.target {
                Target::Http(http) => match call(job, attempt, http) {
                    Ok(call) => {
                        let about = About { sender: "scheduler", from: job.key.resource(), key: format!("{} {}", job.uid, attempt.tick) };
                        outcome(self.deliverer.deliver(about, self.clock.now(), call).await)
                    }
                    Err(status) => Outcome::failed(status.code, status.outer),
                },
                Target::Pubsub(pubsub) => {
                    self.publish(job, attempt, pubsub).await.map_or_else(|status| Outcome::failed(status.code, status.outer), |()| Outcome::good())
                }
            }
        })
    }
}

impl Sender {
    async fn publish(&self, job: &Job, attempt: &Attempt, target: &PubsubTarget) -> Result<(), Status> {
        let message = Message { data: Bytes::copy_from_slice(&target.data), attributes: target.attributes.clone(), ..Message::default() }.behind(&attempt.hops);
        self.topics.publish(&topic(&job.key.project, &target.topic)?, vec![message]).await.map(drop)
    }

    /// The account must be the project's own, by the proto, and the caller must have actAs on it.
    fn may_act_as(&self, who: &Identity, project: &ProjectId, email: &str) -> Result<(), Status> {
        const ACT_AS: &str = "iam.serviceAccounts.actAs";
        let denied = || {
            Status::new(Code::PermissionDenied, format!("The principal lacks {ACT_AS} permission for the resource {email} (or the resource may not exist)."))
        };
        let account = self.iam.service_account_get(Some(project), email).map_err(|_| denied())?;
        let resource = format!("projects/{project}/serviceAccounts/{}", account.email);
        if account.disabled || !self.iam.may(Some(who), ACT_AS, &resource, project.as_str()) {
            return Err(denied());
        }
        Ok(())
    }
}

/// A topic of the job's project, whether or not it is there: that is seen at each attempt.
fn topic(project: &ProjectId, written: &str) -> Result<Name, Status> {
    let id = written.strip_prefix(&format!("projects/{project}/topics/"));
    id.and_then(|id| Name::new(Kind::Topics, project.clone(), id).ok()).ok_or_else(|| {
        Status::invalid_field("job.pubsub_target.topic_name", format!("{written:?} is not projects/{project}/topics/TOPIC: a topic of the job's project"))
    })
}

/// The request of an HTTP target.
fn call(job: &Job, attempt: &Attempt, http: &HttpTarget) -> Result<Call, Status> {
    let mut headers = HeaderMap::new();
    for (name, value) in http.headers.iter().filter(|(name, _)| is_sent(name)) {
        let header = |_| Status::internal(format!("header {name:?} of a job"));
        headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| header(()))?, HeaderValue::from_str(value).map_err(|_| header(()))?);
    }
    if !http.body.is_empty() && !headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    }
    headers.insert(header::USER_AGENT, HeaderValue::from_static("Google-Cloud-Scheduler"));
    headers.insert("x-cloudscheduler", HeaderValue::from_static("true"));
    headers.insert("x-cloudscheduler-jobname", HeaderValue::from_str(&job.key.id).map_err(Status::internal)?);
    let schedule = job.settings.schedule()?;
    if schedule.is_cron() {
        headers.insert("x-cloudscheduler-scheduletime", HeaderValue::from_str(&schedule.local(attempt.tick)).map_err(Status::internal)?);
    }
    Ok(Call {
        project: job.key.project.clone(),
        target: deliver::Target::Url(http.uri.parse().map_err(Status::internal)?),
        method: Method::from_bytes(http.method.as_bytes()).map_err(Status::internal)?,
        headers,
        body: Bytes::copy_from_slice(&http.body),
        token: http.token.clone().map(token),
        redirects_max: REDIRECTS_MAX,
        timeout: job.settings.attempt_deadline,
        hops: attempt.hops.clone(),
    })
}

/// "For a redirected request, the response returned by the redirected request is considered" (target.proto). How many Google follows in a
/// row is not documented.
const REDIRECTS_MAX: u8 = 5;

fn token(token: Token) -> deliver::Token {
    match token {
        Token::Oidc { account, audience } => deliver::Token::Id { account, audience },
        Token::Oauth { account, scope } => deliver::Token::Access { account, scope },
    }
}

fn outcome(answer: Result<Answer, Failure>) -> Outcome {
    let (status, words) = match answer {
        Ok(answer) => (answer.status, words(answer.status)),
        // As the proxies between Google's scheduler and a service say it.
        Err(Failure::TimedOut(_)) => (StatusCode::GATEWAY_TIMEOUT, "URL_TIMEOUT-TIMEOUT_WEB"),
        Err(failure @ Failure::Account(_)) => return Outcome::failed(Code::PermissionDenied, failure.to_string()),
        Err(failure @ Failure::Loop { .. }) => return Outcome::failed(Code::FailedPrecondition, failure.to_string()),
        Err(failure @ Failure::Refused(_)) => return Outcome::failed(Code::PermissionDenied, failure.to_string()),
        Err(failure @ (Failure::Unreachable(_) | Failure::Broken(_))) => return Outcome::failed(Code::Unavailable, failure.to_string()),
    };
    Outcome {
        ended: Ended { code: code(status), message: String::new() },
        http_status: Some(status.as_u16()),
        debug_info: format!("{words}. Original HTTP response code number = {}", status.as_u16()),
    }
}

fn words(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "URL_CRAWLED",
        401 => "URL_ERROR-ERROR_AUTHENTICATION",
        404 => "URL_ERROR-ERROR_NOT_FOUND",
        500..=599 => "URL_UNREACHABLE-UNREACHABLE_5xx",
        _ => "URL_ERROR-ERROR_OTHER",
    }
}

/// google.rpc.Code by google/rpc/code.proto's mapping; 0 for a good one.
fn code(status: StatusCode) -> i32 {
    let code = match status.as_u16() {
        200..=299 => return 0,
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        500 => Code::Internal,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Unknown,
    };
    code as i32
}

pub(super) fn log_started(shared: &Shared, job: &Job, attempt: &Attempt) {
    let mut about = about(job, "AttemptStarted");
    about["scheduledTime"] = json!(attempt.tick.strftime("%Y-%m-%dT%H:%M:%S%.fZ").to_string());
    (shared.log)(entry(shared, job, Severity::Info, &about, HttpRequest::default()));
}

pub(super) fn log_finished(shared: &Shared, job: &Job, outcome: &Outcome) {
    let mut about = about(job, "AttemptFinished");
    if !outcome.debug_info.is_empty() {
        about["debugInfo"] = json!(outcome.debug_info);
    }
    let code = Code::from_number(outcome.ended.code);
    if let Some(code) = code {
        about["status"] = json!(code.name());
    }
    let severity = if code.is_some() { Severity::Error } else { Severity::Info };
    (shared.log)(entry(shared, job, severity, &about, HttpRequest { status: outcome.http_status.unwrap_or_default(), ..HttpRequest::default() }));
}

fn about(job: &Job, what: &str) -> serde_json::Value {
    let mut about = json!({ "@type": format!("type.googleapis.com/google.cloud.scheduler.logging.{what}"), "jobName": job.key.resource() });
    match &job.settings.target {
        Target::Http(http) => {
            about["targetType"] = json!("HTTP");
            about["url"] = json!(http.uri);
        }
        Target::Pubsub(pubsub) => {
            about["targetType"] = json!("PUB_SUB");
            about["pubsubTopic"] = json!(pubsub.topic);
        }
    }
    about
}

fn entry(shared: &Shared, job: &Job, severity: Severity, about: &serde_json::Value, http: HttpRequest) -> Entry {
    let source = Source {
        project: job.key.project.to_string(),
        region: job.key.region.to_string(),
        service: String::new(),
        revision: String::new(),
        instance: String::new(),
        build: String::new(),
        managed_by: String::new(),
        job: job.key.id.clone(),
    };
    Entry {
        source: Arc::new(source),
        log: LogName::Executions,
        time: shared.clock.now(),
        severity,
        payload: Payload::Json(about.to_string()),
        http: Some(http),
        trace: String::new(),
        span: String::new(),
        trace_sampled: false,
        labels: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::Hops;

    use super::*;
    use crate::scheduler::job::{JobKey, tests::settings};

    fn job(change: impl Fn(&mut Settings, &mut HttpTarget)) -> Job {
        let key = JobKey::new(ProjectId::parse("demo-1").unwrap(), model::Region::parse("asia-northeast1").unwrap(), "every-day").unwrap();
        let mut settings = settings();
        let Target::Http(mut http) = settings.target.clone() else { panic!("an HTTP target") };
        change(&mut settings, &mut http);
        settings.target = Target::Http(http);
        let updated = model::Timestamp::UNIX_EPOCH;
        Job { key, uid: String::new(), settings, is_paused: false, updated, next: None, execution: None, attempted: None, ended: None }
    }

    fn sent(job: &Job) -> Call {
        let Target::Http(http) = &job.settings.target else { panic!("an HTTP target") };
        call(job, &Attempt { tick: "2026-01-01T00:00:00Z".parse().unwrap(), number: 1, hops: Hops::default() }, http).unwrap()
    }

    #[test]
    fn headers_tell_the_job_and_its_tick_in_its_zone() {
        let check = |job: &Job, expect: &[(&str, Option<&str>)]| {
            let call = sent(job);
            for (name, value) in expect {
                assert_eq!(call.headers.get(*name).map(|v| v.to_str().unwrap()), *value, "{name}");
            }
        };
        let all = [("user-agent", Some("Google-Cloud-Scheduler")), ("x-cloudscheduler", Some("true")), ("x-cloudscheduler-jobname", Some("every-day"))];
        check(&job(|_, _| {}), &all);
        check(&job(|_, _| {}), &[("x-cloudscheduler-scheduletime", Some("2026-01-01T00:00:00Z")), ("content-type", None)]);
        check(&job(|s, _| s.time_zone = "Asia/Tokyo".to_owned()), &[("x-cloudscheduler-scheduletime", Some("2026-01-01T09:00:00+09:00"))]);
        check(&job(|s, _| s.schedule = "every 5 minutes".to_owned()), &[("x-cloudscheduler-scheduletime", None)]);
        check(&job(|_, h| h.body = b"x".to_vec()), &[("content-type", Some("application/octet-stream"))]);
        let written = job(|_, h| {
            h.body = b"{}".to_vec();
            for (name, value) in
                [("Content-Type", "application/json"), ("User-Agent", "mine"), ("X-CloudScheduler", "false"), ("X-Mine", "1"), ("Host", "evil")]
            {
                h.headers.insert(name.to_owned(), value.to_owned());
            }
        });
        check(&written, &all);
        check(&written, &[("content-type", Some("application/json")), ("x-mine", Some("1")), ("host", None)]);
    }

    #[test]
    fn outcomes_are_googles() {
        let check = |answer: Result<u16, Failure>, code: i32, debug_info: &str| {
            let answer = answer.map(|status| Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: Bytes::new(),
                latency: Duration::ZERO,
                refusal: None,
            });
            let outcome = outcome(answer);
            assert_eq!((outcome.ended.code, outcome.debug_info.as_str()), (code, debug_info));
        };
        check(Ok(200), 0, "URL_CRAWLED. Original HTTP response code number = 200");
        check(Ok(204), 0, "URL_CRAWLED. Original HTTP response code number = 204");
        check(Ok(302), 2, "URL_ERROR-ERROR_OTHER. Original HTTP response code number = 302");
        check(Ok(401), 16, "URL_ERROR-ERROR_AUTHENTICATION. Original HTTP response code number = 401");
        check(Ok(403), 7, "URL_ERROR-ERROR_OTHER. Original HTTP response code number = 403");
        check(Ok(404), 5, "URL_ERROR-ERROR_NOT_FOUND. Original HTTP response code number = 404");
        check(Ok(429), 8, "URL_ERROR-ERROR_OTHER. Original HTTP response code number = 429");
        check(Ok(500), 13, "URL_UNREACHABLE-UNREACHABLE_5xx. Original HTTP response code number = 500");
        check(Ok(503), 14, "URL_UNREACHABLE-UNREACHABLE_5xx. Original HTTP response code number = 503");
        check(Err(Failure::TimedOut(Duration::from_secs(15))), 4, "URL_TIMEOUT-TIMEOUT_WEB. Original HTTP response code number = 504");
        check(Err(Failure::Refused("not there".to_owned())), 7, "not there");
        check(Err(Failure::Unreachable("no address".to_owned())), 14, "no address");
        check(Err(Failure::Account("a@b".to_owned())), 7, "service account a@b does not exist or is disabled");
    }

    #[test]
    fn topics_are_the_projects_own() {
        let check = |written: &str, is_good: bool| assert_eq!(topic(&ProjectId::parse("demo-1").unwrap(), written).is_ok(), is_good, "{written}");
        check("projects/demo-1/topics/topic", true);
        for bad in ["topic", "projects/demo-2/topics/topic", "projects/demo-1/topics/t", "projects/demo-1/topics/", "projects/demo-1/topics/a/b"] {
            check(bad, false);
        }
    }
}
