//! The console: a page in the browser that creates, edits, tests and watches functions, on an origin of its own.
//!
//! `http://console.localhost:PORT` is no function's origin and no other server's, so neither its cookie nor its pages are anyone else's.
//! The page calls the same APIs as gcloud does, through [`gateway`]: with the rights of whoever has signed in and no more. What Google
//! has no method for is below `/_console/v1/`. Nothing here answers another site's page: see [`is_own_page`].

mod files;
mod gateway;
mod session;
mod trial;
mod watch;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::Status;
use serde_json::{Value, json};
use serving::{Origin, Request, Response};

use crate::{
    front::Front,
    own::{answer, body, error, field},
};

/// The console's host, exactly: a name that leads elsewhere by DNS is another one.
pub const HOST: &str = "console.localhost";
/// Sent with every call by the console's script: a form, an image or a link of another page cannot send it.
const OWN_HEADER: &str = "x-tanebi-console";

/// What the console's methods work on.
pub struct Console {
    pub iam: iam::Iam,
    pub clock: Arc<dyn model::Clock>,
    pub project: control::Project,
    pub region: model::Region,
    /// For command lines that the page shows.
    pub listen: std::net::SocketAddr,
    pub ca_file: std::path::PathBuf,
}

/// The address to open, with a secret that signs in once. It stands behind `#`, which a browser sends to nobody.
pub fn link(port: u16, secret: &str) -> String {
    format!("http://{HOST}:{port}/#link={secret}")
}

impl Front {
    /// Answers on the console's origin.
    pub async fn console(self: &Arc<Self>, origin: Origin, is_tls: bool, request: Request) -> Response {
        let path = request.uri().path();
        if !path.starts_with("/api/") && !path.starts_with("/_console/") {
            return files::answer(request.method(), path, request.headers());
        }
        let front = self.clone();
        self.beside(async move { front.console_call(origin, is_tls, request).await }).await
    }

    async fn console_call(&self, origin: Origin, is_tls: bool, request: Request) -> Response {
        if !is_own_page(request.method(), request.headers(), is_tls) {
            return error(&Status::new(model::Code::PermissionDenied, "calls to the console come from its own page only"));
        }
        let mut response = match (request.method(), request.uri().path()) {
            (&Method::POST, "/_console/v1/session") => self.session_begin(is_tls, request).await,
            (&Method::DELETE, "/_console/v1/session") => self.session_end(&request).await,
            _ => match self.console.signed_in(request.headers()) {
                Some(who) => self.console_method(origin, who, request).await,
                None => error(&Status::unauthenticated()),
            },
        };
        guard(response.headers_mut());
        response
    }

    async fn console_method(&self, origin: Origin, who: iam::Identity, request: Request) -> Response {
        if request.uri().path().starts_with("/api/") {
            return self.gateway(who, request).await;
        }
        let called = match (request.method().clone(), request.uri().path()) {
            (Method::GET, "/_console/v1/session") => Ok(self.console.session(&who)),
            (Method::GET, "/_console/v1/meters") => Ok(self.meters(&who)),
            (Method::GET, "/_console/v1/doctor") => self.doctor_seen(&who),
            (Method::GET, "/_console/v1/coldStarts") => Ok(self.cold_starts_seen(&who)),
            (Method::GET, "/_console/v1/events") => Ok(self.events_seen(&who)),
            (Method::POST, "/_console/v1/events:replay") => match body(request).await {
                Ok(written) => self.event_again(&who, &written).await,
                Err(status) => Err(status),
            },
            (Method::POST, "/_console/v1/requests:count") => match body(request).await {
                Ok(written) => self.own.shadow_count(&who, &written),
                Err(status) => Err(status),
            },
            (Method::POST, "/_console/v1/requests:shadow") => match body(request).await {
                Ok(written) => self.own.shadow(&who, &written).await,
                Err(status) => Err(status),
            },
            (Method::POST, "/_console/v1/trial") => match body(request).await {
                Ok(written) => self.trial(origin, &who, &written).await,
                Err(status) => Err(status),
            },
            (method, path) => Err(Status::not_found(format!("there is no method {method} {path}"))),
        };
        match called {
            Ok(value) => answer(StatusCode::OK, &value),
            Err(status) => error(&status),
        }
    }

    async fn session_begin(&self, is_tls: bool, request: Request) -> Response {
        let credentials = match body(request).await {
            Ok(written) if written.get("link").is_some() => field(&written, "link").map(api::Credentials::Link),
            Ok(written) => field(&written, "email").and_then(|email| Ok(api::Credentials::Password { email, password: field(&written, "password")? })),
            Err(status) => Err(status),
        };
        let begun = match credentials {
            Ok(credentials) => self.api.sign_in(credentials).await,
            Err(status) => Err(status),
        };
        let begun = match begun {
            Ok(who) => self.console.begin(&who, is_tls).await.map(|cookie| (who, cookie)),
            Err(status) => Err(status),
        };
        match begun {
            Ok((who, cookie)) => {
                tracing::info!(email = who.email, "signed in to the console");
                with_cookie(answer(StatusCode::OK, &self.console.session(&who)), &cookie)
            }
            Err(status) => error(&status),
        }
    }

    async fn session_end(&self, request: &Request) -> Response {
        match self.console.end(request.headers()).await {
            Ok(cookie) => with_cookie(answer(StatusCode::OK, &json!({})), &cookie),
            Err(status) => error(&status),
        }
    }
}

impl Console {
    /// What the page has to know.
    fn session(&self, who: &iam::Identity) -> Value {
        json!({
            "email": who.email, "project": self.project.id, "projectNumber": self.project.number.to_string(), "region": self.region,
            "regions": model::address::REGIONS.iter().map(|(region, _)| *region).collect::<Vec<_>>(),
            "port": self.listen.port(), "proxy": format!("http://{}", self.listen), "caFile": self.ca_file, "version": env!("CARGO_PKG_VERSION"),
        })
    }
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Whether the browser says that the console's own script calls (TRUST: cross-site requests, DNS rebinding). A client that is no
/// browser has no cookie to lose.
fn is_own_page(method: &Method, headers: &HeaderMap, is_tls: bool) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text(OWN_HEADER) != Some("1") || text("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return false;
    }
    let host = text("host").unwrap_or_default();
    match text("origin") {
        Some(origin) => origin == format!("{}://{host}", if is_tls { "https" } else { "http" }),
        None => method == Method::GET,
    }
}

/// What a function or an object says is data: shown by no browser as a page of this origin, and kept nowhere.
fn guard(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_consoles_own_page_calls() {
        let check = |method: Method, pairs: &[(&'static str, &'static str)], expect: bool| {
            let mut headers: HeaderMap = pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
            headers.insert(header::HOST, HeaderValue::from_static("console.localhost:7070"));
            assert_eq!(is_own_page(&method, &headers, false), expect, "{method} {pairs:?}");
        };
        let own = (OWN_HEADER, "1");
        check(Method::GET, &[own], true);
        check(Method::GET, &[own, ("sec-fetch-site", "same-origin")], true);
        check(Method::POST, &[own, ("origin", "http://console.localhost:7070"), ("sec-fetch-site", "same-origin")], true);
        check(Method::GET, &[], false);
        check(Method::POST, &[own], false);
        check(Method::POST, &[("origin", "http://console.localhost:7070")], false);
        check(Method::POST, &[own, ("origin", "http://a-1.asia-northeast1.run.localhost:7070")], false);
        check(Method::POST, &[own, ("origin", "http://console.localhost:8080")], false);
        check(Method::POST, &[own, ("origin", "https://console.localhost:7070")], false);
        check(Method::POST, &[own, ("origin", "null")], false);
        check(Method::GET, &[own, ("sec-fetch-site", "same-site")], false);
        check(Method::GET, &[own, ("sec-fetch-site", "none")], false);
    }
}
