//! Policies: who holds which role on what, and the question that every request asks.
//!
//! A policy is compiled when it changes: the permissions of each member's roles, in one set. The question is then two
//! look-ups: the resource's own policy, and that of the project it belongs to.
//!
//! Not here: conditions (no field for them reaches this crate), deny policies, custom roles, folders and organisations.
//! Groups have no members on this machine: a binding for one is kept and matches nobody.

use std::collections::{HashMap, HashSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    Code, Status, Timestamp, key,
    policy::{Binding, Member, Policy, VersionedPolicy},
};
use serde::Deserialize;
use store::{CommitError, Expect, Guard, Write};

use crate::{
    Iam, Identity, Kind,
    permission::{Permission, PermissionSet},
    role::Role,
    table::Table,
};

/// The etag of a policy that was never written, as Google's.
const EMPTY_ETAG: &str = "ACAB";
/// Google's limit of principals in one policy.
const MEMBERS_MAX: usize = 1500;
const BINDINGS_MAX: usize = 250;
/// `projects/` and the longest project id.
const PROJECT_RESOURCE_MAX_BYTES: usize = 9 + 30;

/// A resource that has a policy, as it was at one moment.
#[derive(Clone, Debug)]
pub struct Policied {
    resource: String,
    identity: ResourceIdentity,
    guard: Guard,
}

/// What tells a resource from an earlier one of its name, of all kinds of records: a uid, or when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct ResourceIdentity {
    #[serde(default, alias = "unique_id")]
    uid: Option<String>,
    #[serde(default)]
    created: Option<Timestamp>,
}

/// A policy and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct PolicyRow {
    policy: Policy,
    /// allUsers.
    everyone: PermissionSet,
    /// allAuthenticatedUsers: whoever has an identity of this issuer.
    authenticated: PermissionSet,
    users: HashMap<Box<str>, PermissionSet>,
    accounts: HashMap<Box<str>, PermissionSet>,
    domains: HashMap<Box<str>, PermissionSet>,
}

/// Policies are looked up by their resource.
pub(crate) fn table() -> Table<PolicyRow> {
    Table::new(key::POLICIES, |rest| rest, |bytes| Ok(PolicyRow::new(serde_json::from_slice(bytes)?)))
}

impl PolicyRow {
    fn new(policy: Policy) -> Self {
        let mut row = Self::default();
        for binding in &policy.bindings {
            // A role that a later version has taken away grants nothing.
            let Some(role) = Role::find(&binding.role) else {
                continue;
            };
            for member in &binding.members {
                let set = match member {
                    Member::AllUsers => &mut row.everyone,
                    Member::AllAuthenticatedUsers => &mut row.authenticated,
                    Member::User(email) => row.users.entry(email.as_str().into()).or_default(),
                    Member::ServiceAccount(email) => row.accounts.entry(email.as_str().into()).or_default(),
                    Member::Domain(domain) => row.domains.entry(domain.as_str().into()).or_default(),
                    Member::Group(_) => continue,
                };
                set.union(&role.permissions);
            }
        }
        row.policy = policy;
        row
    }

    fn allows(&self, who: Option<&Identity>, permission: Permission) -> bool {
        if self.everyone.contains(permission) {
            return true;
        }
        let Some(who) = who else { return false };
        let holds = |sets: &HashMap<Box<str>, PermissionSet>, name: &str| sets.get(name).is_some_and(|set| set.contains(permission));
        if self.authenticated.contains(permission) {
            return true;
        }
        match who.kind {
            Kind::ServiceAccount => holds(&self.accounts, &who.email),
            Kind::User => holds(&self.users, &who.email) || who.email.rsplit_once('@').is_some_and(|(_, domain)| holds(&self.domains, domain)),
        }
    }

    pub(crate) fn names(&self, member: &Member) -> bool {
        self.policy.bindings.iter().any(|binding| binding.members.contains(member))
    }

    /// The policy with nothing granted to `member`.
    pub(crate) fn without(row: &Self, member: &Member) -> Policy {
        let mut policy = row.policy.clone();
        for binding in &mut policy.bindings {
            binding.members.retain(|other| other != member);
        }
        policy.bindings.retain(|binding| !binding.members.is_empty());
        policy
    }
}

impl Iam {
    /// Resources: `projects/P`, `projects/P/locations/R/services/S`, `projects/P/serviceAccounts/EMAIL`, `projects/P/secrets/S`, `buckets/B`.
    /// No record: the empty policy with the etag `ACAB`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for another kind of resource. Whether the resource exists is not known here.
    pub fn policy_get(&self, resource: &str) -> Result<VersionedPolicy, Status> {
        resource_check(resource)?;
        Ok(match self.inner.tables.policies.get_revision(resource) {
            Some((row, revision)) => VersionedPolicy { policy: row.policy.clone(), etag: etag(revision) },
            None => VersionedPolicy { policy: Policy::default(), etag: EMPTY_ETAG.to_owned() },
        })
    }

    /// The resource as it is now: whoever asks whether somebody may set its policy asks after this, and sets it with this.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what has no policy, `NOT_FOUND` when it is not there.
    pub fn policied(&self, resource: &str) -> Result<Policied, Status> {
        resource_check(resource)?;
        let key = key::policied(resource).ok_or_else(|| Status::internal(format!("{resource} has no record")))?;
        let record = self.inner.store.get(&key).map_err(Status::internal)?.ok_or_else(|| Status::not_found(format!("Resource {resource:?} was not found.")))?;
        Ok(Policied { resource: resource.to_owned(), identity: record.json().map_err(Status::internal)?, guard: Guard::of(&record) })
    }

    /// [`Iam::policy_set`] of a resource as long as it is the one that it was: not of another that has its name by now. In one transaction.
    ///
    /// # Errors
    /// As of [`Iam::policy_set`]; `NOT_FOUND` when it is gone, `ABORTED` when another has its name.
    pub async fn policy_set_on(&self, of: &Policied, policy: Policy, etag: &str) -> Result<VersionedPolicy, Status> {
        let mut guard = of.guard.clone();
        loop {
            match self.policy_commit(&of.resource, policy.clone(), etag, vec![guard.clone()]).await? {
                Ok(set) => return Ok(set),
                Err(conflict) if conflict == guard.key => {
                    let now = self.policied(&of.resource)?;
                    if now.identity != of.identity {
                        return Err(concurrent_change());
                    }
                    // It was changed, and is the same.
                    guard = now.guard;
                }
                Err(_) => return Err(concurrent_change()),
            }
        }
    }

    /// Replaces a policy, effective on return. Bindings of one role are merged, those without members dropped. Whether the resource is
    /// there is not looked at.
    ///
    /// An empty `etag` overwrites whatever is there.
    /// # Errors
    /// `ABORTED` (409) when `etag` is not empty and not the current one. `INVALID_ARGUMENT` for a role that is not known, a
    /// service account that does not exist, everyone as a member on a project, over 1,500 members or 250 bindings.
    /// `FAILED_PRECONDITION` when a project would be left without a user as owner.
    pub async fn policy_set(&self, resource: &str, policy: Policy, etag: &str) -> Result<VersionedPolicy, Status> {
        self.policy_commit(resource, policy, etag, Vec::new()).await?.map_err(|_| concurrent_change())
    }

    /// The inner error is the key of what was not as expected.
    async fn policy_commit(&self, resource: &str, policy: Policy, etag: &str, guards: Vec<Guard>) -> Result<Result<VersionedPolicy, String>, Status> {
        resource_check(resource)?;
        let policy = self.policy_clean(resource, policy)?;
        let expect = match etag {
            "" => Expect::Any,
            EMPTY_ETAG => Expect::Absent,
            etag => Expect::Revision(etag_revision(etag).ok_or_else(concurrent_change)?),
        };
        match self.commit_while(guards, vec![Write::put(key::policy(resource), expect, &policy)]).await {
            Ok(revision) => Ok(Ok(VersionedPolicy { policy, etag: self::etag(revision) })),
            Err(CommitError::Conflict { key }) => Ok(Err(key)),
            Err(error) => Err(Status::internal(error)),
        }
    }

    /// Forgets a policy, when its resource is deleted: a later one of that name starts with none. Who makes a resource forgets once more,
    /// and deletes the record in the commit that makes it: one that was set during the deletion is not the new one's.
    ///
    /// # Errors
    /// `INTERNAL` when the store does not take it.
    pub async fn policy_delete(&self, resource: &str) -> Result<(), Status> {
        let key = key::policy(resource);
        if self.inner.store.get(&key).map_err(Status::internal)?.is_none() {
            return Ok(());
        }
        self.commit(vec![Write::delete(key, Expect::Any)]).await.map_err(Status::internal)
    }

    /// Whether `who` (None: anonymous) has `permission` on `resource` or on the project it belongs to (`project`: its id, empty for none).
    /// In memory, no allocation on the way to an answer, effective at once after `policy_set`.
    ///
    /// `who` must come from a check of this moment: a disabled account is recognised there.
    pub fn may(&self, who: Option<&Identity>, permission: &str, resource: &str, project: &str) -> bool {
        let Some(found) = Permission::find(permission) else {
            tracing::error!(permission, "nobody has a permission that does not exist");
            return false;
        };
        let policies = &self.inner.tables.policies;
        let allows = |resource: &str| policies.look(resource, |row| row.allows(who, found)).unwrap_or(false);
        if allows(resource) {
            return true;
        }
        // A resource that names another project than the caller does would be granted by the wrong project's policy.
        if project.is_empty() || resource.strip_prefix("projects/").is_some_and(|rest| rest.split('/').next() != Some(project)) {
            return false;
        }
        let mut buffer = [0; PROJECT_RESOURCE_MAX_BYTES];
        project_resource(project, &mut buffer).is_some_and(allows)
    }

    /// The permissions of `asked` that `who` has.
    pub fn test_permissions(&self, who: Option<&Identity>, asked: &[String], resource: &str, project: &str) -> Vec<String> {
        asked.iter().filter(|permission| Permission::find(permission).is_some() && self.may(who, permission, resource, project)).cloned().collect()
    }

    /// Whether `role` (`roles/run.invoker`) is known.
    pub fn role_exists(&self, role: &str) -> bool {
        Role::find(role).is_some()
    }

    /// The policy as it is kept, or why it cannot be.
    fn policy_clean(&self, resource: &str, policy: Policy) -> Result<Policy, Status> {
        let is_project = resource.starts_with("projects/") && resource.matches('/').count() == 1;
        let mut clean: Vec<Binding> = Vec::new();
        let mut seen = HashSet::new();
        for Binding { role, members } in policy.bindings {
            if Role::find(&role).is_none() {
                return Err(Status::invalid_field("policy.bindings.role", format!("Role {role} is not supported for this resource.")));
            }
            for member in members {
                // Again, for a member that was not made by `parse`.
                let member = Member::parse(&member.to_string())?;
                if is_project && matches!(member, Member::AllUsers | Member::AllAuthenticatedUsers) {
                    return Err(Status::invalid_field(
                        "policy.bindings.members",
                        "Project does not support allUsers and allAuthenticatedUsers as members in a binding of a policy; bind the role on the service itself.",
                    ));
                }
                if let Member::ServiceAccount(email) = &member
                    && self.account_is_missing(email)
                {
                    return Err(Status::invalid_field("policy.bindings.members", format!("Service account {email} does not exist.")));
                }
                if !seen.insert((role.clone(), member.clone())) {
                    continue;
                }
                match clean.iter_mut().find(|binding| binding.role == role) {
                    Some(binding) => binding.members.push(member),
                    None => clean.push(Binding { role: role.clone(), members: vec![member] }),
                }
                if clean.len() > BINDINGS_MAX || seen.len() > MEMBERS_MAX {
                    return Err(Status::invalid_field("policy.bindings", format!("a policy has at most {BINDINGS_MAX} bindings and {MEMBERS_MAX} members")));
                }
            }
        }
        let has_owner = clean.iter().any(|b| b.role == "roles/owner" && b.members.iter().any(|m| matches!(m, Member::User(_))));
        if is_project && !has_owner {
            return Err(Status::failed_precondition(
                "A project must have at least one owner: the policy must bind a user to roles/owner, or nobody could change it again.",
            ));
        }
        Ok(Policy { bindings: clean })
    }

    /// Accounts of projects are made here, so one that is not here does not exist. Google's service agents
    /// (`…@gcp-sa-pubsub.iam.gserviceaccount.com`, `…@cloudbuild.gserviceaccount.com`) are named in policies by its tools and are nobody here.
    fn account_is_missing(&self, email: &str) -> bool {
        let Some((_, domain)) = email.rsplit_once('@') else {
            return true;
        };
        let project = domain.strip_suffix(".iam.gserviceaccount.com");
        let is_agent = match project {
            Some(project) => project.starts_with("gcp-sa-"),
            None => domain.ends_with(".gserviceaccount.com"),
        };
        !is_agent && !self.inner.tables.accounts.contains(email)
    }
}

pub(crate) fn concurrent_change() -> Status {
    Status::new(Code::Aborted, "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.")
}

/// As Google's look, `BwX…`: base64 of a 7 and seven bytes, here the store's revision.
fn etag(revision: u64) -> String {
    let mut bytes = revision.to_be_bytes();
    bytes[0] = 7;
    STANDARD.encode(bytes)
}

/// `None` for what `etag` never made.
fn etag_revision(etag: &str) -> Option<u64> {
    let mut bytes: [u8; 8] = STANDARD.decode(etag).ok()?.try_into().ok()?;
    if bytes[0] != 7 {
        return None;
    }
    bytes[0] = 0;
    Some(u64::from_be_bytes(bytes))
}

/// `projects/ID` without allocation. `None` for what is longer than any project's id.
fn project_resource<'a>(project: &str, buffer: &'a mut [u8; PROJECT_RESOURCE_MAX_BYTES]) -> Option<&'a str> {
    let (head, tail) = buffer.split_at_mut(9);
    head.copy_from_slice(b"projects/");
    tail.get_mut(..project.len())?.copy_from_slice(project.as_bytes());
    std::str::from_utf8(&buffer[..9 + project.len()]).ok()
}

fn resource_check(resource: &str) -> Result<(), Status> {
    let is_name = |part: &str| !part.is_empty() && part.len() <= 255 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._@".contains(&b));
    // Names of Pub/Sub may hold more.
    let is_event_name = |part: &str| is_name(&part.replace(['~', '+', '%'], "-"));
    let parts: Vec<_> = resource.split('/').collect();
    let is_known = match parts[..] {
        ["projects", project] => is_name(project),
        ["projects", project, "locations", location, "services" | "functions" | "triggers", id] => is_name(project) && is_name(location) && is_name(id),
        ["projects", project, "serviceAccounts", email] => is_name(project) && is_name(email),
        ["projects", project, "secrets", secret] => is_name(project) && is_name(secret),
        ["projects", project, "topics" | "subscriptions" | "snapshots" | "schemas", id] => is_name(project) && is_event_name(id),
        ["buckets", bucket] => is_name(bucket),
        _ => false,
    };
    if is_known {
        return Ok(());
    }
    Err(Status::invalid_field(
        "resource",
        format!(
            "{resource:?} is no resource with a policy; those are projects, services, functions, triggers, service accounts, secrets, buckets, topics, subscriptions, snapshots and schemas"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn etags_are_read_back(revision in 0u64..1 << 56) {
            prop_assert_eq!(etag_revision(&etag(revision)), Some(revision));
        }

        #[test]
        fn any_etag_is_read_without_panic(text in "\\PC{0,20}") {
            let _ = etag_revision(&text);
        }
    }

    #[test]
    fn etags_look_like_googles() {
        assert!(etag(1).starts_with("BwAAAA"));
        for bad in ["", "ACAB", "BwX", "BwAAAAAAAAE", "AAAAAAAAAAE=", "!", "BwAAAAAAAAEAAA=="] {
            assert_eq!(etag_revision(bad), None, "{bad}");
        }
    }

    #[test]
    fn project_resources_fit_or_are_none() {
        let mut buffer = [0; PROJECT_RESOURCE_MAX_BYTES];
        assert_eq!(project_resource("abcdef", &mut buffer), Some("projects/abcdef"));
        assert!(project_resource(&"a".repeat(30), &mut buffer).is_some());
        assert_eq!(project_resource(&"a".repeat(31), &mut buffer), None);
    }

    #[test]
    fn resources_with_policies() {
        for good in [
            "projects/p",
            "projects/p/locations/asia-northeast1/services/s",
            "projects/p/serviceAccounts/a@p.iam.gserviceaccount.com",
            "projects/p/secrets/s_1",
            "buckets/b.example.com",
            "projects/p/topics/t+%~",
            "projects/p/subscriptions/s",
            "projects/p/snapshots/s",
            "projects/p/schemas/s",
        ] {
            assert!(resource_check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "p",
            "projects/",
            "projects/p/",
            "projects/p/locations/r",
            "projects/p/locations/r/services/",
            "projects/p/topics/",
            "projects/p/topics/t/x",
            "buckets/",
            "buckets/a/b",
            "projects/p q",
            "//run.googleapis.com/projects/p",
        ] {
            assert!(resource_check(bad).is_err(), "{bad}");
        }
    }
}
