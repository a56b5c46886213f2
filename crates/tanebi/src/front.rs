//! The one port: by protocol and host, who answers.
//!
//! A proxy request or a direct one, plain or TLS, from the host or from an instance: each ends at the same table of hosts.
//! 1. CONNECT and absolute form: a played host is answered here (CONNECT ends TLS with tanebi's CA), another is tunnelled.
//! 2. A service's host, or that of a project's functions: the data plane. 3. One of Google's hosts: the APIs. 4. This server's own names: by path.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serving::{
    InstanceIdentity, Origin, Request, Response, Serving,
    egress::Owner,
    listener::{self, Handler, Limits},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    console::{self, Console},
    own::Own,
    refused::Refused,
    tunnel::{Tunnel, empty, said},
};

/// Hosts of Google's that are played, with all that is below them.
const GOOGLE: [&str; 4] = ["googleapis.com", "accounts.google.com", "cloudfunctions.net", "metadata.google.internal"];
/// The page that shows a code after a sign-in on another machine.
const GOOGLE_PAGES: [&str; 2] = ["sdk.cloud.google.com", "openidconnect.googleapis.com"];

/// Which hosts are whose. Pure: a name in, an answer out.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Domains of services: `run.app`, `run.localhost`, the operator's.
    pub domains: Vec<String>,
    /// Hosts of Google's that are the real ones here.
    pub real: Vec<String>,
}

impl Hosts {
    /// Whether this server plays `host` towards clients that come through the proxy, and towards instances.
    pub fn plays(&self, host: &str) -> bool {
        self.is_service(host) || self.is_google(host)
    }

    /// Whether TLS is ended for `host`.
    pub fn has_certificate(&self, host: &str) -> bool {
        self.plays(host) || is_own_name(host) || host == console::HOST
    }

    pub fn is_service(&self, host: &str) -> bool {
        self.domains.iter().any(|domain| below(host, domain))
    }

    fn is_google(&self, host: &str) -> bool {
        let is_played = GOOGLE.iter().any(|name| host == *name || below(host, name)) || GOOGLE_PAGES.contains(&host);
        is_played && !self.real.iter().any(|real| real == host)
    }
}

/// `host` is one or more labels below `domain`.
fn below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// This server's own names. `localhost` is for functions by path; pages with a sign-in live on 127.0.0.1 and Google's names,
/// so that no function shares an origin with them.
fn is_own_name(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "::1")
}

/// Whether a person types a password at `path` (`api`'s sign-in pages). The other methods take a token in a header, never a cookie.
fn is_sign_in_page(path: &str) -> bool {
    path == "/sign-in" || path.starts_with("/sign-in/") || matches!(path, "/o/oauth2/auth" | "/o/oauth2/v2/auth")
}

/// What all connections share.
pub struct Front {
    pub hosts: Hosts,
    pub serving: Serving,
    pub api: api::Api,
    pub own: Own,
    pub console: Console,
    pub tunnel: Tunnel,
    pub refused: Refused,
    pub tls: Arc<rustls::ServerConfig>,
    pub limits: Limits,
    /// Where the APIs run: beside the threads that carry requests for functions.
    pub runtime: tokio::runtime::Handle,
}

/// The front as a connection's handler; `bound` is the host that a CONNECT or an SNI has named, `is_tls` whether TLS ends here
/// for one that came from inside.
#[derive(Clone)]
pub struct Door {
    front: Arc<Front>,
    bound: Option<Arc<str>>,
    is_tls: bool,
    /// Whose sandbox it is open to, when it is one's.
    owner: Option<Arc<Owner>>,
}

impl Door {
    pub fn new(front: Arc<Front>) -> Self {
        Self { front, bound: None, is_tls: false, owner: None }
    }

    /// The same door for what comes from a sandbox.
    pub fn within(&self, owner: Arc<Owner>) -> Self {
        Self { owner: Some(owner), ..self.clone() }
    }

    /// The same door for a connection that is bound to `host`.
    fn bound(&self, host: &str) -> Self {
        Self { bound: Some(host.into()), ..self.clone() }
    }

    /// The same door for a request of the server's own to a host that is played here.
    pub fn inside(&self, is_tls: bool) -> Self {
        Self { bound: None, is_tls, owner: None, ..self.clone() }
    }

    /// The door of one instance's metadata server.
    pub fn metadata(&self, identity: InstanceIdentity) -> MetadataDoor {
        MetadataDoor { front: self.front.clone(), identity }
    }

    /// Serves a stream that something else has accepted, TLS when `is_tls`.
    pub async fn serve<S>(mut self, stream: S, is_tls: bool, origin: Origin)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.front.limits;
        self.is_tls = is_tls;
        if is_tls {
            let tls = self.front.tls.clone();
            listener::serve_tls_connection(stream, tls, origin, Arc::new(self), limits).await;
        } else {
            listener::serve_connection(stream, origin, Arc::new(self), limits).await;
        }
    }
}

/// What stands behind 169.254.169.254 in one instance.
pub struct MetadataDoor {
    front: Arc<Front>,
    identity: InstanceIdentity,
}

impl MetadataDoor {
    pub async fn serve(self, stream: tokio::net::TcpStream, origin: Origin) {
        let limits = self.front.limits;
        listener::serve_connection(stream, origin, Arc::new(self), limits).await;
    }
}

impl Handler for MetadataDoor {
    fn handle(&self, _: Origin, request: Request) -> BoxFuture<'static, Response> {
        let front = self.front.clone();
        let identity = api::MetadataIdentity {
            project: self.identity.project.clone(),
            region: self.identity.region.clone(),
            instance: self.identity.instance.clone(),
            service_account: self.identity.service_account.clone(),
        };
        Box::pin(async move { front.metadata(identity, request).await })
    }
}

impl Handler for Door {
    fn handle(&self, origin: Origin, request: Request) -> BoxFuture<'static, Response> {
        let door = self.clone();
        Box::pin(async move { door.answer(origin, request).await })
    }
}

impl Door {
    async fn answer(&self, origin: Origin, mut request: Request) -> Response {
        let is_tls = match origin {
            Origin::Outside { tls, .. } => tls,
            Origin::Inside { .. } => self.is_tls,
        };
        if is_tls {
            request.extensions_mut().insert(api::OverTls);
        }
        if let Origin::Outside { remote, .. } = origin {
            request.extensions_mut().insert(api::CallerAddress(remote.ip()));
        }
        if request.method() == Method::CONNECT {
            return self.connect(origin, request).await;
        }
        let Some((host, port)) = host_of(&request) else { return said(StatusCode::BAD_REQUEST, "the request names no host, or two different ones") };
        if let Some(bound) = &self.bound
            && **bound != *host
        {
            // RFC 9110: this connection is for another host.
            return said(StatusCode::MISDIRECTED_REQUEST, &format!("this connection is for {bound}"));
        }
        let outside = matches!(origin, Origin::Outside { .. });
        let front = &self.front;
        if front.hosts.is_service(&host) {
            return front.serving.handle(origin, self.behind(request)).await;
        }
        let host = host.into_owned();
        if let Some((region, project)) = model::address::functions_at(&host) {
            return front.serving.handle_function(origin, region, project, self.behind(request)).await;
        }
        if front.hosts.is_google(&host) {
            if let Some(Owner::Instance(identity)) = self.owner.as_deref()
                && !front.api.plays(&host)
            {
                front.refused.tell(identity, &host);
            }
            return front.api(&host, self.behind(request)).await;
        }
        if outside && host == console::HOST && front.is_own_port(port) {
            return front.console(origin, is_tls, request).await;
        }
        if outside && is_own_name(&host) && front.is_own_port(port) {
            return front.local(&host, origin, request).await;
        }
        if outside && request.uri().authority().is_some() && request.version() < http::Version::HTTP_2 {
            return front.tunnel.forward(&host, port.unwrap_or(80), request).await;
        }
        said(StatusCode::NOT_FOUND, &format!("{host} is no host of this server"))
    }

    /// The request with what lies behind it, when it is an instance's.
    fn behind(&self, mut request: Request) -> Request {
        if let Some(Owner::Instance(identity)) = self.owner.as_deref() {
            let hops = identity.made(request.headers());
            request.extensions_mut().insert(hops);
        }
        request
    }

    /// Answers 200 and serves what follows: TLS or plain for a played host, bytes for another.
    async fn connect(&self, origin: Origin, request: Request) -> Response {
        let Some(authority) = request.uri().authority().cloned() else { return said(StatusCode::BAD_REQUEST, "CONNECT names host:port") };
        let Some(port) = authority.port_u16() else { return said(StatusCode::BAD_REQUEST, "CONNECT names host:port") };
        let host = bare(authority.host()).into_owned();
        let Origin::Outside { remote, .. } = origin else { return said(StatusCode::FORBIDDEN, "an instance has no proxy") };
        let door = self.bound(&host);
        if !self.front.hosts.plays(&host) {
            return self.front.tunnel.connect(&host, port, request).await;
        }
        tokio::spawn(async move {
            let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
            let is_tls = port != 80;
            door.serve(TokioIo::new(upgraded), is_tls, Origin::Outside { remote, tls: is_tls }).await;
        });
        http::Response::new(empty())
    }
}

impl Front {
    pub async fn api(&self, host: &str, request: Request) -> Response {
        let (api, host) = (self.api.clone(), host.to_owned());
        self.beside(async move { api.handle(&host, request.map(axum::body::Body::new)).await.map(shared) }).await
    }

    /// Runs what takes long or computes much on the threads for that. It ends when its caller goes.
    pub async fn beside(&self, answer: impl Future<Output = Response> + Send + 'static) -> Response {
        match AbortOnDropHandle::new(self.runtime.spawn(answer)).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(%error, "an API's answer came to no end");
                said(StatusCode::INTERNAL_SERVER_ERROR, "an internal error; the server's log says more")
            }
        }
    }

    fn is_own_port(&self, port: Option<u16>) -> bool {
        port.is_none_or(|port| self.tunnel.own.iter().any(|own| own.port() == port))
    }

    /// Requests to this server by its own name.
    async fn local(&self, host: &str, origin: Origin, request: Request) -> Response {
        let path = request.uri().path();
        if let Some(rest) = path.strip_prefix("/_run/") {
            if host != "localhost" {
                return said(StatusCode::NOT_FOUND, "services by path are below http://localhost, so that they share no origin with pages that sign in");
            }
            return self.by_path(origin, rest.to_owned(), request).await;
        }
        if host == "localhost" && is_sign_in_page(path) {
            return said(StatusCode::NOT_FOUND, "pages that sign in are below http://127.0.0.1, so that they share no origin with services by path");
        }
        if path.starts_with("/_tanebi/") || path == "/metrics" {
            return self.own.handle(request).await;
        }
        if path.starts_with("/_metadata/") {
            return self.metadata_by_path(request).await;
        }
        self.api(host, request).await
    }

    /// `/_run/REGION/NAME/...`: for clients where `*.localhost` does not resolve.
    async fn by_path(&self, origin: Origin, rest: String, mut request: Request) -> Response {
        let mut parts = rest.splitn(3, '/');
        let key = parts.next().zip(parts.next()).and_then(|(region, service)| {
            Some(model::ServiceKey {
                project: self.own.project.id.clone(),
                region: model::Region::parse(region).ok()?,
                service: model::ServiceName::parse(service).ok()?,
            })
        });
        let Some(key) = key else { return said(StatusCode::NOT_FOUND, "services by path are /_run/REGION/NAME/...") };
        let mut target = format!("/{}", parts.next().unwrap_or_default());
        if let Some(query) = request.uri().query() {
            target = format!("{target}?{query}");
        }
        let Ok(uri) = target.parse() else { return said(StatusCode::BAD_REQUEST, "the request's target is not understood") };
        *request.uri_mut() = uri;
        self.serving.handle_service(origin, &key, request).await
    }

    async fn metadata_by_path(&self, mut request: Request) -> Response {
        let uri = request.uri().clone();
        let Some((identity, path)) = self.own.metadata_of(uri.path()) else { return said(StatusCode::NOT_FOUND, "no metadata server is here") };
        let target = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let Ok(target) = target.parse() else { return said(StatusCode::BAD_REQUEST, "the request's target is not understood") };
        *request.uri_mut() = target;
        self.metadata(identity, request).await
    }

    pub async fn metadata(&self, identity: api::MetadataIdentity, request: Request) -> Response {
        let api = self.api.clone();
        self.beside(async move { api.metadata(identity, request.map(axum::body::Body::new)).await.map(shared) }).await
    }
}

/// The APIs' bodies cannot be shared between threads, the data plane's can: only one thread at a time gets at the one inside.
struct Shared(Mutex<axum::body::Body>);

fn shared(body: axum::body::Body) -> serving::Body {
    Shared(Mutex::new(body)).boxed()
}

impl http_body::Body for Shared {
    type Data = bytes::Bytes;
    type Error = serving::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, serving::BoxError>>> {
        Pin::new(self.0.get_mut()).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.lock().size_hint()
    }
}

/// The host that a request is for, lower case, and its port. `None` when it names none, or two.
fn host_of(request: &Request) -> Option<(Cow<'_, str>, Option<u16>)> {
    let authority = serving::host::authority_of(request.uri(), request.headers(), request.version()).ok().flatten()?;
    Some((bare(serving::host::host(authority)), serving::host::port(authority)))
}

fn bare(host: &str) -> Cow<'_, str> {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    if host.bytes().any(|b| b.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_one_ones() {
        let hosts = Hosts { domains: vec!["run.app".into(), "run.localhost".into()], real: vec!["translation.googleapis.com".into()] };
        for host in [
            "run.googleapis.com",
            "asia-northeast1-run.googleapis.com",
            "accounts.google.com",
            "a-9.asia-northeast1.run.app",
            "a-9.asia-northeast1.run.localhost",
            "metadata.google.internal",
            "r-p.cloudfunctions.net",
            "sdk.cloud.google.com",
        ] {
            assert!(hosts.plays(host), "{host}");
        }
        for host in [
            "google.com",
            "www.google.com",
            "evilgoogleapis.com",
            "run.app",
            "xrun.app",
            "localhost",
            "pypi.org",
            "run.app.evil.example",
            ".run.app",
            "translation.googleapis.com",
        ] {
            assert!(!hosts.plays(host), "{host}");
        }
        assert!(hosts.has_certificate("localhost"));
    }
}
