//! IAM Credentials v1: short-lived tokens and signatures of another account, for who may act as it.
//!
//! Source: google/iam/credentials/v1/{common,iamcredentials}.proto.

use std::time::Duration;

use iam::{Identity, ServiceAccount};
use model::Status;
use proto::google::iam::credentials::v1 as pb;

use crate::{
    app::App,
    convert::time,
    grpc::{Context, Group, Method},
    permission::{Need, name_read},
};

const HOSTS: &[&str] = &["iamcredentials.googleapis.com"];
const ACCOUNT: &str = "projects/{project}/serviceAccounts/{account}";
const LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// How long a chain of delegates may be.
const DELEGATES_MAX: usize = 10;
const AUDIENCE_MAX_BYTES: usize = 2 << 10;

/// The permission is asked for inside: with delegates it is the last of them who needs it, not the caller.
const fn inside(permission: &'static str) -> Need {
    Need::Inside { permission }
}

pub(crate) fn methods(app: &App) -> Vec<Method> {
    Group::new(app.clone(), HOSTS)
        .unary(
            "google.iam.credentials.v1.IAMCredentials/GenerateAccessToken",
            inside("iam.serviceAccounts.getAccessToken"),
            |r: &pb::GenerateAccessTokenRequest| r.name.clone(),
            ("name", ACCOUNT),
            access_token,
        )
        .unary(
            "google.iam.credentials.v1.IAMCredentials/GenerateIdToken",
            inside("iam.serviceAccounts.getOpenIdToken"),
            |r: &pb::GenerateIdTokenRequest| r.name.clone(),
            ("name", ACCOUNT),
            id_token,
        )
        .unary(
            "google.iam.credentials.v1.IAMCredentials/SignBlob",
            inside("iam.serviceAccounts.signBlob"),
            |r: &pb::SignBlobRequest| r.name.clone(),
            ("name", ACCOUNT),
            blob_sign,
        )
        .unary(
            "google.iam.credentials.v1.IAMCredentials/SignJwt",
            inside("iam.serviceAccounts.signJwt"),
            |r: &pb::SignJwtRequest| r.name.clone(),
            ("name", ACCOUNT),
            jwt_sign,
        )
        .into_methods()
}

async fn access_token(app: App, context: Context, request: pb::GenerateAccessTokenRequest) -> Result<pb::GenerateAccessTokenResponse, Status> {
    let who = acting(&app, &context, &request.delegates, "iam.serviceAccounts.getAccessToken")?;
    if request.scope.is_empty() {
        return Err(Status::invalid_field("scope", "it is missing; an example is https://www.googleapis.com/auth/cloud-platform"));
    }
    if let Some(scope) = request.scope.iter().find(|scope| scope.is_empty() || scope.contains(char::is_whitespace)) {
        return Err(Status::invalid_field("scope", format!("{scope:?} is no scope")));
    }
    let lifetime = match request.lifetime {
        None => LIFETIME_MAX,
        Some(asked) => match Duration::try_from(asked) {
            Ok(asked) if asked > Duration::ZERO && asked <= LIFETIME_MAX => asked,
            _ => {
                return Err(Status::invalid_field(
                    "lifetime",
                    "it must be more than 0s and at most 3600s; longer lives, which at Google need an organization policy, are not given",
                ));
            }
        },
    };
    let token = app.iam.access_token_issue(&who, &request.scope.join(" "), lifetime);
    Ok(pb::GenerateAccessTokenResponse { access_token: token.token, expire_time: Some(time(token.expires)) })
}

async fn id_token(app: App, context: Context, request: pb::GenerateIdTokenRequest) -> Result<pb::GenerateIdTokenResponse, Status> {
    let who = acting(&app, &context, &request.delegates, "iam.serviceAccounts.getOpenIdToken")?;
    if request.audience.is_empty() || request.audience.len() > AUDIENCE_MAX_BYTES {
        return Err(Status::invalid_field("audience", format!("it must have 1 to {AUDIENCE_MAX_BYTES} bytes")));
    }
    Ok(pb::GenerateIdTokenResponse { token: app.iam.id_token_issue(&who, &request.audience, request.include_email) })
}

async fn blob_sign(app: App, context: Context, request: pb::SignBlobRequest) -> Result<pb::SignBlobResponse, Status> {
    let who = acting(&app, &context, &request.delegates, "iam.serviceAccounts.signBlob")?;
    if request.payload.is_empty() {
        return Err(Status::invalid_field("payload", "it is missing: the bytes to sign"));
    }
    let signed = app.iam.blob_sign(&who.email, &request.payload).await?;
    Ok(pb::SignBlobResponse { key_id: signed.key_id, signed_blob: signed.value })
}

async fn jwt_sign(app: App, context: Context, request: pb::SignJwtRequest) -> Result<pb::SignJwtResponse, Status> {
    let who = acting(&app, &context, &request.delegates, "iam.serviceAccounts.signJwt")?;
    let signed = app.iam.jwt_sign(&who.email, &request.payload).await?;
    Ok(pb::SignJwtResponse { key_id: signed.key_id, signed_jwt: signed.value })
}

/// The account whose token is wanted, when the caller, through the delegates if there are any, has `permission` on it.
///
/// # Errors
/// `PERMISSION_DENIED`, also for an account that does not exist; `FAILED_PRECONDITION` for one that is disabled.
fn acting(app: &App, context: &Context, delegates: &[String], permission: &str) -> Result<Identity, Status> {
    if delegates.len() > DELEGATES_MAX {
        return Err(Status::invalid_field("delegates", format!("at most {DELEGATES_MAX} accounts can delegate")));
    }
    let mut who = context.who.clone();
    for (at, delegate) in delegates.iter().enumerate() {
        let vars = name_read(ACCOUNT, delegate)
            .ok_or_else(|| Status::invalid_field(format!("delegates[{at}]"), format!("{delegate:?} has not the form projects/-/serviceAccounts/ACCOUNT")))?;
        who = step(app, &who, (&vars["project"], &vars["account"]), "iam.serviceAccounts.implicitDelegation")?;
    }
    step(app, &who, (context.var("project")?, context.var("account")?), permission)
}

/// From an identity to an account on which it has `permission`.
fn step(app: &App, who: &Identity, (project, account): (&str, &str), permission: &str) -> Result<Identity, Status> {
    let denied = || Status::permission_denied(permission, &format!("projects/{project}/serviceAccounts/{account}"));
    let within = if project == "-" { None } else { Some(app.control.project_get(project).map_err(|_| denied())?.id) };
    let ServiceAccount { project, email, disabled, .. } = app.iam.service_account_get(within.as_ref(), account).map_err(|_| denied())?;
    if !app.iam.may(Some(who), permission, &format!("projects/{project}/serviceAccounts/{email}"), project.as_str()) {
        return Err(denied());
    }
    if disabled {
        return Err(Status::failed_precondition(format!("Service account {email} is disabled.")));
    }
    Ok(app.iam.identity(&email))
}
