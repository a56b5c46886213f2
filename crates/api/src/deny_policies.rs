//! IAM v2: deny policies of projects.
//!
//! A change is done when it is answered, so that its operation is done too and is kept nowhere.
//! Source: google/iam/v2/policy.proto.

use iam::{DenyPolicy, DenyRule};
use model::Status;
use percent_encoding::percent_decode_str;
use prost::{Message, Name};
use proto::google::{iam::v2 as pb, longrunning as lro};

use crate::{
    app::App,
    convert::{refuse, time},
    grpc::{Context, Group, Method},
    iam_admin::HOSTS,
    permission::{Need, project_checked},
    policy::{condition_read, condition_write},
};

/// With the attachment point as it stands in names, percent-encoded, and as a path of REST gives it, decoded.
const PARENT: &str = "policies/{attachment}/{kind}|policies/{service}/{collection}/{project}/{kind}";
const POLICY: &str = "policies/{attachment}/{kind}/{policy}|policies/{service}/{collection}/{project}/{kind}/{policy}";
/// The service that projects are of.
const ATTACHMENT: &str = "cloudresourcemanager.googleapis.com/projects/";
const KIND: &str = "denypolicies";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    let inside = |permission| Need::Inside { permission };
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.iam.v2.Policies/ListPolicies",
            inside("iam.denypolicies.list"),
            |r: &pb::ListPoliciesRequest| r.parent.clone(),
            ("parent", PARENT),
            policy_list,
        )
        .unary("google.iam.v2.Policies/GetPolicy", inside("iam.denypolicies.get"), |r: &pb::GetPolicyRequest| r.name.clone(), ("name", POLICY), policy_get)
        .unary(
            "google.iam.v2.Policies/CreatePolicy",
            inside("iam.denypolicies.create"),
            |r: &pb::CreatePolicyRequest| r.parent.clone(),
            ("parent", PARENT),
            policy_create,
        )
        .unary(
            "google.iam.v2.Policies/UpdatePolicy",
            inside("iam.denypolicies.update"),
            |r: &pb::UpdatePolicyRequest| r.policy.as_ref().map(|policy| policy.name.clone()).unwrap_or_default(),
            ("policy.name", POLICY),
            policy_update,
        )
        .unary(
            "google.iam.v2.Policies/DeletePolicy",
            inside("iam.denypolicies.delete"),
            |r: &pb::DeletePolicyRequest| r.name.clone(),
            ("name", POLICY),
            policy_delete,
        )
        .into_methods()
}

/// The project that the policies are attached to, when the caller has `permission` there.
fn project(app: &App, context: &Context, permission: &str) -> Result<control::Project, Status> {
    let kind = context.var("kind")?;
    if kind != KIND {
        return Err(Status::invalid_field("kind", format!("{kind:?} is not served by this server; {KIND} are")));
    }
    let attachment = match context.vars.get("attachment") {
        Some(encoded) => percent_decode_str(encoded).decode_utf8_lossy().into_owned(),
        None => format!("{}/{}/{}", context.var("service")?, context.var("collection")?, context.var("project")?),
    };
    let Some(written) = attachment.strip_prefix(ATTACHMENT).filter(|project| !project.contains('/')) else {
        return Err(Status::invalid_field(
            "attachment_point",
            format!(
                "{attachment:?} is not supported: deny policies are attached to projects, {ATTACHMENT}PROJECT; there are no folders and organizations here"
            ),
        ));
    };
    let id = project_checked(app, &context.who, written, permission)?;
    app.control.project_get(id.as_str())
}

async fn policy_list(app: App, context: Context, request: pb::ListPoliciesRequest) -> Result<pb::ListPoliciesResponse, Status> {
    let project = project(&app, &context, "iam.denypolicies.list")?;
    // Pages are of a thousand at Google, and there are at most five hundred.
    refuse(!request.page_token.is_empty(), "page_token")?;
    let head = |policy: &DenyPolicy| pb::Policy { rules: Vec::new(), ..write(&project, policy) };
    Ok(pb::ListPoliciesResponse { policies: app.iam.deny_policy_list(&project.id).iter().map(head).collect(), next_page_token: String::new() })
}

async fn policy_get(app: App, context: Context, _: pb::GetPolicyRequest) -> Result<pb::Policy, Status> {
    let project = project(&app, &context, "iam.denypolicies.get")?;
    Ok(write(&project, &app.iam.deny_policy_get(&project.id, context.var("policy")?)?))
}

async fn policy_create(app: App, context: Context, request: pb::CreatePolicyRequest) -> Result<lro::Operation, Status> {
    let project = project(&app, &context, "iam.denypolicies.create")?;
    let wanted = read(request.policy.unwrap_or_default(), &request.policy_id)?;
    let made = app.iam.deny_policy_create(&project.id, wanted).await?;
    Ok(done(&app, &project, &made))
}

async fn policy_update(app: App, context: Context, request: pb::UpdatePolicyRequest) -> Result<lro::Operation, Status> {
    let project = project(&app, &context, "iam.denypolicies.update")?;
    let wanted = read(request.policy.unwrap_or_default(), context.var("policy")?)?;
    let changed = app.iam.deny_policy_update(&project.id, wanted).await?;
    Ok(done(&app, &project, &changed))
}

async fn policy_delete(app: App, context: Context, request: pb::DeletePolicyRequest) -> Result<lro::Operation, Status> {
    let project = project(&app, &context, "iam.denypolicies.delete")?;
    let gone = app.iam.deny_policy_delete(&project.id, context.var("policy")?, &request.etag).await?;
    Ok(done(&app, &project, &gone))
}

fn read(policy: pb::Policy, id: &str) -> Result<DenyPolicy, Status> {
    refuse(!policy.managing_authority.is_empty(), "policy.managing_authority")?;
    let rules = policy.rules.into_iter().enumerate().map(|(at, rule)| {
        let Some(pb::policy_rule::Kind::DenyRule(deny)) = rule.kind else {
            return Err(Status::invalid_field(format!("policy.rules[{at}].deny_rule"), "it is missing"));
        };
        Ok(DenyRule {
            description: rule.description,
            denied_principals: deny.denied_principals,
            exception_principals: deny.exception_principals,
            denied_permissions: deny.denied_permissions,
            exception_permissions: deny.exception_permissions,
            condition: deny.denial_condition.map(condition_read),
        })
    });
    Ok(DenyPolicy {
        id: id.to_owned(),
        display_name: policy.display_name,
        annotations: policy.annotations.into_iter().collect(),
        etag: policy.etag,
        rules: rules.collect::<Result<_, Status>>()?,
        ..Default::default()
    })
}

fn write(project: &control::Project, policy: &DenyPolicy) -> pb::Policy {
    let rule = |rule: &DenyRule| pb::PolicyRule {
        description: rule.description.clone(),
        kind: Some(pb::policy_rule::Kind::DenyRule(pb::DenyRule {
            denied_principals: rule.denied_principals.clone(),
            exception_principals: rule.exception_principals.clone(),
            denied_permissions: rule.denied_permissions.clone(),
            exception_permissions: rule.exception_permissions.clone(),
            denial_condition: rule.condition.as_ref().map(condition_write),
        })),
    };
    pb::Policy {
        // By the project's number, as Google answers.
        name: format!("policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{}/{KIND}/{}", project.number, policy.id),
        uid: policy.uid.clone(),
        kind: "DenyPolicy".to_owned(),
        display_name: policy.display_name.clone(),
        annotations: policy.annotations.clone().into_iter().collect(),
        etag: policy.etag.clone(),
        create_time: Some(time(policy.created)),
        update_time: Some(time(policy.updated)),
        delete_time: None,
        rules: policy.rules.iter().map(rule).collect(),
        managing_authority: String::new(),
    }
}

/// The operation of a change.
fn done(app: &App, project: &control::Project, policy: &DenyPolicy) -> lro::Operation {
    let now = time(app.clock.now());
    let policy = write(project, policy);
    let metadata = pb::PolicyOperationMetadata { create_time: Some(now) };
    lro::Operation {
        name: format!("{}/operations/{}", policy.name, policy.uid),
        metadata: Some(any(&metadata)),
        done: true,
        result: Some(lro::operation::Result::Response(any(&policy))),
    }
}

fn any<T: Message + Name>(message: &T) -> prost_types::Any {
    prost_types::Any { type_url: T::type_url(), value: message.encode_to_vec() }
}
