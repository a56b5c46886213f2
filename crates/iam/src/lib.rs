//! Identity: who calls, and whether they may.
//!
//! **Invariant:** the only place that sees keys or decides "may call"; deny is the default.
//!
//! All records it needs are in memory, kept current by the store's watch: a check reads no disk and waits for nobody.
//! Files, in the order in which a caller meets them: `token` and `id_token` say who calls, on the narrow reader of `jws`, the
//! keys of `signing` and the memory of `verified`; `access` says whether they may, by what `policy` and `deny` were told, the tables of
//! `role` and `permission`, and `custom_role`, `condition` and `group`.
//! `user`, `sign_in`, `refresh_token` and `assertion` are the ways to a token; `service_account` and `service_account_key` are
//! what they look up, and `managed_key` signs for an account. `vault` seals payloads of secrets. `table` is how records are held, `keys` the arithmetic of RSA.

mod access;
mod assertion;
mod condition;
mod custom_role;
mod deny;
mod group;
mod id_token;
mod jws;
mod keys;
mod managed_key;
mod permission;
mod policy;
mod refresh_token;
mod role;
mod service_account;
mod service_account_key;
mod sign_in;
mod signing;
mod table;
mod token;
mod user;
mod vault;
mod verified;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use model::{
    Clock, ProjectId, ProjectNumber, Status, Timestamp, key,
    policy::{Binding, Member, Policy},
};
use parking_lot::RwLock;
use store::{CommitError, Event, Expect, Guard, Store, Write};
use tokio::{sync::Mutex, task::AbortHandle};

pub use self::{
    access::{About, Bound, Explanation, Question, Standing},
    condition::{Fault, lint},
    custom_role::{CustomRole, RoleChange, Stage, permissions},
    deny::{DenyPolicy, DenyRule},
    group::Group,
    policy::Policied,
    role::Role,
    token::{Access, TokenClaims},
    vault::{Payload, Unopened, Vault, VaultError},
};
use self::{
    custom_role::RoleRow,
    deny::DenyRow,
    policy::PolicyRow,
    refresh_token::RefreshToken,
    service_account_key::AccountKey,
    sign_in::CodeGrant,
    signing::SigningKey,
    table::{Source, Table},
    user::User,
};

/// gcloud's own OAuth client: its id is an audience that services accept.
pub const GCLOUD_CLIENT_ID: &str = "32555940559.apps.googleusercontent.com";
/// Who issues the tokens: Google's name, for that is what clients expect.
pub const ISSUER: &str = "https://accounts.google.com";

/// The local issuer and the policies. Clones share it.
#[derive(Clone)]
pub struct Iam {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    number: ProjectNumber,
    tables: Arc<Tables>,
    signer: signing::Signer,
    verified: verified::Cache,
    links: sign_in::Secrets<String>,
    codes: sign_in::Secrets<CodeGrant>,
    /// Further audiences of assertions.
    token_uris: RwLock<Vec<String>>,
    /// Held from a count or look to the commit that depends on it.
    changes: Mutex<()>,
    rotation: Mutex<()>,
    watches: Vec<AbortHandle>,
}

/// Everything that is looked up.
struct Tables {
    signing_keys: Table<SigningKey>,
    users: Table<User>,
    accounts: Table<ServiceAccount>,
    account_keys: Table<AccountKey>,
    refresh_tokens: Table<RefreshToken>,
    policies: Table<PolicyRow>,
    roles: Table<RoleRow>,
    deny_policies: Table<DenyRow>,
    groups: Table<Group>,
    projects: Table<ProjectRow>,
}

/// What of a project's record is asked for here; it is the control plane's.
#[derive(serde::Deserialize)]
struct ProjectRow {
    number: ProjectNumber,
}

/// Someone whose token was good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub kind: Kind,
    /// Lower case.
    pub email: String,
    /// The `sub` claim: 21 digits, stable for an e-mail.
    pub subject: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    User,
    ServiceAccount,
}

/// Why a token was refused; the words are for the operator's log, never for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("not a token of this issuer")]
    Malformed,
    #[error("its signature is not by a key of this issuer")]
    Signature,
    #[error("it has expired or is not valid yet")]
    Time,
    #[error("it is for another audience")]
    Audience,
    #[error("its subject is disabled or gone")]
    Subject,
    /// Only from [`Iam::code_redeem`]; our fault, not the caller's.
    #[error("the store did not take the refresh token")]
    Store,
}

/// What a client sends with its calls.
#[derive(Clone)]
pub struct AccessToken {
    pub token: String,
    pub expires: Timestamp,
}

/// A service account's record, in iam v1's words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServiceAccount {
    pub project: ProjectId,
    pub email: String,
    pub unique_id: String,
    pub display_name: String,
    pub description: String,
    pub disabled: bool,
    pub created: Timestamp,
}

/// A service account's key: its public half.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServiceAccountKey {
    pub email: String,
    /// 40 hexadecimal digits.
    pub id: String,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub public_key_pem: String,
    pub disabled: bool,
    /// This server keeps the private half and signs with it; else it was given away in a key file.
    #[serde(default)]
    pub managed: bool,
}

/// What [`Iam::blob_sign`] and [`Iam::jwt_sign`] give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    /// Of the account's key.
    pub key_id: String,
    pub value: T,
}

/// What a good `jwt-bearer` assertion asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    pub identity: Identity,
    /// An ID token for this audience is wanted.
    pub target_audience: Option<String>,
    /// Scopes with spaces between.
    pub scope: String,
}

/// What `authorization_code` and `refresh_token` grants give.
#[derive(Clone)]
pub struct Grant {
    pub identity: Identity,
    pub refresh_token: Option<String>,
    pub scope: String,
    pub client_id: String,
    /// When the refresh token was.
    pub issued: Timestamp,
}

impl Iam {
    /// Loads or makes keys (RS256 2048 bit; rotation 24 h, overlap 48 h), the owner's user record, the default compute account of `project`
    /// (`NUMBER-compute@developer.gserviceaccount.com`) and the project's first policy (`owner` and the compute account have roles/owner, roles/editor).
    ///
    /// A project that has a policy keeps it, whoever `owner` is. Needs a tokio runtime, which then follows the store's changes
    /// until the last clone is dropped.
    /// # Errors
    /// `INVALID_ARGUMENT` when `owner` is no address of a person; `INTERNAL` when the store or a record cannot be read.
    pub async fn open(store: Store, clock: Arc<dyn Clock>, project: ProjectId, number: ProjectNumber, owner: &str) -> Result<Self, Status> {
        let owner = user::user_email(owner)?;
        let tables = Arc::new(Tables {
            signing_keys: signing::table(),
            users: user::table(),
            accounts: service_account::table(),
            account_keys: service_account_key::table(),
            refresh_tokens: refresh_token::table(),
            policies: policy::table(),
            roles: custom_role::table(),
            deny_policies: deny::table(),
            groups: group::table(),
            projects: Table::new(key::PROJECTS, |rest| rest, |bytes| Ok(serde_json::from_slice(bytes)?)),
        });
        let watches = tables.follow(&store)?;
        let iam = Self {
            inner: Arc::new(Inner {
                store,
                clock,
                number,
                tables,
                signer: RwLock::new(None),
                verified: verified::Cache::default(),
                links: sign_in::Secrets::default(),
                codes: sign_in::Secrets::default(),
                token_uris: RwLock::default(),
                changes: Mutex::new(()),
                rotation: Mutex::new(()),
                watches,
            }),
        };
        iam.rotate().await?;
        iam.first_records_make(&project, &owner).await?;
        Ok(iam)
    }

    /// The owner, the compute account and the project's first policy, each where there is none.
    async fn first_records_make(&self, project: &ProjectId, owner: &str) -> Result<(), Status> {
        let tables = &self.inner.tables;
        if !tables.users.contains(owner) {
            self.user_create(owner).await?;
        }
        let compute = self.compute_account();
        let mut writes = Vec::new();
        if !tables.accounts.contains(&compute) {
            let account = self.account_new(project, compute.clone(), "Compute Engine default service account", "");
            writes.push(Write::put(key::service_account(project, &compute), Expect::Absent, &account));
        }
        let resource = format!("projects/{project}");
        if !tables.policies.contains(&resource) {
            let bind = |role: &str, member| Binding::new(role, vec![member]);
            let bindings = vec![bind("roles/owner", Member::User(owner.to_owned())), bind("roles/editor", Member::ServiceAccount(compute))];
            writes.push(Write::put(key::policy(&resource), Expect::Absent, &Policy { bindings }));
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.commit(writes).await.map_err(Status::internal)
    }

    /// Writes, and lets the tables know before it returns.
    async fn commit(&self, writes: Vec<Write>) -> Result<(), CommitError> {
        self.commit_revision(writes).await.map(drop)
    }

    async fn commit_revision(&self, writes: Vec<Write>) -> Result<u64, CommitError> {
        self.commit_while(Vec::new(), writes).await
    }

    async fn commit_while(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<u64, CommitError> {
        let revision = self.inner.store.commit_while(guards, writes.clone()).await?;
        for write in &writes {
            self.inner.tables.apply(&write.key, write.value.as_deref(), revision, Source::Commit);
        }
        Ok(revision)
    }
}

// Tokens never appear in logs, not by `{:?}` either.
impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("identity", &self.identity).field("scope", &self.scope).field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

/// The same call on each table.
macro_rules! each_table {
    ($tables:expr, $table:ident => $do:expr) => {{
        let tables = $tables;
        each_table!(@ tables, $table => $do; signing_keys users accounts account_keys refresh_tokens policies roles deny_policies groups projects)
    }};
    (@ $tables:ident, $table:ident => $do:expr; $($name:ident)*) => {{ $( { let $table = &$tables.$name; $do; } )* }};
}

impl Tables {
    fn apply(&self, key: &str, value: Option<&[u8]>, revision: u64, source: Source) {
        each_table!(self, table => table.apply(key, value, revision, source));
    }

    fn load(&self, prefix: &str, store: &Store) -> Result<(), Status> {
        each_table!(self, table => if table.prefix() == prefix { table.load(store)? });
        Ok(())
    }

    /// Watches, then loads: nothing falls between.
    fn follow(self: &Arc<Self>, store: &Store) -> Result<Vec<AbortHandle>, Status> {
        let mut watches = Vec::new();
        each_table!(self, table => {
            let watch = store.watch(table.prefix());
            table.load(store)?;
            watches.push(tokio::spawn(self.clone().watch_run(table.prefix(), watch, store.clone())).abort_handle());
        });
        Ok(watches)
    }

    async fn watch_run(self: Arc<Self>, prefix: &'static str, mut watch: store::Watch, store: Store) {
        while let Some(event) = watch.next().await {
            match event {
                Event::Change(change) => self.apply(&change.key, change.value.as_deref(), change.revision, Source::Watch),
                Event::Resync => {
                    if let Err(error) = self.load(prefix, &store) {
                        tracing::error!(prefix, %error, "records not read again; changes by other writers may be missing");
                    }
                }
            }
        }
    }
}
