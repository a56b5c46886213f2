//! Service accounts: identities of programs.
//!
//! An account's number (`unique_id`) is drawn when it is made: one made again under the same address is another account, and
//! the old one's tokens, keys and grants are not its.

use model::{Code, ProjectId, Status, key, policy::Member};
use rand::RngExt;
use store::{CommitError, Expect, Write};

use crate::{Iam, ServiceAccount, policy::PolicyRow, table::Table, user};

/// Accounts of one project: Google's quota.
const ACCOUNTS_MAX: usize = 100;
const DISPLAY_NAME_MAX_BYTES: usize = 100;
const DESCRIPTION_MAX_BYTES: usize = 256;

/// Accounts are looked up by address: the last part of their key.
pub(crate) fn table() -> Table<ServiceAccount> {
    Table::new(key::SERVICE_ACCOUNTS, |rest| rest.rsplit_once('/').map_or(rest, |(_, email)| email), |bytes| Ok(serde_json::from_slice(bytes)?))
}

impl Iam {
    /// Makes `ID@PROJECT.iam.gserviceaccount.com`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an id that is not 6 to 30 lower-case letters, digits and hyphens, beginning with a letter and not
    /// ending with a hyphen, or for texts too long (100 and 256 bytes); `ALREADY_EXISTS`; `RESOURCE_EXHAUSTED` at 100 accounts.
    pub async fn service_account_create(&self, project: &ProjectId, id: &str, display_name: &str, description: &str) -> Result<ServiceAccount, Status> {
        if !is_account_id(id) {
            return Err(Status::invalid_field(
                "account_id",
                format!("service account id {id:?} must have 6 to 30 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen"),
            ));
        }
        texts_check(Some(display_name), Some(description))?;
        let _one_at_a_time = self.inner.changes.lock().await;
        if self.inner.tables.accounts.count(|_, account| account.project == *project) >= ACCOUNTS_MAX {
            return Err(Status::new(Code::ResourceExhausted, format!("Maximum number of service accounts on project reached ({ACCOUNTS_MAX}).")));
        }
        let account = self.account_new(project, format!("{id}@{project}.iam.gserviceaccount.com"), display_name, description);
        let write = Write::put(key::service_account(project, &account.email), Expect::Absent, &account);
        self.commit(vec![write]).await.map_err(|error| match error {
            CommitError::Conflict { .. } => Status::already_exists(format!("Service account {id} already exists within project projects/{project}.")),
            error => Status::internal(error),
        })?;
        Ok(account)
    }

    pub(crate) fn account_new(&self, project: &ProjectId, email: String, display_name: &str, description: &str) -> ServiceAccount {
        ServiceAccount {
            project: project.clone(),
            email,
            unique_id: user::digits_21(rand::rng().random()),
            display_name: display_name.to_owned(),
            description: description.to_owned(),
            disabled: false,
            created: self.inner.clock.now(),
        }
    }

    /// `project` `None` is the wildcard `-`.
    ///
    /// # Errors
    /// `NOT_FOUND` in Google's words.
    pub fn service_account_get(&self, project: Option<&ProjectId>, email_or_unique_id: &str) -> Result<ServiceAccount, Status> {
        let accounts = &self.inner.tables.accounts;
        let account = accounts
            .get(&email_or_unique_id.to_ascii_lowercase())
            .or_else(|| accounts.select(|_, account| account.unique_id == email_or_unique_id).pop())
            .filter(|account| project.is_none_or(|project| account.project == *project));
        account.map(|account| (*account).clone()).ok_or_else(unknown)
    }

    /// By address.
    ///
    /// # Errors
    /// None today; the store's, should accounts ever not be in memory.
    pub fn service_account_list(&self, project: &ProjectId) -> Result<Vec<ServiceAccount>, Status> {
        let mut accounts: Vec<_> =
            self.inner.tables.accounts.select(|_, account| account.project == *project).iter().map(|account| (**account).clone()).collect();
        accounts.sort_by(|a, b| a.email.cmp(&b.email));
        Ok(accounts)
    }

    /// Deletes the account with its keys, its policy, what other policies grant to it, its places in groups and its exceptions from deny
    /// rules, at once and together.
    ///
    /// Google keeps such grants as `deleted:serviceAccount:…`; here they go, so that a later account of that name starts with none.
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` for the project's default compute account, which deployments need; `ABORTED` when
    /// policies change too fast under it.
    pub async fn service_account_delete(&self, email: &str) -> Result<(), Status> {
        let _one_at_a_time = self.inner.changes.lock().await;
        for _ in 0..8 {
            let account = self.service_account_get(None, email)?;
            if account.email == self.compute_account() {
                return Err(Status::failed_precondition(format!(
                    "Service account {} is the default identity of project {} and cannot be deleted; disable it instead.",
                    account.email, account.project
                )));
            }
            match self.commit(self.deletion(&account)).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {
                    self.inner.tables.policies.load(&self.inner.store)?;
                    self.inner.tables.deny_policies.load(&self.inner.store)?;
                    self.inner.tables.groups.load(&self.inner.store)?;
                }
                Err(error) => return Err(Status::internal(error)),
            }
        }
        Err(crate::policy::concurrent_change())
    }

    /// Everything that goes with an account.
    fn deletion(&self, account: &ServiceAccount) -> Vec<Write> {
        let tables = &self.inner.tables;
        let mut writes = vec![Write::delete(key::service_account(&account.project, &account.email), Expect::Any)];
        for key in tables.account_keys.select(|_, key| key.key.email == account.email) {
            writes.push(Write::delete(key::service_account_key(&key.key.email, &key.key.id), Expect::Any));
        }
        let own = format!("projects/{}/serviceAccounts/{}", account.project, account.email);
        let member = Member::ServiceAccount(account.email.clone());
        for (resource, row, revision) in tables.policies.select_rows(|resource, row| resource == own || row.names(&member)) {
            let key = key::policy(&resource);
            writes.push(if resource == own {
                Write::delete(key, Expect::Any)
            } else {
                Write::put(key, Expect::Revision(revision), &PolicyRow::without(&row, &member))
            });
        }
        for (name, group, revision) in tables.groups.select_rows(|_, group| group.place(&account.email).is_ok()) {
            let mut group = (*group).clone();
            group.members.retain(|(email, _)| *email != account.email);
            writes.push(Write::put(key::group(&name), Expect::Revision(revision), &group));
        }
        for (project, row, revision) in tables.deny_policies.select_rows(|_, _| true) {
            if let (Some(policies), Ok(project)) = (row.without_exceptions(&account.email, self.inner.clock.now()), ProjectId::parse(&project)) {
                writes.push(Write::put(key::deny_policies(&project), Expect::Revision(revision), &policies));
            }
        }
        for (name, _, _) in tables.refresh_tokens.select_rows(|_, token| token.subject == account.unique_id) {
            writes.push(Write::delete(key::refresh_token(&name), Expect::Any));
        }
        writes
    }

    /// A disabled account's tokens and keys are refused from here on, and are good again when it is enabled.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn service_account_disable(&self, email: &str, disabled: bool) -> Result<(), Status> {
        self.account_change(email, |account| account.disabled = disabled).await.map(drop)
    }

    /// Changes what is `Some`.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT` for texts too long (100 and 256 bytes).
    pub async fn service_account_update(&self, email: &str, display_name: Option<&str>, description: Option<&str>) -> Result<ServiceAccount, Status> {
        texts_check(display_name, description)?;
        self.account_change(email, |account| {
            if let Some(text) = display_name {
                account.display_name = text.to_owned();
            }
            if let Some(text) = description {
                account.description = text.to_owned();
            }
        })
        .await
    }

    async fn account_change(&self, email: &str, change: impl Fn(&mut ServiceAccount)) -> Result<ServiceAccount, Status> {
        let email = self.service_account_get(None, email)?.email;
        loop {
            let (account, revision) = self.inner.tables.accounts.get_revision(&email).ok_or_else(unknown)?;
            let mut account = (*account).clone();
            change(&mut account);
            let write = Write::put(key::service_account(&account.project, &account.email), Expect::Revision(revision), &account);
            match self.commit(vec![write]).await {
                Ok(()) => return Ok(account),
                Err(CommitError::Conflict { .. }) => self.inner.tables.accounts.load(&self.inner.store)?,
                Err(error) => return Err(Status::internal(error)),
            }
        }
    }

    /// The address of the default compute account.
    pub(crate) fn compute_account(&self) -> String {
        format!("{}-compute@developer.gserviceaccount.com", self.inner.number)
    }
}

fn unknown() -> Status {
    Status::not_found("Unknown service account")
}

/// Google's rule: `[a-z]([-a-z0-9]*[a-z0-9])`, 6 to 30 long.
fn is_account_id(id: &str) -> bool {
    (6..=30).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && !id.ends_with('-')
}

fn texts_check(display_name: Option<&str>, description: Option<&str>) -> Result<(), Status> {
    for (field, text, max) in [("display_name", display_name, DISPLAY_NAME_MAX_BYTES), ("description", description, DESCRIPTION_MAX_BYTES)] {
        if text.is_some_and(|text| text.len() > max) {
            return Err(Status::invalid_field(format!("service_account.{field}"), format!("has at most {max} bytes in UTF-8")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_ids() {
        for good in ["abcdef", "a-b-c1", &"a".repeat(30)] {
            assert!(is_account_id(good), "{good}");
        }
        for bad in ["", "abcde", &"a".repeat(31), "Abcdef", "1abcdef", "-abcdef", "abcdef-", "abc_def", "abc.def", "abcdéf", "abc/def", "abc@def"] {
            assert!(!is_account_id(bad), "{bad}");
        }
    }
}
