//! Identity: who calls, and whether they may.
//!
//! **Invariant:** the only place that sees keys or decides "may call"; deny is the default.

use std::{sync::Arc, time::Duration};

use model::{
    Clock, ProjectId, ProjectNumber, Status, Timestamp,
    policy::{Policy, VersionedPolicy},
};

/// gcloud's own OAuth client: its id is an audience that services accept.
pub const GCLOUD_CLIENT_ID: &str = "32555940559.apps.googleusercontent.com";
pub const ISSUER: &str = "https://accounts.google.com";

/// The local issuer and the policies. Clones share it.
#[derive(Clone)]
pub struct Iam {}

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
}

#[derive(Clone, Debug)]
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

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServiceAccountKey {
    pub email: String,
    /// 40 hexadecimal digits.
    pub id: String,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub public_key_pem: String,
    pub disabled: bool,
}

/// What a good `jwt-bearer` assertion asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    pub identity: Identity,
    /// An ID token for this audience is wanted.
    pub target_audience: Option<String>,
    pub scope: String,
}

/// What `authorization_code` and `refresh_token` grants give.
#[derive(Clone, Debug)]
pub struct Grant {
    pub identity: Identity,
    pub refresh_token: Option<String>,
    pub scope: String,
    pub client_id: String,
}

impl Iam {
    /// Loads or makes keys (RS256 2048 bit; rotation 24 h, overlap 48 h), the owner's user record, the default compute account of `project`
    /// (`NUMBER-compute@developer.gserviceaccount.com`) and the project's first policy (`owner` and the compute account have roles/owner, roles/editor).
    pub async fn open(store: store::Store, clock: Arc<dyn Clock>, project: ProjectId, number: ProjectNumber, owner: &str) -> Result<Self, Status> {
        todo!()
    }

    // --- tokens -------------------------------------------------------------------------------------------------
    /// Issues an access token (a signed JWT with prefix `ya29.` is fine; opaque to clients), valid `lifetime` (at most 1 h; 12 h with impersonation's extension is refused).
    pub fn access_token_issue(&self, who: &Identity, scope: &str, lifetime: Duration) -> AccessToken {
        todo!()
    }
    pub fn access_token_check(&self, token: &str) -> Result<Identity, TokenError> {
        todo!()
    }
    /// An ID token as Google's: iss, aud, sub, azp, email, email_verified (when `include_email`), iat, exp (1 h), kid in the header.
    pub fn id_token_issue(&self, who: &Identity, audience: &str, include_email: bool) -> String {
        todo!()
    }
    /// `is_audience` says whether an audience is one of the receiver's (the GCLOUD_CLIENT_ID is always one).
    pub fn id_token_check(&self, token: &str, is_audience: &dyn Fn(&str) -> bool) -> Result<Identity, TokenError> {
        todo!()
    }
    /// Whether `token` carries the signature of a key of this issuer, whatever it is for: such a token must not reach a function usable.
    pub fn is_own(&self, token: &str) -> bool {
        todo!()
    }
    /// The published keys as a JWKS document.
    pub fn jwks(&self) -> String {
        todo!()
    }
    pub fn assertion_check(&self, jwt: &str) -> Result<Assertion, TokenError> {
        todo!()
    }

    // --- users and sign-in --------------------------------------------------------------------------------------
    /// The identity of an e-mail: a service account when its record exists or its domain is gserviceaccount.com, else a user.
    pub fn identity(&self, email: &str) -> Identity {
        todo!()
    }
    pub fn user_exists(&self, email: &str) -> bool {
        todo!()
    }
    pub async fn user_create(&self, email: &str) -> Result<(), Status> {
        todo!()
    }
    /// Argon2id; 8 to 1024 bytes.
    pub async fn password_set(&self, email: &str, password: &str) -> Result<(), Status> {
        todo!()
    }
    /// Slow by design: call from a blocking thread. Same time for an unknown user.
    pub fn password_check(&self, email: &str, password: &str) -> bool {
        todo!()
    }
    /// A secret good once, for 15 minutes, to sign `email` in by a link that `serve` prints.
    pub fn sign_in_link_issue(&self, email: &str) -> String {
        todo!()
    }
    pub fn sign_in_link_redeem(&self, secret: &str) -> Option<Identity> {
        todo!()
    }
    /// An authorization code, bound to client, redirect and PKCE challenge (S256; `None` when the client sent none), good once, for 10 minutes.
    pub fn code_issue(&self, who: &Identity, client_id: &str, redirect_uri: &str, challenge: Option<&str>, scope: &str) -> String {
        todo!()
    }
    pub async fn code_redeem(&self, code: &str, client_id: &str, redirect_uri: &str, verifier: Option<&str>) -> Result<Grant, TokenError> {
        todo!()
    }
    pub async fn refresh_token_issue(&self, who: &Identity, client_id: &str, scope: &str) -> Result<String, Status> {
        todo!()
    }
    pub fn refresh_token_redeem(&self, token: &str, client_id: &str) -> Result<Grant, TokenError> {
        todo!()
    }
    pub async fn refresh_token_revoke(&self, token: &str) -> Result<(), Status> {
        todo!()
    }

    // --- service accounts ---------------------------------------------------------------------------------------
    pub async fn service_account_create(&self, project: &ProjectId, id: &str, display_name: &str, description: &str) -> Result<ServiceAccount, Status> {
        todo!()
    }
    /// `project` `None` is the wildcard `-`.
    pub fn service_account_get(&self, project: Option<&ProjectId>, email_or_unique_id: &str) -> Result<ServiceAccount, Status> {
        todo!()
    }
    pub fn service_account_list(&self, project: &ProjectId) -> Result<Vec<ServiceAccount>, Status> {
        todo!()
    }
    pub async fn service_account_delete(&self, email: &str) -> Result<(), Status> {
        todo!()
    }
    pub async fn service_account_disable(&self, email: &str, disabled: bool) -> Result<(), Status> {
        todo!()
    }
    pub async fn service_account_update(&self, email: &str, display_name: Option<&str>, description: Option<&str>) -> Result<ServiceAccount, Status> {
        todo!()
    }
    /// The key and, only here and never again, its private half in PKCS#8 PEM.
    pub async fn key_create(&self, email: &str) -> Result<(ServiceAccountKey, String), Status> {
        todo!()
    }
    pub fn key_list(&self, email: &str) -> Result<Vec<ServiceAccountKey>, Status> {
        todo!()
    }
    pub async fn key_delete(&self, email: &str, id: &str) -> Result<(), Status> {
        todo!()
    }

    // --- policies -----------------------------------------------------------------------------------------------
    /// Resources: `projects/P`, `projects/P/locations/R/services/S`, `projects/P/serviceAccounts/EMAIL`, `buckets/B`.
    /// No record: the empty policy with the etag `ACAB`.
    pub fn policy_get(&self, resource: &str) -> Result<VersionedPolicy, Status> {
        todo!()
    }
    /// `ABORTED` (409) when `etag` is not empty and not the current one. Unknown roles and members are refused by name.
    pub async fn policy_set(&self, resource: &str, policy: Policy, etag: &str) -> Result<VersionedPolicy, Status> {
        todo!()
    }
    /// Whether `who` (None: anonymous) has `permission` on `resource` or on the project it belongs to (`project`, empty for none).
    /// In memory, no allocation on the way to an answer, effective at once after `policy_set`.
    pub fn may(&self, who: Option<&Identity>, permission: &str, resource: &str, project: &str) -> bool {
        todo!()
    }
    /// The permissions of `asked` that `who` has.
    pub fn test_permissions(&self, who: Option<&Identity>, asked: &[String], resource: &str, project: &str) -> Vec<String> {
        todo!()
    }
    /// Whether `role` (`roles/run.invoker`) is known.
    pub fn role_exists(&self, role: &str) -> bool {
        todo!()
    }
}
