//! Cloud Storage's JSON API, version 1.
//!
//! What it does not have: ACLs (access is by IAM only), customer keys, folders, HMAC keys, restoring of buckets. Each is refused by
//! name. Source: the discovery document
//! `storage:v1`, cloud.google.com/storage/docs/json_api, and what the Google Cloud CLI 528 was seen to send.

mod acl;
pub(crate) mod batch;
mod bucket;
mod copy;
mod download;
mod error;
mod fields;
mod glob;
mod ingest;
mod listing;
mod multipart;
mod notification;
mod object;
mod policy;
mod query;
mod range;
mod resumable;
pub(crate) mod signed;
mod staying;
mod upload;
pub(crate) mod xml;

use axum::response::IntoResponse;
use http::{HeaderMap, Method, StatusCode, header};
use model::Status;
use serde_json::json;

use self::{error::Error, query::Query};
use crate::{
    Deps, Response,
    permission::{Need, on},
    surface::{Call, Endpoints, Surface},
};

pub(crate) use self::resumable::begin as upload_begin;

const HOSTS: &[&str] = &["storage.googleapis.com", "www.googleapis.com"];

/// Every method that is served.
pub(crate) fn surface(deps: Deps) -> Surface {
    use Method as M;
    const BUCKET: &str = "buckets/{bucket}";
    let own = Need::Public;
    Endpoints::new(deps)
        .behind(Deps::behind)
        .on(M::GET, "/storage/v1/b", on("storage.buckets.list", "projects/{?project}"), |d, c| done(bucket::list(d, c)))
        .on(M::POST, "/storage/v1/b", on("storage.buckets.create", "projects/{?project}"), |d, c| done(bucket::insert(d, c)))
        .on(M::GET, "/storage/v1/b/{bucket}", on("storage.buckets.get", BUCKET), |d, c| done(bucket::get(d, c)))
        .on(M::PATCH, "/storage/v1/b/{bucket}", on("storage.buckets.update", BUCKET), |d, c| done(bucket::patch(d, c)))
        .on(M::PUT, "/storage/v1/b/{bucket}", on("storage.buckets.update", BUCKET), |d, c| done(bucket::update(d, c)))
        .on(M::DELETE, "/storage/v1/b/{bucket}", on("storage.buckets.delete", BUCKET), |d, c| done(bucket::delete(d, c)))
        .on(M::GET, "/storage/v1/b/{bucket}/storageLayout", on("storage.objects.list", BUCKET), |d, c| done(bucket::layout(d, c)))
        .on(M::GET, "/storage/v1/b/{bucket}/iam", on("storage.buckets.getIamPolicy", BUCKET), |d, c| done(policy::get(d, c)))
        .on(M::PUT, "/storage/v1/b/{bucket}/iam", on("storage.buckets.setIamPolicy", BUCKET), |d, c| done(policy::set(d, c)))
        .on(M::GET, "/storage/v1/b/{bucket}/iam/testPermissions", Need::SignedIn, |d, c| done(policy::test(d, c)))
        .on(M::GET, "/storage/v1/b/{bucket}/managedFolders", on("storage.objects.list", BUCKET), |_, c| {
            done(bucket::none_of(c, "storage#managedFolders", &["prefix", "pageSize", "pageToken"]))
        })
        .on(M::GET, "/storage/v1/b/{bucket}/notificationConfigs", on("storage.buckets.get", BUCKET), |d, c| done(notification::list(d, c)))
        .on(M::POST, "/storage/v1/b/{bucket}/notificationConfigs", on("storage.buckets.update", BUCKET), |d, c| done(notification::insert(d, c)))
        .on(M::GET, "/storage/v1/b/{bucket}/notificationConfigs/{notification}", on("storage.buckets.get", BUCKET), |d, c| done(notification::get(d, c)))
        .on(M::DELETE, "/storage/v1/b/{bucket}/notificationConfigs/{notification}", on("storage.buckets.update", BUCKET), |d, c| {
            done(notification::delete(d, c))
        })
        .on(M::POST, "/storage/v1/b/{bucket}/lockRetentionPolicy", on("storage.buckets.update", BUCKET), |d, c| done(bucket::retention_lock(d, c)))
        .on(M::GET, "/storage/v1/b/{bucket}/acl", on("storage.buckets.getIamPolicy", BUCKET), |_, c| done(acl::of_bucket(c)))
        .on(M::POST, "/storage/v1/b/{bucket}/acl", on("storage.buckets.setIamPolicy", BUCKET), |_, c| done(acl::of_bucket(c)))
        .on(M::GET, "/storage/v1/b/{bucket}/defaultObjectAcl", on("storage.buckets.getIamPolicy", BUCKET), |_, c| done(acl::of_object(c)))
        .on(M::POST, "/storage/v1/b/{bucket}/defaultObjectAcl", on("storage.buckets.setIamPolicy", BUCKET), |_, c| done(acl::of_object(c)))
        .on(M::GET, "/storage/v1/b/{bucket}/o/{object}/acl", on("storage.objects.getIamPolicy", BUCKET), |_, c| done(acl::of_object(c)))
        .on(M::POST, "/storage/v1/b/{bucket}/o/{object}/acl", on("storage.objects.setIamPolicy", BUCKET), |_, c| done(acl::of_object(c)))
        .on(M::POST, "/storage/v1/b/{bucket}/o/{object}/restore", on("storage.objects.restore", BUCKET), |d, c| done(object::restore(d, c)))
        .on(M::GET, "/storage/v1/b/{bucket}/o", on("storage.objects.list", BUCKET), |d, c| done(object::list(d, c)))
        .on(M::GET, "/storage/v1/b/{bucket}/o/{object=**}", on("storage.objects.get", BUCKET), |d, c| done(object::get(d, c)))
        .on(M::PATCH, "/storage/v1/b/{bucket}/o/{object=**}", on("storage.objects.update", BUCKET), |d, c| done(object::patch(d, c)))
        .on(M::PUT, "/storage/v1/b/{bucket}/o/{object=**}", on("storage.objects.update", BUCKET), |d, c| done(object::update(d, c)))
        .on(M::DELETE, "/storage/v1/b/{bucket}/o/{object=**}", on("storage.objects.delete", BUCKET), |d, c| done(object::delete(d, c)))
        .on(M::GET, "/download/storage/v1/b/{bucket}/o/{object=**}", on("storage.objects.get", BUCKET), |d, c| done(download::get(d, c)))
        .on(M::POST, "/storage/v1/b/{bucket}/o/{object}/compose", on("storage.objects.create", BUCKET), |d, c| done(copy::compose(d, c)))
        .on(M::POST, "/storage/v1/b/{sourceBucket}/o/{sourceObject}/copyTo/b/{bucket}/o/{object=**}", on("storage.objects.create", BUCKET), |d, c| {
            done(copy::copy(d, c))
        })
        .on(M::POST, "/storage/v1/b/{sourceBucket}/o/{sourceObject}/rewriteTo/b/{bucket}/o/{object=**}", on("storage.objects.create", BUCKET), |d, c| {
            done(copy::rewrite(d, c))
        })
        .on(M::POST, "/storage/v1/b/{bucket}/o/{sourceObject}/moveTo/o/{object=**}", on("storage.objects.create", BUCKET), |d, c| done(copy::rename(d, c)))
        .on(M::POST, "/upload/storage/v1/b/{bucket}/o", on("storage.objects.create", BUCKET), |d, c| done(upload::insert(d, c)))
        .on(M::POST, "/resumable/upload/storage/v1/b/{bucket}/o", on("storage.objects.create", BUCKET), |d, c| done(upload::insert(d, c)))
        // The session's id is the credential, as at Google: the URI is made to be handed on.
        .on(M::PUT, "/upload/storage/v1/b/{bucket}/o", own, |d, c| done(resumable::put(d, c)))
        .on(M::PUT, "/resumable/upload/storage/v1/b/{bucket}/o", own, |d, c| done(resumable::put(d, c)))
        .on(M::DELETE, "/upload/storage/v1/b/{bucket}/o", own, |d, c| done(resumable::cancel(d, c)))
        .on(M::DELETE, "/resumable/upload/storage/v1/b/{bucket}/o", own, |d, c| done(resumable::cancel(d, c)))
        .on(M::GET, "/storage/v1/projects/{project}/serviceAccount", on("resourcemanager.projects.get", "projects/{project}"), |d, c| {
            done(service_account(d, c))
        })
        .surface_with("storage v1", HOSTS, error::front)
}

/// The agent that at Google acts for the project's buckets.
async fn service_account(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[])?;
    let project = deps.control.project_get(call.var("project")?)?;
    query.answer(json!({ "kind": "storage#serviceAccount", "email_address": model::storage::agent(project.number) }))
}

/// This surface's errors are written here, not by the front.
async fn done(answer: impl Future<Output = Result<Response, Error>>) -> Result<Response, Status> {
    Ok(answer.await.unwrap_or_else(Error::into_response))
}

fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// Refuses customer-supplied keys: an object stored without one would not be what its owner thinks it is.
fn encryption_refuse(headers: &HeaderMap) -> Result<(), Error> {
    let key = |name: &str| name.starts_with("x-goog-encryption-") || name.starts_with("x-goog-copy-source-encryption-");
    match headers.keys().map(|name| name.as_str()).find(|name| key(name)) {
        Some(name) => Err(Error::not_served(name, "objects are not encrypted with keys of their owners")),
        None => Ok(()),
    }
}

/// Where the caller reaches this server: `https://storage.googleapis.com` through the proxy, `https://127.0.0.1:8443` or
/// `http://127.0.0.1:8080` directly.
fn base(call: &Call) -> String {
    let host = call
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| call.uri.authority().map(|authority| authority.as_str()))
        .unwrap_or("storage.googleapis.com");
    format!("{}://{host}", if call.tls { "https" } else { "http" })
}
