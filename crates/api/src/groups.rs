//! Cloud Identity v1: groups and who is in them, so that `group:ADDRESS` in a policy means somebody.
//!
//! There is no directory behind and one customer, whatever it is called. Google asks a group's owners and a directory's administrators;
//! here membership decides what policies give, so whoever changes a group must be one who may set the default project's policy, and that of
//! each project in which a policy or deny policy names the group or one that it is in.
//! Source: cloud.google.com/identity/docs/reference/rest/v1/groups, and what gcloud sends.

use std::collections::BTreeSet;

use http::{Method as Verb, StatusCode};
use iam::{Group, Kind};
use model::Status;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::{
    Response,
    app::App,
    error,
    permission::{Need, project_checked},
    surface::{Call, Endpoints, Surface},
};

const HOSTS: &[&str] = &["cloudidentity.googleapis.com"];
const READ: &str = "resourcemanager.projects.getIamPolicy";
const CHANGE: &str = "resourcemanager.projects.setIamPolicy";
const READER: Need = Need::Inside { permission: READ };
const CHANGER: Need = Need::Inside { permission: CHANGE };
/// The customer that answers name.
const CUSTOMER: &str = "customers/C0tanebi0";
const FORUM: &str = "cloudidentity.googleapis.com/groups.discussion_forum";

pub(crate) fn surface(app: &App) -> Surface {
    Endpoints::new(app.clone())
        .on(Verb::POST, "/v1/groups", CHANGER, group_create)
        .on(Verb::GET, "/v1/groups:lookup", READER, group_lookup)
        .on(Verb::GET, "/v1/groups:search", READER, group_search)
        .on(Verb::GET, "/v1/groups/{group}", READER, group_get)
        .on(Verb::DELETE, "/v1/groups/{group}", CHANGER, group_delete)
        .on(Verb::POST, "/v1/groups/{group}/memberships", CHANGER, member_add)
        .on(Verb::GET, "/v1/groups/{group}/memberships", READER, member_list)
        .on(Verb::GET, "/v1/groups/{group}/memberships:lookup", READER, member_lookup)
        .on(Verb::GET, "/v1/groups/{group}/memberships/{member}", READER, member_get)
        .on(Verb::DELETE, "/v1/groups/{group}/memberships/{member}", CHANGER, member_remove)
        .surface("Cloud Identity v1", HOSTS)
}

/// # Errors
/// `PERMISSION_DENIED`.
fn allowed(app: &App, call: &Call, permission: &str) -> Result<(), Status> {
    project_checked(app, call.who()?, app.config.default_project.as_str(), permission).map(drop)
}

/// Whether the caller may say who is in the group of that address.
///
/// # Errors
/// `PERMISSION_DENIED`.
fn change_allowed(app: &App, call: &Call, email: &str) -> Result<(), Status> {
    allowed(app, call, CHANGE)?;
    let project = |resource: String| match resource.strip_prefix("buckets/") {
        // A policy whose bucket is gone gives nothing.
        Some(bucket) => app.control.bucket_get(bucket).ok().map(|bucket| bucket.value.project.to_string()),
        None => resource.split('/').nth(1).map(str::to_owned),
    };
    let projects: BTreeSet<String> = app.iam.group_named_by(email).into_iter().filter_map(project).collect();
    projects.iter().try_for_each(|project| project_checked(app, call.who()?, project, CHANGE).map(drop))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GroupWritten {
    group_key: Key,
    #[serde(default)]
    parent: String,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    labels: serde_json::Map<String, Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    id: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MemberWritten {
    preferred_member_key: Key,
    #[serde(default)]
    roles: Vec<RoleWritten>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleWritten {
    name: String,
}

impl Key {
    fn email(self) -> Result<String, Status> {
        if self.namespace.is_empty() {
            Ok(self.id)
        } else {
            Err(Status::invalid_field("group_key.namespace", "keys of other sources than addresses are not served"))
        }
    }
}

async fn group_create(app: App, mut call: Call) -> Result<Response, Status> {
    allowed(&app, &call, CHANGE)?;
    let written: GroupWritten = call.json().await?;
    // gcloud writes it the one way, the reference the other.
    if !written.parent.is_empty() && !["customers/", "customerId/"].iter().any(|kind| written.parent.starts_with(kind)) {
        return Err(Status::invalid_field("group.parent", format!("{:?} is no customer", written.parent)));
    }
    let is_known = |label: &String| label == FORUM || label == "cloudidentity.googleapis.com/groups.security";
    if let Some(label) = written.labels.keys().find(|label| !is_known(label)) {
        return Err(Status::invalid_field(
            "group.labels",
            format!("{label:?} is not served: groups here have members that are named, and are found by {FORUM}"),
        ));
    }
    let email = written.group_key.email()?;
    change_allowed(&app, &call, &email)?;
    let mut group = app.iam.group_create(&email, &written.display_name, &written.description).await?;
    if call.query("initialGroupConfig").as_deref() == Some("WITH_INITIAL_OWNER") {
        group = app.iam.group_member_add(&group.email, &call.who()?.email).await?;
    }
    Ok(done("Group", &group_json(&group)))
}

async fn group_lookup(app: App, call: Call) -> Result<Response, Status> {
    allowed(&app, &call, READ)?;
    let email = call.query("groupKey.id").ok_or_else(|| Status::invalid_field("groupKey.id", "it is missing"))?;
    Ok(answer(&json!({ "name": name(&app.iam.group_get(&email)?) })))
}

async fn group_search(app: App, call: Call) -> Result<Response, Status> {
    allowed(&app, &call, READ)?;
    let query = call.query("query").unwrap_or_default();
    if !query.contains("in labels") {
        return Err(Status::invalid_field("query", format!("{query:?} is not supported; use parent==\"customers/C\" && \"{FORUM}\" in labels")));
    }
    Ok(answer(&json!({ "groups": app.iam.group_list().iter().map(group_json).collect::<Vec<_>>() })))
}

async fn group_get(app: App, call: Call) -> Result<Response, Status> {
    allowed(&app, &call, READ)?;
    Ok(answer(&group_json(&app.iam.group_get(call.var("group")?)?)))
}

async fn group_delete(app: App, call: Call) -> Result<Response, Status> {
    allowed(&app, &call, CHANGE)?;
    let group = app.iam.group_get(call.var("group")?)?;
    change_allowed(&app, &call, &group.email)?;
    app.iam.group_delete(&group.email).await?;
    Ok(answer(&json!({ "done": true, "response": { "@type": "type.googleapis.com/google.protobuf.Empty" } })))
}

async fn member_add(app: App, mut call: Call) -> Result<Response, Status> {
    allowed(&app, &call, CHANGE)?;
    let written: MemberWritten = call.json().await?;
    if let Some(role) = written.roles.iter().find(|role| role.name != "MEMBER") {
        return Err(Status::invalid_field("membership.roles", format!("{} is not served by this server: members of a group are MEMBER", role.name)));
    }
    let email = written.preferred_member_key.email()?;
    let group = app.iam.group_get(call.var("group")?)?;
    change_allowed(&app, &call, &group.email)?;
    let group = app.iam.group_member_add(&group.email, &email).await?;
    let email = email.to_ascii_lowercase();
    Ok(done("Membership", &member_json(&app, &group, &email)))
}

async fn member_list(app: App, call: Call) -> Result<Response, Status> {
    allowed(&app, &call, READ)?;
    let group = app.iam.group_get(call.var("group")?)?;
    let scope = format!("groups/{}", group.id);
    let size = call.query("pageSize").map_or(Ok(0), |size| size.parse().map_err(|_| Status::invalid_field("pageSize", format!("{size:?} is no number"))))?;
    let asked = app.pages.read(&scope, &call.query("pageToken").unwrap_or_default(), size).await?;
    let mut rest = group.members.iter().map(|(email, _)| email).filter(|email| asked.after.as_ref().is_none_or(|after| *email > after));
    let page: Vec<_> = rest.by_ref().take(asked.size).collect();
    let mut list = json!({ "memberships": page.iter().map(|email| member_json(&app, &group, email)).collect::<Vec<_>>() });
    if let (Some(last), Some(_)) = (page.last(), rest.next()) {
        list["nextPageToken"] = json!(app.pages.token(&scope, last).await?);
    }
    Ok(answer(&list))
}

async fn member_lookup(app: App, call: Call) -> Result<Response, Status> {
    allowed(&app, &call, READ)?;
    let group = app.iam.group_get(call.var("group")?)?;
    let email = call.query("memberKey.id").ok_or_else(|| Status::invalid_field("memberKey.id", "it is missing"))?.to_ascii_lowercase();
    let member = member_of(&group, &member_id(&email))?;
    Ok(answer(&json!({ "name": member_name(&group, member) })))
}

async fn member_get(app: App, call: Call) -> Result<Response, Status> {
    allowed(&app, &call, READ)?;
    let group = app.iam.group_get(call.var("group")?)?;
    let member = member_of(&group, call.var("member")?)?;
    Ok(answer(&member_json(&app, &group, member)))
}

async fn member_remove(app: App, call: Call) -> Result<Response, Status> {
    allowed(&app, &call, CHANGE)?;
    let group = app.iam.group_get(call.var("group")?)?;
    change_allowed(&app, &call, &group.email)?;
    let member = member_of(&group, call.var("member")?)?;
    app.iam.group_member_remove(&group.email, member).await?;
    Ok(answer(&json!({ "done": true, "response": { "@type": "type.googleapis.com/google.protobuf.Empty" } })))
}

fn member_of<'a>(group: &'a Group, id: &str) -> Result<&'a str, Status> {
    let found = group.members.iter().map(|(email, _)| email.as_str()).find(|email| member_id(email) == id);
    found.ok_or_else(|| Status::not_found(format!("Membership {id} of {} does not exist.", group.email)))
}

/// The same for an address wherever it is a member.
fn member_id(email: &str) -> String {
    hex::encode(&Sha256::digest(email)[..10])
}

fn name(group: &Group) -> String {
    format!("groups/{}", group.id)
}

fn member_name(group: &Group, email: &str) -> String {
    format!("{}/memberships/{}", name(group), member_id(email))
}

fn group_json(group: &Group) -> Json {
    json!({
        "name": name(group),
        "groupKey": { "id": group.email },
        "parent": CUSTOMER,
        "displayName": group.display_name,
        "description": group.description,
        "createTime": group.created.to_string(),
        "updateTime": group.created.to_string(),
        "labels": { (FORUM): "" },
    })
}

fn member_json(app: &App, group: &Group, email: &str) -> Json {
    let kind = match app.iam.identity(email).kind {
        _ if app.iam.group_get(email).is_ok() => "GROUP",
        Kind::ServiceAccount => "SERVICE_ACCOUNT",
        Kind::User => "USER",
    };
    let since = group.members.iter().find(|(member, _)| member == email).map(|(_, since)| since.to_string());
    json!({
        "name": member_name(group, email),
        "preferredMemberKey": { "id": email },
        "roles": [{ "name": "MEMBER" }],
        "type": kind,
        "createTime": since,
    })
}

fn answer(body: &Json) -> Response {
    error::json_response(StatusCode::OK, body)
}

/// A finished operation: that is what changes answer.
fn done(kind: &str, body: &Json) -> Response {
    let mut body = body.clone();
    body["@type"] = json!(format!("type.googleapis.com/google.apps.cloudidentity.groups.v1.{kind}"));
    answer(&json!({ "done": true, "response": body }))
}
