//! OAuth 2 and OpenID Connect in the places where Google's clients look: token endpoint, revocation, published keys, user info.
//!
//! Signing in, which makes authorization codes, is in `sign_in`. Errors have RFC 6749's shape, not that of Google's APIs.
//! Device flow, dynamic clients and consent do not exist here. Source: RFC 6749, 7009, 7523, 7636; OpenID Connect Core and Discovery;
//! developers.google.com/identity/openid-connect.

pub(crate) mod client;
mod grant;
mod published;

pub(crate) use published::certificate;

use axum::{Form, extract::FromRequest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Method, StatusCode, header};
use iam::Identity;
use model::{Code, Status};
use serde_json::{Value, json};

use crate::{
    Deps, Response,
    error::json_response,
    permission::Need,
    surface::{Call, Endpoints, Surface},
};

/// A form's largest size, in bytes.
const FORM_MAX_BYTES: usize = 64 << 10;
const HOSTS: &[&str] = &["oauth2.googleapis.com", "accounts.google.com", "www.googleapis.com", "openidconnect.googleapis.com"];

/// Every endpoint.
pub(crate) fn surface(deps: Deps) -> Surface {
    use Method as M;
    let open = Need::Public;
    let mut endpoints = Endpoints::new(deps);
    for path in ["/token", "/o/oauth2/token", "/oauth2/v3/token", "/oauth2/v4/token"] {
        endpoints = endpoints.on(M::POST, path, open, |d, c| done(grant::token(d, c)));
    }
    for path in ["/revoke", "/o/oauth2/revoke"] {
        endpoints = endpoints.on(M::POST, path, open, |d, c| done(revoke(d, c)));
    }
    for path in ["/tokeninfo", "/oauth2/v3/tokeninfo", "/oauth2/v1/tokeninfo", "/oauth2/v2/tokeninfo"] {
        endpoints = endpoints.on(M::GET, path, open, |d, c| done(token_info(d, c))).on(M::POST, path, open, |d, c| done(token_info(d, c)));
    }
    for path in ["/v1/userinfo", "/oauth2/v3/userinfo"] {
        endpoints = endpoints.on(M::GET, path, Need::SignedIn, |_, c| user_info(c, "sub")).on(M::POST, path, Need::SignedIn, |_, c| user_info(c, "sub"));
    }
    for path in ["/oauth2/v1/userinfo", "/oauth2/v2/userinfo"] {
        endpoints = endpoints.on(M::GET, path, Need::SignedIn, |_, c| user_info(c, "id"));
    }
    endpoints
        .on(M::GET, "/oauth2/v3/certs", open, published::jwks)
        .on(M::GET, "/oauth2/v1/certs", open, published::certificates)
        .on(M::GET, "/robot/v1/metadata/x509/{account}", open, published::account_certificates)
        .on(M::GET, "/robot/v1/metadata/jwk/{account}", open, published::account_jwks)
        .on(M::GET, "/service_accounts/v1/metadata/x509/{account}", open, published::account_certificates)
        .on(M::GET, "/service_accounts/v1/jwk/{account}", open, published::account_jwks)
        .on(M::GET, "/.well-known/openid-configuration", open, |_, _| async { Ok(published::discovery()) })
        .surface_with("oauth2", HOSTS, |status| Error::from(status).into_response())
}

/// An error as RFC 6749, section 5.2, writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    http: StatusCode,
    error: &'static str,
    description: String,
}

impl Error {
    pub(crate) fn new(error: &'static str, description: impl Into<String>) -> Self {
        let http = match error {
            "invalid_client" => StatusCode::UNAUTHORIZED,
            "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self { http, error, description: description.into() }
    }

    fn into_response(self) -> Response {
        uncached(json_response(self.http, &json!({ "error": self.error, "error_description": self.description })))
    }
}

impl From<&Status> for Error {
    fn from(status: &Status) -> Self {
        let error = match status.code {
            Code::Unauthenticated => {
                return Self { http: StatusCode::UNAUTHORIZED, ..Self::new("invalid_token", "The access token is missing, expired or revoked.") };
            }
            Code::Internal | Code::Unavailable | Code::Unknown => {
                tracing::error!(outer = %status.outer, inner = %status.inner, "an OAuth call failed");
                "server_error"
            }
            Code::NotFound => return Self { http: StatusCode::NOT_FOUND, ..Self::new("not_found", status.outer.clone()) },
            _ => "invalid_request",
        };
        Self::new(error, status.outer.clone())
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::from(&status)
    }
}

async fn done(answer: impl Future<Output = Result<Value, Error>>) -> Result<Response, Status> {
    Ok(match answer.await {
        Ok(body) => uncached(json_response(StatusCode::OK, &body)),
        Err(error) => error.into_response(),
    })
}

/// Tokens are in no cache (RFC 6749, section 5.1).
fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The parameters of a posted form. One that is written twice is an error (RFC 6749, section 3.2).
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(crate) async fn posted(call: Call) -> Result<Self, Error> {
        let mut request = http::Request::new(axum::body::Body::new(http_body_util::Limited::new(call.body, FORM_MAX_BYTES)));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = call.headers;
        let Form(pairs) = Form::<Vec<(String, String)>>::from_request(request, &())
            .await
            .map_err(|rejection| Error::new("invalid_request", format!("The body is no form of at most 64 KiB: {}", rejection.body_text())))?;
        Self::checked(pairs)
    }

    pub(crate) fn checked(pairs: Vec<(String, String)>) -> Result<Self, Error> {
        match pairs.iter().enumerate().find(|(at, (name, _))| pairs[..*at].iter().any(|(earlier, _)| earlier == name)) {
            Some((_, (name, _))) => Err(Error::new("invalid_request", format!("The parameter {name} is written twice."))),
            None => Ok(Self(pairs)),
        }
    }

    /// `None` for what is missing or empty: RFC 6749 does not tell these apart.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, Error> {
        self.get(name).ok_or_else(|| Error::new("invalid_request", format!("Missing required parameter: {name}")))
    }
}

/// RFC 7009. Access tokens live for an hour at most and are not remembered: only refresh tokens can be revoked.
async fn revoke(deps: Deps, call: Call) -> Result<Value, Error> {
    let query: Vec<(String, String)> = form_urlencoded::parse(call.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let from_query = Parameters::checked(query)?.get("token").map(str::to_owned);
    let token = match from_query {
        Some(token) => token,
        None => Parameters::posted(call).await?.required("token")?.to_owned(),
    };
    if deps.iam.access_token_check(&token).is_ok() {
        return Err(Error::new("unsupported_token_type", "Access tokens end by themselves within an hour; revoke the refresh token."));
    }
    match deps.iam.refresh_token_revoke(&token).await {
        Ok(()) => Ok(json!({})),
        Err(status) if status.code == Code::Internal => Err(status.into()),
        Err(_) => Err(Error::new("invalid_token", "Token is not revocable.")),
    }
}

async fn token_info(deps: Deps, call: Call) -> Result<Value, Error> {
    let query = form_urlencoded::parse(call.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let mut parameters = Parameters::checked(query)?;
    if call.headers.contains_key(header::CONTENT_TYPE) {
        parameters = Parameters::posted(call).await?;
    }
    let invalid = |_| Error::new("invalid_token", "Invalid Value");
    if let Some(token) = parameters.get("access_token") {
        let access = deps.iam.access_token_read(token).map_err(invalid)?;
        let left = access.expires.duration_since(deps.clock.now()).as_secs().max(0);
        return Ok(json!({
            "azp": access.identity.subject, "aud": access.identity.subject, "sub": access.identity.subject, "scope": access.scope,
            "exp": access.expires.as_second().to_string(), "expires_in": left.to_string(),
            "email": access.identity.email, "email_verified": "true", "access_type": "online",
        }));
    }
    let token = parameters.required("id_token")?;
    deps.iam.id_token_check(token, &|_| true).map_err(invalid)?;
    claims(token).ok_or_else(|| Error::new("invalid_token", "Invalid Value"))
}

/// The claims of a JWT whose signature was checked, all as text, as this endpoint writes them.
fn claims(token: &str) -> Option<Value> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Value::Object(claims) = serde_json::from_slice(&payload).ok()? else { return None };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Some(claims.into_iter().map(|(name, value)| (name, Value::String(text(value)))).collect())
}

/// Who the token is of. `id` is what the subject is called: `sub` since version 3.
async fn user_info(call: Call, id: &'static str) -> Result<Response, Status> {
    let Identity { email, subject, .. } = call.who()?;
    let verified = if id == "sub" { "email_verified" } else { "verified_email" };
    Ok(uncached(json_response(StatusCode::OK, &json!({ id: subject, "email": email, verified: true }))))
}

/// What makes a token response.
fn granted(deps: &Deps, who: &Identity, scope: &str) -> Value {
    let token = deps.iam.access_token_issue(who, scope, grant::LIFETIME);
    json!({ "access_token": token.token, "expires_in": grant::LIFETIME.as_secs() - 1, "token_type": "Bearer" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_there_once() {
        let pairs = |list: &[(&str, &str)]| Parameters::checked(list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect());
        assert_eq!(pairs(&[("a", "1"), ("b", "")]).unwrap().get("a"), Some("1"));
        assert_eq!(pairs(&[("b", "")]).unwrap().required("b").unwrap_err().error, "invalid_request");
        assert_eq!(pairs(&[("a", "1"), ("a", "1")]).unwrap_err().error, "invalid_request");
    }

    #[test]
    fn claims_are_text() {
        let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"exp":12,"aud":"x","email_verified":true}"#));
        assert_eq!(claims(&token), Some(json!({ "exp": "12", "aud": "x", "email_verified": "true" })));
        assert_eq!(claims("nonsense"), None);
    }
}
