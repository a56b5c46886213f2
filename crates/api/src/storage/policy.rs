//! A bucket's IAM policy, in this API's form.

use model::{
    Status,
    policy::{Binding, Condition, Member, Policy, VersionedPolicy},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    bucket::{anyone, public_access_prevented},
    error::Error,
    query::Query,
};
use crate::{
    Deps, Response,
    policy::{CONDITIONS, role_shown, version_check},
    surface::Call,
};

const SET: &str = "storage.buckets.setIamPolicy";

/// What `iam` calls a bucket.
pub(crate) fn resource(bucket: &str) -> String {
    format!("buckets/{bucket}")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    bindings: Vec<WrittenBinding>,
    #[serde(default)]
    etag: String,
    #[serde(default)]
    version: Option<i32>,
    #[serde(default, rename = "kind")]
    _kind: Option<String>,
    #[serde(default, rename = "resourceId")]
    _resource: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBinding {
    role: String,
    #[serde(default)]
    members: Vec<Member>,
    #[serde(default)]
    condition: Option<WrittenCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCondition {
    #[serde(default)]
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    location: String,
}

pub(crate) async fn get(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["optionsRequestedPolicyVersion"]])?;
    let bucket = call.var("bucket")?;
    let policy = deps.iam.policy_get(&resource(bucket))?;
    let version = match query.integer("optionsRequestedPolicyVersion")? {
        None => 1,
        Some(version @ (1 | 3)) => version as i32,
        Some(other) => return Err(Error::invalid(format!("optionsRequestedPolicyVersion {other} is none of 1 and 3"))),
    };
    query.answer(policy_json(bucket, &policy, version))
}

pub(crate) async fn set(deps: Deps, mut call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[])?;
    let written: Written = call.json().await?;
    let name = resource(call.var("bucket")?);
    // As it is now: what is asked of it from here on is asked of this one.
    let of = deps.iam.policied(&name)?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    if !deps.iam.may(call.who.as_ref(), SET, &name, bucket.project.as_str()) {
        return Err(Status::permission_denied(SET, &name).into());
    }
    let version = written.version.unwrap_or(1);
    version_check(&deps, &resource(&bucket.name), version, &written.etag)?;
    let mut policy = Policy::default();
    for binding in written.bindings {
        if binding.condition.is_some() && version != CONDITIONS {
            return Err(Error::invalid(format!("Policies with conditions must specify version {CONDITIONS}.")));
        }
        let condition =
            binding.condition.map(|WrittenCondition { title, description, expression, location }| Condition { title, description, expression, location });
        policy.bindings.push(Binding { role: binding.role, members: binding.members, condition });
    }
    if public_access_prevented(&bucket) && is_public(&policy) {
        return Err(Error::condition("The member bindings allUsers and allAuthenticatedUsers are not allowed since public access prevention is enforced."));
    }
    let stored = deps.iam.policy_set_on(&of, policy, &written.etag).await.map_err(|status| match status.code {
        model::Code::Aborted => Error::condition_not_met(),
        _ => status.into(),
    })?;
    query.answer(policy_json(&bucket.name, &stored, CONDITIONS))
}

pub(crate) async fn test(deps: Deps, call: Call) -> Result<Response, Error> {
    let query = Query::of(&call, &[&["permissions"]])?;
    let bucket = deps.control.bucket_get(call.var("bucket")?)?.value;
    let asked = query.all("permissions");
    let has = deps.iam.test_permissions(call.who.as_ref(), &asked, &resource(&bucket.name), bucket.project.as_str());
    let mut body = json!({ "kind": "storage#testIamPermissionsResponse" });
    if !has.is_empty() {
        body["permissions"] = json!(has);
    }
    query.answer(body)
}

/// Whether a binding lets anyone in.
pub(crate) fn is_public(policy: &Policy) -> bool {
    policy.bindings.iter().any(|binding| binding.members.iter().any(anyone))
}

fn policy_json(bucket: &str, policy: &VersionedPolicy, version: i32) -> Value {
    let binding = |binding: &Binding| {
        let members: Vec<_> = binding.members.iter().map(Member::to_string).collect();
        let mut written = json!({ "role": role_shown(binding, version), "members": members });
        if let Some(condition) = binding.condition.as_ref().filter(|_| version == CONDITIONS) {
            written["condition"] = json!(condition);
        }
        written
    };
    let bindings: Vec<Value> = policy.policy.bindings.iter().map(binding).collect();
    let version = if version == CONDITIONS { policy.policy.version() } else { 1 };
    json!({ "kind": "storage#policy", "resourceId": format!("projects/_/buckets/{bucket}"), "version": version, "etag": policy.etag, "bindings": bindings })
}
