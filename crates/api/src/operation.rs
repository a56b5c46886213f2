//! Long-running operations of all APIs: one store, read by google.longrunning.
//!
//! An operation's response is the resource it worked on, in run v2's shape; run v1 has its own way ([`crate::run_v1`]).

use std::time::Duration;

use model::{
    Code, Status,
    operation::{Operation, Subject, Verb},
};
use prost::{Message, Name};
use proto::google::{cloud::run::v2 as run, devtools::artifactregistry::v1 as artifact, longrunning as lro};

use crate::{
    Deps,
    app::App,
    artifact_registry, cloud_build, error, eventarc, functions,
    grpc::{Context, Group, Method},
    permission::on,
    run_v2,
};

/// The hosts whose operations these are.
const HOSTS: &[&str] =
    &["run.googleapis.com", "cloudbuild.googleapis.com", "artifactregistry.googleapis.com", "cloudfunctions.googleapis.com", "eventarc.googleapis.com"];
/// A wait at most, whatever the client asks for.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) fn methods(app: &App) -> Vec<Method> {
    const PROJECT: &str = "projects/{project}";
    const OPERATION: &str = "projects/{project}/locations/{location}/operations/{operation}";
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.longrunning.Operations/GetOperation",
            on("run.operations.get", PROJECT),
            |r: &lro::GetOperationRequest| r.name.clone(),
            ("name", OPERATION),
            operation_get,
        )
        .unary(
            "google.longrunning.Operations/WaitOperation",
            on("run.operations.get", PROJECT),
            |r: &lro::WaitOperationRequest| r.name.clone(),
            ("name", OPERATION),
            operation_wait,
        )
        .unary(
            "google.longrunning.Operations/ListOperations",
            on("run.operations.list", PROJECT),
            |r: &lro::ListOperationsRequest| r.name.clone(),
            ("name", "projects/{project}/locations/{location}"),
            operation_list,
        )
        .into_methods()
}

async fn operation_get(app: App, context: Context, _: lro::GetOperationRequest) -> Result<lro::Operation, Status> {
    read(&app, &context, Duration::ZERO).await
}

async fn operation_wait(app: App, context: Context, request: lro::WaitOperationRequest) -> Result<lro::Operation, Status> {
    let timeout =
        request.timeout.map_or(Ok(WAIT_MAX), |timeout| Duration::try_from(timeout).map_err(|_| Status::invalid_field("timeout", "it is negative")))?;
    read(&app, &context, timeout.min(WAIT_MAX)).await
}

/// The operation or build of an id, when it is done or `timeout` is over.
async fn read(deps: &Deps, context: &Context, timeout: Duration) -> Result<lro::Operation, Status> {
    let (project, region, id) = (context.project()?, context.location()?, context.var("operation")?);
    let found = match timeout {
        Duration::ZERO => deps.control.operation_get(&project, &region, id),
        timeout => deps.control.operation_wait(&project, &region, id, timeout).await,
    };
    match found {
        Ok(operation) => write(deps, &operation),
        Err(absent) if absent.code == Code::NotFound => {
            let build = deps.control.build_wait(&project, &region, id, timeout.max(cloud_build::OPERATION_WAIT)).await;
            let build = build.map_err(|error| if error.code == Code::NotFound { absent } else { error })?;
            Ok(cloud_build::operation(&build, &deps.control.project_get(project.as_str())?))
        }
        Err(error) => Err(error),
    }
}

async fn operation_list(app: App, context: Context, request: lro::ListOperationsRequest) -> Result<lro::ListOperationsResponse, Status> {
    if !request.filter.is_empty() {
        return Err(Status::invalid_field("filter", "filters of operations are not supported by this server; leave it out"));
    }
    let (project, region) = (context.project()?, context.location()?);
    let mut list = app.control.operation_list(&project, &region)?;
    list.sort_by(|a, b| a.id.cmp(&b.id));
    let scope = format!("operations/{project}/{region}");
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let mut rest = list.iter().filter(|operation| asked.after.as_deref().is_none_or(|after| operation.id.as_str() > after));
    let page: Vec<_> = rest.by_ref().take(asked.size).collect();
    let next_page_token = match (page.last(), rest.next()) {
        (Some(last), Some(_)) => app.pages.token(&scope, &last.id).await?,
        _ => String::new(),
    };
    let operations = page.into_iter().map(|operation| write(&app, operation)).collect::<Result<_, _>>()?;
    Ok(lro::ListOperationsResponse { operations, next_page_token, ..Default::default() })
}

/// The operation as clients see it.
pub(crate) fn write(deps: &Deps, operation: &Operation) -> Result<lro::Operation, Status> {
    if let Subject::Function { key, uid, verb, .. } = &operation.subject {
        return functions::operation_to(deps, operation, key, uid, *verb);
    }
    if let Subject::Trigger { key, uid, verb, .. } = &operation.subject {
        return eventarc::operation_to(deps, operation, key, uid, *verb);
    }
    let done = operation.finished.is_some();
    let subject = subject(deps, operation)?;
    let result = match (&operation.error, done) {
        (_, false) => None,
        (Some(why), true) => Some(lro::operation::Result::Error(error::rpc_status(why))),
        (None, true) => Some(lro::operation::Result::Response(subject.clone())),
    };
    let name = format!("projects/{}/locations/{}/operations/{}", operation.project, operation.region, operation.id);
    Ok(lro::Operation { name, metadata: Some(subject), done, result })
}

/// The resource that an operation works on, as it is now.
fn subject(deps: &Deps, operation: &Operation) -> Result<prost_types::Any, Status> {
    match &operation.subject {
        Subject::Service { key, uid, verb, .. } => {
            let service = match deps.control.service_get(key) {
                // Made again under the same name: another one.
                Ok(found) if found.value.uid == *uid || uid.is_empty() => run_v2::service_write(deps, &found.value),
                Ok(_) => gone(key.resource(), uid, *verb, operation),
                Err(error) if error.code == Code::NotFound => gone(key.resource(), uid, *verb, operation),
                Err(error) => return Err(error),
            };
            Ok(any(&service))
        }
        Subject::Revision { key, revision } => {
            let name = model::RevisionName::parse(revision)?;
            let revision = match deps.control.revision_get(&operation.project, &operation.region, &name) {
                Ok(found) => run_v2::revision::write(&found.value, found.revision),
                Err(error) if error.code == Code::NotFound => run::Revision { name: format!("{}/revisions/{revision}", key.resource()), ..Default::default() },
                Err(error) => return Err(error),
            };
            Ok(any(&revision))
        }
        Subject::Function { key, uid, .. } => {
            let name = model::function::resource(key);
            let function = functions::function_of(deps, key, uid)?.map(|function| functions::function_to(deps, &function));
            Ok(any(&function.unwrap_or_else(|| proto::google::cloud::functions::v2::Function { name, ..Default::default() })))
        }
        Subject::Trigger { key, uid, .. } => Ok(any(&eventarc::trigger_of(deps, key, uid)?)),
        Subject::Repository { name } => {
            let id = name.rsplit('/').next().unwrap_or_default();
            let repository = match deps.control.repository_get(&operation.project, &operation.region, id) {
                Ok(found) => artifact_registry::write(&found),
                Err(error) if error.code == Code::NotFound => artifact::Repository { name: name.clone(), ..Default::default() },
                Err(error) => return Err(error),
            };
            Ok(any(&repository))
        }
    }
}

/// A service that is there no more.
fn gone(name: String, uid: &str, verb: Verb, operation: &Operation) -> run::Service {
    let deleted = (verb == Verb::Delete).then_some(operation.finished).flatten();
    run::Service { name, uid: uid.to_owned(), delete_time: deleted.map(crate::convert::time), ..Default::default() }
}

fn any<T: Message + Name>(message: &T) -> prost_types::Any {
    prost_types::Any { type_url: T::type_url(), value: message.encode_to_vec() }
}
