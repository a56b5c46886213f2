//! One call of a service by the platform itself: what a push, a job and a trigger have in common.
//!
//! It goes in by the same door as a caller's request (`serving`), from inside the service's project: ingress, invoker, traffic,
//! deadline, log entry and metering are those of every request. Who delivers decides what the answer means and when to try again.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request};
use http_body_util::{BodyExt, Full};
use iam::{Iam, Identity};
use model::{ProjectId, RevisionName, ServiceKey, Status, Timestamp};
use serving::{Origin, Refusal, Serving};

use crate::{
    busy::Busy,
    history::{About, Attempt, Event, History},
};

/// So much of an answer's body is kept, in bytes; the rest is read and dropped.
pub const ANSWER_MAX_BYTES: usize = 64 << 10;

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A URL of a service, absolute.
    Url(Uri),
    /// A service by its name, with a path (and query).
    Service(ServiceKey, String),
    /// One revision of a service, whatever its traffic says.
    Revision(ServiceKey, RevisionName, String),
}

/// As whom a call is made. The account is an e-mail address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// An ID token for `audience`.
    Id { account: String, audience: String },
    /// An access token with `scope`.
    Access { account: String, scope: String },
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Whose sender this is: inside of a service means inside of its project.
    pub project: ProjectId,
    pub target: Target,
    pub method: Method,
    /// `Host`, `Content-Length` and, with a token, `Authorization` are set here.
    pub headers: HeaderMap,
    pub body: Bytes,
    pub token: Option<Token>,
    /// Until the last byte of the answer, by the runtime's time: a function's work does not wait for a clock that is moved by hand.
    pub timeout: Duration,
}

/// What a service said.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The first [`ANSWER_MAX_BYTES`].
    pub body: Bytes,
    pub latency: Duration,
    /// It is not the function's answer but the platform's, for this reason.
    pub refusal: Option<Refusal>,
}

impl Answer {
    /// Whether the function saw nothing of the call.
    pub fn is_before_function(&self) -> bool {
        self.refusal.is_some_and(Refusal::is_before_function)
    }
}

/// Why there is no answer. None of them is for good: accounts and services can be made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("{0} is not a URL of a service here")]
    NotHere(String),
    #[error("service account {0} does not exist or is disabled")]
    Account(String),
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// Makes calls. Clones share it.
#[derive(Clone)]
pub struct Deliverer {
    serving: Serving,
    iam: Iam,
    busy: Busy,
    history: History,
}

impl Deliverer {
    pub fn new(serving: Serving, iam: Iam) -> Self {
        Self { serving, iam, busy: Busy::new(), history: History::default() }
    }

    /// Counts the calls that are under way, and what their callers add.
    pub fn busy(&self) -> &Busy {
        &self.busy
    }

    /// What was delivered by [`Deliverer::deliver`].
    pub fn history(&self) -> &History {
        &self.history
    }

    /// [`Deliverer::call`] as an attempt, at `now`, of the event `about`: people can look at it and send it again.
    ///
    /// # Errors
    /// As for [`Deliverer::call`].
    pub async fn deliver(&self, about: About, now: Timestamp, call: Call) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let result = self.call(call.clone()).await;
        self.history.record(about, &call, Attempt::of(now, begun.elapsed(), &result));
        result
    }

    /// Sends an event once more, to `revision` of the same service when one is named. What was waiting for it is not told of the outcome.
    ///
    /// # Errors
    /// `NOT_FOUND` for an event that is not kept; `FAILED_PRECONDITION` when its body is not, or its service is gone.
    pub async fn replay(&self, id: u64, now: Timestamp, revision: Option<RevisionName>) -> Result<Event, Status> {
        let missing = || Status::not_found(format!("event {id} is not kept; tanebi events list shows those that are"));
        let event = self.history.get(id).ok_or_else(missing)?;
        if !event.is_whole() {
            return Err(Status::failed_precondition(format!("the body of event {id} has {} bytes and was not kept", event.body_bytes)));
        }
        let mut call = event.call;
        if let Some(revision) = &revision {
            call.target = self.revision_of(call.target, revision)?;
        }
        let begun = Instant::now();
        let result = self.call(call).await;
        self.history.record_more(id, Attempt { replay: Some(revision), ..Attempt::of(now, begun.elapsed(), &result) });
        self.history.get(id).ok_or_else(missing)
    }

    /// A target's service with `revision` in place of its traffic.
    fn revision_of(&self, target: Target, revision: &RevisionName) -> Result<Target, Status> {
        let gone = || Status::failed_precondition("the service that the event was for is gone");
        let (service, path) = match target {
            Target::Url(url) => {
                let service = self.serving.service_of(&url.host().unwrap_or_default().to_ascii_lowercase()).ok_or_else(gone)?;
                (service, url.path_and_query().map_or("/", |path| path.as_str()).to_owned())
            }
            Target::Service(service, path) | Target::Revision(service, _, path) => (service, path),
        };
        if !self.serving.has_revision(&service, revision) {
            return Err(Status::not_found(format!("service {} has no revision {revision}", service.service)));
        }
        Ok(Target::Revision(service, revision.clone(), path))
    }

    /// `text` as the URL of a call, for who stores it. Whether the service is there is seen when it is called.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` at `field` for what is no absolute http or https URL, names a user, or leads outside of tanebi.
    pub fn url(&self, field: &str, text: &str) -> Result<Uri, Status> {
        let url = url_parse(field, text)?;
        if url.host().is_some_and(|host| self.serving.owns_host(&host.to_ascii_lowercase())) {
            return Ok(url);
        }
        Err(Status::invalid_field(field, format!("{text:?} is not a URL of a service here, and nothing is sent to the world outside yet")))
    }

    /// Makes one call and waits for its answer, whatever its status.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn call(&self, call: Call) -> Result<Answer, Failure> {
        let _under_way = self.busy.begin();
        let begun = Instant::now();
        let timeout = call.timeout;
        tokio::time::timeout(timeout, self.exchange(call, begun)).await.unwrap_or(Err(Failure::TimedOut(timeout)))
    }

    async fn exchange(&self, call: Call, begun: Instant) -> Result<Answer, Failure> {
        let origin = Origin::Inside { project: call.project.to_string() };
        let mut headers = call.headers;
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(call.body.len()));
        if let Some(token) = &call.token {
            headers.insert(header::AUTHORIZATION, self.authorization(token)?);
        }
        let (authority, path) = match &call.target {
            Target::Url(url) => {
                let authority = url.authority().ok_or_else(|| Failure::NotHere(url.to_string()))?.as_str();
                if !self.serving.owns_host(&url.host().unwrap_or_default().to_ascii_lowercase()) {
                    return Err(Failure::NotHere(url.to_string()));
                }
                (authority, url.path_and_query().map_or("/", |path| path.as_str()))
            }
            Target::Service(service, path) | Target::Revision(service, _, path) => (service.service.as_str(), path.as_str()),
        };
        let not_here = || Failure::NotHere(format!("{authority}{path}"));
        headers.insert(header::HOST, HeaderValue::from_str(authority).map_err(|_| not_here())?);
        let mut request = request::Request::new(Full::new(call.body).map_err(|never| match never {}).boxed());
        *request.method_mut() = call.method;
        *request.uri_mut() = path.parse().map_err(|_| not_here())?;
        *request.headers_mut() = headers;
        let answer = match &call.target {
            Target::Url(_) => self.serving.handle(origin, request).await,
            Target::Service(service, _) => self.serving.handle_service(origin, service, request).await,
            Target::Revision(service, revision, _) => self.serving.handle_revision(origin, service, revision, request).await,
        };
        let (parts, mut body) = answer.into_parts();
        let mut kept = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Broken(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                kept.extend_from_slice(&data[..data.len().min(ANSWER_MAX_BYTES - kept.len())]);
            }
        }
        let refusal = parts.extensions.get().copied();
        Ok(Answer { status: parts.status, headers: parts.headers, body: kept.freeze(), latency: begun.elapsed(), refusal })
    }

    fn authorization(&self, token: &Token) -> Result<HeaderValue, Failure> {
        let text = match token {
            Token::Id { account, audience } => self.iam.id_token_issue(&self.account(account)?, audience, true),
            Token::Access { account, scope } => self.iam.access_token_issue(&self.account(account)?, scope, ACCESS_LIFE).token,
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).expect("a token is of visible ASCII");
        value.set_sensitive(true);
        Ok(value)
    }

    fn account(&self, email: &str) -> Result<Identity, Failure> {
        match self.iam.service_account_get(None, email) {
            Ok(account) if !account.disabled => Ok(self.iam.identity(&account.email)),
            _ => Err(Failure::Account(email.to_owned())),
        }
    }
}

/// As long as a call may take, and no longer than an hour.
const ACCESS_LIFE: Duration = Duration::from_secs(3600);

fn url_parse(field: &str, text: &str) -> Result<Uri, Status> {
    let wrong = |why: &str| Status::invalid_field(field, format!("{text:?} {why}"));
    let url: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("is not an absolute http or https URL"));
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong("must not name a user"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_is() {
        fn check(text: &str, expect: Option<&str>) {
            match (url_parse("uri", text), expect) {
                (Ok(url), None) => assert_eq!(url.to_string().trim_end_matches('/'), text.trim_end_matches('/')),
                (Err(status), Some(why)) => assert!(status.outer.contains(why), "{text}: {status}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        check("https://f-1.asia-northeast1.run.app", None);
        check("http://f-1.asia-northeast1.run.localhost:8080/a/b?c=d", None);
        check("", Some("is not a URL"));
        check("/path", Some("is not an absolute"));
        check("f-1.asia-northeast1.run.app", Some("is not an absolute"));
        check("ftp://f-1.asia-northeast1.run.app/", Some("is not an absolute"));
        check("https://me:secret@f-1.asia-northeast1.run.app/", Some("must not name a user"));
        check("https://f 1/", Some("is not a URL"));
    }
}
