//! Policies: who holds which role on what, and when.
//!
//! A policy is compiled when it changes: each binding's role is found, its members are put into sets, its condition is read. What a
//! compiled binding says to a question is [`Grant::standing`]; which bindings are asked is `access`.
//!
//! Not here: folders and organisations.

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
    access::{self, Asked, Standing, Weigh},
    condition::{self, Compiled, Outcome, Place},
    custom_role::is_custom,
    role::Role,
    table::Table,
};

/// The etag of a policy that was never written, as Google's.
const EMPTY_ETAG: &str = "ACAB";
/// Google's limit of principals in one policy.
const MEMBERS_MAX: usize = 1500;
const BINDINGS_MAX: usize = 250;
/// Bindings of one role to one member, each with another condition: Google's.
const CONDITIONS_MAX: usize = 20;
/// `projects/` and the longest project id.
pub(crate) const PROJECT_RESOURCE_MAX_BYTES: usize = 9 + 30;
/// Roles that are never given under a condition.
const BASIC: [&str; 3] = ["roles/owner", "roles/editor", "roles/viewer"];

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
    /// One for each binding, in their order.
    grants: Vec<Grant>,
}

/// A binding, compiled.
#[derive(Debug)]
pub(crate) struct Grant {
    role: GrantedRole,
    /// allUsers.
    everyone: bool,
    /// allAuthenticatedUsers: whoever has an identity of this issuer.
    authenticated: bool,
    users: HashSet<Box<str>>,
    accounts: HashSet<Box<str>>,
    domains: HashSet<Box<str>>,
    groups: Vec<Box<str>>,
    condition: Holds,
}

#[derive(Debug)]
enum GrantedRole {
    Predefined(&'static Role),
    /// Looked up when it is asked for: it may change.
    Custom(Box<str>),
    /// A later version has taken it away: it grants nothing.
    Unknown,
}

#[derive(Debug)]
enum Holds {
    Always,
    When(Compiled),
    /// A condition that this version does not read.
    Never,
}

/// Policies are looked up by their resource.
pub(crate) fn table() -> Table<PolicyRow> {
    Table::new(key::POLICIES, |rest| rest, |bytes| Ok(PolicyRow::new(serde_json::from_slice(bytes)?)))
}

impl PolicyRow {
    fn new(policy: Policy) -> Self {
        Self { grants: policy.bindings.iter().map(Grant::new).collect(), policy }
    }

    pub(crate) fn grants(&self) -> impl Iterator<Item = (&Binding, &Grant)> {
        self.policy.bindings.iter().zip(&self.grants)
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

impl Grant {
    fn new(binding: &Binding) -> Self {
        let role = match Role::find(&binding.role) {
            Some(role) => GrantedRole::Predefined(role),
            None if is_custom(&binding.role) => GrantedRole::Custom(binding.role.as_str().into()),
            None => GrantedRole::Unknown,
        };
        let condition = match &binding.condition {
            None => Holds::Always,
            Some(condition) => condition::compile(condition, Place::Binding, "condition").map_or(Holds::Never, Holds::When),
        };
        let mut grant = Self {
            role,
            everyone: false,
            authenticated: false,
            users: HashSet::new(),
            accounts: HashSet::new(),
            domains: HashSet::new(),
            groups: Vec::new(),
            condition,
        };
        for member in &binding.members {
            let (set, name) = match member {
                Member::AllUsers => {
                    grant.everyone = true;
                    continue;
                }
                Member::AllAuthenticatedUsers => {
                    grant.authenticated = true;
                    continue;
                }
                Member::Group(email) => {
                    grant.groups.push(email.as_str().into());
                    continue;
                }
                Member::User(email) => (&mut grant.users, email),
                Member::ServiceAccount(email) => (&mut grant.accounts, email),
                Member::Domain(domain) => (&mut grant.domains, domain),
            };
            set.insert(name.as_str().into());
        }
        grant
    }

    /// What the binding says. The role is asked first: most bindings of a policy are for something else.
    pub(crate) fn standing(&self, iam: &Iam, asked: &Asked<'_>, whose: Weigh) -> Standing {
        let role = self.role_standing(iam, asked);
        if role == Some(Standing::RoleLacks) {
            return Standing::RoleLacks;
        }
        if whose == Weigh::Caller && !self.names(iam, asked.who) {
            return Standing::NotMember;
        }
        role.unwrap_or_else(|| match &self.condition {
            Holds::Always => Standing::Grants,
            Holds::Never => Standing::ConditionFailed,
            Holds::When(condition) => match iam.condition_outcome(condition, asked) {
                Outcome::True => Standing::Grants,
                Outcome::False => Standing::ConditionFalse,
                Outcome::Failed => Standing::ConditionFailed,
            },
        })
    }

    /// `None` when the role holds the permission.
    fn role_standing(&self, iam: &Iam, asked: &Asked<'_>) -> Option<Standing> {
        match &self.role {
            GrantedRole::Predefined(role) => (!role.permissions.contains(asked.permission)).then_some(Standing::RoleLacks),
            GrantedRole::Custom(name) => iam.custom_role_standing(name, asked),
            GrantedRole::Unknown => Some(Standing::RoleLacks),
        }
    }

    fn names(&self, iam: &Iam, who: Option<&Identity>) -> bool {
        if self.everyone {
            return true;
        }
        let Some(who) = who else { return false };
        let email = who.email.as_str();
        let by_itself = match who.kind {
            Kind::ServiceAccount => self.accounts.contains(email),
            Kind::User => self.users.contains(email) || access::domain(who).is_some_and(|domain| self.domains.contains(domain)),
        };
        self.authenticated || by_itself || self.groups.iter().any(|group| iam.is_in_group(who, group))
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

    /// The policy as it is kept, or why it cannot be.
    fn policy_clean(&self, resource: &str, policy: Policy) -> Result<Policy, Status> {
        let is_project = resource.starts_with("projects/") && resource.matches('/').count() == 1;
        let mut clean: Vec<Binding> = Vec::new();
        let mut seen = HashSet::new();
        let mut conditions: HashMap<(String, Member), usize> = HashMap::new();
        for (at, Binding { role, members, condition }) in policy.bindings.into_iter().enumerate() {
            self.role_check(resource, &role)?;
            if let Some(condition) = &condition {
                let field = format!("policy.bindings[{at}].condition");
                condition_check(&role, &members, &field)?;
                condition::compile(condition, Place::Binding, &field)?;
            }
            for member in members {
                // Again, for a member that was not made by `parse`.
                let member = Member::parse(&member.to_string())?;
                self.member_check(is_project, &member)?;
                if !seen.insert((role.clone(), member.clone(), condition.clone())) {
                    continue;
                }
                if condition.is_some() {
                    let count = conditions.entry((role.clone(), member.clone())).or_default();
                    *count += 1;
                    if *count > CONDITIONS_MAX {
                        let why = format!("{role} is bound to {member} under more than {CONDITIONS_MAX} different conditions");
                        return Err(Status::invalid_field("policy.bindings", why));
                    }
                }
                match clean.iter_mut().find(|binding| binding.role == role && binding.condition == condition) {
                    Some(binding) => binding.members.push(member),
                    None => clean.push(Binding { role: role.clone(), members: vec![member], condition: condition.clone() }),
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

    /// A role that is known; of the project's own ones one that is not deleted, unless it is bound already.
    fn role_check(&self, resource: &str, role: &str) -> Result<(), Status> {
        if Role::find(role).is_some() {
            return Ok(());
        }
        let bad = |why: String| Err(Status::invalid_field("policy.bindings.role", why));
        if !is_custom(role) {
            return bad(format!("Role {role} is not supported for this resource."));
        }
        let own = resource.split('/').nth(1).filter(|_| resource.starts_with("projects/"));
        let is_of_project = own.is_none_or(|project| role.split('/').nth(1) == Some(project));
        let is_bound = || self.inner.tables.policies.look(resource, |row| row.policy.bindings.iter().any(|binding| binding.role == role)) == Some(true);
        match self.inner.tables.roles.look(role, |found| found.role.deleted.is_none()) {
            Some(true) if is_of_project => Ok(()),
            Some(false) if is_of_project && is_bound() => Ok(()),
            _ => bad(format!("Role ({role}) does not exist in the resource's hierarchy.")),
        }
    }

    fn member_check(&self, is_project: bool, member: &Member) -> Result<(), Status> {
        if is_project && matches!(member, Member::AllUsers | Member::AllAuthenticatedUsers) {
            return Err(Status::invalid_field(
                "policy.bindings.members",
                "Project does not support allUsers and allAuthenticatedUsers as members in a binding of a policy; bind the role on the service itself.",
            ));
        }
        match member {
            Member::ServiceAccount(email) if self.account_is_missing(email) => {
                Err(Status::invalid_field("policy.bindings.members", format!("Service account {email} does not exist.")))
            }
            _ => Ok(()),
        }
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
pub(crate) fn etag(revision: u64) -> String {
    let mut bytes = revision.to_be_bytes();
    bytes[0] = 7;
    STANDARD.encode(bytes)
}

/// `None` for what `etag` never made.
pub(crate) fn etag_revision(etag: &str) -> Option<u64> {
    let mut bytes: [u8; 8] = STANDARD.decode(etag).ok()?.try_into().ok()?;
    if bytes[0] != 7 {
        return None;
    }
    bytes[0] = 0;
    Some(u64::from_be_bytes(bytes))
}

/// What no condition can be bound to. Source: cloud.google.com/iam/docs/conditions-overview.
fn condition_check(role: &str, members: &[Member], field: &str) -> Result<(), Status> {
    if BASIC.contains(&role) {
        return Err(Status::invalid_field(field, format!("Binding with a condition and a basic role is not allowed: {role}.")));
    }
    if members.iter().any(|member| matches!(member, Member::AllUsers | Member::AllAuthenticatedUsers)) {
        return Err(Status::invalid_field(field, "Conditions are not allowed in a binding for allUsers or allAuthenticatedUsers."));
    }
    Ok(())
}

/// `projects/ID` without allocation. `None` for what is longer than any project's id, and for none.
pub(crate) fn project_resource<'a>(project: &str, buffer: &'a mut [u8; PROJECT_RESOURCE_MAX_BYTES]) -> Option<&'a str> {
    if project.is_empty() {
        return None;
    }
    let (head, tail) = buffer.split_at_mut(9);
    head.copy_from_slice(b"projects/");
    tail.get_mut(..project.len())?.copy_from_slice(project.as_bytes());
    std::str::from_utf8(&buffer[..9 + project.len()]).ok()
}

pub(crate) fn resource_check(resource: &str) -> Result<(), Status> {
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
