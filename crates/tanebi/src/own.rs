//! tanebi's own methods (`/_tanebi/v1/...`), for its commands: what Google has no method for. The operator's secret opens them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use events::{deliver::Deliverer, history::Event};
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use model::{Clock as _, Status};
use serde_json::{Value, json};
use serving::{Request, Response};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio_stream::StreamExt;

use crate::{
    clock::manual::ManualClock,
    doctor::{self, Runtimes},
    shadow,
};

/// Bytes of a request's body.
const BODY_MAX_BYTES: usize = 64 << 10;
const STOP_GRACE: Duration = Duration::from_secs(10);
/// So long must nothing have begun for a wait until all has drained to be over.
const QUIET: Duration = Duration::from_millis(100);
const IDLE_WAIT_MAX_S: u64 = 3600;

/// The methods and what they work on.
pub struct Own {
    pub secret: String,
    pub iam: iam::Iam,
    pub control: control::Control,
    pub builder: build::Builder,
    pub telemetry: telemetry::Telemetry,
    pub project: control::Project,
    pub region: model::Region,
    pub owner: String,
    pub ca_pem: String,
    /// When it is one that is moved by hand.
    pub clock: Option<Arc<ManualClock>>,
    pub time: Arc<dyn model::Clock>,
    pub deliverer: Deliverer,
    pub keeper: Arc<sandbox::Keeper>,
    /// What is on this host, as found at the start.
    pub runtimes: Runtimes,
    pub comparing: shadow::Turns,
}

impl Own {
    /// Answers `/_tanebi/v1/...` and `/metrics`.
    pub async fn handle(&self, request: Request) -> Response {
        if !self.is_operator(&request) {
            return error(&Status::unauthenticated());
        }
        if request.uri().path() == "/metrics" {
            return text(self.telemetry.prometheus());
        }
        if (request.method(), request.uri().path()) == (&Method::POST, "/_tanebi/v1/runtimes:install") {
            return match body(request).await.and_then(|body| field(&body, "id")) {
                Ok(id) => self.runtime_install(id),
                Err(status) => error(&status),
            };
        }
        match self.call(request).await {
            Ok(value) => answer(StatusCode::OK, &value),
            Err(status) => error(&status),
        }
    }

    fn is_operator(&self, request: &Request) -> bool {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
        given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(self.secret.as_bytes())))
    }

    async fn call(&self, request: Request) -> Result<Value, Status> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = body(request).await?;
        match (&method, path.as_str()) {
            (&Method::GET, "/_tanebi/v1/server") => Ok(json!({
                "project": self.project.id, "projectNumber": self.project.number, "region": self.region, "owner": self.owner,
            })),
            (&Method::POST, "/_tanebi/v1/sessions") => self.session(&field(&body, "email")?).await,
            (&Method::POST, "/_tanebi/v1/consoleLinks") => {
                let identity = self.identity(&field(&body, "email")?).await?;
                Ok(json!({ "secret": self.iam.sign_in_link_issue(&identity.email) }))
            }
            (&Method::POST, "/_tanebi/v1/idTokens") => {
                let identity = self.identity(&field(&body, "email")?).await?;
                Ok(json!({ "idToken": self.iam.id_token_issue(&identity, &field(&body, "audience")?, true) }))
            }
            (&Method::GET, "/_tanebi/v1/runtimes") => Ok(json!({ "runtimes": self.builder.runtimes().iter().map(runtime_json).collect::<Vec<_>>() })),
            (&Method::GET, "/_tanebi/v1/doctor") => self.doctor(),
            (&Method::GET, "/_tanebi/v1/instances") => Ok(self.instances()),
            (&Method::GET, "/_tanebi/v1/templates") => Ok(self.templates()),
            (&Method::GET, "/_tanebi/v1/coldStarts") => Ok(self.cold_starts()),
            (&Method::GET, "/_tanebi/v1/clock") => Ok(json!({ "now": self.manual_clock()?.now().to_string() })),
            (&Method::POST, "/_tanebi/v1/clock:advance") => self.clock_advance(&body).await,
            (&Method::POST, "/_tanebi/v1/idle:wait") => self.idle_wait(&body).await,
            (&Method::POST, "/_tanebi/v1/instances:stop") => self.instances_stop(&body).await,
            (&Method::GET, "/_tanebi/v1/events") => {
                Ok(json!({ "events": self.deliverer.history().list(usize::MAX).iter().map(event_json).collect::<Vec<_>>() }))
            }
            (&Method::POST, "/_tanebi/v1/events:replay") => self.event_replay(&body).await,
            (&Method::POST, "/_tanebi/v1/requests:count") => self.shadow_count(&self.identity(&field(&body, "email")?).await?, &body),
            (&Method::POST, "/_tanebi/v1/requests:shadow") => self.shadow(&self.identity(&field(&body, "email")?).await?, &body).await,
            (method, path) => Err(Status::not_found(format!("there is no method {method} {path}"))),
        }
    }

    /// Signs an identity in: a user by a refresh token, a service account by a metadata server of its own.
    async fn session(&self, email: &str) -> Result<Value, Status> {
        let identity = self.identity(email).await?;
        let access = self.iam.access_token_issue(&identity, &crate::env::SCOPES.join(" "), Duration::from_secs(3600));
        let mut session = json!({ "email": identity.email, "accessToken": access.token, "caPem": self.ca_pem });
        match identity.kind {
            iam::Kind::User => {
                session["refreshToken"] = json!(self.iam.refresh_token_issue(&identity, iam::GCLOUD_CLIENT_ID, &crate::env::SCOPES.join(" ")).await?)
            }
            iam::Kind::ServiceAccount => session["metadataPath"] = json!(self.metadata_path(&identity.email)),
        }
        Ok(session)
    }

    async fn identity(&self, email: &str) -> Result<iam::Identity, Status> {
        let member = model::policy::Member::parse(&format!("user:{email}"))?;
        let model::policy::Member::User(email) = member else { return Err(Status::invalid_field("email", format!("{email:?} is no e-mail address"))) };
        let identity = self.iam.identity(&email);
        match identity.kind {
            iam::Kind::User if !self.iam.user_exists(&email) => self.iam.user_create(&email).await?,
            iam::Kind::User => {}
            iam::Kind::ServiceAccount => drop(self.iam.service_account_get(None, &email)?),
        }
        Ok(identity)
    }

    /// `/_metadata/EMAIL/MAC`: who was given the path has the identity. Nothing is stored, so it holds over restarts.
    fn metadata_path(&self, email: &str) -> String {
        format!("/_metadata/{email}/{}", self.metadata_mac(email))
    }

    fn metadata_mac(&self, email: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("HMAC takes a key of any length");
        mac.update(b"metadata:");
        mac.update(email.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    /// Whose metadata server `path` is, and the path that it sees. `None` for a forged one.
    pub fn metadata_of<'a>(&self, path: &'a str) -> Option<(api::MetadataIdentity, &'a str)> {
        let rest = path.strip_prefix("/_metadata/")?;
        let (email, rest) = rest.split_once('/')?;
        let (mac, rest) = rest.split_at_checked(64)?;
        if !bool::from(mac.as_bytes().ct_eq(self.metadata_mac(email).as_bytes())) {
            return None;
        }
        let identity = api::MetadataIdentity {
            project: self.project.id.to_string(),
            region: self.region.to_string(),
            instance: String::new(),
            service_account: email.to_owned(),
        };
        Some((identity, if rest.is_empty() { "/" } else { rest }))
    }

    /// Fetches a runtime: a line of JSON for each line of its log, then one that says how it ended.
    fn runtime_install(&self, id: String) -> Response {
        let (send, receive) = tokio::sync::mpsc::unbounded_channel();
        let builder = self.builder.clone();
        // Goes on when nobody listens any more: what was asked for is wanted.
        tokio::spawn(async move {
            let lines = send.clone();
            let log = std::sync::Arc::new(move |line: String| drop(lines.send(json!({ "line": line }))));
            let end = match builder.runtime_install(&id, log).await {
                Ok(runtime) => json!({ "runtime": runtime_json(&runtime) }),
                Err(build::Error::Internal(why)) => {
                    tracing::error!(id, why, "installing a runtime");
                    json!({ "error": "internal error: the log of tanebi says which" })
                }
                Err(error) => json!({ "error": error.to_string() }),
            };
            drop(send.send(end));
        });
        let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(receive)
            .map(|line: Value| Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from(format!("{line}\n")))));
        let body = http_body_util::StreamBody::new(frames).map_err(|never| match never {}).boxed();
        let mut response = http::Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-ndjson"));
        response
    }

    /// What `tanebi doctor` says.
    pub fn doctor(&self) -> Result<Value, Status> {
        Ok(doctor::report(&self.keeper.walls().map_err(Status::internal)?, &self.runtimes))
    }

    fn instances(&self) -> Value {
        let instances: Vec<_> = self
            .control
            .serving()
            .instances()
            .into_iter()
            .map(|i| {
                json!({
                    "id": i.id, "service": i.service.service, "region": i.service.region, "revision": i.revision, "state": i.state,
                    "inFlight": i.in_flight, "started": i.started.to_string(), "start": i.start,
                })
            })
            .collect();
        json!({ "instances": instances })
    }

    fn templates(&self) -> Value {
        let templates: Vec<_> = self
            .control
            .serving()
            .templates()
            .into_iter()
            .map(|t| {
                json!({
                    "service": t.service.service, "region": t.service.region, "revision": t.revision, "state": t.state, "armed": t.armed,
                    "bytes": t.bytes, "why": t.why,
                })
            })
            .collect();
        json!({ "templates": templates })
    }

    fn cold_starts(&self) -> Value {
        let mut all = Vec::new();
        for (service, revision, cold_starts) in self.control.serving().cold_starts() {
            for one in cold_starts {
                let parts = serving::COLD_START_PARTS.iter().zip(one.parts).map(|(name, part)| ((*name).to_owned(), json!(micros(part))));
                all.push(json!({
                    "time": one.time.to_string(), "service": service.service, "region": service.region, "revision": revision,
                    "instance": one.instance, "rung": one.rung, "wholeUs": micros(one.whole()), "partsUs": serde_json::Map::from_iter(parts),
                }));
            }
        }
        json!({ "coldStarts": all })
    }

    fn manual_clock(&self) -> Result<&ManualClock, Status> {
        self.clock
            .as_deref()
            .ok_or_else(|| Status::failed_precondition("this server goes by the system's clock, which nobody moves: start it with tanebi serve --clock manual"))
    }

    async fn clock_advance(&self, body: &Value) -> Result<Value, Status> {
        let clock = self.manual_clock()?;
        let to = match body.get("by") {
            Some(_) => {
                let by = field(body, "by")?;
                let wrong = |why: &dyn std::fmt::Display| Status::invalid_field("by", format!("{by:?} is no duration such as 24h, 90s or 1d: {why}"));
                let span: jiff::Span = by.parse().map_err(|error: jiff::Error| wrong(&error))?;
                let by = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|error| wrong(&error))?;
                clock.now().checked_add(by).map_err(|error| wrong(&error))?
            }
            None => {
                let to = field(body, "to")?;
                to.parse().map_err(|error| Status::invalid_field("to", format!("{to:?} is no instant such as 2026-01-01T00:00:00Z: {error}")))?
            }
        };
        clock.advance(to, self.deliverer.busy()).await?;
        Ok(json!({ "now": clock.now().to_string() }))
    }

    async fn event_replay(&self, body: &Value) -> Result<Value, Status> {
        let id = body.get("id").and_then(Value::as_u64).ok_or_else(|| Status::invalid_field("id", "is required: the number of an event"))?;
        let revision = match body.get("revision") {
            Some(_) => Some(model::RevisionName::parse(&field(body, "revision")?)?),
            None => None,
        };
        Ok(event_json(&self.deliverer.replay(id, self.time.now(), revision).await?))
    }

    async fn idle_wait(&self, body: &Value) -> Result<Value, Status> {
        let timeout_s = body.get("timeoutSeconds").and_then(Value::as_u64).filter(|s| *s <= IDLE_WAIT_MAX_S);
        let timeout_s = timeout_s.ok_or_else(|| Status::invalid_field("timeoutSeconds", format!("must be a number from 0 to {IDLE_WAIT_MAX_S}")))?;
        let drained = async {
            loop {
                match &self.clock {
                    Some(clock) => clock.rest(self.deliverer.busy()).await,
                    None => self.deliverer.busy().idle().await,
                }
                let begun = self.deliverer.busy().begun();
                tokio::time::sleep(QUIET).await;
                if self.deliverer.busy().is_idle() && self.deliverer.busy().begun() == begun {
                    return;
                }
            }
        };
        let late = || Status::new(model::Code::DeadlineExceeded, format!("something is still being delivered after {timeout_s} s"));
        tokio::time::timeout(Duration::from_secs(timeout_s), drained).await.map_err(|_| late())?;
        Ok(json!({}))
    }

    async fn instances_stop(&self, body: &Value) -> Result<Value, Status> {
        let key = match body.get("service").and_then(Value::as_str) {
            None => None,
            Some(service) => {
                let key = model::ServiceKey {
                    project: self.project.id.clone(),
                    region: model::Region::parse(&field(body, "region")?)?,
                    service: model::ServiceName::parse(service)?,
                };
                self.control.service_get(&key)?;
                Some(key)
            }
        };
        let stopped = self.control.serving().stop_instances(key.as_ref(), STOP_GRACE).await;
        Ok(json!({ "stopped": stopped }))
    }
}

pub fn event_json(event: &Event) -> Value {
    let call = &event.call;
    let target = match &call.target {
        events::deliver::Target::Url(url) => url.to_string(),
        events::deliver::Target::Service(service, path) | events::deliver::Target::Revision(service, _, path) => format!("{}{path}", service.resource()),
    };
    let headers: serde_json::Map<_, _> =
        call.headers.iter().map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes())))).collect();
    let attempts: Vec<_> = event
        .attempts
        .iter()
        .map(|attempt| {
            json!({
                "began": attempt.began.to_string(), "latencyUs": micros(attempt.latency), "status": attempt.result.as_ref().ok(),
                "failure": attempt.result.as_ref().err(), "answer": attempt.answer, "isReplay": attempt.replay.is_some(),
                "revision": attempt.replay.iter().flatten().next(),
            })
        })
        .collect();
    json!({
        "id": event.id, "sender": event.about.sender, "from": event.about.from, "method": call.method.as_str(), "target": target, "headers": headers,
        "body": String::from_utf8_lossy(&call.body), "bodyBytes": event.body_bytes, "isWhole": event.is_whole(),
        "attempts": attempts, "attemptsAll": event.attempts_all,
    })
}

pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The JSON of a request; nothing is the empty object.
pub async fn body(request: Request) -> Result<Value, Status> {
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Status::invalid("the body ended early"))?;
        bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        if bytes.len() > BODY_MAX_BYTES {
            return Err(Status::invalid(format!("the body has more than {BODY_MAX_BYTES} bytes")));
        }
    }
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(&bytes).map_err(|error| Status::invalid(format!("the body is no JSON: {error}")))
}

fn runtime_json(runtime: &build::Runtime) -> Value {
    let mut value = json!({ "id": runtime.id, "name": runtime.name });
    match &runtime.found {
        Some((version, path, is_fetched)) => {
            value["version"] = json!(version);
            value["path"] = json!(if *is_fetched { "installed by tanebi".to_owned() } else { path.display().to_string() });
        }
        None => value["missing"] = json!(runtime.missing),
    }
    value
}

pub fn field(body: &Value, name: &str) -> Result<String, Status> {
    body.get(name).and_then(Value::as_str).filter(|v| !v.is_empty()).map(str::to_owned).ok_or_else(|| Status::invalid_field(name, "is required"))
}

pub fn error(status: &Status) -> Response {
    if !status.inner.is_empty() {
        tracing::error!(%status, "own method");
    }
    let code = StatusCode::from_u16(status.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer(code, &json!({ "error": { "code": code.as_u16(), "message": status.outer, "status": status.code.name() } }))
}

pub fn answer(code: StatusCode, value: &Value) -> Response {
    let mut response = http::Response::new(full(value.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json; charset=UTF-8"));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn text(body: String) -> Response {
    let mut response = http::Response::new(full(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}

fn full(text: String) -> serving::Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}
