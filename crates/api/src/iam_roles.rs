//! IAM admin v1: roles, predefined and a project's own, the permissions they are made of, and the linter of conditions.
//!
//! There are no organisations, and so no roles of theirs.
//! Source: google/iam/admin/v1/iam.proto.

use base64::{Engine, engine::general_purpose::STANDARD};
use iam::{CustomRole, Role, RoleChange, Stage};
use model::Status;
use proto::google::iam::admin::v1 as pb;

use crate::{
    app::App,
    grpc::{Context, Group, Method},
    iam_admin::HOSTS,
    permission::{Need, on, project_checked},
};

const PROJECT: &str = "projects/{project}";
const ROLE: &str = "projects/{project}/roles/{role}";

pub(crate) fn methods(app: &App) -> Vec<Method> {
    Group::new(app.clone(), HOSTS)
        .anyones("google.iam.admin.v1.IAM/ListRoles", role_list)
        .unary(
            "google.iam.admin.v1.IAM/GetRole",
            Need::SignedIn,
            |r: &pb::GetRoleRequest| r.name.clone(),
            ("name", "roles/{role}|projects/{project}/roles/{role}"),
            role_get,
        )
        .anyones("google.iam.admin.v1.IAM/QueryGrantableRoles", role_query)
        .anyones("google.iam.admin.v1.IAM/QueryTestablePermissions", permission_query)
        .anyones("google.iam.admin.v1.IAM/LintPolicy", policy_lint)
        .unary(
            "google.iam.admin.v1.IAM/CreateRole",
            on("iam.roles.create", PROJECT),
            |r: &pb::CreateRoleRequest| r.parent.clone(),
            ("parent", PROJECT),
            role_create,
        )
        .unary("google.iam.admin.v1.IAM/UpdateRole", on("iam.roles.update", PROJECT), |r: &pb::UpdateRoleRequest| r.name.clone(), ("name", ROLE), role_update)
        .unary("google.iam.admin.v1.IAM/DeleteRole", on("iam.roles.delete", PROJECT), |r: &pb::DeleteRoleRequest| r.name.clone(), ("name", ROLE), role_delete)
        .unary(
            "google.iam.admin.v1.IAM/UndeleteRole",
            on("iam.roles.undelete", PROJECT),
            |r: &pb::UndeleteRoleRequest| r.name.clone(),
            ("name", ROLE),
            role_undelete,
        )
        .into_methods()
}

async fn role_get(app: App, context: Context, request: pb::GetRoleRequest) -> Result<pb::Role, Status> {
    let id = context.var("role")?;
    if context.vars.contains_key("project") {
        project_checked(&app, &context.who, context.var("project")?, "iam.roles.get")?;
        let (role, etag) = app.iam.custom_role_get(&format!("projects/{}/roles/{id}", context.project()?))?;
        return Ok(custom_write(&role, &etag, pb::RoleView::Full));
    }
    let role = Role::find(&format!("roles/{id}")).ok_or_else(|| Status::not_found(format!("The role named {} was not found.", request.name)))?;
    Ok(role_write(role, pb::RoleView::Full))
}

async fn role_list(app: App, context: Context, request: pb::ListRolesRequest) -> Result<pb::ListRolesResponse, Status> {
    if let Some(project) = request.parent.strip_prefix("projects/") {
        let project = project_checked(&app, &context.who, project, "iam.roles.list")?;
        let scope = format!("iam.roles/{project}");
        let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
        let mut roles = app.iam.custom_role_list(&project, request.show_deleted);
        roles.retain(|(role, _)| asked.after.as_deref().is_none_or(|after| role.name.as_str() > after));
        let more = roles.len() > asked.size;
        roles.truncate(asked.size);
        let next_page_token = match roles.last() {
            Some((last, _)) if more => app.pages.token(&scope, &last.name).await?,
            _ => String::new(),
        };
        let roles = roles.iter().map(|(role, etag)| custom_write(role, etag, request.view())).collect();
        return Ok(pb::ListRolesResponse { roles, next_page_token });
    }
    if !request.parent.is_empty() {
        return Err(Status::invalid_field("parent", format!("{:?} is neither empty nor a project; there are no organizations here", request.parent)));
    }
    let (roles, next_page_token) = role_page(&app, &request.page_token, request.page_size, request.view()).await?;
    Ok(pb::ListRolesResponse { roles, next_page_token })
}

/// Every predefined role can be granted on every resource here.
async fn role_query(app: App, context: Context, request: pb::QueryGrantableRolesRequest) -> Result<pb::QueryGrantableRolesResponse, Status> {
    resource_checked(&app, &context, &request.full_resource_name)?;
    let (roles, next_page_token) = role_page(&app, &request.page_token, request.page_size, request.view()).await?;
    Ok(pb::QueryGrantableRolesResponse { roles, next_page_token })
}

/// Every permission, too, can be tested on every resource here.
async fn permission_query(app: App, context: Context, request: pb::QueryTestablePermissionsRequest) -> Result<pb::QueryTestablePermissionsResponse, Status> {
    use pb::permission::{CustomRolesSupportLevel as Support, PermissionLaunchStage};
    resource_checked(&app, &context, &request.full_resource_name)?;
    let asked = app.pages.read("iam.permissions", &request.page_token, i64::from(request.page_size)).await?;
    // What no role of a project can hold is no permission of a project's at all.
    let mut rest = iam::permissions().filter(|(name, in_roles)| *in_roles && asked.after.as_deref().is_none_or(|after| *name > after)).map(|(name, _)| name);
    let page: Vec<_> = rest.by_ref().take(asked.size).collect();
    let next_page_token = match (page.last(), rest.next()) {
        (Some(last), Some(_)) => app.pages.token("iam.permissions", last).await?,
        _ => String::new(),
    };
    let permission = |name: &str| pb::Permission {
        name: name.to_owned(),
        stage: PermissionLaunchStage::Ga.into(),
        custom_roles_support_level: Support::Supported.into(),
        ..Default::default()
    };
    Ok(pb::QueryTestablePermissionsResponse { permissions: page.into_iter().map(permission).collect(), next_page_token })
}

/// A resource's full name, and whether the caller may see the roles of its project.
fn resource_checked(app: &App, context: &Context, name: &str) -> Result<(), Status> {
    if !name.starts_with("//") {
        return Err(Status::invalid_field(
            "full_resource_name",
            "it must begin with // and the service, such as //cloudresourcemanager.googleapis.com/projects/my-project",
        ));
    }
    let mut parts = name.split('/').skip_while(|part| *part != "projects").skip(1);
    // Buckets and accounts are also named with a wildcard for their project.
    if let Some(project) = parts.next().filter(|project| !matches!(*project, "_" | "-")) {
        project_checked(app, &context.who, project, "iam.roles.list")?;
    }
    Ok(())
}

async fn policy_lint(_: App, _: Context, request: pb::LintPolicyRequest) -> Result<pb::LintPolicyResponse, Status> {
    use pb::{lint_policy_request::LintObject, lint_result};
    let Some(LintObject::Condition(condition)) = request.lint_object else {
        return Err(Status::invalid_field("condition", "only conditions are linted; it is missing"));
    };
    let results = iam::lint(&condition.expression).map(|fault| pb::LintResult {
        level: lint_result::Level::Condition.into(),
        validation_unit_name: format!("LintValidationUnits/{}", fault.check),
        severity: lint_result::Severity::Error.into(),
        field_name: "condition.expression".to_owned(),
        debug_message: fault.message,
        ..Default::default()
    });
    Ok(pb::LintPolicyResponse { lint_results: results.into_iter().collect() })
}

async fn role_create(app: App, context: Context, request: pb::CreateRoleRequest) -> Result<pb::Role, Status> {
    let wanted = request.role.unwrap_or_default();
    let change = RoleChange {
        stage: Some(stage_read(wanted.stage)?),
        title: Some(wanted.title),
        description: Some(wanted.description),
        permissions: Some(wanted.included_permissions),
    };
    let (role, etag) = app.iam.custom_role_create(&context.project()?, &request.role_id, change).await?;
    Ok(custom_write(&role, &etag, pb::RoleView::Full))
}

async fn role_update(app: App, context: Context, request: pb::UpdateRoleRequest) -> Result<pb::Role, Status> {
    let wanted = request.role.unwrap_or_default();
    let paths = request.update_mask.unwrap_or_default().paths;
    let known = ["title", "description", "included_permissions", "includedPermissions", "stage", "etag", "name"];
    if let Some(path) = paths.iter().find(|path| !known.contains(&path.as_str())) {
        return Err(Status::invalid_field("update_mask", format!("{path} cannot be changed; title, description, included_permissions and stage can")));
    }
    let has = |names: &[&str]| paths.is_empty() || paths.iter().any(|path| names.contains(&path.as_str()));
    let change = RoleChange {
        title: has(&["title"]).then_some(wanted.title),
        description: has(&["description"]).then_some(wanted.description),
        permissions: has(&["included_permissions", "includedPermissions"]).then_some(wanted.included_permissions),
        stage: if has(&["stage"]) { Some(stage_read(wanted.stage)?) } else { None },
    };
    let (role, etag) = app.iam.custom_role_update(&name(&context)?, change, &STANDARD.encode(&wanted.etag)).await?;
    Ok(custom_write(&role, &etag, pb::RoleView::Full))
}

async fn role_delete(app: App, context: Context, request: pb::DeleteRoleRequest) -> Result<pb::Role, Status> {
    let (role, etag) = app.iam.custom_role_delete(&name(&context)?, &STANDARD.encode(&request.etag)).await?;
    Ok(custom_write(&role, &etag, pb::RoleView::Full))
}

async fn role_undelete(app: App, context: Context, request: pb::UndeleteRoleRequest) -> Result<pb::Role, Status> {
    let (role, etag) = app.iam.custom_role_undelete(&name(&context)?, &STANDARD.encode(&request.etag)).await?;
    Ok(custom_write(&role, &etag, pb::RoleView::Full))
}

fn name(context: &Context) -> Result<String, Status> {
    Ok(format!("projects/{}/roles/{}", context.project()?, context.var("role")?))
}

async fn role_page(app: &App, token: &str, size: i32, view: pb::RoleView) -> Result<(Vec<pb::Role>, String), Status> {
    let asked = app.pages.read("iam.roles", token, i64::from(size)).await?;
    let mut roles = Role::all().iter().filter(|role| asked.after.as_deref().is_none_or(|after| role.name > after));
    let page: Vec<&Role> = roles.by_ref().take(asked.size).collect();
    let next = match page.last() {
        Some(last) if roles.next().is_some() => app.pages.token("iam.roles", last.name).await?,
        _ => String::new(),
    };
    Ok((page.into_iter().map(|role| role_write(role, view)).collect(), next))
}

fn role_write(role: &Role, view: pb::RoleView) -> pb::Role {
    let included_permissions = match view {
        pb::RoleView::Basic => Vec::new(),
        pb::RoleView::Full => role.permissions().map(str::to_owned).collect(),
    };
    pb::Role {
        name: role.name.to_owned(),
        title: role.title.to_owned(),
        stage: pb::role::RoleLaunchStage::Ga.into(),
        included_permissions,
        ..Default::default()
    }
}

fn custom_write(role: &CustomRole, etag: &str, view: pb::RoleView) -> pb::Role {
    let included_permissions = match view {
        pb::RoleView::Basic => Vec::new(),
        pb::RoleView::Full => role.permissions.clone(),
    };
    pb::Role {
        name: role.name.clone(),
        title: role.title.clone(),
        description: role.description.clone(),
        included_permissions,
        stage: stage_write(role.stage).into(),
        etag: STANDARD.decode(etag).unwrap_or_default(),
        deleted: role.deleted.is_some(),
    }
}

fn stage_read(stage: i32) -> Result<Stage, Status> {
    use pb::role::RoleLaunchStage as Written;
    Ok(match Written::try_from(stage).map_err(|_| Status::invalid_field("role.stage", format!("{stage} is no stage of a role")))? {
        Written::Alpha => Stage::Alpha,
        Written::Beta => Stage::Beta,
        Written::Ga => Stage::Ga,
        Written::Deprecated => Stage::Deprecated,
        Written::Disabled => Stage::Disabled,
        Written::Eap => Stage::Eap,
    })
}

fn stage_write(stage: Stage) -> pb::role::RoleLaunchStage {
    use pb::role::RoleLaunchStage as Written;
    match stage {
        Stage::Alpha => Written::Alpha,
        Stage::Beta => Written::Beta,
        Stage::Ga => Written::Ga,
        Stage::Deprecated => Written::Deprecated,
        Stage::Disabled => Written::Disabled,
        Stage::Eap => Written::Eap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_show_their_permissions_in_the_full_view_only() {
        let role = Role::find("roles/run.invoker").unwrap();
        assert!(role_write(role, pb::RoleView::Basic).included_permissions.is_empty());
        assert!(role_write(role, pb::RoleView::Full).included_permissions.contains(&"run.routes.invoke".to_owned()));
    }

    #[test]
    fn stages_come_back() {
        for stage in [Stage::Alpha, Stage::Beta, Stage::Ga, Stage::Deprecated, Stage::Disabled, Stage::Eap] {
            assert_eq!(stage_read(stage_write(stage).into()).unwrap(), stage);
        }
        assert!(stage_read(3).is_err());
    }
}
