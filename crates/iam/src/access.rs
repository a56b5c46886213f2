//! May they? The question that every request asks, and why the answer is what it is.
//!
//! One function goes over the rules and bindings that bear on a question, deny rules first. The check of a request stops at
//! the first that decides; an explanation hears them all. Neither has rules of its own, so they cannot disagree.

use std::ops::ControlFlow;

use model::{
    Status,
    policy::{Binding, Condition, Member},
};

use crate::{
    Iam, Identity, Kind,
    condition::{Attributes, Outcome},
    deny::DenyStanding,
    permission::{Permission, PermissionSet},
    policy::{PROJECT_RESOURCE_MAX_BYTES, project_resource, resource_check},
    role::Role,
};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// `None`: anonymous. Must come from a check of this moment: a disabled account is recognised there.
    pub who: Option<&'a Identity>,
    pub permission: &'a str,
    /// As in [`Iam::policy_get`].
    pub resource: &'a str,
    /// The id of the project it belongs to; empty for none.
    pub project: &'a str,
    pub about: About<'a>,
}

/// What conditions may ask beside.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// What of the resource is meant, such as `objects/a/b` of a bucket or `versions/1` of a secret.
    pub part: Option<&'a str>,
    /// The prefix of a request that lists objects.
    pub list_prefix: Option<&'a str>,
    /// Of a request that IAP looks at.
    pub path: Option<&'a str>,
    pub host: Option<&'a str>,
}

/// How a binding bears on a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its role does not hold the permission.
    RoleLacks,
    /// It names others.
    NotMember,
    /// Its role was deleted, or is one of another project.
    RoleGone,
    /// Its role is in the stage `DISABLED`.
    RoleDisabled,
    ConditionFalse,
    /// The condition names what this request does not have.
    ConditionFailed,
    Grants,
}

/// What the one function tells.
pub(crate) enum Finding<'a> {
    Denies { policy: &'a str, rule: usize },
    Binding { resource: &'a str, binding: &'a Binding, standing: Standing },
}

/// A question whose permission exists.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) who: Option<&'a Identity>,
    pub(crate) permission: Permission,
    pub(crate) resource: &'a str,
    /// The project whose policy counts beside the resource's own; empty for none.
    pub(crate) project: &'a str,
    /// The project that the resource is in, whoever asks: whose deny policies and own roles count.
    pub(crate) home: &'a str,
    pub(crate) about: About<'a>,
}

/// Why the answer is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub allowed: bool,
    /// No such permission exists here: nobody has it.
    pub is_unknown: bool,
    /// Deny policies that forbid it, by name, and the number of the rule, from 1.
    pub denied: Vec<(String, usize)>,
    /// Bindings whose role holds the permission and that name the caller.
    pub bindings: Vec<Bound>,
}

/// A binding that bears on a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Whose policy it stands in.
    pub resource: String,
    pub role: String,
    pub members: Vec<Member>,
    pub condition: Option<Condition>,
    pub standing: Standing,
}

impl Iam {
    /// Whether `who` (None: anonymous) has `permission` on `resource` or on the project it belongs to (`project`: its id, empty for none).
    /// In memory, no allocation on the way to an answer but for conditions, effective at once after `policy_set`.
    ///
    /// `who` must come from a check of this moment: a disabled account is recognised there.
    pub fn may(&self, who: Option<&Identity>, permission: &str, resource: &str, project: &str) -> bool {
        self.may_about(&Question { who, permission, resource, project, about: About::default() })
    }

    /// The same, with what conditions may ask.
    pub fn may_about(&self, question: &Question<'_>) -> bool {
        self.decide(question, |standing| standing == Standing::Grants)
    }

    /// Whether a condition alone stands between `who` and a yes: for who does not know yet what of the resource is meant, and asks again.
    pub fn might(&self, question: &Question<'_>) -> bool {
        self.decide(question, |standing| matches!(standing, Standing::Grants | Standing::ConditionFalse | Standing::ConditionFailed))
    }

    fn decide(&self, question: &Question<'_>, grants: impl Fn(Standing) -> bool) -> bool {
        let Some(asked) = Asked::of(question) else {
            tracing::error!(permission = question.permission, "nobody has a permission that does not exist");
            return false;
        };
        let mut allowed = false;
        let _ = self.weigh(&asked, &mut |finding| match finding {
            Finding::Denies { .. } => ControlFlow::Break(()),
            Finding::Binding { standing, .. } if grants(standing) => {
                allowed = true;
                ControlFlow::Break(())
            }
            Finding::Binding { .. } => ControlFlow::Continue(()),
        });
        allowed
    }

    /// Why it is so.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let mut told = Explanation { allowed: false, is_unknown: false, denied: Vec::new(), bindings: Vec::new() };
        let Some(asked) = Asked::of(question) else {
            return Explanation { is_unknown: true, ..told };
        };
        let _ = self.weigh(&asked, &mut |finding| {
            match finding {
                Finding::Denies { policy, rule } => told.denied.push((policy.to_owned(), rule + 1)),
                Finding::Binding { standing: Standing::RoleLacks | Standing::NotMember, .. } => {}
                Finding::Binding { resource, binding, standing } => told.bindings.push(Bound::of(resource, binding, standing)),
            }
            ControlFlow::Continue(())
        });
        told.allowed = told.denied.is_empty() && told.bindings.iter().any(|bound| bound.standing == Standing::Grants);
        told
    }

    /// The bindings that give `permission` on the resource to somebody, whether their conditions hold now or not.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a kind of resource that has no policy, or a permission that does not exist.
    pub fn who_can(&self, permission: &str, resource: &str, project: &str) -> Result<Vec<Bound>, Status> {
        resource_check(resource)?;
        let question = Question { who: None, permission, resource, project, about: About::default() };
        let asked = Asked::of(&question).ok_or_else(|| Status::invalid_field("permission", format!("{permission:?} is no permission of this server")))?;
        let mut found = Vec::new();
        let _ = self.bindings_weigh(&asked, Weigh::Whoever, &mut |finding| {
            if let Finding::Binding { resource, binding, standing } = finding
                && standing != Standing::RoleLacks
            {
                found.push(Bound::of(resource, binding, standing));
            }
            ControlFlow::Continue(())
        });
        Ok(found)
    }

    /// The permissions of `asked` that `who` has.
    pub fn test_permissions(&self, who: Option<&Identity>, asked: &[String], resource: &str, project: &str) -> Vec<String> {
        asked.iter().filter(|permission| Permission::find(permission).is_some() && self.may(who, permission, resource, project)).cloned().collect()
    }

    /// Roles that hold `permission`, predefined and the project's own, those with the fewest permissions first. Basic roles come last.
    pub fn roles_with(&self, permission: &str, project: &str) -> Vec<String> {
        let Some(found) = Permission::find(permission) else { return Vec::new() };
        let size = |set: &PermissionSet| Permission::all().filter(|one| set.contains(*one)).count();
        // Basic or not, how many permissions, the project's own or not, name.
        let predefined = Role::all().iter().filter(|role| role.permissions.contains(found));
        let predefined = predefined.map(|role| (role.is_basic(), size(&role.permissions), false, role.name.to_owned()));
        let own = format!("projects/{project}/roles/");
        let custom = self.inner.tables.roles.select(|name, role| name.starts_with(&own) && role.is_usable() && role.set.contains(found));
        let mut roles: Vec<_> = predefined.chain(custom.iter().map(|role| (false, size(&role.set), true, role.role.name.clone()))).collect();
        roles.sort();
        roles.into_iter().map(|(_, _, _, name)| name).collect()
    }

    /// Tells `seen` of every rule and binding that bears on the question, deny rules first. A question is answered with no by the first
    /// that denies, with yes by the first that grants, with no when neither comes.
    fn weigh(&self, asked: &Asked<'_>, seen: &mut impl FnMut(Finding<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let denied = self.inner.tables.deny_policies.look(asked.home, |row| {
            row.weigh(self, asked, &mut |policy, rule, standing| match standing {
                DenyStanding::Denies => seen(Finding::Denies { policy, rule }),
                DenyStanding::Passes => ControlFlow::Continue(()),
            })
        });
        denied.unwrap_or(ControlFlow::Continue(()))?;
        self.bindings_weigh(asked, Weigh::Caller, seen)
    }

    /// The bindings of the resource's own policy, then of its project's.
    fn bindings_weigh(&self, asked: &Asked<'_>, whose: Weigh, seen: &mut impl FnMut(Finding<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let policies = &self.inner.tables.policies;
        let mut of = |resource: &str| {
            let weighed = policies.look(resource, |row| {
                row.grants().try_for_each(|(binding, grant)| {
                    let standing = grant.standing(self, asked, whose);
                    seen(Finding::Binding { resource, binding, standing })
                })
            });
            weighed.unwrap_or(ControlFlow::Continue(()))
        };
        of(asked.resource)?;
        let mut buffer = [0; PROJECT_RESOURCE_MAX_BYTES];
        match project_resource(asked.project, &mut buffer).filter(|project| *project != asked.resource) {
            Some(project) => of(project),
            None => ControlFlow::Continue(()),
        }
    }

    /// Whether `who` is one of a group's, or of a group in it.
    pub(crate) fn is_in_group(&self, who: &Identity, group: &str) -> bool {
        self.group_holds(&who.email, group)
    }

    pub(crate) fn condition_outcome(&self, condition: &crate::condition::Compiled, asked: &Asked<'_>) -> Outcome {
        let described = self.described(asked);
        condition.evaluate(&Attributes {
            time: self.inner.clock.now(),
            service: described.service,
            kind: &described.kind,
            name: &described.name,
            path: asked.about.path,
            host: asked.about.host,
            list_prefix: asked.about.list_prefix,
        })
    }

    /// The resource in the words of conditions.
    fn described(&self, asked: &Asked<'_>) -> Described {
        let part = asked.about.part;
        let joined = |name: String| part.map_or_else(|| name.clone(), |part| format!("{name}/{part}"));
        let parts: Vec<&str> = asked.resource.split('/').collect();
        let kind = |api: &'static str, kind: &str, name: String| Described { service: api, kind: format!("{api}/{kind}"), name };
        let whole = || asked.resource.to_owned();
        match parts[..] {
            ["buckets", bucket] => {
                let what = if part.is_some_and(|part| part.starts_with("objects/")) { "Object" } else { "Bucket" };
                kind("storage.googleapis.com", what, joined(format!("projects/_/buckets/{bucket}")))
            }
            // By the project's number, as Google does.
            ["projects", project, "secrets", secret] => {
                let what = if part.is_some() { "SecretVersion" } else { "Secret" };
                let number = self.project_number(project).unwrap_or_else(|| project.to_owned());
                kind("secretmanager.googleapis.com", what, joined(format!("projects/{number}/secrets/{secret}")))
            }
            ["projects", _, "locations", _, "services", _] => kind("run.googleapis.com", "Service", whole()),
            ["projects", _, "locations", _, "functions", _] => kind("cloudfunctions.googleapis.com", "Function", whole()),
            ["projects", _, "locations", _, "triggers", _] => kind("eventarc.googleapis.com", "Trigger", whole()),
            ["projects", _, "serviceAccounts", _] => kind("iam.googleapis.com", "ServiceAccount", whole()),
            ["projects", _, "topics", _] => kind("pubsub.googleapis.com", "Topic", whole()),
            ["projects", _, "subscriptions", _] => kind("pubsub.googleapis.com", "Subscription", whole()),
            ["projects", _, "snapshots", _] => kind("pubsub.googleapis.com", "Snapshot", whole()),
            ["projects", _, "schemas", _] => kind("pubsub.googleapis.com", "Schema", whole()),
            _ => kind("cloudresourcemanager.googleapis.com", "Project", whole()),
        }
    }

    fn project_number(&self, id: &str) -> Option<String> {
        self.inner.tables.projects.look(id, |project| project.number.to_string())
    }
}

struct Described {
    service: &'static str,
    kind: String,
    name: String,
}

/// Whom a binding is held against.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weigh {
    Caller,
    /// Everyone whom it names.
    Whoever,
}

impl<'a> Asked<'a> {
    /// `None` when there is no such permission.
    fn of(question: &Question<'a>) -> Option<Self> {
        let permission = Permission::find(question.permission)?;
        // A resource that names another project than the asker does would be granted by the wrong project's policy: the name counts,
        // and the asker's only for a resource whose name holds none.
        let named = question.resource.strip_prefix("projects/").map(|rest| rest.split('/').next().unwrap_or_default());
        let home = named.unwrap_or(question.project);
        let project = if home == question.project { home } else { "" };
        Some(Self { who: question.who, permission, resource: question.resource, project, home, about: question.about })
    }
}

impl Bound {
    fn of(resource: &str, binding: &Binding, standing: Standing) -> Self {
        Self { resource: resource.to_owned(), role: binding.role.clone(), members: binding.members.clone(), condition: binding.condition.clone(), standing }
    }
}

/// The domain of a person's address.
pub(crate) fn domain(who: &Identity) -> Option<&str> {
    if who.kind == Kind::User { who.email.rsplit_once('@').map(|(_, domain)| domain) } else { None }
}
