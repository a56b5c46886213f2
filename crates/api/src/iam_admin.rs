//! IAM admin v1: service accounts, their keys and policies. Roles are in [`crate::iam_roles`].
//!
//! Uploaded keys, disabled keys and undeletion of accounts do not exist here: those methods are not registered.
//! Source: google/iam/admin/v1/iam.proto.

use iam::{ServiceAccount, ServiceAccountKey};
use model::Status;
use proto::google::iam::{admin::v1 as pb, v1 as policy_pb};
use serde_json::json;

use crate::{
    app::App,
    convert::{refuse, time},
    grpc::{Context, Group, Method},
    oauth::certificate,
    permission::{Need, on},
    policy,
};

pub(crate) const HOSTS: &[&str] = &["iam.googleapis.com"];
const PROJECT: &str = "projects/{project}";
const ACCOUNT: &str = "projects/{project}/serviceAccounts/{account}";
const KEY: &str = "projects/{project}/serviceAccounts/{account}/keys/{key}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    let methods = accounts(Group::new(app.clone(), HOSTS));
    keys(policies(methods)).into_methods()
}

fn accounts(group: Group<App>) -> Group<App> {
    group
        .unary(
            "google.iam.admin.v1.IAM/CreateServiceAccount",
            on("iam.serviceAccounts.create", PROJECT),
            |r: &pb::CreateServiceAccountRequest| r.name.clone(),
            ("name", PROJECT),
            account_create,
        )
        .unary(
            "google.iam.admin.v1.IAM/GetServiceAccount",
            on("iam.serviceAccounts.get", ACCOUNT),
            |r: &pb::GetServiceAccountRequest| r.name.clone(),
            ("name", ACCOUNT),
            account_get,
        )
        .unary(
            "google.iam.admin.v1.IAM/ListServiceAccounts",
            on("iam.serviceAccounts.list", PROJECT),
            |r: &pb::ListServiceAccountsRequest| r.name.clone(),
            ("name", PROJECT),
            account_list,
        )
        .unary(
            "google.iam.admin.v1.IAM/UpdateServiceAccount",
            on("iam.serviceAccounts.update", ACCOUNT),
            |r: &pb::ServiceAccount| r.name.clone(),
            ("name", ACCOUNT),
            account_update,
        )
        .unary(
            "google.iam.admin.v1.IAM/PatchServiceAccount",
            on("iam.serviceAccounts.update", ACCOUNT),
            |r: &pb::PatchServiceAccountRequest| r.service_account.as_ref().map(|account| account.name.clone()).unwrap_or_default(),
            ("service_account.name", ACCOUNT),
            account_patch,
        )
        .unary(
            "google.iam.admin.v1.IAM/DeleteServiceAccount",
            on("iam.serviceAccounts.delete", ACCOUNT),
            |r: &pb::DeleteServiceAccountRequest| r.name.clone(),
            ("name", ACCOUNT),
            account_delete,
        )
        .unary(
            "google.iam.admin.v1.IAM/EnableServiceAccount",
            on("iam.serviceAccounts.enable", ACCOUNT),
            |r: &pb::EnableServiceAccountRequest| r.name.clone(),
            ("name", ACCOUNT),
            account_enable,
        )
        .unary(
            "google.iam.admin.v1.IAM/DisableServiceAccount",
            on("iam.serviceAccounts.disable", ACCOUNT),
            |r: &pb::DisableServiceAccountRequest| r.name.clone(),
            ("name", ACCOUNT),
            account_disable,
        )
}

fn keys(group: Group<App>) -> Group<App> {
    group
        .unary(
            "google.iam.admin.v1.IAM/CreateServiceAccountKey",
            on("iam.serviceAccountKeys.create", ACCOUNT),
            |r: &pb::CreateServiceAccountKeyRequest| r.name.clone(),
            ("name", ACCOUNT),
            key_create,
        )
        .unary(
            "google.iam.admin.v1.IAM/GetServiceAccountKey",
            on("iam.serviceAccountKeys.get", ACCOUNT),
            |r: &pb::GetServiceAccountKeyRequest| r.name.clone(),
            ("name", KEY),
            key_get,
        )
        .unary(
            "google.iam.admin.v1.IAM/ListServiceAccountKeys",
            on("iam.serviceAccountKeys.list", ACCOUNT),
            |r: &pb::ListServiceAccountKeysRequest| r.name.clone(),
            ("name", ACCOUNT),
            key_list,
        )
        .unary(
            "google.iam.admin.v1.IAM/DeleteServiceAccountKey",
            on("iam.serviceAccountKeys.delete", ACCOUNT),
            |r: &pb::DeleteServiceAccountKeyRequest| r.name.clone(),
            ("name", KEY),
            key_delete,
        )
}

fn policies(group: Group<App>) -> Group<App> {
    group
        .unary(
            "google.iam.admin.v1.IAM/GetIamPolicy",
            on("iam.serviceAccounts.getIamPolicy", ACCOUNT),
            |r: &policy_pb::GetIamPolicyRequest| r.resource.clone(),
            ("resource", ACCOUNT),
            policy_get,
        )
        .unary(
            "google.iam.admin.v1.IAM/SetIamPolicy",
            on("iam.serviceAccounts.setIamPolicy", ACCOUNT),
            |r: &policy_pb::SetIamPolicyRequest| r.resource.clone(),
            ("resource", ACCOUNT),
            policy_set,
        )
        .unary(
            "google.iam.admin.v1.IAM/TestIamPermissions",
            Need::SignedIn,
            |r: &policy_pb::TestIamPermissionsRequest| r.resource.clone(),
            ("resource", ACCOUNT),
            permissions_test,
        )
}

async fn account_create(app: App, context: Context, request: pb::CreateServiceAccountRequest) -> Result<pb::ServiceAccount, Status> {
    let wanted = request.service_account.unwrap_or_default();
    refuse(wanted.disabled, "service_account.disabled")?;
    let made = app.iam.service_account_create(&context.project()?, &request.account_id, &wanted.display_name, &wanted.description).await?;
    Ok(account_write(&made))
}

async fn account_get(app: App, context: Context, _: pb::GetServiceAccountRequest) -> Result<pb::ServiceAccount, Status> {
    found(&app, &context).map(|account| account_write(&account))
}

async fn account_list(app: App, context: Context, request: pb::ListServiceAccountsRequest) -> Result<pb::ListServiceAccountsResponse, Status> {
    let project = context.project()?;
    let scope = format!("iam.serviceAccounts/{project}");
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let mut accounts = app.iam.service_account_list(&project)?;
    accounts.sort_by(|a, b| a.email.cmp(&b.email));
    accounts.retain(|account| asked.after.as_ref().is_none_or(|after| account.email > *after));
    let more = accounts.len() > asked.size;
    accounts.truncate(asked.size);
    let next_page_token = match accounts.last() {
        Some(last) if more => app.pages.token(&scope, &last.email).await?,
        _ => String::new(),
    };
    Ok(pb::ListServiceAccountsResponse { accounts: accounts.iter().map(account_write).collect(), next_page_token })
}

async fn account_update(app: App, context: Context, request: pb::ServiceAccount) -> Result<pb::ServiceAccount, Status> {
    let account = found(&app, &context)?;
    let changed = app.iam.service_account_update(&account.email, Some(&request.display_name), Some(&request.description)).await?;
    Ok(account_write(&changed))
}

async fn account_patch(app: App, context: Context, request: pb::PatchServiceAccountRequest) -> Result<pb::ServiceAccount, Status> {
    let account = found(&app, &context)?;
    let wanted = request.service_account.unwrap_or_default();
    let paths = request.update_mask.unwrap_or_default().paths;
    if let Some(path) = paths.iter().find(|path| !matches!(path.as_str(), "display_name" | "description")) {
        return Err(Status::invalid_field("update_mask", format!("{path} cannot be changed; display_name and description can")));
    }
    let has = |path: &str, value: &str| if paths.is_empty() { !value.is_empty() } else { paths.iter().any(|p| p == path) };
    let display_name = has("display_name", &wanted.display_name).then_some(wanted.display_name.as_str());
    let description = has("description", &wanted.description).then_some(wanted.description.as_str());
    Ok(account_write(&app.iam.service_account_update(&account.email, display_name, description).await?))
}

async fn account_delete(app: App, context: Context, _: pb::DeleteServiceAccountRequest) -> Result<(), Status> {
    app.iam.service_account_delete(&found(&app, &context)?.email).await
}

async fn account_enable(app: App, context: Context, _: pb::EnableServiceAccountRequest) -> Result<(), Status> {
    app.iam.service_account_disable(&found(&app, &context)?.email, false).await
}

async fn account_disable(app: App, context: Context, _: pb::DisableServiceAccountRequest) -> Result<(), Status> {
    app.iam.service_account_disable(&found(&app, &context)?.email, true).await
}

/// The account that a method's name means; under the wildcard project, wherever it is.
fn found(app: &App, context: &Context) -> Result<ServiceAccount, Status> {
    let project = if context.var("project")? == "-" { None } else { Some(context.project()?) };
    app.iam.service_account_get(project.as_ref(), context.var("account")?)
}

fn account_write(account: &ServiceAccount) -> pb::ServiceAccount {
    pb::ServiceAccount {
        name: resource(account),
        project_id: account.project.to_string(),
        unique_id: account.unique_id.clone(),
        email: account.email.clone(),
        display_name: account.display_name.clone(),
        description: account.description.clone(),
        disabled: account.disabled,
        ..Default::default()
    }
}

fn resource(account: &ServiceAccount) -> String {
    format!("projects/{}/serviceAccounts/{}", account.project, account.email)
}

async fn key_create(app: App, context: Context, request: pb::CreateServiceAccountKeyRequest) -> Result<pb::ServiceAccountKey, Status> {
    use pb::{ServiceAccountKeyAlgorithm as Algorithm, ServiceAccountPrivateKeyType as Kind};
    if !matches!(request.private_key_type(), Kind::TypeUnspecified | Kind::TypeGoogleCredentialsFile) {
        return Err(Status::invalid_field("private_key_type", "only TYPE_GOOGLE_CREDENTIALS_FILE is made by this server"));
    }
    if !matches!(request.key_algorithm(), Algorithm::KeyAlgUnspecified | Algorithm::KeyAlgRsa2048) {
        return Err(Status::invalid_field("key_algorithm", "only KEY_ALG_RSA_2048 is made by this server"));
    }
    let account = found(&app, &context)?;
    let (key, private) = app.iam.key_create(&account.email).await?;
    let mut written = key_write(&account, &key);
    written.private_key_type = Kind::TypeGoogleCredentialsFile.into();
    written.private_key_data = key_file(&account, &key, &private).into_bytes();
    Ok(written)
}

/// The file that `GOOGLE_APPLICATION_CREDENTIALS` names.
fn key_file(account: &ServiceAccount, key: &ServiceAccountKey, private_pem: &str) -> String {
    let file = json!({
        "type": "service_account",
        "project_id": account.project,
        "private_key_id": key.id,
        "private_key": private_pem,
        "client_email": account.email,
        "client_id": account.unique_id,
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": format!("https://www.googleapis.com/robot/v1/metadata/x509/{}", account.email.replace('@', "%40")),
        "universe_domain": "googleapis.com",
    });
    format!("{file:#}\n")
}

async fn key_get(app: App, context: Context, request: pb::GetServiceAccountKeyRequest) -> Result<pb::ServiceAccountKey, Status> {
    use pb::ServiceAccountPublicKeyType as Kind;
    let account = found(&app, &context)?;
    let id = context.var("key")?;
    let key = app
        .iam
        .key_list(&account.email)?
        .into_iter()
        .find(|key| key.id == id)
        .ok_or_else(|| Status::not_found(format!("Service account key {id} does not exist.")))?;
    let mut written = key_write(&account, &key);
    written.public_key_data = match request.public_key_type() {
        Kind::TypeNone => Vec::new(),
        Kind::TypeX509PemFile => certificate(&key.public_key_pem, &account.email, app.clock.now())?.into_bytes(),
        Kind::TypeRawPublicKey => key.public_key_pem.into_bytes(),
    };
    Ok(written)
}

async fn key_list(app: App, context: Context, request: pb::ListServiceAccountKeysRequest) -> Result<pb::ListServiceAccountKeysResponse, Status> {
    use pb::list_service_account_keys_request::KeyType;
    let account = found(&app, &context)?;
    let mut keys = app.iam.key_list(&account.email)?;
    let all = request.key_types().all(|kind| kind == KeyType::Unspecified);
    keys.retain(|key| all || request.key_types().any(|kind| kind == key_type(key)));
    Ok(pb::ListServiceAccountKeysResponse { keys: keys.iter().map(|key| key_write(&account, key)).collect() })
}

async fn key_delete(app: App, context: Context, _: pb::DeleteServiceAccountKeyRequest) -> Result<(), Status> {
    app.iam.key_delete(&found(&app, &context)?.email, context.var("key")?).await
}

fn key_write(account: &ServiceAccount, key: &ServiceAccountKey) -> pb::ServiceAccountKey {
    pb::ServiceAccountKey {
        name: format!("{}/keys/{}", resource(account), key.id),
        key_algorithm: pb::ServiceAccountKeyAlgorithm::KeyAlgRsa2048.into(),
        valid_after_time: Some(time(key.created)),
        valid_before_time: Some(time(key.expires)),
        key_origin: pb::ServiceAccountKeyOrigin::GoogleProvided.into(),
        key_type: key_type(key).into(),
        disabled: key.disabled,
        ..Default::default()
    }
}

fn key_type(key: &ServiceAccountKey) -> pb::list_service_account_keys_request::KeyType {
    use pb::list_service_account_keys_request::KeyType;
    if key.managed { KeyType::SystemManaged } else { KeyType::UserManaged }
}

async fn policy_get(app: App, context: Context, request: policy_pb::GetIamPolicyRequest) -> Result<policy_pb::Policy, Status> {
    policy::policy_get(&app, &resource(&found(&app, &context)?), &request)
}

async fn policy_set(app: App, context: Context, request: policy_pb::SetIamPolicyRequest) -> Result<policy_pb::Policy, Status> {
    let account = found(&app, &context)?;
    policy::policy_set(&app, &context.who, ("iam.serviceAccounts.setIamPolicy", account.project.as_str()), &resource(&account), request).await
}

async fn permissions_test(app: App, context: Context, request: policy_pb::TestIamPermissionsRequest) -> Result<policy_pb::TestIamPermissionsResponse, Status> {
    let account = found(&app, &context)?;
    policy::permissions_test(&app, &context.who, &resource(&account), account.project.as_str(), &request)
}

#[cfg(test)]
mod tests {
    use model::{ProjectId, Timestamp};

    use super::*;

    #[test]
    fn a_key_file_has_what_libraries_read() {
        let account = ServiceAccount {
            project: ProjectId::parse("local-project").unwrap(),
            email: "dev@local-project.iam.gserviceaccount.com".into(),
            unique_id: "1".repeat(21),
            display_name: String::new(),
            description: String::new(),
            disabled: false,
            created: Timestamp::UNIX_EPOCH,
        };
        let key = ServiceAccountKey {
            email: account.email.clone(),
            id: "a".repeat(40),
            created: Timestamp::UNIX_EPOCH,
            expires: Timestamp::UNIX_EPOCH,
            public_key_pem: String::new(),
            disabled: false,
            managed: false,
        };
        let file: serde_json::Value = serde_json::from_str(&key_file(&account, &key, "PEM")).unwrap();
        let check = |name: &str, expect: &str| assert_eq!(file[name], expect, "{name}");
        check("type", "service_account");
        check("private_key", "PEM");
        check("private_key_id", &key.id);
        check("client_email", &account.email);
        check("token_uri", "https://oauth2.googleapis.com/token");
        check("project_id", "local-project");
        assert_eq!(key_write(&account, &key).name, format!("projects/local-project/serviceAccounts/{}/keys/{}", account.email, key.id));
    }
}
