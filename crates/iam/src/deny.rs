//! Deny policies: what somebody may not, whatever roles give.
//!
//! They are attached to a project, and all of a project's lie in one record, so that a question costs one look-up.
//! Source: google/iam/v2/policy.proto and deny.proto, cloud.google.com/iam/docs/deny-overview; limits: cloud.google.com/iam/quotas.

use std::{collections::BTreeMap, ops::ControlFlow};

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    Code, ProjectId, Status, Timestamp, key,
    policy::{Condition, Member},
};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use store::{CommitError, Expect, Write};

use crate::{
    Iam, Identity, Kind,
    access::Asked,
    condition::{self, Compiled, Outcome, Place},
    permission::{Permission, PermissionSet},
    policy::concurrent_change,
    table::Table,
};

/// Of one resource, both.
const POLICIES_MAX: usize = 500;
const RULES_MAX: usize = 500;
/// Denied and excepted, of all policies of one resource.
const PRINCIPALS_MAX: usize = 2500;
/// Of one rule.
const PERMISSIONS_MAX: usize = 500;
const DISPLAY_NAME_MAX_CHARS: usize = 63;
const DESCRIPTION_MAX_CHARS: usize = 256;
/// Nobody can be kept from taking a deny policy back.
const NEVER_DENIED: &str = "iam.denypolicies.";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyPolicy {
    /// 3 to 63 lower-case letters, digits, dashes and periods.
    pub id: String,
    pub uid: String,
    pub display_name: String,
    pub annotations: BTreeMap<String, String>,
    pub etag: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub rules: Vec<DenyRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyRule {
    pub description: String,
    /// `principal://goog/subject/EMAIL`, `principalSet://goog/public:all`, ...
    pub denied_principals: Vec<String>,
    pub exception_principals: Vec<String>,
    /// `run.googleapis.com/services.create`, `run.googleapis.com/services.*`, ...
    pub denied_permissions: Vec<String>,
    pub exception_permissions: Vec<String>,
    pub condition: Option<Condition>,
}

/// How a rule bears on a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DenyStanding {
    Denies,
    Passes,
}

/// A project's deny policies and what follows from them.
#[derive(Debug, Default)]
pub(crate) struct DenyRow {
    policies: Vec<DenyPolicy>,
    /// Policy and rule by their places, and the rule compiled.
    rules: Vec<(usize, usize, CompiledRule)>,
}

#[derive(Debug)]
struct CompiledRule {
    denied: Vec<Principal>,
    excepted: Vec<Principal>,
    /// Those excepted are not in it.
    permissions: PermissionSet,
    condition: Option<Compiled>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Principal {
    /// With or without an account.
    Everyone,
    User(String),
    Account(String),
    Group(String),
}

pub(crate) fn table() -> Table<DenyRow> {
    Table::new(
        key::DENY_POLICIES,
        |rest| rest,
        |bytes| DenyRow::new(serde_json::from_slice(bytes)?).map_err(|status| crate::table::ParseError::Content(status.outer)),
    )
    // What was denied must not become allowed.
    .keeping_unreadable()
}

impl DenyRow {
    /// # Errors
    /// `INVALID_ARGUMENT` for a rule that cannot be.
    fn new(policies: Vec<DenyPolicy>) -> Result<Self, Status> {
        let mut rules = Vec::new();
        for (policy_at, policy) in policies.iter().enumerate() {
            for (at, rule) in policy.rules.iter().enumerate() {
                rules.push((policy_at, at, CompiledRule::new(rule, &format!("policy.rules[{at}].deny_rule"))?));
            }
        }
        Ok(Self { policies, rules })
    }

    /// Whether a rule denies `member` something or excepts it.
    pub(crate) fn names(&self, member: &Member) -> bool {
        self.rules.iter().any(|(_, _, rule)| rule.denied.iter().chain(&rule.excepted).any(|principal| principal.means(member)))
    }

    /// The policies without the exceptions of an account that goes; `None` when there are none. What is denied to it stays: an account of
    /// that name made later must not be let in by its absence.
    pub(crate) fn without_exceptions(&self, account: &str, now: Timestamp) -> Option<Vec<DenyPolicy>> {
        let gone = Principal::Account(account.to_owned());
        let mut policies = self.policies.clone();
        let mut changed = false;
        for policy in &mut policies {
            let before = policy.rules.clone();
            policy.rules.iter_mut().for_each(|rule| rule.exception_principals.retain(|one| principal(one, "").as_ref() != Ok(&gone)));
            if policy.rules != before {
                (policy.etag, policy.updated, changed) = (new_etag(), now, true);
            }
        }
        changed.then_some(policies)
    }

    /// Tells `seen` of every rule that is about the permission.
    pub(crate) fn weigh(&self, iam: &Iam, asked: &Asked<'_>, seen: &mut impl FnMut(&str, usize, DenyStanding) -> ControlFlow<()>) -> ControlFlow<()> {
        for (policy, at, rule) in &self.rules {
            if rule.permissions.contains(asked.permission) {
                seen(&self.policies[*policy].id, *at, rule.standing(iam, asked))?;
            }
        }
        ControlFlow::Continue(())
    }
}

impl CompiledRule {
    fn new(rule: &DenyRule, field: &str) -> Result<Self, Status> {
        let principals = |names: &[String], name: &str| names.iter().map(|one| principal(one, &format!("{field}.{name}"))).collect::<Result<Vec<_>, _>>();
        let mut permissions = PermissionSet::default();
        for name in &rule.denied_permissions {
            permissions_of(name, &format!("{field}.denied_permissions"))?.into_iter().for_each(|permission| permissions.insert(permission));
        }
        for name in &rule.exception_permissions {
            permissions_of(name, &format!("{field}.exception_permissions"))?.into_iter().for_each(|permission| permissions.remove(permission));
        }
        let condition = rule.condition.as_ref().map(|condition| condition::compile(condition, Place::DenyRule, &format!("{field}.denial_condition")));
        Ok(Self {
            denied: principals(&rule.denied_principals, "denied_principals")?,
            excepted: principals(&rule.exception_principals, "exception_principals")?,
            permissions,
            condition: condition.transpose()?,
        })
    }

    fn standing(&self, iam: &Iam, asked: &Asked<'_>) -> DenyStanding {
        let names = |principals: &[Principal]| principals.iter().any(|principal| principal.is(iam, asked.who));
        if !names(&self.denied) || names(&self.excepted) {
            return DenyStanding::Passes;
        }
        // A condition that cannot be asked lets nobody through.
        match self.condition.as_ref().map(|condition| iam.condition_outcome(condition, asked)) {
            Some(Outcome::False) => DenyStanding::Passes,
            None | Some(Outcome::True | Outcome::Failed) => DenyStanding::Denies,
        }
    }
}

impl Principal {
    fn means(&self, member: &Member) -> bool {
        match (self, member) {
            (Self::User(a), Member::User(b)) | (Self::Account(a), Member::ServiceAccount(b)) | (Self::Group(a), Member::Group(b)) => a == b,
            _ => false,
        }
    }

    fn is(&self, iam: &Iam, who: Option<&Identity>) -> bool {
        let Some(who) = who else { return *self == Self::Everyone };
        match self {
            Self::Everyone => true,
            Self::User(email) => who.kind == Kind::User && who.email == *email,
            Self::Account(email) => who.kind == Kind::ServiceAccount && who.email == *email,
            Self::Group(email) => iam.is_in_group(who, email),
        }
    }
}

/// Reads a principal in the words of IAM v2.
fn principal(text: &str, field: &str) -> Result<Principal, Status> {
    let bad = || {
        Status::invalid_field(
            field,
            format!(
                "{text:?} is no principal that this server knows; use principal://goog/subject/EMAIL, \
                 principal://iam.googleapis.com/projects/-/serviceAccounts/EMAIL, principalSet://goog/group/EMAIL or principalSet://goog/public:all"
            ),
        )
    };
    let email = |kind: &str, email: &str| match Member::parse(&format!("{kind}:{email}")) {
        Ok(Member::User(email) | Member::ServiceAccount(email) | Member::Group(email)) => Ok(email),
        _ => Err(bad()),
    };
    if text == "principalSet://goog/public:all" {
        return Ok(Principal::Everyone);
    }
    if let Some(rest) = text.strip_prefix("principal://goog/subject/") {
        return email("user", rest).map(Principal::User);
    }
    if let Some(rest) = text.strip_prefix("principal://iam.googleapis.com/projects/-/serviceAccounts/") {
        return email("serviceAccount", rest).map(Principal::Account);
    }
    if let Some(rest) = text.strip_prefix("principalSet://goog/group/") {
        return email("group", rest).map(Principal::Group);
    }
    Err(bad())
}

/// The permissions that a name of IAM v2 means: `run.googleapis.com/services.create`, or with `*` for the kind, the verb or both.
fn permissions_of(text: &str, field: &str) -> Result<Vec<Permission>, Status> {
    let bad = |why: &str| Status::invalid_field(field, format!("{text:?} {why}"));
    let (host, name) = text.split_once('/').ok_or_else(|| bad("is no permission: use SERVICE.googleapis.com/KIND.VERB"))?;
    let service = host.strip_suffix(".googleapis.com").ok_or_else(|| bad("is no permission: its service ends with .googleapis.com"))?;
    let service = if service == "cloudresourcemanager" { "resourcemanager" } else { service };
    let (kind, verb) = match name.rsplit_once('.') {
        Some((kind, verb)) => (kind, verb),
        None if name == "*" => ("*", "*"),
        None => return Err(bad("is no permission: use SERVICE.googleapis.com/KIND.VERB")),
    };
    let fits = |permission: &Permission| {
        let mut parts = permission.name().splitn(2, '.');
        let (of, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (its_kind, its_verb) = rest.rsplit_once('.').unwrap_or_default();
        of == service && (kind == "*" || kind == its_kind) && (verb == "*" || verb == its_verb) && !permission.name().starts_with(NEVER_DENIED)
    };
    let found: Vec<_> = Permission::all().filter(fits).collect();
    if found.is_empty() {
        return Err(bad("is no permission that can be denied here"));
    }
    Ok(found)
}

impl Iam {
    /// By id.
    pub fn deny_policy_list(&self, project: &ProjectId) -> Vec<DenyPolicy> {
        let mut policies = self.inner.tables.deny_policies.look(project.as_str(), |row| row.policies.clone()).unwrap_or_default();
        policies.sort_by(|a, b| a.id.cmp(&b.id));
        policies
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub fn deny_policy_get(&self, project: &ProjectId, id: &str) -> Result<DenyPolicy, Status> {
        let found = self.inner.tables.deny_policies.look(project.as_str(), |row| row.policies.iter().find(|policy| policy.id == id).cloned());
        found.flatten().ok_or_else(|| not_found(project, id))
    }

    /// # Errors
    /// `INVALID_ARGUMENT` for an id, text, principal, permission or condition that cannot be; `ALREADY_EXISTS`; `RESOURCE_EXHAUSTED` over
    /// 500 policies or rules, or 2,500 principals.
    pub async fn deny_policy_create(&self, project: &ProjectId, policy: DenyPolicy) -> Result<DenyPolicy, Status> {
        if !is_id(&policy.id) {
            let why =
                format!("The policy ID {:?} is not valid: it has 3 to 63 lower-case letters, digits, dashes and periods, and begins with a letter.", policy.id);
            return Err(Status::invalid_field("policy_id", why));
        }
        let now = self.inner.clock.now();
        let policy = DenyPolicy { uid: uid(), etag: new_etag(), created: now, updated: now, ..policy };
        self.deny_policies_change(project, |policies| {
            if policies.iter().any(|other| other.id == policy.id) {
                return Err(Status::already_exists(format!("Policy {} already exists.", name(project, &policy.id))));
            }
            policies.push(policy.clone());
            Ok(policy.clone())
        })
        .await
    }

    /// Replaces rules, display name and annotations.
    ///
    /// # Errors
    /// As [`Iam::deny_policy_create`]; `NOT_FOUND`; `ABORTED` (409) when the policy's etag is not empty and not the current one.
    pub async fn deny_policy_update(&self, project: &ProjectId, wanted: DenyPolicy) -> Result<DenyPolicy, Status> {
        let now = self.inner.clock.now();
        self.deny_policies_change(project, |policies| {
            let policy = policies.iter_mut().find(|policy| policy.id == wanted.id).ok_or_else(|| not_found(project, &wanted.id))?;
            etag_check(policy, &wanted.etag)?;
            policy.etag = new_etag();
            policy.updated = now;
            policy.display_name.clone_from(&wanted.display_name);
            policy.annotations.clone_from(&wanted.annotations);
            policy.rules.clone_from(&wanted.rules);
            Ok(policy.clone())
        })
        .await
    }

    /// # Errors
    /// `NOT_FOUND`; `ABORTED` as in [`Iam::deny_policy_update`].
    pub async fn deny_policy_delete(&self, project: &ProjectId, id: &str, etag: &str) -> Result<DenyPolicy, Status> {
        self.deny_policies_change(project, |policies| {
            let at = policies.iter().position(|policy| policy.id == id).ok_or_else(|| not_found(project, id))?;
            etag_check(&policies[at], etag)?;
            Ok(policies.remove(at))
        })
        .await
    }

    async fn deny_policies_change(
        &self,
        project: &ProjectId,
        change: impl FnOnce(&mut Vec<DenyPolicy>) -> Result<DenyPolicy, Status>,
    ) -> Result<DenyPolicy, Status> {
        let _one_at_a_time = self.inner.changes.lock().await;
        let found = self.inner.tables.deny_policies.get_revision(project.as_str());
        let (mut policies, expect) = match &found {
            Some((row, revision)) => (row.policies.clone(), Expect::Revision(*revision)),
            None => (Vec::new(), Expect::Absent),
        };
        let changed = change(&mut policies)?;
        texts_check(&changed)?;
        // Whatever is written is read again when the server starts.
        let row = DenyRow::new(policies)?;
        limits_check(&row)?;
        self.commit(vec![Write::put(key::deny_policies(project), expect, &row.policies)]).await.map_err(|error| match error {
            CommitError::Conflict { .. } => concurrent_change(),
            error => Status::internal(error),
        })?;
        Ok(changed)
    }
}

fn texts_check(policy: &DenyPolicy) -> Result<(), Status> {
    if policy.display_name.chars().count() > DISPLAY_NAME_MAX_CHARS {
        return Err(Status::invalid_field("policy.display_name", format!("has at most {DISPLAY_NAME_MAX_CHARS} characters")));
    }
    if let Some((key, _)) = policy.annotations.iter().find(|(key, value)| key.chars().count() > 63 || value.chars().count() > 255) {
        return Err(Status::invalid_field("policy.annotations", format!("{key:?}: keys have at most 63 characters, values 255")));
    }
    for (at, rule) in policy.rules.iter().enumerate() {
        let bad = |field: &str, why: String| Err(Status::invalid_field(format!("policy.rules[{at}].{field}"), why));
        if rule.description.chars().count() > DESCRIPTION_MAX_CHARS {
            return bad("description", format!("has at most {DESCRIPTION_MAX_CHARS} characters"));
        }
        if rule.denied_principals.is_empty() || rule.denied_permissions.is_empty() {
            return bad("deny_rule", "denied_principals and denied_permissions are required".to_owned());
        }
        if rule.denied_permissions.len() + rule.exception_permissions.len() > PERMISSIONS_MAX {
            return bad("deny_rule", format!("has at most {PERMISSIONS_MAX} permissions"));
        }
    }
    Ok(())
}

fn limits_check(row: &DenyRow) -> Result<(), Status> {
    let principals: usize = row.rules.iter().map(|(_, _, rule)| rule.denied.len() + rule.excepted.len()).sum();
    for (count, max, what) in [
        (row.policies.len(), POLICIES_MAX, "deny policies"),
        (row.rules.len(), RULES_MAX, "deny rules"),
        (principals, PRINCIPALS_MAX, "principals in deny policies"),
    ] {
        if count > max {
            return Err(Status::new(Code::ResourceExhausted, format!("A resource has at most {max} {what}.")));
        }
    }
    Ok(())
}

fn etag_check(policy: &DenyPolicy, expect: &str) -> Result<(), Status> {
    if expect.is_empty() || expect == policy.etag { Ok(()) } else { Err(concurrent_change()) }
}

fn is_id(id: &str) -> bool {
    (3..=63).contains(&id.len())
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

fn name(project: &ProjectId, id: &str) -> String {
    format!("policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{project}/denypolicies/{id}")
}

fn not_found(project: &ProjectId, id: &str) -> Status {
    Status::not_found(format!("Policy {} was not found.", name(project, id)))
}

fn uid() -> String {
    let bytes: [u8; 16] = rand::rng().random();
    let text = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

fn new_etag() -> String {
    STANDARD.encode(rand::rng().random::<[u8; 12]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_in_the_words_of_version_2() {
        let check = |text: &str, expect: Option<Principal>| assert_eq!(principal(text, "f").ok(), expect, "{text}");
        check("principalSet://goog/public:all", Some(Principal::Everyone));
        check("principal://goog/subject/Eve@Example.com", Some(Principal::User("eve@example.com".to_owned())));
        check(
            "principal://iam.googleapis.com/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com",
            Some(Principal::Account("a@p.iam.gserviceaccount.com".to_owned())),
        );
        check("principalSet://goog/group/g@example.com", Some(Principal::Group("g@example.com".to_owned())));
        for bad in [
            "",
            "user:a@b.c",
            "principal://goog/subject/",
            "principal://goog/subject/x",
            "principalSet://goog/cloudIdentityCustomerId/C0",
            "deleted:principal://goog/subject/a@b.c",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn permissions_in_the_words_of_version_2() {
        let check = |text: &str, expect: &[&str]| {
            let found: Vec<_> = permissions_of(text, "f").unwrap_or_default().into_iter().map(Permission::name).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("run.googleapis.com/routes.invoke", &["run.routes.invoke"]);
        check("run.googleapis.com/routes.*", &["run.routes.get", "run.routes.invoke", "run.routes.list"]);
        check("run.googleapis.com/*.invoke", &["run.routes.invoke"]);
        check("cloudresourcemanager.googleapis.com/projects.update", &["resourcemanager.projects.update"]);
        check("logging.googleapis.com/privateLogEntries.*", &["logging.privateLogEntries.list"]);
        assert!(permissions_of("storage.googleapis.com/*", "f").unwrap().len() > 10);
        assert!(permissions_of("iam.googleapis.com/*", "f").unwrap().iter().all(|one| !one.name().contains("denypolicies")));
        for bad in [
            "",
            "run.routes.invoke",
            "run.googleapis.com/",
            "run.googleapis.com/invoke",
            "run.googleapis.com/routes.fly",
            "example.com/routes.invoke",
            "iam.googleapis.com/denypolicies.delete",
        ] {
            check(bad, &[]);
        }
    }
}
