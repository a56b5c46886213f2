//! One call by the platform itself: what a push, a job and a trigger have in common.
//!
//! To a service it goes in by the same door as a caller's request (`serving`), from inside the service's project: ingress, invoker,
//! traffic, deadline, log entry and metering are those of every request. To one of Google's APIs that are played here it goes by the
//! API's door, as whoever its token is. To the world outside it goes by the server's one way out (`serving::egress`), which an access
//! token never takes, nor an ID token without TLS. Who delivers decides what the answer means and when to try again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Full};
use iam::{Iam, Identity};
use model::{Hops, ProjectId, RevisionName, ServiceKey, Status, Timestamp};
use serving::{
    Origin, Refusal, Serving,
    egress::{Client, ClientError},
};

use crate::{
    busy::Busy,
    history::{About, Attempt, Event, History},
};

/// So much of an answer's body is kept, in bytes; the rest is read and dropped.
pub const ANSWER_MAX_BYTES: usize = 64 << 10;

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An absolute URL: of a service, of an API that is played here, or of the world outside.
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
    /// How many redirects are followed. To another host no token and no credentials go with them.
    pub redirects_max: u8,
    /// Until the last byte of the answer, by the runtime's time: a function's work does not wait for a clock that is moved by hand.
    pub timeout: Duration,
    /// What lies behind it.
    pub hops: Hops,
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

/// Why there is no answer. None but the last is for good: accounts and services can be made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A rule forbids it; the text says which, and what to set where something can be.
    #[error("{0}")]
    Refused(String),
    /// The world outside does not answer.
    #[error("{0}")]
    Unreachable(String),
    #[error("service account {0} does not exist or is disabled")]
    Account(String),
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// More instances lie behind it than may. It is the same at each attempt.
    #[error("stopped as a loop: {hops}; at most {max} are allowed")]
    Loop { hops: Hops, max: u32 },
}

/// Google's APIs, as they are played here.
pub trait Played: Send + Sync + 'static {
    /// Whether `host` (lower case, no port) is one of Google's that this server plays.
    fn plays(&self, host: &str) -> bool;
    /// Answers a request for such a host.
    fn handle(&self, origin: Origin, is_tls: bool, request: serving::Request) -> BoxFuture<'static, serving::Response>;
}

/// Where a URL leads.
enum Place {
    Service,
    Api(Arc<dyn Played>),
    World(Client),
}

/// Makes calls. Clones share it.
#[derive(Clone)]
pub struct Deliverer {
    serving: Serving,
    iam: Iam,
    beyond: Option<(Arc<dyn Played>, Client)>,
    busy: Busy,
    history: History,
}

impl Deliverer {
    /// One that calls services only.
    pub fn new(serving: Serving, iam: Iam) -> Self {
        Self { serving, iam, beyond: None, busy: Busy::new(), history: History::default() }
    }

    /// The same, which also calls what lies beyond services.
    pub fn with_beyond(self, played: Arc<dyn Played>, world: Client) -> Self {
        Self { beyond: Some((played, world)), ..self }
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
        // Whoever sends it again by hand has looked at it: nothing lies behind it any more.
        let mut call = Call { hops: Hops::default(), ..event.call };
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

    /// `text` as the URL of a call, for who stores it. Whether a service is there, and where a name leads, is seen when it is called.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` at `field` for what is no absolute http or https URL, names a user, or may not be called.
    pub fn url(&self, field: &str, text: &str) -> Result<Uri, Status> {
        let url = url_parse(field, text)?;
        match self.place(&url) {
            Ok(_) => Ok(url),
            Err(failure) => Err(Status::invalid_field(field, format!("{text:?} is not called: {failure}"))),
        }
    }

    /// Whether `url` leads out of this server.
    pub fn is_of_the_world(&self, url: &Uri) -> bool {
        matches!(self.place(url), Ok(Place::World(_)))
    }

    fn place(&self, url: &Uri) -> Result<Place, Failure> {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        if self.serving.owns_host(&host) {
            return Ok(Place::Service);
        }
        let Some((played, world)) = &self.beyond else { return Err(Failure::Refused(format!("{host} is no host of a service here"))) };
        if host.ends_with(".googleapis.com") && played.plays(&host) {
            return Ok(Place::Api(played.clone()));
        }
        if played.plays(&host) {
            return Err(Failure::Refused(format!("{host} is played here, and is neither a service nor an API")));
        }
        world.check(url).map_err(failure_of)?;
        Ok(Place::World(world.clone()))
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

    async fn exchange(&self, mut call: Call, begun: Instant) -> Result<Answer, Failure> {
        // Two of the same name would mean two things to two readers.
        HOP_BY_HOP.iter().for_each(|name| drop(call.headers.remove(name)));
        loop {
            let mut answer = self.exchange_one(&call).await?;
            let Some(next) = redirected(&call, &answer).filter(|_| call.redirects_max > 0) else {
                answer.latency = begun.elapsed();
                return Ok(answer);
            };
            let next = Call { redirects_max: call.redirects_max - 1, ..next? };
            self.redirect_check(&call.target, &next.target)?;
            call = next;
        }
    }

    /// From outside no redirect leads to what is here: it would come from inside.
    fn redirect_check(&self, from: &Target, to: &Target) -> Result<(), Failure> {
        let (Target::Url(from), Target::Url(to)) = (from, to) else { return Ok(()) };
        match (self.place(from)?, self.place(to)?) {
            (Place::World(_), Place::Service | Place::Api(_)) => {
                Err(Failure::Refused(format!("a redirect from outside to {to}, a host of this server, is not followed: it would come from inside")))
            }
            _ => Ok(()),
        }
    }

    async fn exchange_one(&self, call: &Call) -> Result<Answer, Failure> {
        let origin = Origin::Inside { project: call.project.to_string() };
        let place = match &call.target {
            Target::Url(url) => self.place(url)?,
            Target::Service(..) | Target::Revision(..) => Place::Service,
        };
        let (authority, path) = match &call.target {
            Target::Url(url) => {
                let authority = url.authority().ok_or_else(|| Failure::Refused(format!("{url} names no host")))?;
                (authority.as_str(), url.path_and_query().map_or("/", |path| path.as_str()))
            }
            Target::Service(service, path) | Target::Revision(service, _, path) => (service.service.as_str(), path.as_str()),
        };
        let malformed = || Failure::Refused(format!("{authority}{path} is no URL"));
        let mut headers = call.headers.clone();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(call.body.len()));
        headers.insert(header::HOST, HeaderValue::from_str(authority).map_err(|_| malformed())?);
        if let Some(token) = &call.token {
            if let (Place::World(_), Target::Url(url)) = (&place, &call.target) {
                token_check(token, url)?;
            }
            headers.insert(header::AUTHORIZATION, self.authorization(token)?);
        }
        let mut request = http::Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.headers_mut() = headers;
        request.extensions_mut().insert(call.hops.clone());
        let inside = |mut request: http::Request<Full<Bytes>>| {
            *request.uri_mut() = path.parse().map_err(|_| malformed())?;
            Ok(request.map(|body| body.map_err(|never| match never {}).boxed()))
        };
        let answer = match (&call.target, place) {
            (Target::Url(url), Place::World(world)) => {
                *request.uri_mut() = url.clone();
                let (parts, body) = world.request(request, ANSWER_MAX_BYTES).await.map_err(failure_of)?.into_parts();
                return Ok(Answer { status: parts.status, headers: parts.headers, body, latency: Duration::ZERO, refusal: None });
            }
            (Target::Url(url), Place::Api(played)) => played.handle(origin, url.scheme() == Some(&Scheme::HTTPS), inside(request)?).await,
            (Target::Url(_), Place::Service) => self.serving.handle(origin, inside(request)?).await,
            (Target::Service(service, _), _) => self.serving.handle_service(origin, service, inside(request)?).await,
            (Target::Revision(service, revision, _), _) => self.serving.handle_revision(origin, service, revision, inside(request)?).await,
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
        if refusal == Some(Refusal::Loop) {
            return Err(Failure::Loop { hops: call.hops.clone(), max: self.serving.hops_max() });
        }
        Ok(Answer { status: parts.status, headers: parts.headers, body: kept.freeze(), latency: Duration::ZERO, refusal })
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

/// Fields of one connection, which no sender sets.
const HOP_BY_HOP: [HeaderName; 6] = [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE, header::EXPECT];

fn failure_of(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(why) => Failure::Refused(why),
        ClientError::Unreachable(why) => Failure::Unreachable(why),
        ClientError::Broken(why) => Failure::Broken(why),
    }
}

/// Which tokens may leave this server. An access token is good for every API here, whoever has it.
///
/// # Errors
/// [`Failure::Refused`].
pub fn token_check(token: &Token, url: &Uri) -> Result<(), Failure> {
    let host = url.host().unwrap_or_default();
    match token {
        Token::Access { .. } => Err(Failure::Refused(format!("an OAuth token is for *.googleapis.com and is not sent to {host}: take an OIDC token"))),
        Token::Id { .. } if url.scheme() != Some(&Scheme::HTTPS) => Err(Failure::Refused(format!("a token is not sent to {host} without TLS: take https"))),
        Token::Id { .. } => Ok(()),
    }
}

/// The call that an answer redirects `call` to; `None` when it does not.
fn redirected(call: &Call, answer: &Answer) -> Option<Result<Call, Failure>> {
    let Target::Url(from) = &call.target else { return None };
    if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers.get(header::LOCATION)?.to_str().ok()?;
    Some(resolved(from, location).map(|to| {
        let mut next = Call { target: Target::Url(to.clone()), ..call.clone() };
        let keeps_method = matches!(answer.status.as_u16(), 307 | 308) || matches!(call.method, Method::GET | Method::HEAD);
        if !keeps_method {
            (next.method, next.body) = (Method::GET, Bytes::new());
            next.headers.remove(header::CONTENT_TYPE);
        }
        if (from.scheme(), from.authority()) != (to.scheme(), to.authority()) {
            next.token = None;
            for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
                next.headers.remove(name);
            }
        }
        next
    }))
}

/// `location` as seen from `from` (RFC 3986, less `.` and `..`).
fn resolved(from: &Uri, location: &str) -> Result<Uri, Failure> {
    let base = format!("{}://{}", from.scheme_str().unwrap_or("https"), from.authority().map_or("", |authority| authority.as_str()));
    let location = location.split('#').next().unwrap_or_default();
    let text = match location {
        "" => return Err(Failure::Refused("a redirect to nowhere".to_owned())),
        absolute if absolute.contains("://") && !absolute.starts_with(['/', '?']) => absolute.to_owned(),
        network if network.starts_with("//") => format!("{}:{network}", from.scheme_str().unwrap_or("https")),
        rooted if rooted.starts_with('/') => format!("{base}{rooted}"),
        query if query.starts_with('?') => format!("{base}{}{query}", from.path()),
        relative => format!("{base}{}/{relative}", from.path().rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    url_parse("location", &text).map_err(|status| Failure::Refused(format!("a redirect to what is no URL: {}", status.outer)))
}

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

    fn call(url: &str, method: Method) -> Call {
        let headers = [("authorization", "Basic x"), ("content-type", "text/plain"), ("x-mine", "1")];
        Call {
            project: ProjectId::parse("demo-1").unwrap(),
            target: Target::Url(url.parse().unwrap()),
            method,
            headers: headers.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect(),
            body: Bytes::from_static(b"body"),
            token: Some(Token::Id { account: "a@b".to_owned(), audience: "c".to_owned() }),
            redirects_max: 1,
            timeout: Duration::from_secs(1),
            hops: Hops::default(),
        }
    }

    fn redirect(status: u16, location: &str) -> Answer {
        let headers = [(header::LOCATION, location.parse().unwrap())].into_iter().collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::new(), latency: Duration::ZERO, refusal: None }
    }

    #[test]
    fn a_redirect_leads_where_it_says() {
        let check = |location: &str, expect: Option<&str>| {
            let next = redirected(&call("https://a.example:8443/b/c?d=e", Method::GET), &redirect(302, location)).unwrap();
            let url = next.ok().map(|next| match next.target {
                Target::Url(url) => url.to_string(),
                other => panic!("{other:?}"),
            });
            assert_eq!(url.as_deref(), expect, "{location}");
        };
        check("https://b.example/x", Some("https://b.example/x"));
        check("//b.example/x", Some("https://b.example/x"));
        check("/x?y=http://z", Some("https://a.example:8443/x?y=http://z"));
        check("?y", Some("https://a.example:8443/b/c?y"));
        check("x#part", Some("https://a.example:8443/b/x"));
        for wrong in ["ftp://b.example/", "https://me:secret@b.example/", "#part", "file:///etc/passwd"] {
            check(wrong, None);
        }
        assert!(redirected(&call("https://a.example/", Method::GET), &redirect(304, "/x")).is_none());
    }

    #[test]
    fn credentials_do_not_follow_to_another_host() {
        let check = |status: u16, location: &str, keeps_token: bool, method: Method| {
            let next = redirected(&call("https://a.example/b", Method::POST), &redirect(status, location)).unwrap().unwrap();
            assert_eq!((next.token.is_some(), next.headers.contains_key("authorization")), (keeps_token, keeps_token), "{location}");
            assert_eq!((next.method == Method::POST, next.body.is_empty()), (method == Method::POST, method == Method::GET), "{status}");
            assert!(next.headers.contains_key("x-mine"));
        };
        check(302, "/c", true, Method::GET);
        check(303, "/c", true, Method::GET);
        check(307, "/c", true, Method::POST);
        check(308, "https://b.example/c", false, Method::POST);
        check(307, "http://a.example/c", false, Method::POST);
        check(307, "https://a.example:444/c", false, Method::POST);
    }

    #[test]
    fn an_access_token_stays_here_and_no_token_goes_without_tls() {
        let (id, access) = (Token::Id { account: String::new(), audience: String::new() }, Token::Access { account: String::new(), scope: String::new() });
        let check = |token: &Token, url: &str, is_good: bool| assert_eq!(token_check(token, &url.parse().unwrap()).is_ok(), is_good, "{token:?} {url}");
        check(&id, "https://example.com/", true);
        check(&id, "http://example.com/", false);
        check(&access, "https://example.com/", false);
    }

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
