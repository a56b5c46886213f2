//! The pages on which a person signs in: `accounts.google.com/o/oauth2/auth`, and the one-time link of `tanebi serve`.
//!
//! Signing in ends in an authorization code for a client on the same machine. There is no session, no consent and no script: each flow asks
//! for the password. A page can be posted only from itself (a signed form bound to a cookie, and the Origin), is in no frame and in no cache.

mod form;
mod guard;
mod page;
mod text;

use std::sync::Arc;

use axum::{Form, extract::FromRequest, response::IntoResponse};
use http::{HeaderMap, Method, StatusCode, header};
use iam::{Iam, Identity};
use model::Status;
use serde::{Deserialize, Serialize};

pub(crate) use self::guard::Guard;
use self::{form::Forms, page::Page, text::Texts};
use crate::{
    Credentials, Deps, Response,
    oauth::client,
    permission::Need,
    surface::{Call, Endpoints, Surface},
};

const HOSTS: &[&str] = &["accounts.google.com"];
/// A form's largest size, in bytes: the signed request and a password of 1 KiB, escaped.
const FORM_MAX_BYTES: usize = 32 << 10;
/// Of one parameter of an authorization request, in bytes.
const PARAMETER_MAX_BYTES: usize = 4 << 10;

/// The pages.
pub(crate) fn surface(deps: Deps, guard: Arc<Guard>) -> Surface {
    use Method as M;
    let open = Need::Public;
    let state = Arc::new(SignIn { deps, forms: Forms::new(), guard });
    let mut endpoints = Endpoints::new(state);
    for path in ["/o/oauth2/auth", "/o/oauth2/v2/auth"] {
        endpoints = endpoints.on(M::GET, path, open, |s, c| s.ask(c)).on(M::POST, path, open, |s, c| s.answer(c));
    }
    endpoints
        .on(M::GET, "/sign-in", open, |s, c| s.link(c))
        .on(M::POST, "/sign-in", open, |s, c| s.password(c))
        .on(M::GET, page::STYLE_PATH, open, |_, _| async { Ok(page::style()) })
        .surface_with("sign-in", HOSTS, |status| Page::plain(Texts::english(), status.code.http(), &status.outer).into_response())
}

struct SignIn {
    deps: Deps,
    forms: Forms,
    guard: Arc<Guard>,
}

/// An authorization request that was understood (RFC 6749, section 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    client_id: String,
    redirect_uri: String,
    scope: String,
    state: String,
    challenge: Option<String>,
    /// The e-mail that the client thinks of.
    hint: String,
}

/// What a person may post. `form` is the signed text that the page was given.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Posted {
    form: String,
    email: String,
    password: String,
    /// The password once more.
    again: String,
    /// Of a one-time link.
    secret: String,
}

impl SignIn {
    /// The page with the form.
    async fn ask(self: Arc<Self>, call: Call) -> Result<Response, Status> {
        if let Some(elsewhere) = elsewhere(&call) {
            return Ok(elsewhere);
        }
        let texts = Texts::of(&call.headers);
        Ok(match request_read(call.uri.query().unwrap_or_default()) {
            Ok(request) => self.sign_in_page(&call.headers, texts, &request, None),
            Err(why) => Page::plain(texts, 400, &format!("{} {why}", texts.bad_request)).into_response(),
        })
    }

    fn sign_in_page(&self, headers: &HeaderMap, texts: &'static Texts, request: &Request, error: Option<&str>) -> Response {
        let (form, cookie) = self.forms.make(headers, request, self.deps.clock.now());
        let origin = client::redirect_origin(&request.redirect_uri).unwrap_or_default();
        Page::sign_in(texts, &form, &request.hint, error).with_cookie(cookie).posting_to(origin).into_response()
    }

    /// The form, filled in.
    async fn answer(self: Arc<Self>, call: Call) -> Result<Response, Status> {
        let texts = Texts::of(&call.headers);
        let (headers, posted) = match posted(call, texts).await {
            Ok(posted) => posted,
            Err(page) => return Ok(page),
        };
        let Some(mut request) = self.forms.read::<Request>(&headers, &posted.form, self.deps.clock.now()) else {
            return Ok(Page::plain(texts, 403, texts.stale).into_response());
        };
        if posted.email.len() <= 254 {
            posted.email.trim().clone_into(&mut request.hint);
        }
        let who = match self.identify(&posted).await {
            Ok(Some(who)) => who,
            Ok(None) => {
                tracing::info!("a sign-in was refused");
                return Ok(self.sign_in_page(&headers, texts, &request, Some(texts.wrong)).with_status(StatusCode::FORBIDDEN));
            }
            Err(guard::TooMany) => {
                let page = self.sign_in_page(&headers, texts, &request, Some(texts.too_many)).with_status(StatusCode::TOO_MANY_REQUESTS);
                return Ok(([(header::RETRY_AFTER, "60")], page).into_response());
            }
        };
        tracing::info!(email = who.email, client_id = request.client_id, "signed in");
        let code = self.deps.iam.code_issue(&who, &request.client_id, &request.redirect_uri, request.challenge.as_deref(), &request.scope);
        if !request.redirect_uri.starts_with("http://") {
            // The page that the client redirects to only shows the code: so does this one.
            return Ok(Page::code(texts, &code).into_response());
        }
        let location = redirect(&request, &code);
        let headers = [(header::LOCATION, location.as_str()), (header::CACHE_CONTROL, "no-store"), (header::REFERRER_POLICY, "no-referrer")];
        Ok((StatusCode::SEE_OTHER, headers).into_response())
    }

    /// Who posted: by the secret of a link, or by e-mail and password.
    async fn identify(&self, posted: &Posted) -> Result<Option<Identity>, guard::TooMany> {
        let credentials = match posted.secret.trim() {
            "" => Credentials::Password { email: posted.email.clone(), password: posted.password.clone() },
            secret => Credentials::Link(secret.to_owned()),
        };
        identify(&self.deps.iam, &self.guard, credentials).await
    }

    /// The page behind a one-time link: it asks for a new password. Looking at it does not use the link up.
    async fn link(self: Arc<Self>, call: Call) -> Result<Response, Status> {
        if let Some(elsewhere) = elsewhere(&call) {
            return Ok(elsewhere);
        }
        let texts = Texts::of(&call.headers);
        let secret = call.query("link").filter(|secret| secret.len() <= PARAMETER_MAX_BYTES);
        Ok(match secret {
            Some(secret) => self.password_page(&call.headers, texts, &secret, None),
            None => Page::plain(texts, 200, texts.no_link).into_response(),
        })
    }

    fn password_page(&self, headers: &HeaderMap, texts: &'static Texts, secret: &str, error: Option<&str>) -> Response {
        let (form, cookie) = self.forms.make(headers, &Link { link: secret.to_owned() }, self.deps.clock.now());
        Page::password(texts, &form, error).with_cookie(cookie).into_response()
    }

    /// The new password.
    async fn password(self: Arc<Self>, call: Call) -> Result<Response, Status> {
        let texts = Texts::of(&call.headers);
        let (headers, posted) = match posted(call, texts).await {
            Ok(posted) => posted,
            Err(page) => return Ok(page),
        };
        let Some(Link { link }) = self.forms.read(&headers, &posted.form, self.deps.clock.now()) else {
            return Ok(Page::plain(texts, 403, texts.stale).into_response());
        };
        // What can be wrong with the password is found before the link is used up.
        let bytes = posted.password.len();
        if posted.password != posted.again || !(8..=1024).contains(&bytes) {
            let why = if posted.password == posted.again { texts.password_rule } else { texts.differs };
            return Ok(self.password_page(&headers, texts, &link, Some(why)).with_status(StatusCode::BAD_REQUEST));
        }
        if self.guard.wait("").await.is_err() {
            return Ok(Page::plain(texts, 429, texts.too_many).into_response());
        }
        let Some(who) = self.deps.iam.sign_in_link_redeem(&link) else {
            return Ok(Page::plain(texts, 403, texts.link_gone).into_response());
        };
        self.deps.iam.password_set(&who.email, &posted.password).await?;
        tracing::info!(email = who.email, "a password was set by a one-time link");
        Ok(Page::plain(texts, 200, &texts.password_set.replace("{}", &who.email)).into_response())
    }
}

/// Whose credentials they are, if they are good. Tries wait for each other, whichever page they come from.
pub(crate) async fn identify(iam: &Iam, guard: &Guard, credentials: Credentials) -> Result<Option<Identity>, guard::TooMany> {
    let (email, password) = match credentials {
        Credentials::Link(secret) => {
            guard.wait("").await?;
            return Ok(iam.sign_in_link_redeem(&secret));
        }
        Credentials::Password { email, password } => (email.trim().to_ascii_lowercase(), password),
    };
    guard.wait(&email).await?;
    let iam = iam.clone();
    let good = tokio::task::spawn_blocking(move || iam.password_check(&email, &password).then(|| iam.identity(&email))).await;
    Ok(good.unwrap_or_else(|error| {
        tracing::error!(%error, "a password check failed");
        None
    }))
}

#[derive(Serialize, Deserialize)]
struct Link {
    link: String,
}

/// The request's host, with its port.
fn host(call: &Call) -> Option<&str> {
    call.headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(call.uri.authority().map(|authority| authority.as_str()))
}

/// Whether `host` is a name under which functions are found by path: a function's page must not share an origin with one that asks for
/// a password.
fn is_shared(host: &str) -> bool {
    host.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case("localhost"))
}

/// From a shared name to this server's own.
fn elsewhere(call: &Call) -> Option<Response> {
    let port = host(call).filter(|host| is_shared(host))?.split_once(':').map_or("80", |(_, port)| port);
    let port: u16 = port.parse().ok()?;
    let location = format!("http://127.0.0.1:{port}{}", call.uri.path_and_query().map_or("/", |target| target.as_str()));
    Some((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location.as_str()), (header::CACHE_CONTROL, "no-store")]).into_response())
}

/// Reads what was posted, from this very page or not at all.
async fn posted(call: Call, texts: &'static Texts) -> Result<(HeaderMap, Posted), Response> {
    let host = host(&call);
    if host.is_some_and(is_shared) || !form::is_same_origin(&call.headers, host) {
        return Err(Page::plain(texts, 403, texts.stale).into_response());
    }
    let headers = call.headers.clone();
    let mut request = http::Request::new(axum::body::Body::new(http_body_util::Limited::new(call.body, FORM_MAX_BYTES)));
    *request.method_mut() = Method::POST;
    *request.headers_mut() = call.headers;
    match Form::<Posted>::from_request(request, &()).await {
        Ok(Form(posted)) => Ok((headers, posted)),
        Err(rejection) => Err(Page::plain(texts, 400, &format!("{} {}", texts.bad_request, rejection.body_text())).into_response()),
    }
}

/// Understands an authorization request; the error is for a developer's eyes.
fn request_read(query: &str) -> Result<Request, String> {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    if let Some((_, (name, _))) = pairs.iter().enumerate().find(|(at, (name, _))| pairs[..*at].iter().any(|(earlier, _)| earlier == name)) {
        return Err(format!("{name} is written twice."));
    }
    if let Some((name, _)) = pairs.iter().find(|(_, value)| value.len() > PARAMETER_MAX_BYTES) {
        return Err(format!("{name} is longer than {PARAMETER_MAX_BYTES} bytes."));
    }
    let get = |name: &str| pairs.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    for (name, allowed) in [("response_type", &["code"][..]), ("response_mode", &["", "query"]), ("nonce", &[""]), ("request", &[""]), ("request_uri", &[""])] {
        if !allowed.contains(&get(name)) {
            return Err(format!("{name}={} is not supported.", get(name)));
        }
    }
    if !client::is_known(get("client_id")) {
        return Err("The OAuth client was not found: client_id.".to_owned());
    }
    if client::redirect_origin(get("redirect_uri")).is_none() {
        return Err("redirect_uri must be http://localhost:PORT/, http://127.0.0.1:PORT/ or gcloud's own page.".to_owned());
    }
    if get("scope").trim().is_empty() {
        return Err("scope is missing.".to_owned());
    }
    let challenge = match (get("code_challenge"), get("code_challenge_method")) {
        ("", _) => None,
        (challenge, "S256") if challenge.len() == 43 => Some(challenge.to_owned()),
        _ => return Err("code_challenge_method must be S256, and code_challenge 43 characters.".to_owned()),
    };
    let text = |name| get(name).to_owned();
    Ok(Request {
        client_id: text("client_id"),
        redirect_uri: text("redirect_uri"),
        scope: text("scope"),
        state: text("state"),
        challenge,
        hint: text("login_hint"),
    })
}

/// Back to the client, with the code. All of its scopes are granted: gcloud warns about missing ones.
fn redirect(request: &Request, code: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if !request.state.is_empty() {
        query.append_pair("state", &request.state);
    }
    query.append_pair("code", code).append_pair("scope", &request.scope).append_pair("authuser", "0");
    let separator = if request.redirect_uri.contains('?') { '&' } else { '?' };
    format!("{}{separator}{}", request.redirect_uri, query.finish())
}

/// A page with another status.
trait WithStatus {
    fn with_status(self, status: StatusCode) -> Self;
}

impl WithStatus for Response {
    fn with_status(mut self, status: StatusCode) -> Self {
        *self.status_mut() = status;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As gcloud 528 sends it.
    const GCLOUD: &str = "response_type=code&client_id=32555940559.apps.googleusercontent.com&redirect_uri=http%3A%2F%2Flocalhost%3A8085%2F&scope=openid+https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fuserinfo.email&state=3XKwstFC0C64OnQtsG9tIRpNuaWnuR&access_type=offline&code_challenge=sgPnEX7g0J1jNrSZWDJIrS-BenLyfPPvws3hB9WERT8&code_challenge_method=S256";

    #[test]
    fn the_request_of_gcloud_comes_back_with_state_and_all_scopes() {
        let request = request_read(GCLOUD).unwrap();
        assert_eq!(
            redirect(&request, "4/0Ax y"),
            "http://localhost:8085/?state=3XKwstFC0C64OnQtsG9tIRpNuaWnuR&code=4%2F0Ax+y&scope=openid+https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fuserinfo.email&authuser=0"
        );
    }

    #[test]
    fn other_requests_are_refused_by_name() {
        let check = |from: &str, to: &str, name: &str| {
            let query = GCLOUD.replace(from, to);
            assert_ne!(query, GCLOUD, "{from}");
            let error = request_read(&query).unwrap_err();
            assert!(error.contains(name), "{query}: {error}");
        };
        check("response_type=code", "response_type=token", "response_type");
        check("32555940559", "1", "client_id");
        check("localhost%3A8085", "evil.com%3A8085", "redirect_uri");
        check("S256", "plain", "code_challenge_method");
        check("sgPnEX7g", "", "code_challenge");
        check("access_type=offline", "nonce=x", "nonce");
        check("access_type=offline", "state=x", "state");
        check("scope=openid", "scope=&x=", "scope");
        check("state=3X", &format!("state={}", "x".repeat(5000)), "state");
    }
}
