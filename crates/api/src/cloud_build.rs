//! Cloud Build v1: builds to read and their operations. They are made by run v2's SubmitBuild.
//!
//! Source: google/devtools/cloudbuild/v1/cloudbuild.proto; gcloud's poller for what an error's message becomes.

use std::time::Duration;

use control::Project;
use model::{Code, Status, build::Build, build::BuildState};
use prost::Name;
use proto::google::{devtools::cloudbuild::v1 as pb, longrunning as lro};

use crate::{
    app::App,
    convert::time,
    error,
    grpc::{Context, Group, Method},
    permission::on,
};

const HOSTS: &[&str] = &["cloudbuild.googleapis.com"];
const LOCATION: &str = "projects/{project}/locations/{location}";
const BUILD: &str = "projects/{project}/locations/{location}/builds/{build}";
/// How long reading a build's operation waits for its end: gcloud asks anew without a pause that anyone notices.
pub(crate) const OPERATION_WAIT: Duration = Duration::from_secs(10);

pub(crate) fn methods(app: &App) -> Vec<Method> {
    const PROJECT: &str = "projects/{project}";
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.devtools.cloudbuild.v1.CloudBuild/GetBuild",
            on("cloudbuild.builds.get", PROJECT),
            |r: &pb::GetBuildRequest| name_or(&r.name, || format!("projects/{}/locations/global/builds/{}", r.project_id, r.id)),
            ("name", BUILD),
            build_get,
        )
        .unary(
            "google.devtools.cloudbuild.v1.CloudBuild/ListBuilds",
            on("cloudbuild.builds.list", PROJECT),
            |r: &pb::ListBuildsRequest| name_or(&r.parent, || format!("projects/{}/locations/global", r.project_id)),
            ("parent", LOCATION),
            build_list,
        )
        .unary(
            "google.devtools.cloudbuild.v1.CloudBuild/GetDefaultServiceAccount",
            on("cloudbuild.builds.get", PROJECT),
            |r: &pb::GetDefaultServiceAccountRequest| r.name.clone(),
            ("name", "projects/{project}/locations/{location}/defaultServiceAccount"),
            default_service_account_get,
        )
        .into_methods()
}

fn name_or(name: &str, other: impl FnOnce() -> String) -> String {
    if name.is_empty() { other() } else { name.to_owned() }
}

async fn build_get(app: App, context: Context, request: pb::GetBuildRequest) -> Result<pb::Build, Status> {
    let project = named_once(&app, &context, &request.project_id)?;
    let build = app.control.build_get(&project.id, &context.region()?, context.var("build")?)?;
    Ok(write(&build, &project))
}

async fn build_list(app: App, context: Context, request: pb::ListBuildsRequest) -> Result<pb::ListBuildsResponse, Status> {
    if !request.filter.is_empty() {
        return Err(Status::invalid_field("filter", "filters of builds are not supported by this server; leave it out"));
    }
    if !request.page_token.is_empty() {
        return Err(Status::invalid_field("page_token", "builds are listed on one page: the newest page_size of them"));
    }
    let limit = match usize::try_from(request.page_size) {
        Ok(0) => crate::page::SIZE_DEFAULT,
        Ok(size) => size.min(crate::page::SIZE_MAX),
        Err(_) => return Err(Status::invalid_field("page_size", "it is negative")),
    };
    let project = named_once(&app, &context, &request.project_id)?;
    let builds = app.control.build_list(&project.id, &context.region()?, limit)?;
    Ok(pb::ListBuildsResponse { builds: builds.iter().map(|build| write(build, &project)).collect(), ..Default::default() })
}

/// The project of the request, which names it in the resource's name, in `project_id`, or twice.
fn named_once(app: &App, context: &Context, project_id: &str) -> Result<Project, Status> {
    let project = app.control.project_get(context.var("project")?)?;
    if project_id.is_empty() || project_id == project.id.as_str() || project_id == project.number.to_string() {
        return Ok(project);
    }
    Err(Status::permission_denied("cloudbuild.builds.get", &format!("projects/{project_id}")))
}

async fn default_service_account_get(app: App, context: Context, request: pb::GetDefaultServiceAccountRequest) -> Result<pb::DefaultServiceAccount, Status> {
    let project = app.control.project_get(context.var("project")?)?;
    let email = format!("projects/{}/serviceAccounts/{}", project.id, compute_account(&project));
    Ok(pb::DefaultServiceAccount { name: request.name, service_account_email: email })
}

/// The account that builds and services run as when nothing else is said.
pub(crate) fn compute_account(project: &Project) -> String {
    format!("{}-compute@developer.gserviceaccount.com", project.number)
}

/// A build's operation: its own id, the build as metadata and as response. A build that failed is an error whose
/// message is the cause: gcloud prints it as the deploy's error.
pub(crate) fn operation(build: &Build, project: &Project) -> lro::Operation {
    let written = write(build, project);
    let any = |kind: String, bytes| prost_types::Any { type_url: kind, value: bytes };
    let metadata = pb::BuildOperationMetadata { build: Some(written.clone()) };
    let result = match build.state {
        BuildState::Queued | BuildState::Working => None,
        BuildState::Success => Some(lro::operation::Result::Response(any(pb::Build::type_url(), prost::Message::encode_to_vec(&written)))),
        _ => Some(lro::operation::Result::Error(error::rpc_status(&failure(build)))),
    };
    lro::Operation {
        name: format!("projects/{}/locations/{}/operations/{}", project.id, build.region, build.id),
        metadata: Some(any(pb::BuildOperationMetadata::type_url(), prost::Message::encode_to_vec(&metadata))),
        done: build.state.is_done(),
        result,
    }
}

/// Why a build ended badly, in the words that a user reads.
fn failure(build: &Build) -> Status {
    let cause = match (build.failure.as_str(), build.state) {
        ("", BuildState::Timeout) => "it took too long",
        ("", BuildState::Cancelled) => "it was cancelled",
        ("", _) => "see its log",
        (cause, _) => cause,
    };
    let code = match build.state {
        BuildState::Timeout => Code::DeadlineExceeded,
        BuildState::Cancelled => Code::Cancelled,
        BuildState::InternalError => Code::Internal,
        // Google's code for a build whose step failed.
        _ => Code::Unknown,
    };
    let log = format!("gcloud builds log {} --region={}", build.id, build.region);
    Status::new(code, format!("Build failed: {cause}\nThe whole log: {log}"))
}

/// The build as clients see it.
pub(crate) fn write(build: &Build, project: &Project) -> pb::Build {
    use pb::build::{FailureInfo, failure_info::FailureType};
    let status = match build.state {
        BuildState::Queued => pb::build::Status::Queued,
        BuildState::Working => pb::build::Status::Working,
        BuildState::Success => pb::build::Status::Success,
        BuildState::Failure => pb::build::Status::Failure,
        BuildState::InternalError => pb::build::Status::InternalError,
        BuildState::Timeout => pb::build::Status::Timeout,
        BuildState::Cancelled => pb::build::Status::Cancelled,
    };
    let failed = build.state.is_done() && build.state != BuildState::Success;
    let image = build.image.as_ref().map(|digest| pb::BuiltImage { name: build.image_uri.clone(), digest: digest.to_string(), ..Default::default() });
    pb::Build {
        name: format!("projects/{}/locations/{}/builds/{}", project.number, build.region, build.id),
        id: build.id.clone(),
        project_id: build.project.to_string(),
        status: status as i32,
        status_detail: build.failure.clone(),
        source: Some(pb::Source {
            source: Some(pb::source::Source::StorageSource(pb::StorageSource {
                bucket: build.source.bucket.clone(),
                object: build.source.object.clone(),
                generation: build.source.generation,
                ..Default::default()
            })),
        }),
        results: image.map(|image| pb::Results { images: vec![image], ..Default::default() }),
        create_time: Some(time(build.created)),
        start_time: build.started.map(time),
        finish_time: build.finished.map(time),
        images: vec![build.image_uri.clone()],
        // Where `gcloud builds log` looks for it.
        options: Some(pb::BuildOptions { logging: pb::build_options::LoggingMode::CloudLoggingOnly as i32, ..Default::default() }),
        log_url: format!("https://console.cloud.google.com/cloud-build/builds;region={}/{}?project={}", build.region, build.id, project.number),
        tags: build.tags.clone(),
        service_account: build.service_account.clone(),
        failure_info: failed.then(|| FailureInfo {
            r#type: if build.state == BuildState::Failure { FailureType::UserBuildStep } else { FailureType::Unspecified } as i32,
            detail: build.failure.clone(),
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use model::{ProjectId, ProjectNumber, Region, Timestamp, build::StorageSource};

    use super::*;

    fn project() -> Project {
        Project {
            id: ProjectId::parse("local-project").unwrap(),
            number: ProjectNumber(9_000_000_000_001),
            name: String::new(),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn build(state: BuildState, failure: &str) -> Build {
        Build {
            project: project().id,
            region: Region::parse("asia-northeast1").unwrap(),
            id: "b1".to_owned(),
            created: Timestamp::UNIX_EPOCH,
            started: None,
            finished: None,
            source: StorageSource { bucket: "b".to_owned(), object: "o".to_owned(), generation: 1 },
            image_uri: "r/i".to_owned(),
            base_image: "python312".to_owned(),
            function_target: "hello_http".to_owned(),
            enable_automatic_updates: true,
            env: Default::default(),
            tags: Vec::new(),
            service_account: String::new(),
            state,
            image: None,
            failure: failure.to_owned(),
        }
    }

    #[test]
    fn a_failed_build_says_why() {
        let operation = operation(&build(BuildState::Failure, "No module named 'flask'"), &project());
        let Some(lro::operation::Result::Error(error)) = operation.result else { panic!("{operation:?}") };
        assert!(operation.done && error.message.starts_with("Build failed: No module named 'flask'\n"), "{error:?}");
    }

    #[test]
    fn an_unfinished_build_has_no_result() {
        let operation = operation(&build(BuildState::Working, ""), &project());
        assert!(!operation.done && operation.result.is_none());
        assert_eq!(operation.name, "projects/local-project/locations/asia-northeast1/operations/b1");
    }

    #[test]
    fn a_build_is_named_by_its_project_number() {
        assert_eq!(write(&build(BuildState::Success, ""), &project()).name, "projects/9000000000001/locations/asia-northeast1/builds/b1");
    }
}
