//! google.iam.v1.Policy and `model::policy`, and the three methods that every resource with a policy has.

use base64::{Engine, engine::general_purpose::STANDARD};
use iam::Identity;
use model::{
    Status,
    policy::{Binding, Member, Policy, VersionedPolicy},
};
use proto::google::iam::v1 as pb;

use crate::Deps;

/// Bindings of one policy, and members of all of them. Source: Google's IAM quotas.
const BINDINGS_MAX: usize = 1500;
const MEMBERS_MAX: usize = 1500;

/// The policy of `resource`.
///
/// # Errors
/// `INVALID_ARGUMENT` for a version that there is not.
pub(crate) fn policy_get(deps: &Deps, resource: &str, request: &pb::GetIamPolicyRequest) -> Result<pb::Policy, Status> {
    let version = request.options.as_ref().map_or(0, |options| options.requested_policy_version);
    if !matches!(version, 0 | 1 | 3) {
        return Err(Status::invalid_field("options.requested_policy_version", format!("{version} is none of 0, 1 and 3")));
    }
    policy_write(&deps.iam.policy_get(resource)?)
}

/// Replaces the policy of `resource`, which is of `project` (an id), when `who` has `permission` on it.
///
/// That was asked before, but perhaps of an earlier one of its name.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is not supported, by name; `ABORTED` for an etag that is not the current one, `NOT_FOUND`, `PERMISSION_DENIED`.
pub(crate) async fn policy_set(
    deps: &Deps,
    who: &Identity,
    (permission, project): (&str, &str),
    resource: &str,
    request: pb::SetIamPolicyRequest,
) -> Result<pb::Policy, Status> {
    let of = deps.iam.policied(resource)?;
    if !deps.iam.may(Some(who), permission, resource, project) {
        return Err(Status::permission_denied(permission, resource));
    }
    if let Some(mask) = &request.update_mask {
        let known = |path: &String| matches!(path.as_str(), "bindings" | "etag" | "version");
        if !mask.paths.iter().all(known) || !mask.paths.iter().any(|path| path == "bindings") {
            return Err(Status::invalid_field("update_mask", "only bindings, etag and version can be set, and bindings must be among them"));
        }
    }
    let policy = request.policy.ok_or_else(|| Status::invalid_field("policy", "it is missing"))?;
    let etag = STANDARD.encode(&policy.etag);
    policy_write(&deps.iam.policy_set_on(&of, policy_read(policy)?, &etag).await?)
}

/// Which of the asked permissions the caller has.
///
/// # Errors
/// `INVALID_ARGUMENT` for wildcards or more than a hundred.
pub(crate) fn permissions_test(
    deps: &Deps,
    who: &Identity,
    resource: &str,
    project: &str,
    request: &pb::TestIamPermissionsRequest,
) -> Result<pb::TestIamPermissionsResponse, Status> {
    if request.permissions.len() > 100 {
        return Err(Status::invalid_field("permissions", "at most 100 can be tested at a time"));
    }
    if let Some(bad) = request.permissions.iter().find(|p| p.contains('*') || p.is_empty()) {
        return Err(Status::invalid_field("permissions", format!("{bad:?} is no permission; wildcards are not allowed")));
    }
    let permissions = deps.iam.test_permissions(Some(who), &request.permissions, resource, project);
    Ok(pb::TestIamPermissionsResponse { permissions })
}

fn policy_read(policy: pb::Policy) -> Result<Policy, Status> {
    if !matches!(policy.version, 0 | 1 | 3) {
        return Err(Status::invalid_field("policy.version", format!("{} is none of 0, 1 and 3", policy.version)));
    }
    if !policy.audit_configs.is_empty() {
        return Err(Status::invalid_field("policy.audit_configs", "audit configurations are not supported here; leave them out"));
    }
    let members: usize = policy.bindings.iter().map(|binding| binding.members.len()).sum();
    if policy.bindings.len() > BINDINGS_MAX || members > MEMBERS_MAX {
        return Err(Status::invalid_field("policy.bindings", format!("at most {BINDINGS_MAX} bindings with {MEMBERS_MAX} members are allowed")));
    }
    let bindings = policy.bindings.into_iter().enumerate().map(|(at, binding)| {
        if binding.condition.is_some() {
            return Err(Status::invalid_field(
                format!("policy.bindings[{at}].condition"),
                "conditions of bindings are not supported here, and a binding without its condition would grant more; leave the binding out",
            ));
        }
        let members = binding.members.iter().map(|member| Member::parse(member)).collect::<Result<_, _>>()?;
        Ok(Binding { role: binding.role, members })
    });
    Ok(Policy { bindings: bindings.collect::<Result<_, Status>>()? })
}

fn policy_write(policy: &VersionedPolicy) -> Result<pb::Policy, Status> {
    let bindings = policy.policy.bindings.iter().map(|binding| pb::Binding {
        role: binding.role.clone(),
        members: binding.members.iter().map(Member::to_string).collect(),
        condition: None,
    });
    // An etag is base64 text in `iam`, bytes in the proto, base64 text again in JSON.
    let etag = STANDARD.decode(&policy.etag).map_err(Status::internal)?;
    Ok(pb::Policy { version: 1, bindings: bindings.collect(), audit_configs: Vec::new(), etag })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(role: &str, member: &str) -> pb::Binding {
        pb::Binding { role: role.to_owned(), members: vec![member.to_owned()], condition: None }
    }

    #[test]
    fn policies_come_back() {
        let policy = pb::Policy {
            version: 3,
            bindings: vec![binding("roles/run.invoker", "allUsers"), binding("roles/viewer", "user:a@example.com")],
            ..Default::default()
        };
        let read = policy_read(policy.clone()).unwrap();
        let written = policy_write(&VersionedPolicy { policy: read, etag: "ACAB".to_owned() }).unwrap();
        assert_eq!(written, pb::Policy { version: 1, etag: vec![0, 32, 1], ..policy });
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let check = |change: fn(&mut pb::Policy), field: &str| {
            let mut policy = pb::Policy { bindings: vec![binding("roles/run.invoker", "allUsers")], ..Default::default() };
            change(&mut policy);
            assert_eq!(policy_read(policy).unwrap_err().fields[0].field, field);
        };
        check(|p| p.version = 2, "policy.version");
        check(|p| p.audit_configs.push(Default::default()), "policy.audit_configs");
        check(
            |p| p.bindings[0].condition = Some(proto::google::r#type::Expr { expression: "true".to_owned(), ..Default::default() }),
            "policy.bindings[0].condition",
        );
        check(|p| p.bindings[0].members.push("deleted:user:x".to_owned()), "policy.bindings.members");
        check(|p| p.bindings = vec![Default::default(); BINDINGS_MAX + 1], "policy.bindings");
    }
}
