//! ID tokens: who someone is, told to one audience, in Google's claims.
//!
//! Like Google's, they carry no `hd` for accounts that belong to no Workspace domain, and `azp` is the client for users and the
//! account's own number for service accounts.

use serde::{Deserialize, Serialize};

use crate::{
    GCLOUD_CLIENT_ID, ISSUER, Iam, Identity, Kind, TokenError, jws,
    token::{ID_TYP, LIFETIME_MAX},
    verified::Claims,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdClaims {
    pub(crate) iss: String,
    azp: String,
    aud: String,
    sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email_verified: Option<bool>,
    iat: i64,
    exp: i64,
}

impl Iam {
    /// An ID token as Google's, valid for an hour.
    ///
    /// `audience` is not checked here; one so long that the token exceeds 16 KiB makes a token that is refused everywhere.
    pub fn id_token_issue(&self, who: &Identity, audience: &str, include_email: bool) -> String {
        let iat = self.now_s();
        let claims = IdClaims {
            iss: ISSUER.to_owned(),
            azp: match who.kind {
                Kind::User => audience.to_owned(),
                Kind::ServiceAccount => who.subject.clone(),
            },
            aud: audience.to_owned(),
            sub: who.subject.clone(),
            email: include_email.then(|| who.email.clone()),
            email_verified: include_email.then_some(true),
            iat,
            exp: iat.saturating_add_unsigned(LIFETIME_MAX.as_secs()),
        };
        let key = self.signer();
        jws::sign(&key.private, &key.kid, ID_TYP, &claims)
    }

    /// Who calls with this ID token. `is_audience` says whether an audience is one of the receiver's;
    /// [`GCLOUD_CLIENT_ID`] always is one, for `gcloud auth print-identity-token` asks for it.
    ///
    /// A token seen before costs microseconds. Its times, its key, its audience and its subject are looked at each time.
    /// # Errors
    /// Why it is not good.
    pub fn id_token_check(&self, token: &str, is_audience: &dyn Fn(&str) -> bool) -> Result<Identity, TokenError> {
        let verified = self.token_verify(token)?;
        let Claims::Id(claims) = &verified.claims else {
            return Err(TokenError::Malformed);
        };
        self.times_check(claims.iat, claims.exp)?;
        if claims.aud != GCLOUD_CLIENT_ID && !is_audience(&claims.aud) {
            return Err(TokenError::Audience);
        }
        self.subject_check(claims.email.as_deref(), &claims.sub)
    }
}
