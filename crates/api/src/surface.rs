//! A surface: the REST methods of one API that no proto describes, with the hosts that serve them.
//!
//! A method and what it needs are registered in one call. The front asks for the need before the surface sees a
//! request, and a path without a row never reaches one.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Uri};
use iam::Identity;
use model::{Hops, Region, Status};
use serde::de::DeserializeOwned;

use crate::{
    OverTls, Request, Response, error,
    permission::{Need, Passed, Vars},
    template::Template,
};

/// A JSON body's largest size, in bytes; Google's front ends take 10 MiB.
pub(crate) const BODY_MAX_BYTES: usize = 10 << 20;

/// One API's methods.
pub(crate) struct Surface {
    /// For messages, such as `run v1`.
    pub name: &'static str,
    /// Hosts without a region's prefix, such as `run.googleapis.com`.
    pub hosts: &'static [&'static str],
    /// What is served, and what each method needs.
    pub rows: Vec<Row>,
    /// Receives what passed, with [`Passed`] and (unless public) [`iam::Identity`] as extensions.
    pub router: Router,
    /// How errors are written, also those of the front: [`error::rest`], or an older API's own way.
    pub error: fn(&Status) -> Response,
}

/// One method.
pub(crate) struct Row {
    /// `GET`, ...
    pub verb: Method,
    /// Its path.
    pub template: Template,
    /// What its caller needs.
    pub need: Need,
}

impl Row {
    /// A method of a surface that routes by itself.
    pub(crate) fn new(verb: Method, path: &'static str, need: Need) -> Self {
        Self { verb, template: Template::parse(path).expect("a literal of this crate"), need }
    }
}

/// A call that passed.
pub(crate) struct Call {
    /// `None` only for public methods.
    pub who: Option<Identity>,
    /// Variables of the path.
    pub vars: Vars,
    /// The region of the host, or the default one.
    pub region: Region,
    /// Path and query as they came.
    pub uri: Uri,
    /// Whether it came over TLS.
    pub tls: bool,
    pub headers: HeaderMap,
    /// Not yet read.
    pub body: Body,
}

impl Call {
    /// The caller of a method that is not public.
    pub(crate) fn who(&self) -> Result<&Identity, Status> {
        self.who.as_ref().ok_or_else(Status::unauthenticated)
    }

    /// A variable of the path.
    pub(crate) fn var(&self, name: &str) -> Result<&str, Status> {
        self.vars.get(name).map(String::as_str).ok_or_else(|| Status::internal(format!("the path of {} has no variable {name}", self.uri.path())))
    }

    /// The first value of a query parameter.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.uri.query()?.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The body, which must be JSON of at most [`BODY_MAX_BYTES`].
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` in Google's words.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Status> {
        let body = std::mem::take(&mut self.body);
        let bytes = body_read(body).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map_err(|why| Status::invalid(format!("Invalid JSON payload received. {why}")))
    }
}

/// A whole body of at most [`BODY_MAX_BYTES`].
pub(crate) async fn body_read(body: Body) -> Result<bytes::Bytes, Status> {
    axum::body::to_bytes(body, BODY_MAX_BYTES).await.map_err(|_| Status::invalid(format!("Request payload size exceeds the limit: {BODY_MAX_BYTES} bytes.")))
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Status>> + Send>>;
type Handler<S> = Box<dyn Fn(S, Call) -> Answer + Send + Sync>;

/// Collects the methods of a surface whose handlers share the state `S`.
pub(crate) struct Endpoints<S> {
    state: S,
    /// The state as a handler gets it, by what lies behind its call.
    behind: fn(S, &Hops) -> S,
    rows: Vec<Row>,
    handlers: Vec<Handler<S>>,
}

impl<S: Clone + Send + Sync + 'static> Endpoints<S> {
    pub(crate) fn new(state: S) -> Self {
        Self { state, behind: |state, _| state, rows: Vec::new(), handlers: Vec::new() }
    }

    /// Handlers get a state that knows what lies behind their call.
    pub(crate) fn behind(self, behind: fn(S, &Hops) -> S) -> Self {
        Self { behind, ..self }
    }

    /// Adds a method: `handler` is an `async fn(S, Call) -> Result<Response, Status>`.
    pub(crate) fn on<F, A>(mut self, verb: Method, path: &'static str, need: Need, handler: F) -> Self
    where
        F: Fn(S, Call) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Response, Status>> + Send + 'static,
    {
        self.rows.push(Row::new(verb, path, need));
        self.handlers.push(Box::new(move |state, call| Box::pin(handler(state, call))));
        self
    }

    /// The surface, with the newer errors.
    pub(crate) fn surface(self, name: &'static str, hosts: &'static [&'static str]) -> Surface {
        self.surface_with(name, hosts, error::rest)
    }

    /// The surface.
    pub(crate) fn surface_with(self, name: &'static str, hosts: &'static [&'static str], error: fn(&Status) -> Response) -> Surface {
        let (state, behind, handlers) = (self.state, self.behind, Arc::new(self.handlers));
        let router = Router::new().fallback(move |request: Request| {
            let (state, handlers) = (state.clone(), handlers.clone());
            async move {
                let (mut parts, body) = request.into_parts();
                let Some(passed) = parts.extensions.remove::<Passed>() else {
                    return error(&Status::internal("a request came past the front"));
                };
                let tls = parts.extensions.get::<OverTls>().is_some();
                let state = parts.extensions.get::<Hops>().map_or_else(|| state.clone(), |hops| behind(state.clone(), hops));
                let call = Call { who: passed.who, vars: passed.vars, region: passed.region, uri: parts.uri, tls, headers: parts.headers, body };
                handlers[passed.row](state, call).await.unwrap_or_else(|status| error(&status))
            }
        });
        Surface { name, hosts, rows: self.rows, router, error }
    }
}
