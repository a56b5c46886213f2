//! run v1: services, revisions, configurations and routes as Knative objects, the shape that gcloud speaks.
//!
//! The same resources as run v2's: this file and its folder only map. A change waits a while for its effect, so that a
//! quick one is finished in the reply and gcloud has nothing to ask again; a slow one is followed by its operation.

mod annotation;
mod revision;
mod service;
mod template;
#[cfg(test)]
mod tests;
mod types;

use std::time::Duration;

use control::{Project, Versioned};
use http::{Method as Verb, StatusCode};
use model::{
    Code, Region, RevisionName, Service, ServiceKey, ServiceName, Status,
    operation::{Operation, Subject},
    revision::{START_NOTES, START_REFUSED},
};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::{
    Response,
    app::App,
    cloud_build, error, operation,
    permission::on,
    surface::{Call, Endpoints, Surface},
    transcode, version,
};
use revision::Selector;
use types::API_VERSION;

const HOSTS: &[&str] = &["run.googleapis.com"];
const PROJECT: &str = "projects/{project}";
const SERVICE: &str = "projects/{project}/locations/{location}/services/{service}";
/// How long a change waits for its effect before it is answered.
const REPLY_WAIT: Duration = Duration::from_secs(25);

pub(crate) fn surface(app: &App) -> Surface {
    let revision_get_need = on("run.revisions.get", PROJECT);
    Endpoints::new(app.clone())
        .on(Verb::GET, "/apis/serving.knative.dev/v1/namespaces/{project}/services", on("run.services.list", PROJECT), service_list)
        .on(Verb::POST, "/apis/serving.knative.dev/v1/namespaces/{project}/services", on("run.services.create", PROJECT), service_create)
        .on(Verb::GET, "/apis/serving.knative.dev/v1/namespaces/{project}/services/{service}", on("run.services.get", SERVICE), service_get)
        .on(Verb::PUT, "/apis/serving.knative.dev/v1/namespaces/{project}/services/{service}", on("run.services.update", SERVICE), service_replace)
        .on(Verb::DELETE, "/apis/serving.knative.dev/v1/namespaces/{project}/services/{service}", on("run.services.delete", SERVICE), service_delete)
        .on(Verb::GET, "/v1/projects/{project}/locations/{location}/services", on("run.services.list", PROJECT), service_list)
        .on(Verb::POST, "/v1/projects/{project}/locations/{location}/services", on("run.services.create", PROJECT), service_create)
        .on(Verb::GET, "/v1/projects/{project}/locations/{location}/services/{service}", on("run.services.get", SERVICE), service_get)
        .on(Verb::PUT, "/v1/projects/{project}/locations/{location}/services/{service}", on("run.services.update", SERVICE), service_replace)
        .on(Verb::DELETE, "/v1/projects/{project}/locations/{location}/services/{service}", on("run.services.delete", SERVICE), service_delete)
        .on(Verb::GET, "/apis/serving.knative.dev/v1/namespaces/{project}/revisions", on("run.revisions.list", PROJECT), revision_list)
        .on(Verb::GET, "/apis/serving.knative.dev/v1/namespaces/{project}/revisions/{revision}", revision_get_need, revision_get)
        .on(Verb::DELETE, "/apis/serving.knative.dev/v1/namespaces/{project}/revisions/{revision}", on("run.revisions.delete", PROJECT), revision_delete)
        .on(Verb::GET, "/v1/projects/{project}/locations/{location}/revisions", on("run.revisions.list", PROJECT), revision_list)
        .on(Verb::GET, "/v1/projects/{project}/locations/{location}/revisions/{revision}", revision_get_need, revision_get)
        .on(Verb::DELETE, "/v1/projects/{project}/locations/{location}/revisions/{revision}", on("run.revisions.delete", PROJECT), revision_delete)
        .on(Verb::GET, "/apis/serving.knative.dev/v1/namespaces/{project}/configurations", on("run.configurations.list", PROJECT), configuration_list)
        .on(Verb::GET, "/apis/serving.knative.dev/v1/namespaces/{project}/configurations/{service}", on("run.configurations.get", SERVICE), configuration_get)
        .on(Verb::GET, "/apis/serving.knative.dev/v1/namespaces/{project}/routes", on("run.routes.list", PROJECT), route_list)
        .on(Verb::GET, "/apis/serving.knative.dev/v1/namespaces/{project}/routes/{service}", on("run.routes.get", SERVICE), route_get)
        .on(Verb::GET, "/v1/projects/{project}/locations/{location}/operations/{operation}", on("run.operations.get", PROJECT), operation_get)
        .on(Verb::POST, "/v1/projects/{project}/locations/{location}/operations/{operation}:wait", on("run.operations.get", PROJECT), operation_wait)
        .surface("Cloud Run v1", HOSTS)
}

// --- services ---------------------------------------------------------------------------------------------------------

async fn service_list(app: App, call: Call) -> Result<Response, Status> {
    if let Some(selector) = call.query("labelSelector").filter(|selector| !selector.trim().is_empty()) {
        return Err(Status::invalid_field("labelSelector", format!("{selector:?}: services are not selected by labels here; leave it out")));
    }
    let project = app.control.project_get(call.var("project")?)?;
    list(&app, Asked::read(&call)?, "ServiceList", &project, |service| json(&service::write(service, &project, &app.control.service_urls(service), None))).await
}

async fn service_create(app: App, mut call: Call) -> Result<Response, Status> {
    let dry_run = dry_run(&call)?;
    let written = written(&mut call, dry_run).await?;
    let key = ServiceKey { service: ServiceName::parse(&written.metadata.name)?, ..key_of(&call, "x")? };
    namespace_check(&app, &key, &written)?;
    let (created, started) = app.control.service_create(call.who()?, service::read(key, written)?, dry_run).await?;
    settled(&app, created, &started, dry_run).await
}

async fn service_get(app: App, call: Call) -> Result<Response, Status> {
    let found = app.control.service_get(&key_of(&call, call.var("service")?)?)?;
    reply(&service_json(&app, &found.value, None)?)
}

async fn service_replace(app: App, mut call: Call) -> Result<Response, Status> {
    let dry_run = dry_run(&call)?;
    let written = written(&mut call, dry_run).await?;
    let key = key_of(&call, call.var("service")?)?;
    if written.metadata.name != key.service.as_str() {
        return Err(Status::invalid_field("metadata.name", format!("{:?} is not the service of the path, {}", written.metadata.name, key.service)));
    }
    namespace_check(&app, &key, &written)?;
    let read_version = written.metadata.resource_version.clone();
    let service = service::read(key.clone(), written)?;
    let (app, who, service) = (&app, call.who()?, &service);
    let (replaced, started) = version::with_current(&app.control, &key, &read_version, |current| async move {
        app.control.service_replace(who, service.clone(), Some(current.revision), dry_run).await
    })
    .await?;
    settled(app, replaced, &started, dry_run).await
}

async fn service_delete(app: App, call: Call) -> Result<Response, Status> {
    let key = key_of(&call, call.var("service")?)?;
    let found = app.control.service_get(&key)?;
    if !dry_run(&call)? {
        let (_, started) = app.control.service_delete(call.who()?, &key, None).await?;
        app.control.operation_wait(&key.project, &key.region, &started.id, REPLY_WAIT).await?;
    }
    deleted("service", key.service.as_str(), &found.value.uid)
}

/// The service of a request's body.
///
/// gcloud's beta and alpha validate before the build: the revision that is to have the tag has no name then.
async fn written(call: &mut Call, dry_run: bool) -> Result<types::Service, Status> {
    let mut written = types::Service::read(call.json().await?)?;
    for target in written.spec.traffic.iter_mut().filter(|target| dry_run && !target.tag.is_empty() && target.revision_name.is_empty()) {
        target.latest_revision = Some(true);
    }
    Ok(written)
}

/// Answers a change: with its effect when that comes soon, else with the operation by which to wait for it.
async fn settled(app: &App, changed: Versioned<Service>, started: &Operation, dry_run: bool) -> Result<Response, Status> {
    if dry_run {
        return reply(&service_json(app, &changed.value, None)?);
    }
    let Service { key, generation, .. } = &changed.value;
    let service = match app.control.service_wait(key, *generation, REPLY_WAIT).await {
        Ok(found) => found.value,
        // Deleted meanwhile; the change itself was made.
        Err(error) if error.code == Code::NotFound => changed.value,
        Err(error) => return Err(error),
    };
    reply(&service_json(app, &service, Some(&started.id))?)
}

fn service_json(app: &App, service: &Service, operation: Option<&str>) -> Result<Json, Status> {
    let project = app.control.project_get(service.key.project.as_str())?;
    Ok(json(&service::write(service, &project, &app.control.service_urls(service), operation)))
}

/// The namespace of a body says the same as the path: the project's id or number.
fn namespace_check(app: &App, key: &ServiceKey, written: &types::Service) -> Result<(), Status> {
    let namespace = &written.metadata.namespace;
    let project = app.control.project_get(key.project.as_str())?;
    if namespace.is_empty() || *namespace == project.id.as_str() || *namespace == project.number.to_string() {
        return Ok(());
    }
    Err(Status::invalid_field("metadata.namespace", format!("{namespace:?} is not the project of the path, {}", project.id)))
}

// --- revisions --------------------------------------------------------------------------------------------------------

async fn revision_list(app: App, call: Call) -> Result<Response, Status> {
    let project = app.control.project_get(call.var("project")?)?;
    let (asked, labels) = (Asked::read(&call)?, call.query("labelSelector").unwrap_or_default());
    let selector = Selector::parse(&labels)?;
    let service = selector.service().map(ServiceName::parse).transpose()?;
    let scope = format!("v1/revisions/{}/{:?}/{labels}", project.id, asked.region);
    let page = page_of(&app, &asked, &scope, |after, limit| {
        let list = app.control.revision_list(&project.id, asked.region.as_ref(), service.as_ref(), after, limit)?;
        Ok(list.into_iter().map(|found| (model::key::revision(&found.value.service, &found.value.name), found)).collect())
    })
    .await?;
    let items: Vec<_> = page.items.iter().map(|found| revision::write(found, &project)).filter(|revision| selector.selects(revision)).collect();
    list_reply("RevisionList", json(&items), page.next)
}

async fn revision_get(app: App, call: Call) -> Result<Response, Status> {
    let project = app.control.project_get(call.var("project")?)?;
    let name = RevisionName::parse(call.var("revision")?)?;
    let found = app.control.revision_get(&project.id, &call.region, &name)?;
    let mut revision = revision::write(&found, &project);
    if let Some(why) = app.control.serving().start_refused(&found.value.uid) {
        revision.metadata.annotations.insert(START_REFUSED.to_owned(), why);
    }
    if let Some(notes) = app.control.revision_start_notes(&found.value)? {
        revision.metadata.annotations.insert(START_NOTES.to_owned(), notes);
    }
    reply(&json(&revision))
}

async fn revision_delete(app: App, call: Call) -> Result<Response, Status> {
    let project = app.control.project_get(call.var("project")?)?;
    let name = RevisionName::parse(call.var("revision")?)?;
    let found = app.control.revision_get(&project.id, &call.region, &name)?;
    if !dry_run(&call)? {
        let (_, started) = app.control.revision_delete(call.who()?, &project.id, &call.region, &name).await?;
        let done = app.control.operation_wait(&project.id, &call.region, &started.id, REPLY_WAIT).await?;
        if let Some(why) = done.error {
            return Err(why);
        }
    }
    deleted("revision", name.as_str(), &found.value.uid)
}

// --- configurations and routes: two views of a service -------------------------------------------------------------------

async fn configuration_list(app: App, call: Call) -> Result<Response, Status> {
    let project = app.control.project_get(call.var("project")?)?;
    list(&app, Asked::read(&call)?, "ConfigurationList", &project, |service| configuration(service, &project)).await
}

async fn configuration_get(app: App, call: Call) -> Result<Response, Status> {
    let project = app.control.project_get(call.var("project")?)?;
    let found = app.control.service_get(&key_of(&call, call.var("service")?)?)?;
    reply(&configuration(&found.value, &project))
}

async fn route_list(app: App, call: Call) -> Result<Response, Status> {
    let project = app.control.project_get(call.var("project")?)?;
    list(&app, Asked::read(&call)?, "RouteList", &project, |service| route(&app, service, &project)).await
}

async fn route_get(app: App, call: Call) -> Result<Response, Status> {
    let project = app.control.project_get(call.var("project")?)?;
    let found = app.control.service_get(&key_of(&call, call.var("service")?)?)?;
    reply(&route(&app, &found.value, &project))
}

fn configuration(service: &Service, project: &Project) -> Json {
    let whole = json(&service::write(service, project, &[], None));
    let mut status = part_status(service, &whole, "ConfigurationsReady");
    for field in ["latestReadyRevisionName", "latestCreatedRevisionName"] {
        if let Some(name) = whole["status"].get(field) {
            status[field] = name.clone();
        }
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "Configuration",
        "metadata": part_metadata(service, &whole, "configurations"),
        "spec": { "template": whole["spec"]["template"] },
        "status": status,
    })
}

fn route(app: &App, service: &Service, project: &Project) -> Json {
    let urls = app.control.service_urls(service);
    let whole = json(&service::write(service, project, &urls, None));
    let mut status = part_status(service, &whole, "RoutesReady");
    for field in ["traffic", "url", "address"] {
        if let Some(value) = whole["status"].get(field) {
            status[field] = value.clone();
        }
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": "Route",
        "metadata": part_metadata(service, &whole, "routes"),
        "spec": { "traffic": whole["spec"]["traffic"] },
        "status": status,
    })
}

fn part_metadata(service: &Service, whole: &Json, plural: &str) -> Json {
    let mut metadata = whole["metadata"].clone();
    metadata["selfLink"] =
        json!(format!("/apis/{API_VERSION}/namespaces/{}/{plural}/{}", whole["metadata"]["namespace"].as_str().unwrap_or_default(), service.key.service));
    metadata["labels"][revision::SERVICE] = json!(service.key.service);
    metadata["ownerReferences"] = json!([{ "kind": "Service", "name": service.key.service, "uid": service.uid, "apiVersion": API_VERSION, "controller": true, "blockOwnerDeletion": true }]);
    metadata
}

/// The service's condition `kind` as the part's `Ready`.
fn part_status(service: &Service, whole: &Json, kind: &str) -> Json {
    let mut ready: Vec<_> = service.status.conditions.iter().filter(|c| c.kind == kind).cloned().collect();
    ready.iter_mut().for_each(|c| c.kind = "Ready".to_owned());
    json!({ "observedGeneration": whole["status"]["observedGeneration"], "conditions": service::conditions_write(&ready) })
}

// --- operations -------------------------------------------------------------------------------------------------------

async fn operation_get(app: App, call: Call) -> Result<Response, Status> {
    let project = app.control.project_get(call.var("project")?)?;
    operation_reply(&app, &project, &call.region, call.var("operation")?, Duration::ZERO).await
}

async fn operation_wait(app: App, mut call: Call) -> Result<Response, Status> {
    let body: Json = call.json().await?;
    let timeout = match body.get("timeout") {
        None => operation::WAIT_MAX,
        Some(text) => text
            .as_str()
            .and_then(|text| text.strip_suffix('s')?.parse::<f64>().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| Status::invalid_field("timeout", format!("{text} is no duration such as \"30s\"")))?,
    };
    let project = app.control.project_get(call.var("project")?)?;
    operation_reply(&app, &project, &call.region, call.var("operation")?, timeout.min(operation::WAIT_MAX)).await
}

async fn operation_reply(app: &App, project: &Project, region: &Region, id: &str, timeout: Duration) -> Result<Response, Status> {
    let found = app.control.operation_wait(&project.id, region, id, timeout).await;
    let operation = match found {
        Ok(operation) => operation,
        // On a server addressed directly, all APIs have their operations here.
        Err(absent) if absent.code == Code::NotFound => {
            let build = app.control.build_wait(&project.id, region, id, timeout.max(cloud_build::OPERATION_WAIT)).await;
            let build = build.map_err(|error| if error.code == Code::NotFound { absent } else { error })?;
            return reply(&transcode::to_json(&cloud_build::operation(&build, project))?);
        }
        Err(error) => return Err(error),
    };
    reply(&operation_json(app, &operation)?)
}

/// A service's operation ends in the service, also when it went wrong: its conditions say why, stage by stage, and that is
/// what gcloud prints.
fn operation_json(app: &App, operation: &Operation) -> Result<Json, Status> {
    let mut out = transcode::to_json(&operation::write(app, operation)?)?;
    let Subject::Service { key, uid, .. } = &operation.subject else { return Ok(out) };
    let service = app.control.service_get(key).ok().filter(|found| found.value.uid == *uid);
    let Some(service) = service else { return Ok(out) };
    let mut service = service_json(app, &service.value, Some(&operation.id))?;
    service["@type"] = json!("type.googleapis.com/google.cloud.run.v1.Service");
    out["metadata"] = service.clone();
    if operation.finished.is_some() {
        out.as_object_mut().map(|fields| fields.remove("error"));
        out["response"] = service;
    }
    Ok(out)
}

// --- common -----------------------------------------------------------------------------------------------------------

/// The service `name` of the request's project and region.
fn key_of(call: &Call, name: &str) -> Result<ServiceKey, Status> {
    Ok(ServiceKey { project: model::ProjectId::parse(call.var("project")?)?, region: call.region.clone(), service: ServiceName::parse(name)? })
}

/// Which part of a list a request asks for.
struct Asked {
    /// `None` for the wildcard `-`.
    region: Option<Region>,
    /// 0 for everything.
    limit: u32,
    /// What the page before gave as `continue`.
    token: String,
}

impl Asked {
    fn read(call: &Call) -> Result<Self, Status> {
        let limit = match call.query("limit") {
            None => 0,
            Some(text) => text.parse().map_err(|_| Status::invalid_field("limit", format!("{text:?} is no number")))?,
        };
        let region = (call.var("location")? != "-").then(|| call.region.clone());
        Ok(Self { region, limit, token: call.query("continue").unwrap_or_default() })
    }
}

/// `dryRun=all`, of Kubernetes.
fn dry_run(call: &Call) -> Result<bool, Status> {
    match call.query("dryRun").as_deref() {
        None | Some("") => Ok(false),
        Some("all") => Ok(true),
        Some(other) => Err(Status::invalid_field("dryRun", format!("{other:?} must be all"))),
    }
}

/// Part of a list, with what comes behind it.
struct Page<T> {
    items: Vec<T>,
    /// For `continue`; empty on the last page.
    next: String,
}

/// One page when the client gives a `limit`, else everything.
async fn page_of<T>(app: &App, asked: &Asked, scope: &str, read: impl Fn(Option<&str>, usize) -> Result<Vec<(String, T)>, Status>) -> Result<Page<T>, Status> {
    const CHUNK: usize = 500;
    let place = app.pages.read(scope, &asked.token, i64::from(asked.limit)).await?;
    let (mut after, mut items) = (place.after, Vec::new());
    if asked.limit == 0 {
        loop {
            let chunk = read(after.as_deref(), CHUNK)?;
            let more = chunk.len() == CHUNK;
            after = chunk.last().map(|(key, _)| key.clone());
            items.extend(chunk.into_iter().map(|(_, item)| item));
            if !more {
                return Ok(Page { items, next: String::new() });
            }
        }
    }
    let mut chunk = read(after.as_deref(), place.size + 1)?;
    let more = chunk.len() > place.size;
    chunk.truncate(place.size);
    let next = match chunk.last().filter(|_| more) {
        Some((last, _)) => app.pages.token(scope, last).await?,
        None => String::new(),
    };
    Ok(Page { items: chunk.into_iter().map(|(_, item)| item).collect(), next })
}

/// A list of views of services.
async fn list(app: &App, asked: Asked, kind: &str, project: &Project, view: impl Fn(&Service) -> Json) -> Result<Response, Status> {
    let scope = format!("v1/{kind}/{}/{:?}", project.id, asked.region);
    let page = page_of(app, &asked, &scope, |after, limit| {
        let list = app.control.service_list(&project.id, asked.region.as_ref(), after, limit)?;
        Ok(list.into_iter().map(|found| (model::key::service(&found.value.key), found)).collect())
    })
    .await?;
    list_reply(kind, page.items.iter().map(|found| view(&found.value)).collect(), page.next)
}

fn list_reply(kind: &str, items: Json, next: String) -> Result<Response, Status> {
    let metadata = if next.is_empty() { json!({}) } else { json!({ "continue": next }) };
    reply(&json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "items": items }))
}

fn deleted(kind: &str, name: &str, uid: &str) -> Result<Response, Status> {
    reply(&json!({
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Success",
        "details": { "name": name, "group": "serving.knative.dev", "kind": kind, "uid": uid },
    }))
}

fn reply(body: &Json) -> Result<Response, Status> {
    Ok(error::json_response(StatusCode::OK, body))
}

fn json<T: Serialize>(value: &T) -> Json {
    serde_json::to_value(value).expect("structs with string keys")
}
