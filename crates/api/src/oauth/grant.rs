//! The token endpoint: what is exchanged for access and ID tokens.

use std::{collections::BTreeSet, time::Duration};

use iam::{Grant, TokenError};
use serde_json::Value;

use super::{Error, Parameters, client, granted};
use crate::{Deps, surface::Call};

/// How long access tokens live.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

pub(super) async fn token(deps: Deps, call: Call) -> Result<Value, Error> {
    let parameters = Parameters::posted(call).await?;
    match parameters.required("grant_type")? {
        JWT_BEARER => assertion(&deps, &parameters),
        "refresh_token" => refresh(&deps, &parameters),
        "authorization_code" => code(&deps, &parameters).await,
        other => Err(Error::new("unsupported_grant_type", format!("Invalid grant_type: {other}"))),
    }
}

/// RFC 7523: a service account's key speaks for it. With `target_audience` an ID token is wanted, else an access token.
fn assertion(deps: &Deps, parameters: &Parameters) -> Result<Value, Error> {
    let assertion = deps.iam.assertion_check(parameters.required("assertion")?).map_err(|why| {
        tracing::info!(%why, "an assertion was refused");
        Error::new(
            "invalid_grant",
            match why {
                TokenError::Signature => "Invalid JWT Signature.",
                TokenError::Time => {
                    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."
                }
                TokenError::Audience => "Invalid JWT: Failed audience check.",
                TokenError::Subject => "Invalid grant: account not found",
                _ => "Invalid JWT: it is malformed.",
            },
        )
    })?;
    match &assertion.target_audience {
        Some(audience) => Ok(serde_json::json!({ "id_token": deps.iam.id_token_issue(&assertion.identity, audience, true) })),
        None if assertion.scope.trim().is_empty() => Err(Error::new("invalid_scope", "Invalid OAuth scope or ID token audience provided.")),
        None => Ok(granted(deps, &assertion.identity, &assertion.scope)),
    }
}

fn refresh(deps: &Deps, parameters: &Parameters) -> Result<Value, Error> {
    let client_id = client_id(parameters)?;
    let grant = deps.iam.refresh_token_redeem(parameters.required("refresh_token")?, client_id).map_err(|why| {
        tracing::info!(%why, "a refresh token was refused");
        Error::new("invalid_grant", "Token has been expired or revoked.")
    })?;
    let scope = narrowed(&grant.scope, parameters.get("scope"))?;
    Ok(answer(deps, grant, &scope))
}

async fn code(deps: &Deps, parameters: &Parameters) -> Result<Value, Error> {
    let client_id = client_id(parameters)?;
    let (code, redirect_uri) = (parameters.required("code")?, parameters.required("redirect_uri")?);
    let grant = deps.iam.code_redeem(code, client_id, redirect_uri, parameters.get("code_verifier")).await.map_err(|why| {
        tracing::info!(%why, "an authorization code was refused");
        match why {
            TokenError::Signature => Error::new("invalid_grant", "Invalid code verifier."),
            TokenError::Audience => Error::new("redirect_uri_mismatch", "The code was made for another client or redirect URI."),
            TokenError::Store => Error::new("server_error", "The grant could not be kept; sign in again."),
            _ => Error::new("invalid_grant", "Malformed auth code."),
        }
    })?;
    let scope = grant.scope.clone();
    Ok(answer(deps, grant, &scope))
}

/// Access token, ID token for the client (gcloud reads the account's name from it), and the refresh token of a new grant.
fn answer(deps: &Deps, grant: Grant, scope: &str) -> Value {
    let mut answer = granted(deps, &grant.identity, scope);
    answer["scope"] = scope.into();
    answer["id_token"] = deps.iam.id_token_issue(&grant.identity, &grant.client_id, true).into();
    if let Some(token) = grant.refresh_token {
        answer["refresh_token"] = token.into();
    }
    answer
}

fn client_id(parameters: &Parameters) -> Result<&str, Error> {
    let id = parameters.required("client_id")?;
    if client::is_known(id) { Ok(id) } else { Err(Error::new("invalid_client", "The OAuth client was not found.")) }
}

/// The asked scopes, which must be among those that were granted; without any, all of them (RFC 6749, section 6).
fn narrowed(granted: &str, asked: Option<&str>) -> Result<String, Error> {
    let Some(asked) = asked else { return Ok(granted.to_owned()) };
    let all: BTreeSet<&str> = granted.split_ascii_whitespace().collect();
    match asked.split_ascii_whitespace().find(|scope| !all.contains(scope)) {
        Some(scope) => Err(Error::new("invalid_scope", format!("Some requested scopes were invalid: {scope} was not granted."))),
        None => Ok(asked.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_only_become_fewer() {
        let check = |asked: Option<&str>, expect: Option<&str>| assert_eq!(narrowed("openid email", asked).ok().as_deref(), expect, "{asked:?}");
        check(None, Some("openid email"));
        check(Some("email"), Some("email"));
        check(Some("email openid"), Some("email openid"));
        check(Some("email profile"), None);
    }
}
