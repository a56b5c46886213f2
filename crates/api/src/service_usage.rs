//! Service Usage v1: which of Google's APIs this server plays. What it plays is enabled, always; the rest cannot be.
//!
//! Source: google/api/serviceusage/v1/{serviceusage,resources}.proto.

use model::Status;
use prost::{Message, Name};
use proto::google::{api::serviceusage::v1 as pb, longrunning as lro};

use crate::{
    app::App,
    grpc::{Context, Group, Method},
    permission::on,
};

const HOSTS: &[&str] = &["serviceusage.googleapis.com"];
/// The APIs that are served, with their titles.
const SERVED: &[(&str, &str)] = &[
    ("artifactregistry.googleapis.com", "Artifact Registry API"),
    ("cloudbuild.googleapis.com", "Cloud Build API"),
    ("cloudfunctions.googleapis.com", "Cloud Functions API"),
    ("cloudresourcemanager.googleapis.com", "Cloud Resource Manager API"),
    ("cloudscheduler.googleapis.com", "Cloud Scheduler API"),
    ("iam.googleapis.com", "Identity and Access Management (IAM) API"),
    ("iamcredentials.googleapis.com", "IAM Service Account Credentials API"),
    ("logging.googleapis.com", "Cloud Logging API"),
    ("monitoring.googleapis.com", "Cloud Monitoring API"),
    ("run.googleapis.com", "Cloud Run Admin API"),
    ("secretmanager.googleapis.com", "Secret Manager API"),
    ("serviceusage.googleapis.com", "Service Usage API"),
    ("storage.googleapis.com", "Cloud Storage API"),
];
/// Services that one batch may name, by the proto.
const BATCH_MAX: usize = 30;

pub(crate) fn methods(app: &App) -> Vec<Method> {
    const PROJECT: &str = "projects/{project}";
    const SERVICE: &str = "projects/{project}/services/{service}";
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.api.serviceusage.v1.ServiceUsage/GetService",
            on("serviceusage.services.get", PROJECT),
            |r: &pb::GetServiceRequest| r.name.clone(),
            ("name", SERVICE),
            service_get,
        )
        .unary(
            "google.api.serviceusage.v1.ServiceUsage/ListServices",
            on("serviceusage.services.list", PROJECT),
            |r: &pb::ListServicesRequest| r.parent.clone(),
            ("parent", PROJECT),
            service_list,
        )
        .unary(
            "google.api.serviceusage.v1.ServiceUsage/BatchGetServices",
            on("serviceusage.services.get", PROJECT),
            |r: &pb::BatchGetServicesRequest| r.parent.clone(),
            ("parent", PROJECT),
            service_batch_get,
        )
        .unary(
            "google.api.serviceusage.v1.ServiceUsage/EnableService",
            on("serviceusage.services.enable", PROJECT),
            |r: &pb::EnableServiceRequest| r.name.clone(),
            ("name", SERVICE),
            service_enable,
        )
        .unary(
            "google.api.serviceusage.v1.ServiceUsage/BatchEnableServices",
            on("serviceusage.services.enable", PROJECT),
            |r: &pb::BatchEnableServicesRequest| r.parent.clone(),
            ("parent", PROJECT),
            service_batch_enable,
        )
        .into_methods()
}

async fn service_get(app: App, context: Context, _: pb::GetServiceRequest) -> Result<pb::Service, Status> {
    let project = app.control.project_get(context.var("project")?)?;
    Ok(write(&project, context.var("service")?))
}

async fn service_list(app: App, context: Context, request: pb::ListServicesRequest) -> Result<pb::ListServicesResponse, Status> {
    let project = app.control.project_get(context.var("project")?)?;
    let served = SERVED.iter().map(|(name, _)| write(&project, name));
    let services = match request.filter.as_str() {
        // Nothing is known to be disabled: what is not served is not there at all.
        "" | "state:ENABLED" => served.collect(),
        "state:DISABLED" => Vec::new(),
        other => return Err(Status::invalid_field("filter", format!("{other:?} is neither state:ENABLED nor state:DISABLED"))),
    };
    Ok(pb::ListServicesResponse { services, ..Default::default() })
}

async fn service_batch_get(app: App, context: Context, request: pb::BatchGetServicesRequest) -> Result<pb::BatchGetServicesResponse, Status> {
    let project = app.control.project_get(context.var("project")?)?;
    if request.names.len() > BATCH_MAX {
        return Err(Status::invalid_field("names", format!("at most {BATCH_MAX} services can be named at a time")));
    }
    let prefixes = [format!("projects/{}/services/", project.id), format!("projects/{}/services/", project.number)];
    let read = |name: &String| {
        let service = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).filter(|service| !service.contains('/'));
        service.map(|service| write(&project, service)).ok_or_else(|| Status::invalid_field("names", format!("{name:?} is no service of the project")))
    };
    Ok(pb::BatchGetServicesResponse { services: request.names.iter().map(read).collect::<Result<_, _>>()? })
}

async fn service_enable(app: App, context: Context, _: pb::EnableServiceRequest) -> Result<lro::Operation, Status> {
    let project = app.control.project_get(context.var("project")?)?;
    let service = enabled(&project, context.var("service")?)?;
    Ok(done(&pb::EnableServiceResponse { service: Some(service) }))
}

async fn service_batch_enable(app: App, context: Context, request: pb::BatchEnableServicesRequest) -> Result<lro::Operation, Status> {
    let project = app.control.project_get(context.var("project")?)?;
    if request.service_ids.len() > BATCH_MAX {
        return Err(Status::invalid_field("service_ids", format!("at most {BATCH_MAX} services can be named at a time")));
    }
    let services = request.service_ids.iter().map(|name| enabled(&project, name)).collect::<Result<_, _>>()?;
    Ok(done(&pb::BatchEnableServicesResponse { services, failures: Vec::new() }))
}

/// A served API; one that is not served cannot be enabled.
fn enabled(project: &control::Project, name: &str) -> Result<pb::Service, Status> {
    if SERVED.iter().any(|(served, _)| *served == name) {
        return Ok(write(project, name));
    }
    let served: Vec<_> = SERVED.iter().map(|(name, _)| *name).collect();
    Err(Status::failed_precondition(format!("{name} is not served by this server and cannot be enabled. It serves {}.", served.join(", "))))
}

fn write(project: &control::Project, name: &str) -> pb::Service {
    let title = SERVED.iter().find(|(served, _)| *served == name).map(|(_, title)| *title);
    pb::Service {
        name: format!("projects/{}/services/{name}", project.number),
        parent: format!("projects/{}", project.number),
        config: Some(pb::ServiceConfig { name: name.to_owned(), title: title.unwrap_or_default().to_owned(), ..Default::default() }),
        state: if title.is_some() { pb::State::Enabled } else { pb::State::Disabled } as i32,
    }
}

/// What takes no time is an operation that is done. The name is the one that Google gives to such.
fn done<T: Message + Name>(response: &T) -> lro::Operation {
    let any = prost_types::Any { type_url: T::type_url(), value: response.encode_to_vec() };
    lro::Operation { name: "operations/noop.DONE_OPERATION".to_owned(), done: true, result: Some(lro::operation::Result::Response(any)), metadata: None }
}
