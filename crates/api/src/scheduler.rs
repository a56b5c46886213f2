//! Cloud Scheduler v1: jobs. App Engine targets are refused; locations are in [`crate::location`].
//!
//! Source: google/cloud/scheduler/v1/{cloudscheduler,job,target}.proto; what a job looks like to who reads it, as gcloud 528 shows Google's.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use events::scheduler::job::{self, HttpTarget, Job, JobKey, METHODS, PubsubTarget, Retry, Settings, Target, Token};
use model::{Status, limits, schedule::ZONE_DEFAULT};
use proto::google::{cloud::scheduler::v1 as pb, rpc};

use crate::{
    app::App,
    convert::{count, int, time},
    grpc::{Context, Group, Method, Removed},
    mask,
    permission::{name_read, on},
};

const HOSTS: &[&str] = &["cloudscheduler.googleapis.com"];
const PROJECT: &str = "projects/{project}";
const LOCATION: &str = "projects/{project}/locations/{location}";
const JOB: &str = "projects/{project}/locations/{location}/jobs/{job}";
/// What a token may do when nothing else is said.
const SCOPE_DEFAULT: &str = "https://www.googleapis.com/auth/cloud-platform";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.cloud.scheduler.v1.CloudScheduler/ListJobs",
            on("cloudscheduler.jobs.list", PROJECT),
            |r: &pb::ListJobsRequest| r.parent.clone(),
            ("parent", LOCATION),
            job_list,
        )
        .unary(
            "google.cloud.scheduler.v1.CloudScheduler/GetJob",
            on("cloudscheduler.jobs.get", PROJECT),
            |r: &pb::GetJobRequest| r.name.clone(),
            ("name", JOB),
            job_get,
        )
        .unary(
            "google.cloud.scheduler.v1.CloudScheduler/CreateJob",
            on("cloudscheduler.jobs.create", PROJECT),
            |r: &pb::CreateJobRequest| r.parent.clone(),
            ("parent", LOCATION),
            job_create,
        )
        .unary(
            "google.cloud.scheduler.v1.CloudScheduler/UpdateJob",
            on("cloudscheduler.jobs.update", PROJECT),
            |r: &pb::UpdateJobRequest| r.job.as_ref().map(|job| job.name.clone()).unwrap_or_default(),
            ("job.name", JOB),
            job_update,
        )
        .unary(
            "google.cloud.scheduler.v1.CloudScheduler/DeleteJob",
            on("cloudscheduler.jobs.delete", PROJECT),
            |r: &pb::DeleteJobRequest| r.name.clone(),
            ("name", JOB),
            job_delete,
        )
        .unary(
            "google.cloud.scheduler.v1.CloudScheduler/PauseJob",
            on("cloudscheduler.jobs.pause", PROJECT),
            |r: &pb::PauseJobRequest| r.name.clone(),
            ("name", JOB),
            job_pause,
        )
        .unary(
            "google.cloud.scheduler.v1.CloudScheduler/ResumeJob",
            on("cloudscheduler.jobs.enable", PROJECT),
            |r: &pb::ResumeJobRequest| r.name.clone(),
            ("name", JOB),
            job_resume,
        )
        .unary(
            "google.cloud.scheduler.v1.CloudScheduler/RunJob",
            on("cloudscheduler.jobs.run", PROJECT),
            |r: &pb::RunJobRequest| r.name.clone(),
            ("name", JOB),
            job_run,
        )
        .into_methods()
}

async fn job_list(app: App, context: Context, request: pb::ListJobsRequest) -> Result<pb::ListJobsResponse, Status> {
    let (project, region) = (context.project()?, context.region()?);
    let scope = format!("jobs/{project}/{region}");
    let max = i32::try_from(limits::JOBS_PAGE_MAX).unwrap_or(i32::MAX);
    let size = if request.page_size == 0 { max } else { request.page_size.min(max) };
    let asked = app.pages.read(&scope, &request.page_token, i64::from(size)).await?;
    // One more than the page: whether there is another page.
    let mut jobs = app.scheduler.job_list(&project, &region, asked.after.as_deref(), asked.size + 1)?;
    let more = jobs.len() > asked.size;
    jobs.truncate(asked.size);
    let next_page_token = match jobs.last().filter(|_| more) {
        Some(last) => app.pages.token(&scope, &last.key.id).await?,
        None => String::new(),
    };
    Ok(pb::ListJobsResponse { jobs: jobs.iter().map(write).collect(), next_page_token })
}

async fn job_get(app: App, context: Context, _: pb::GetJobRequest) -> Result<pb::Job, Status> {
    Ok(write(&app.scheduler.job_get(&key(&context)?)?))
}

async fn job_create(app: App, context: Context, request: pb::CreateJobRequest) -> Result<pb::Job, Status> {
    let written = request.job.ok_or_else(|| Status::invalid_field("job", "it is required"))?;
    let id = if written.name.is_empty() { uuid::Uuid::new_v4().simple().to_string() } else { id_of(&written.name, &request.parent, &context)? };
    let key = JobKey::new(context.project()?, context.region()?, &id)?;
    Ok(write(&app.scheduler.job_create(&context.who, key, read(written)?).await?))
}

async fn job_update(app: App, context: Context, request: pb::UpdateJobRequest) -> Result<pb::Job, Status> {
    let key = key(&context)?;
    let written = request.job.ok_or_else(|| Status::invalid_field("job", "it is required"))?;
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    let current = app.scheduler.job_get(&key)?;
    let merged = mask::masked(&write(&current), written, &paths)?;
    let merged = maps_merge(&current.settings, merged, &paths, &context.removed);
    Ok(write(&app.scheduler.job_update(&context.who, &key, &current.settings, read(merged)?).await?))
}

/// A map that the mask names takes the entries of the new one in, loses those that are null there, and loses all when there is neither:
/// Google's command line sends the headers that are to change and has not read the others. Source: `gcloud scheduler jobs update http --help`
/// and what it was seen to send; google/protobuf/field_mask.proto.
fn maps_merge(current: &Settings, mut merged: pb::Job, paths: &[String], removed: &[Removed]) -> pb::Job {
    let is_named = |names: [&str; 2]| paths.iter().any(|path| names.contains(&path.as_str()));
    let merge = |map: &str, old: &BTreeMap<String, String>, new: &mut HashMap<String, String>| {
        let goes: Vec<_> = removed.iter().filter(|removed| removed.map == map).map(|removed| removed.key.as_str()).collect();
        if !new.is_empty() || !goes.is_empty() {
            let is_other = |name: &str| new.keys().map(String::as_str).chain(goes.iter().copied()).all(|other| !other.eq_ignore_ascii_case(name));
            let kept: Vec<_> = old.iter().filter(|(name, _)| is_other(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
            new.extend(kept);
        }
    };
    match (&current.target, &mut merged.target) {
        (Target::Http(old), Some(pb::job::Target::HttpTarget(new))) if is_named(["http_target.headers", "httpTarget.headers"]) => {
            merge("job.http_target.headers", &old.headers, &mut new.headers);
        }
        (Target::Pubsub(old), Some(pb::job::Target::PubsubTarget(new))) if is_named(["pubsub_target.attributes", "pubsubTarget.attributes"]) => {
            merge("job.pubsub_target.attributes", &old.attributes, &mut new.attributes);
        }
        _ => {}
    }
    merged
}

async fn job_delete(app: App, context: Context, _: pb::DeleteJobRequest) -> Result<(), Status> {
    app.scheduler.job_delete(&key(&context)?).await
}

async fn job_pause(app: App, context: Context, _: pb::PauseJobRequest) -> Result<pb::Job, Status> {
    Ok(write(&app.scheduler.job_pause(&key(&context)?).await?))
}

async fn job_resume(app: App, context: Context, _: pb::ResumeJobRequest) -> Result<pb::Job, Status> {
    Ok(write(&app.scheduler.job_resume(&key(&context)?).await?))
}

async fn job_run(app: App, context: Context, _: pb::RunJobRequest) -> Result<pb::Job, Status> {
    Ok(write(&app.scheduler.job_run(&key(&context)?, context.hops.clone()).await?))
}

fn key(context: &Context) -> Result<JobKey, Status> {
    JobKey::new(context.project()?, context.region()?, context.var("job")?)
}

/// The id in the name of a job that is to be made under `parent`.
fn id_of(name: &str, parent: &str, context: &Context) -> Result<String, Status> {
    let bad = || Status::invalid_field("job.name", format!("Invalid resource name {name:?}: expected the form {parent}/jobs/ID"));
    let vars = name_read(JOB, name).ok_or_else(bad)?;
    let is_here = name.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
        || (vars["project"] == context.var("project")? && vars["location"] == context.var("location")?);
    if is_here { Ok(vars["job"].clone()) } else { Err(bad()) }
}

fn read(job: pb::Job) -> Result<Settings, Status> {
    let target = match job.target {
        Some(pb::job::Target::HttpTarget(http)) => Target::Http(http_read(http)?),
        Some(pb::job::Target::PubsubTarget(pubsub)) => {
            Target::Pubsub(PubsubTarget { topic: pubsub.topic_name, data: pubsub.data, attributes: pubsub.attributes.into_iter().collect() })
        }
        Some(pb::job::Target::AppEngineHttpTarget(_)) => {
            return Err(Status::invalid_field("job.app_engine_http_target", "this server has no App Engine; use http_target or pubsub_target"));
        }
        None => return Err(Status::invalid_field("job.target", "one of http_target and pubsub_target is required")),
    };
    if job.schedule.is_empty() {
        return Err(Status::invalid_field("job.schedule", "it is required"));
    }
    Ok(Settings {
        description: job.description,
        schedule: job.schedule,
        time_zone: if job.time_zone.is_empty() { ZONE_DEFAULT.to_owned() } else { job.time_zone },
        target,
        retry: retry_read(job.retry_config.unwrap_or_default())?,
        attempt_deadline: duration_read("job.attempt_deadline", job.attempt_deadline)?.unwrap_or(limits::JOB_DEADLINE_DEFAULT),
    })
}

fn http_read(http: pb::HttpTarget) -> Result<HttpTarget, Status> {
    use pb::http_target::AuthorizationHeader::{OauthToken, OidcToken};
    let method = match pb::HttpMethod::try_from(http.http_method) {
        Ok(pb::HttpMethod::Unspecified) => METHODS[0],
        Ok(method) => method.as_str_name(),
        Err(_) => return Err(Status::invalid_field("job.http_target.http_method", format!("{} is no method", http.http_method))),
    };
    let token = match http.authorization_header {
        // What is left when its fields were cleared one by one.
        Some(OidcToken(pb::OidcToken { service_account_email, .. })) if service_account_email.is_empty() => None,
        Some(OauthToken(pb::OAuthToken { service_account_email, .. })) if service_account_email.is_empty() => None,
        Some(OidcToken(token)) => {
            let audience = if token.audience.is_empty() { http.uri.clone() } else { token.audience };
            Some(Token::Oidc { account: token.service_account_email, audience })
        }
        Some(OauthToken(token)) => {
            let scope = if token.scope.is_empty() { SCOPE_DEFAULT.to_owned() } else { token.scope };
            Some(Token::Oauth { account: token.service_account_email, scope })
        }
        None => None,
    };
    Ok(HttpTarget { uri: http.uri, method: method.to_owned(), headers: http.headers.into_iter().collect(), body: http.body, token })
}

/// Zero is unset, and unset the default.
fn retry_read(retry: pb::RetryConfig) -> Result<Retry, Status> {
    let default = Retry::default();
    let doublings = count("job.retry_config.max_doublings", retry.max_doublings)?;
    let duration = |field, value, default| Ok::<_, Status>(duration_read(field, value)?.filter(|d| !d.is_zero()).unwrap_or(default));
    Ok(Retry {
        count: count("job.retry_config.retry_count", retry.retry_count)?,
        duration_max: duration("job.retry_config.max_retry_duration", retry.max_retry_duration, default.duration_max)?,
        backoff_min: duration("job.retry_config.min_backoff_duration", retry.min_backoff_duration, default.backoff_min)?,
        backoff_max: duration("job.retry_config.max_backoff_duration", retry.max_backoff_duration, default.backoff_max)?,
        doublings_max: if doublings == 0 { default.doublings_max } else { doublings },
    })
}

fn duration_read(field: &str, duration: Option<prost_types::Duration>) -> Result<Option<Duration>, Status> {
    duration.map(|duration| Duration::try_from(duration).map_err(|_| Status::invalid_field(field, "it is negative or out of range"))).transpose()
}

fn write(job: &Job) -> pb::Job {
    let settings = &job.settings;
    let state = if job.is_paused { pb::job::State::Paused } else { pb::job::State::Enabled };
    let (target, attempt_deadline) = match &settings.target {
        Target::Http(http) => (pb::job::Target::HttpTarget(http_write(http)), Some(duration_write(settings.attempt_deadline))),
        Target::Pubsub(pubsub) => {
            let target =
                pb::PubsubTarget { topic_name: pubsub.topic.clone(), data: pubsub.data.clone(), attributes: pubsub.attributes.clone().into_iter().collect() };
            (pb::job::Target::PubsubTarget(target), None)
        }
    };
    pb::Job {
        name: job.key.resource(),
        description: settings.description.clone(),
        schedule: settings.schedule.clone(),
        time_zone: settings.time_zone.clone(),
        user_update_time: Some(time(job.updated)),
        state: state as i32,
        status: job.ended.as_ref().map(|job::Ended { code, message }| rpc::Status { code: *code, message: message.clone(), details: Vec::new() }),
        schedule_time: job.scheduled().map(time),
        last_attempt_time: job.attempted.map(time),
        retry_config: Some(pb::RetryConfig {
            retry_count: int(settings.retry.count),
            max_retry_duration: Some(duration_write(settings.retry.duration_max)),
            min_backoff_duration: Some(duration_write(settings.retry.backoff_min)),
            max_backoff_duration: Some(duration_write(settings.retry.backoff_max)),
            max_doublings: int(settings.retry.doublings_max),
        }),
        attempt_deadline,
        target: Some(target),
    }
}

/// With the headers that are sent in any case, as Google shows them.
fn http_write(http: &HttpTarget) -> pb::HttpTarget {
    use pb::http_target::AuthorizationHeader::{OauthToken, OidcToken};
    let mut headers: HashMap<_, _> = http.headers.clone().into_iter().collect();
    headers.retain(|name, _| !name.eq_ignore_ascii_case("user-agent"));
    headers.insert("User-Agent".to_owned(), "Google-Cloud-Scheduler".to_owned());
    if !http.body.is_empty() && !headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
        headers.insert("Content-Type".to_owned(), "application/octet-stream".to_owned());
    }
    pb::HttpTarget {
        uri: http.uri.clone(),
        http_method: pb::HttpMethod::from_str_name(&http.method).unwrap_or_default() as i32,
        headers,
        body: http.body.clone(),
        authorization_header: http.token.clone().map(|token| match token {
            Token::Oidc { account, audience } => OidcToken(pb::OidcToken { service_account_email: account, audience }),
            Token::Oauth { account, scope } => OauthToken(pb::OAuthToken { service_account_email: account, scope }),
        }),
    }
}

fn duration_write(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default() }
}
