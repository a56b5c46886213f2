//! Cloud Resource Manager: projects and their policies, v3 by its protos and v1 as clients still write it.
//!
//! Source: google/cloud/resourcemanager/v3/projects.proto; for v1 what gcloud sends.

use control::Project;
use http::{Method as Verb, StatusCode};
use model::Status;
use proto::google::{cloud::resourcemanager::v3 as pb, iam::v1 as iam_pb};
use serde_json::{Value as Json, json};

use crate::{
    Response,
    app::App,
    convert::time,
    error,
    grpc::{Context, Group, Method},
    permission::{Need, on},
    policy,
    surface::{Call, Endpoints, Surface},
    transcode,
};

const HOSTS: &[&str] = &["cloudresourcemanager.googleapis.com"];
const PROJECT: &str = "projects/{project}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.cloud.resourcemanager.v3.Projects/GetProject",
            on("resourcemanager.projects.get", PROJECT),
            |r: &pb::GetProjectRequest| r.name.clone(),
            ("name", PROJECT),
            project_get,
        )
        .anyones("google.cloud.resourcemanager.v3.Projects/SearchProjects", project_search)
        .unary(
            "google.cloud.resourcemanager.v3.Projects/GetIamPolicy",
            on("resourcemanager.projects.getIamPolicy", PROJECT),
            |r: &iam_pb::GetIamPolicyRequest| r.resource.clone(),
            ("resource", PROJECT),
            policy_get,
        )
        .unary(
            "google.cloud.resourcemanager.v3.Projects/SetIamPolicy",
            on("resourcemanager.projects.setIamPolicy", PROJECT),
            |r: &iam_pb::SetIamPolicyRequest| r.resource.clone(),
            ("resource", PROJECT),
            policy_set,
        )
        .unary(
            "google.cloud.resourcemanager.v3.Projects/TestIamPermissions",
            Need::SignedIn,
            |r: &iam_pb::TestIamPermissionsRequest| r.resource.clone(),
            ("resource", PROJECT),
            permissions_test,
        )
        .into_methods()
}

/// Version 1: other names for the same.
pub(crate) fn surface(app: &App) -> Surface {
    Endpoints::new(app.clone())
        .on(Verb::GET, "/v1/projects", Need::SignedIn, v1_project_list)
        .on(Verb::GET, "/v1/projects/{project}", on("resourcemanager.projects.get", PROJECT), v1_project_get)
        .on(Verb::POST, "/v1/projects/{project}:getIamPolicy", on("resourcemanager.projects.getIamPolicy", PROJECT), v1_policy_get)
        .on(Verb::POST, "/v1/projects/{project}:setIamPolicy", on("resourcemanager.projects.setIamPolicy", PROJECT), v1_policy_set)
        .on(Verb::POST, "/v1/projects/{project}:testIamPermissions", Need::SignedIn, v1_permissions_test)
        .surface("Cloud Resource Manager v1", HOSTS)
}

async fn project_get(app: App, context: Context, _: pb::GetProjectRequest) -> Result<pb::Project, Status> {
    Ok(write(&app.control.project_get(context.var("project")?)?))
}

async fn project_search(app: App, context: Context, request: pb::SearchProjectsRequest) -> Result<pb::SearchProjectsResponse, Status> {
    if !request.query.is_empty() {
        return Err(Status::invalid_field("query", "queries of projects are not supported by this server; leave it out"));
    }
    let scope = format!("projects/{}", context.who.email);
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let list = visible(&app, &context.who)?;
    let mut rest = list.iter().filter(|project| asked.after.as_deref().is_none_or(|after| project.id.as_str() > after));
    let page: Vec<_> = rest.by_ref().take(asked.size).collect();
    let next_page_token = match (page.last(), rest.next()) {
        (Some(last), Some(_)) => app.pages.token(&scope, last.id.as_str()).await?,
        _ => String::new(),
    };
    Ok(pb::SearchProjectsResponse { projects: page.into_iter().map(write).collect(), next_page_token })
}

/// The projects that `who` may read.
fn visible(app: &App, who: &iam::Identity) -> Result<Vec<Project>, Status> {
    let mut list = app.control.project_list()?;
    list.retain(|project| app.iam.may(Some(who), "resourcemanager.projects.get", &format!("projects/{}", project.id), project.id.as_str()));
    Ok(list)
}

async fn policy_get(app: App, context: Context, request: iam_pb::GetIamPolicyRequest) -> Result<iam_pb::Policy, Status> {
    policy::policy_get(&app, &format!("projects/{}", context.project()?), &request)
}

async fn policy_set(app: App, context: Context, request: iam_pb::SetIamPolicyRequest) -> Result<iam_pb::Policy, Status> {
    let project = context.project()?;
    policy::policy_set(&app, &context.who, ("resourcemanager.projects.setIamPolicy", project.as_str()), &format!("projects/{project}"), request).await
}

async fn permissions_test(app: App, context: Context, request: iam_pb::TestIamPermissionsRequest) -> Result<iam_pb::TestIamPermissionsResponse, Status> {
    let project = context.project()?;
    policy::permissions_test(&app, &context.who, &format!("projects/{project}"), project.as_str(), &request)
}

fn write(project: &Project) -> pb::Project {
    pb::Project {
        name: format!("projects/{}", project.number),
        project_id: project.id.to_string(),
        state: pb::project::State::Active as i32,
        display_name: project.name.clone(),
        create_time: Some(time(project.created)),
        update_time: Some(time(project.created)),
        ..Default::default()
    }
}

fn v1_write(project: &Project) -> Json {
    json!({
        "projectNumber": project.number.to_string(),
        "projectId": project.id,
        "lifecycleState": "ACTIVE",
        "name": project.name,
        "createTime": project.created.to_string(),
    })
}

async fn v1_project_list(app: App, call: Call) -> Result<Response, Status> {
    if let Some(filter) = call.query("filter").filter(|filter| !filter.is_empty() && filter != "lifecycleState:ACTIVE") {
        return Err(Status::invalid_field("filter", format!("{filter:?} is not supported by this server; leave it out")));
    }
    let list: Vec<Json> = visible(&app, call.who()?)?.iter().map(v1_write).collect();
    Ok(error::json_response(StatusCode::OK, &json!({ "projects": list })))
}

async fn v1_project_get(app: App, call: Call) -> Result<Response, Status> {
    Ok(error::json_response(StatusCode::OK, &v1_write(&app.control.project_get(call.var("project")?)?)))
}

async fn v1_policy_get(app: App, mut call: Call) -> Result<Response, Status> {
    let request: iam_pb::GetIamPolicyRequest = transcode::from_json(call.json().await?)?;
    let policy = policy::policy_get(&app, &v1_resource(&call)?, &request)?;
    Ok(error::json_response(StatusCode::OK, &transcode::to_json(&policy)?))
}

async fn v1_policy_set(app: App, mut call: Call) -> Result<Response, Status> {
    let request: iam_pb::SetIamPolicyRequest = transcode::from_json(call.json().await?)?;
    let of = ("resourcemanager.projects.setIamPolicy", call.var("project")?);
    let policy = policy::policy_set(&app, call.who()?, of, &v1_resource(&call)?, request).await?;
    Ok(error::json_response(StatusCode::OK, &transcode::to_json(&policy)?))
}

async fn v1_permissions_test(app: App, mut call: Call) -> Result<Response, Status> {
    let request: iam_pb::TestIamPermissionsRequest = transcode::from_json(call.json().await?)?;
    let reply = policy::permissions_test(&app, call.who()?, &v1_resource(&call)?, call.var("project")?, &request)?;
    Ok(error::json_response(StatusCode::OK, &transcode::to_json(&reply)?))
}

fn v1_resource(call: &Call) -> Result<String, Status> {
    Ok(format!("projects/{}", call.var("project")?))
}
