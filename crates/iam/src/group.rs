//! Groups: who is meant by `group:ADDRESS`.
//!
//! There is no directory behind: a group is what was made here, and one that was not has no members.

use std::{collections::HashSet, sync::Arc};

use model::{Code, Status, Timestamp, key, policy::Member};
use serde::{Deserialize, Serialize};
use store::{Expect, Write};

use crate::{Iam, table::Table};

/// Groups in groups in groups; deeper ones are not looked into.
const NESTED_MAX: usize = 5;
/// Groups looked into for one question, each once.
const LOOKED_INTO_MAX: usize = 100;
const GROUPS_MAX: usize = 1000;
const MEMBERS_MAX: usize = 5000;

/// A group as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Lower case.
    pub email: String,
    /// 15 letters and digits, of this one alone: one made again under its address is another.
    pub id: String,
    pub display_name: String,
    pub description: String,
    pub created: Timestamp,
    /// Addresses of people, accounts and groups, sorted, and since when.
    pub members: Vec<(String, Timestamp)>,
}

pub(crate) fn table() -> Table<Group> {
    Table::new(key::GROUPS, |rest| rest, |bytes| Ok(serde_json::from_slice(bytes)?))
}

impl Group {
    pub(crate) fn place(&self, email: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|(member, _)| member.as_str().cmp(email))
    }
}

impl Iam {
    /// # Errors
    /// `NOT_FOUND`.
    pub fn group_get(&self, email_or_id: &str) -> Result<Group, Status> {
        let groups = &self.inner.tables.groups;
        let found = groups.get(&email_or_id.to_ascii_lowercase()).or_else(|| groups.select(|_, group| group.id == email_or_id).pop());
        found.map(|group| (*group).clone()).ok_or_else(|| absent(email_or_id))
    }

    /// By address.
    pub fn group_list(&self) -> Vec<Group> {
        let mut groups: Vec<_> = self.inner.tables.groups.select(|_, _| true).iter().map(|group| (**group).clone()).collect();
        groups.sort_by(|a, b| a.email.cmp(&b.email));
        groups
    }

    /// # Errors
    /// `INVALID_ARGUMENT` for what is no address; `ALREADY_EXISTS`; `RESOURCE_EXHAUSTED` at 1,000 groups.
    pub async fn group_create(&self, email: &str, display_name: &str, description: &str) -> Result<Group, Status> {
        let email = address("group", email)?;
        let _one_at_a_time = self.inner.changes.lock().await;
        let groups = &self.inner.tables.groups;
        if groups.contains(&email) {
            return Err(Status::already_exists(format!("Group {email} already exists.")));
        }
        if groups.count(|_, _| true) >= GROUPS_MAX {
            return Err(Status::new(Code::ResourceExhausted, format!("There are {GROUPS_MAX} groups already, as many as there can be.")));
        }
        let number: [u8; 8] = rand::RngExt::random(&mut rand::rng());
        let id = hex::encode(number)[..15].to_owned();
        let group = Group {
            email,
            id,
            display_name: display_name.to_owned(),
            description: description.to_owned(),
            created: self.inner.clock.now(),
            members: Vec::new(),
        };
        self.commit(vec![Write::put(key::group(&group.email), Expect::Absent, &group)]).await.map_err(Status::internal)?;
        Ok(group)
    }

    /// Bindings that name it stay, and match nobody until there is one of its address again.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn group_delete(&self, email: &str) -> Result<(), Status> {
        let _one_at_a_time = self.inner.changes.lock().await;
        let group = self.group_get(email)?;
        self.commit(vec![Write::delete(key::group(&group.email), Expect::Any)]).await.map_err(Status::internal)
    }

    /// Effective on return.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for what is no address; `ALREADY_EXISTS`; `RESOURCE_EXHAUSTED` at 5,000 members.
    pub async fn group_member_add(&self, group: &str, member: &str) -> Result<Group, Status> {
        let member = address("group", member)?;
        let now = self.inner.clock.now();
        self.group_change(group, |group| match group.place(&member) {
            Ok(_) => Err(Status::already_exists(format!("{member} is a member of {} already.", group.email))),
            Err(_) if group.members.len() >= MEMBERS_MAX => Err(Status::new(Code::ResourceExhausted, format!("A group has at most {MEMBERS_MAX} members."))),
            Err(at) => {
                group.members.insert(at, (member.clone(), now));
                Ok(())
            }
        })
        .await
    }

    /// Effective on return.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn group_member_remove(&self, group: &str, member: &str) -> Result<Group, Status> {
        self.group_change(group, |group| match group.place(member) {
            Ok(at) => {
                group.members.remove(at);
                Ok(())
            }
            Err(_) => Err(Status::not_found(format!("{member} is no member of {}.", group.email))),
        })
        .await
    }

    async fn group_change(&self, email: &str, change: impl FnOnce(&mut Group) -> Result<(), Status>) -> Result<Group, Status> {
        let _one_at_a_time = self.inner.changes.lock().await;
        let mut group = self.group_get(email)?;
        change(&mut group)?;
        self.commit(vec![Write::put(key::group(&group.email), Expect::Any, &group)]).await.map_err(Status::internal)?;
        Ok(group)
    }

    /// The resources whose policies name a group, or one that it is in, however deep; for deny policies their project. Who changes a group
    /// changes what these give.
    pub fn group_named_by(&self, email: &str) -> Vec<String> {
        let tables = &self.inner.tables;
        let mut names = vec![email.to_ascii_lowercase()];
        let mut seen: HashSet<String> = names.iter().cloned().collect();
        let mut at = 0;
        while let Some(inner) = names.get(at).cloned() {
            let outer = tables.groups.select(|_, group| group.place(&inner).is_ok());
            names.extend(outer.iter().map(|group| group.email.clone()).filter(|email| seen.insert(email.clone())));
            at += 1;
        }
        let members: Vec<Member> = names.into_iter().map(Member::Group).collect();
        let policies = tables.policies.select_rows(|_, row| members.iter().any(|member| row.names(member)));
        let denying = tables.deny_policies.select_rows(|_, row| members.iter().any(|member| row.names(member)));
        policies.into_iter().map(|(resource, ..)| resource).chain(denying.into_iter().map(|(project, ..)| format!("projects/{project}"))).collect()
    }

    /// Whether `email` is a member of the group, or of a group in it. Each is looked into once, however they name each other.
    pub(crate) fn group_holds(&self, email: &str, group: &str) -> bool {
        let groups = &self.inner.tables.groups;
        let mut level: Vec<Arc<Group>> = groups.get(group).into_iter().collect();
        let mut seen: HashSet<String> = level.iter().map(|group| group.email.clone()).collect();
        for depth in 0..=NESTED_MAX {
            if level.iter().any(|group| group.place(email).is_ok()) {
                return true;
            }
            let mut next = Vec::new();
            for (member, _) in level.iter().filter(|_| depth < NESTED_MAX).flat_map(|group| &group.members) {
                if seen.len() < LOOKED_INTO_MAX
                    && !seen.contains(member)
                    && let Some(group) = groups.get(member)
                {
                    seen.insert(member.clone());
                    next.push(group);
                }
            }
            level = next;
        }
        false
    }
}

fn address(kind: &str, email: &str) -> Result<String, Status> {
    match Member::parse(&format!("{kind}:{email}")) {
        Ok(Member::Group(email)) => Ok(email),
        _ => Err(Status::invalid_field("email", format!("{email:?} is no e-mail address"))),
    }
}

fn absent(group: &str) -> Status {
    Status::not_found(format!("Group {group} does not exist."))
}
