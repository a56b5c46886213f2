//! Refresh tokens: long-lived, kept as hashes, revocable.
//!
//! A user's newest hundred are kept, as at Google; an older one stops working without a word.

use model::{Status, Timestamp, key};
use serde::{Deserialize, Serialize};
use store::{Expect, Write};

use crate::{Grant, Iam, Identity, TokenError, keys, sign_in::secret, table::Table};

/// Of one subject.
const TOKENS_MAX: usize = 100;

/// What lies in the store, under the token's SHA-256.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RefreshToken {
    email: String,
    pub(crate) subject: String,
    client_id: String,
    scope: String,
    created: Timestamp,
}

pub(crate) fn table() -> Table<RefreshToken> {
    Table::new(key::REFRESH_TOKENS, |rest| rest, |bytes| Ok(serde_json::from_slice(bytes)?))
}

impl Iam {
    /// # Errors
    /// `INTERNAL` when it could not be kept.
    pub async fn refresh_token_issue(&self, who: &Identity, client_id: &str, scope: &str) -> Result<String, Status> {
        let _one_at_a_time = self.inner.changes.lock().await;
        let token = format!("1//0{}", secret());
        let record = RefreshToken {
            email: who.email.clone(),
            subject: who.subject.clone(),
            client_id: client_id.to_owned(),
            scope: scope.to_owned(),
            created: self.inner.clock.now(),
        };
        let mut writes = vec![Write::put(key::refresh_token(&hash(&token)), Expect::Absent, &record)];
        let mut others = self.inner.tables.refresh_tokens.select_rows(|_, token| token.subject == who.subject);
        others.sort_by_key(|(_, token, _)| std::cmp::Reverse(token.created));
        for (name, _, _) in others.iter().skip(TOKENS_MAX - 1) {
            writes.push(Write::delete(key::refresh_token(name), Expect::Any));
        }
        self.commit(writes).await.map_err(Status::internal)?;
        Ok(token)
    }

    /// The grant of a refresh token; `refresh_token` in it is `None`, for the old one stays good.
    ///
    /// # Errors
    /// `Malformed` for a token that is unknown or revoked, `Audience` for another client, `Subject`.
    pub fn refresh_token_redeem(&self, token: &str, client_id: &str) -> Result<Grant, TokenError> {
        let record = self.inner.tables.refresh_tokens.get(&hash(token)).ok_or(TokenError::Malformed)?;
        if record.client_id != client_id {
            return Err(TokenError::Audience);
        }
        let identity = self.subject_check(Some(&record.email), &record.subject)?;
        Ok(Grant { identity, refresh_token: None, scope: record.scope.clone(), client_id: record.client_id.clone(), issued: record.created })
    }

    /// # Errors
    /// `INVALID_ARGUMENT` for a token that is unknown or revoked already, in the words of Google's revocation endpoint.
    pub async fn refresh_token_revoke(&self, token: &str) -> Result<(), Status> {
        let name = hash(token);
        if !self.inner.tables.refresh_tokens.contains(&name) {
            return Err(Status::invalid("Token expired or revoked"));
        }
        self.commit(vec![Write::delete(key::refresh_token(&name), Expect::Any)]).await.map_err(Status::internal)
    }
}

fn hash(token: &str) -> String {
    hex::encode(keys::digest(token.as_bytes()))
}
