//! google.iam.v1.Policy and `model::policy`, and the three methods that every resource with a policy has.
//!
//! Who asks for a policy with conditions in an older version sees each such binding under a name that says so, and cannot write it back
//! by its etag. Source: cloud.google.com/iam/docs/allow-policies#versions and /troubleshooting-withcond.

use base64::{Engine, engine::general_purpose::STANDARD};
use iam::Identity;
use model::{
    Status,
    policy::{Binding, Condition, Member, Policy, VersionedPolicy},
};
use proto::google::{iam::v1 as pb, r#type::Expr};
use sha2::{Digest, Sha256};

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
    policy_write(&deps.iam.policy_get(resource)?, version)
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
    let (etag, version) = (STANDARD.encode(&policy.etag), policy.version);
    version_check(deps, resource, version, &etag)?;
    policy_write(&deps.iam.policy_set_on(&of, policy_read(policy)?, &etag).await?, CONDITIONS)
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
    let version = policy.version;
    let bindings = policy.bindings.into_iter().enumerate().map(|(at, binding)| {
        if binding.condition.is_some() && version != CONDITIONS {
            return Err(Status::invalid_field(
                format!("policy.bindings[{at}].condition"),
                format!("Policies with conditions must specify version {CONDITIONS}; the policy says {version}. See https://cloud.google.com/iam/docs/allow-policies#versions."),
            ));
        }
        let members = binding.members.iter().map(|member| Member::parse(member)).collect::<Result<_, _>>()?;
        Ok(Binding { role: binding.role, members, condition: binding.condition.map(condition_read) })
    });
    Ok(Policy { bindings: bindings.collect::<Result<_, Status>>()? })
}

/// The version that has conditions.
pub(crate) const CONDITIONS: i32 = 3;

/// Who has read a policy with conditions in a version without them does not write over it.
///
/// # Errors
/// `INVALID_ARGUMENT` in Google's words.
pub(crate) fn version_check(deps: &Deps, resource: &str, version: i32, etag: &str) -> Result<(), Status> {
    if version == CONDITIONS || etag.is_empty() || deps.iam.policy_get(resource)?.policy.version() != CONDITIONS {
        return Ok(());
    }
    Err(Status::invalid_field(
        "policy.version",
        format!(
            "Requested policy version ({version}) cannot be less than the existing policy version ({CONDITIONS}). \
             For more information please refer to https://cloud.google.com/iam/docs/policies#versions."
        ),
    ))
}

pub(crate) fn condition_read(expression: Expr) -> Condition {
    Condition { title: expression.title, description: expression.description, expression: expression.expression, location: expression.location }
}

pub(crate) fn condition_write(condition: &Condition) -> Expr {
    let Condition { title, description, expression, location } = condition.clone();
    Expr { expression, title, description, location }
}

/// As `version` shows a binding's role.
pub(crate) fn role_shown(binding: &Binding, version: i32) -> String {
    match &binding.condition {
        Some(condition) if version != CONDITIONS => {
            let hash = Sha256::digest(format!("{}\0{}\0{}", condition.expression, condition.title, condition.description));
            format!("{}_withcond_{}", binding.role, hex::encode(&hash[..10]))
        }
        _ => binding.role.clone(),
    }
}

fn policy_write(policy: &VersionedPolicy, version: i32) -> Result<pb::Policy, Status> {
    let bindings = policy.policy.bindings.iter().map(|binding| pb::Binding {
        role: role_shown(binding, version),
        members: binding.members.iter().map(Member::to_string).collect(),
        condition: binding.condition.as_ref().filter(|_| version == CONDITIONS).map(condition_write),
    });
    // An etag is base64 text in `iam`, bytes in the proto, base64 text again in JSON.
    let etag = STANDARD.decode(&policy.etag).map_err(Status::internal)?;
    let version = if version == CONDITIONS { policy.policy.version() } else { 1 };
    Ok(pb::Policy { version, bindings: bindings.collect(), audit_configs: Vec::new(), etag })
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
        let written = policy_write(&VersionedPolicy { policy: read, etag: "ACAB".to_owned() }, 3).unwrap();
        assert_eq!(written, pb::Policy { version: 1, etag: vec![0, 32, 1], ..policy });
    }

    #[test]
    fn conditions_are_seen_in_version_3_alone() {
        let expression = Expr { expression: "true".to_owned(), title: "t".to_owned(), ..Default::default() };
        let conditional = pb::Binding { condition: Some(expression), ..binding("roles/run.invoker", "user:a@example.com") };
        let policy = pb::Policy { version: 3, bindings: vec![conditional], ..Default::default() };
        let read = VersionedPolicy { policy: policy_read(policy.clone()).unwrap(), etag: "ACAB".to_owned() };
        assert_eq!(policy_write(&read, 3).unwrap(), pb::Policy { etag: vec![0, 32, 1], ..policy });
        let old = policy_write(&read, 1).unwrap();
        assert_eq!((old.version, &old.bindings[0].condition), (1, &None));
        let (role, hash) = old.bindings[0].role.split_once("_withcond_").unwrap();
        assert_eq!((role, hash.len()), ("roles/run.invoker", 20));
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
