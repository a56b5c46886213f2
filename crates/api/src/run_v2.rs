//! run v2: services, revisions, builds. Source: google/cloud/run/v2/*.proto.
//!
//! Jobs, worker pools and the like are not served: their methods answer 404, as everything that is not there.

pub(crate) mod revision;
pub(crate) mod service;
mod template;

use control::BuildRequest;
use model::{
    ProjectId, Region, RevisionName, Service, ServiceName, Status,
    build::StorageSource,
    revision::{START_NOTES, START_REFUSED},
};
use proto::google::{cloud::run::v2 as pb, iam::v1 as iam_pb, longrunning as lro};

use crate::{
    Deps,
    app::App,
    cloud_build,
    convert::refuse,
    grpc::{Context, Group, Method},
    mask, operation,
    permission::{Need, on},
    policy, version,
};

pub(crate) use template::is_system;

const HOSTS: &[&str] = &["run.googleapis.com"];
const PROJECT: &str = "projects/{project}";
const LOCATION: &str = "projects/{project}/locations/{location}";
const SERVICE: &str = "projects/{project}/locations/{location}/services/{service}";
const REVISION: &str = "projects/{project}/locations/{location}/services/{service}/revisions/{revision}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    let services = Group::new(app.clone(), HOSTS)
        .unary(
            "google.cloud.run.v2.Services/CreateService",
            on("run.services.create", PROJECT),
            |r: &pb::CreateServiceRequest| r.parent.clone(),
            ("parent", LOCATION),
            service_create,
        )
        .unary(
            "google.cloud.run.v2.Services/GetService",
            on("run.services.get", SERVICE),
            |r: &pb::GetServiceRequest| r.name.clone(),
            ("name", SERVICE),
            service_get,
        )
        .unary(
            "google.cloud.run.v2.Services/ListServices",
            on("run.services.list", PROJECT),
            |r: &pb::ListServicesRequest| r.parent.clone(),
            ("parent", LOCATION),
            service_list,
        )
        .unary(
            "google.cloud.run.v2.Services/UpdateService",
            on("run.services.update", SERVICE),
            |r: &pb::UpdateServiceRequest| r.service.as_ref().map(|s| s.name.clone()).unwrap_or_default(),
            ("service.name", SERVICE),
            service_update,
        )
        .unary(
            "google.cloud.run.v2.Services/DeleteService",
            on("run.services.delete", SERVICE),
            |r: &pb::DeleteServiceRequest| r.name.clone(),
            ("name", SERVICE),
            service_delete,
        )
        .unary(
            "google.cloud.run.v2.Services/GetIamPolicy",
            on("run.services.getIamPolicy", SERVICE),
            |r: &iam_pb::GetIamPolicyRequest| r.resource.clone(),
            ("resource", SERVICE),
            policy_get,
        )
        .unary(
            "google.cloud.run.v2.Services/SetIamPolicy",
            on("run.services.setIamPolicy", SERVICE),
            |r: &iam_pb::SetIamPolicyRequest| r.resource.clone(),
            ("resource", SERVICE),
            policy_set,
        )
        .unary(
            "google.cloud.run.v2.Services/TestIamPermissions",
            Need::SignedIn,
            |r: &iam_pb::TestIamPermissionsRequest| r.resource.clone(),
            ("resource", SERVICE),
            permissions_test,
        );
    let others = Group::new(app.clone(), HOSTS)
        .unary(
            "google.cloud.run.v2.Revisions/GetRevision",
            on("run.revisions.get", SERVICE),
            |r: &pb::GetRevisionRequest| r.name.clone(),
            ("name", REVISION),
            revision_get,
        )
        .unary(
            "google.cloud.run.v2.Revisions/ListRevisions",
            on("run.revisions.list", PROJECT),
            |r: &pb::ListRevisionsRequest| r.parent.clone(),
            ("parent", SERVICE),
            revision_list,
        )
        .unary(
            "google.cloud.run.v2.Revisions/DeleteRevision",
            on("run.revisions.delete", SERVICE),
            |r: &pb::DeleteRevisionRequest| r.name.clone(),
            ("name", REVISION),
            revision_delete,
        )
        .unary(
            "google.cloud.run.v2.Builds/SubmitBuild",
            on("cloudbuild.builds.create", PROJECT),
            |r: &pb::SubmitBuildRequest| r.parent.clone(),
            ("parent", LOCATION),
            build_submit,
        );
    services.into_methods().into_iter().chain(others.into_methods()).collect()
}

/// The service as clients of v2 see it.
pub(crate) fn service_write(deps: &Deps, service: &Service) -> pb::Service {
    service::write(service, deps.control.service_urls(service))
}

async fn service_create(app: App, context: Context, request: pb::CreateServiceRequest) -> Result<lro::Operation, Status> {
    let written = request.service.ok_or_else(|| Status::invalid_field("service", "it is required"))?;
    let key = model::ServiceKey { project: context.project()?, region: context.region()?, service: ServiceName::parse(&request.service_id)? };
    let service = service::read(key, written)?;
    let (created, started) = app.control.service_create(&context.who, service, request.validate_only).await?;
    operation_of(&app, &created.value, &started, request.validate_only)
}

async fn service_get(app: App, context: Context, _: pb::GetServiceRequest) -> Result<pb::Service, Status> {
    Ok(service_write(&app, &app.control.service_get(&context.service()?)?.value))
}

async fn service_list(app: App, context: Context, request: pb::ListServicesRequest) -> Result<pb::ListServicesResponse, Status> {
    let (project, region) = (context.project()?, context.region_or_all()?);
    let scope = format!("services/{project}/{}", context.var("location")?);
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    // One more than the page: whether there is another page.
    let mut list = app.control.service_list(&project, region.as_ref(), asked.after.as_deref(), asked.size + 1)?;
    let more = list.len() > asked.size;
    list.truncate(asked.size);
    let next_page_token = match list.last().filter(|_| more) {
        Some(last) => app.pages.token(&scope, &model::key::service(&last.value.key)).await?,
        None => String::new(),
    };
    let services = list.iter().map(|found| service_write(&app, &found.value)).collect();
    Ok(pb::ListServicesResponse { services, next_page_token, ..Default::default() })
}

async fn service_update(app: App, context: Context, request: pb::UpdateServiceRequest) -> Result<lro::Operation, Status> {
    let key = context.service()?;
    let written = request.service.ok_or_else(|| Status::invalid_field("service", "it is required"))?;
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    let dry_run = request.validate_only;
    let etag = written.etag.clone();

    if request.allow_missing && app.control.service_get(&key).is_err_and(|error| error.code == model::Code::NotFound) {
        // To make one is another right than to change one.
        let project = key.project.as_str();
        if !app.iam.may(Some(&context.who), "run.services.create", &format!("projects/{project}"), project) {
            return Err(Status::permission_denied("run.services.create", &format!("projects/{project}")));
        }
        let (created, started) = app.control.service_create(&context.who, service::read(key, written)?, dry_run).await?;
        return operation_of(&app, &created.value, &started, dry_run);
    }
    let (app, who, key_, paths, written) = (&app, &context.who, &key, &paths, &written);
    let (replaced, started) = version::with_current(&app.control, &key, &etag, |current| async move {
        let merged = mask::masked(&service_write(app, &current.value), written.clone(), paths)?;
        let mut service = service::read(key_.clone(), merged)?;
        template::hidden_keep(&mut service.template, &current.value.template);
        service::hidden_keep(&mut service, &current.value);
        app.control.service_replace(who, service, Some(current.revision), dry_run).await
    })
    .await?;
    operation_of(app, &replaced.value, &started, dry_run)
}

async fn service_delete(app: App, context: Context, request: pb::DeleteServiceRequest) -> Result<lro::Operation, Status> {
    let key = context.service()?;
    if request.validate_only {
        let found = app.control.service_get(&key)?;
        version::version_check(&found.value, &request.etag)?;
        return Ok(validated(&service_write(&app, &found.value)));
    }
    let (app, who, key_) = (&app, &context.who, &key);
    let (_, started) =
        version::with_current(&app.control, &key, &request.etag, |current| async move { app.control.service_delete(who, key_, Some(current.revision)).await })
            .await?;
    operation::write(app, &started)
}

async fn policy_get(app: App, context: Context, request: iam_pb::GetIamPolicyRequest) -> Result<iam_pb::Policy, Status> {
    let key = context.service()?;
    app.control.service_get(&key)?;
    policy::policy_get(&app, &key.resource(), &request)
}

async fn policy_set(app: App, context: Context, request: iam_pb::SetIamPolicyRequest) -> Result<iam_pb::Policy, Status> {
    let key = context.service()?;
    app.control.service_get(&key)?;
    policy::policy_set(&app, &context.who, ("run.services.setIamPolicy", key.project.as_str()), &key.resource(), request).await
}

async fn permissions_test(app: App, context: Context, request: iam_pb::TestIamPermissionsRequest) -> Result<iam_pb::TestIamPermissionsResponse, Status> {
    let key = context.service()?;
    policy::permissions_test(&app, &context.who, &key.resource(), key.project.as_str(), &request)
}

async fn revision_get(app: App, context: Context, _: pb::GetRevisionRequest) -> Result<pb::Revision, Status> {
    let found = revision_of(&app, &context)?;
    let mut revision = revision::write(&found.value, found.revision);
    if let Some(why) = app.control.serving().start_refused(&found.value.uid) {
        revision.annotations.insert(START_REFUSED.to_owned(), why);
    }
    if let Some(notes) = app.control.revision_start_notes(&found.value)? {
        revision.annotations.insert(START_NOTES.to_owned(), notes);
    }
    Ok(revision)
}

async fn revision_list(app: App, context: Context, request: pb::ListRevisionsRequest) -> Result<pb::ListRevisionsResponse, Status> {
    let (project, region): (ProjectId, Option<Region>) = (context.project()?, context.region_or_all()?);
    let service = match context.var("service")? {
        "-" => None,
        name => Some(ServiceName::parse(name)?),
    };
    let scope = format!("revisions/{project}/{}/{}", context.var("location")?, context.var("service")?);
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let mut list = app.control.revision_list(&project, region.as_ref(), service.as_ref(), asked.after.as_deref(), asked.size + 1)?;
    let more = list.len() > asked.size;
    list.truncate(asked.size);
    let next_page_token = match list.last().filter(|_| more) {
        Some(last) => app.pages.token(&scope, &model::key::revision(&last.value.service, &last.value.name)).await?,
        None => String::new(),
    };
    let revisions = list.iter().map(|found| revision::write(&found.value, found.revision)).collect();
    Ok(pb::ListRevisionsResponse { revisions, next_page_token })
}

async fn revision_delete(app: App, context: Context, request: pb::DeleteRevisionRequest) -> Result<lro::Operation, Status> {
    let found = revision_of(&app, &context)?;
    let written = revision::write(&found.value, found.revision);
    if !request.etag.is_empty() && request.etag.trim_matches('"') != written.etag.trim_matches('"') {
        return Err(Status::new(model::Code::Aborted, format!("Conflict for resource '{}': its etag is now {}.", found.value.name, written.etag)));
    }
    if request.validate_only {
        return Ok(validated(&written));
    }
    let (project, region) = (context.project()?, context.region()?);
    let (_, started) = app.control.revision_delete(&context.who, &project, &region, &found.value.name).await?;
    operation::write(&app, &started)
}

/// The revision of the request's name, which must be one of the service that the name says.
fn revision_of(deps: &Deps, context: &Context) -> Result<control::Versioned<model::Revision>, Status> {
    let name = RevisionName::parse(context.var("revision")?)?;
    let key = context.service()?;
    let found = deps.control.revision_get(&key.project, &key.region, &name)?;
    if found.value.service != key {
        return Err(Status::not_found(format!("Resource '{name}' of kind 'REVISION' in region '{}' in project '{}' does not exist.", key.region, key.project)));
    }
    Ok(found)
}

async fn build_submit(app: App, context: Context, request: pb::SubmitBuildRequest) -> Result<pb::SubmitBuildResponse, Status> {
    use pb::submit_build_request::{BuildType, Source};
    refuse(!request.worker_pool.is_empty(), "worker_pool")?;
    refuse(!request.machine_type.is_empty(), "machine_type")?;
    let source = match request.source {
        Some(Source::StorageSource(source)) => StorageSource { bucket: source.bucket, object: source.object, generation: source.generation },
        None => return Err(Status::invalid_field("storage_source", "it is required")),
    };
    let pack = match request.build_type {
        Some(BuildType::BuildpackBuild(pack)) => pack,
        Some(BuildType::DockerBuild(_)) => {
            return Err(Status::invalid_field("docker_build", "a Dockerfile is not built by this server; deploy a function with --function and --base-image"));
        }
        None => return Err(Status::invalid_field("buildpack_build", "it is required; deploy a function with --function and --base-image")),
    };
    refuse(!pack.cache_image_uri.is_empty(), "buildpack_build.cache_image_uri")?;
    refuse(!pack.project_descriptor.is_empty(), "buildpack_build.project_descriptor")?;
    // The older name of the base image.
    #[expect(deprecated, reason = "older clients still send it")]
    let base_image = if pack.base_image.is_empty() { pack.runtime } else { pack.base_image };
    let project = app.control.project_get(context.var("project")?)?;
    let (build, base_image_uri) = app
        .control
        .build_submit(
            &context.who,
            BuildRequest {
                project: project.id.clone(),
                region: context.region()?,
                source,
                image_uri: request.image_uri,
                base_image,
                function_target: pack.function_target,
                enable_automatic_updates: pack.enable_automatic_updates,
                env: pack.environment_variables.into_iter().collect(),
                tags: request.tags,
                service_account: request.service_account,
            },
        )
        .await?;
    Ok(pb::SubmitBuildResponse { build_operation: Some(cloud_build::operation(&build, &project)), base_image_uri, ..Default::default() })
}

/// The operation that a change started, or a finished one for a change that was only checked.
fn operation_of(deps: &Deps, service: &Service, started: &model::operation::Operation, dry_run: bool) -> Result<lro::Operation, Status> {
    if dry_run { Ok(validated(&service_write(deps, service))) } else { operation::write(deps, started) }
}

/// The answer to `validate_only`: nothing was started, so the operation is done and has no name.
fn validated<T: prost::Message + prost::Name>(resource: &T) -> lro::Operation {
    let any = prost_types::Any { type_url: T::type_url(), value: resource.encode_to_vec() };
    lro::Operation { done: true, result: Some(lro::operation::Result::Response(any.clone())), metadata: Some(any), name: String::new() }
}
