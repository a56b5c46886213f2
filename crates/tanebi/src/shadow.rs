//! Copies of a service's recent requests, sent to a revision and to the one that serves: what answers otherwise, how fast, and may the
//! revision take traffic?
//!
//! The copies go one after the other, each with the identity of whoever asks. What they are answered is shown to who may update the
//! service; others see where replies differ. Where they do, the serving revision is asked again: what differs from its own other reply is
//! noise (a time, a random number).

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};
use model::{
    Code, RevisionName, ServiceKey, Status,
    service::{Service, Shadow},
};
use serde_json::{Value, json};
use serving::{Origin, RecentRequest};
use tokio::sync::Semaphore;

use crate::{
    own::{Own, field},
    shadow::reply::{Difference, Reply},
};

mod reply;

/// What it takes: to see the service and to call it; and to update it, to move its traffic, to do again what is no read, and to see what
/// others' requests are answered.
const SEE: &str = "run.services.get";
const INVOKE: &str = "run.routes.invoke";
const UPDATE: &str = "run.services.update";

/// Copies of one comparison; fewer when they take longer.
const COPIES_MAX: usize = 30;
const WHOLE_MAX: Duration = Duration::from_secs(20);
const REPLY_MAX: Duration = Duration::from_secs(10);
/// How long the moving of traffic may take.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Comparisons at a time, as each holds what was answered; others wait for their turn.
const COMPARING_MAX: usize = 2;

pub struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(COMPARING_MAX))
    }
}

impl Own {
    /// How many recent requests there are to send, by what `written` (a service) allows.
    pub fn shadow_count(&self, who: &iam::Identity, written: &Value) -> Result<Value, Status> {
        let service = self.shadowed(who, written)?;
        let all = self.control.serving().recent(&service.key);
        let allowed = allowed(&service, &all).count();
        Ok(json!({ "recorded": all.len(), "allowed": allowed }))
    }

    /// Sends copies to `revision` and to the one that serves. With `promote` it takes the share that was held from it, when it did well.
    pub async fn shadow(&self, who: &iam::Identity, written: &Value) -> Result<Value, Status> {
        let service = self.shadowed(who, written)?;
        let revision = RevisionName::parse(&field(written, "revision")?)?;
        let promote = written.get("promote").and_then(Value::as_bool).unwrap_or(false);
        let is_updater = self.may(who, UPDATE, &service.key);
        if promote {
            self.demand(who, UPDATE, &service.key)?;
        }
        if !self.control.serving().has_revision(&service.key, &revision) {
            return Err(Status::not_found(format!("Revision '{revision}' of {} does not exist, or has no image.", service.key.resource())));
        }
        let against = match written.get("against") {
            Some(_) => RevisionName::parse(&field(written, "against")?)?,
            None => serving_revision(&service)?,
        };
        if against == revision {
            return Err(Status::failed_precondition(format!("{revision} is the revision that serves: name the one to compare with in \"against\".")));
        }
        let sender = self.sender(who, &service.key)?;
        let turn = self.comparing.0.acquire().await.map_err(Status::internal)?;
        let recent = self.control.serving().recent(&service.key);
        let mut requests: Vec<_> = allowed(&service, &recent).collect();
        let recorded = requests.len();
        // The newest say most of what comes next.
        requests.reverse();
        requests.truncate(COPIES_MAX);
        if requests.iter().any(|request| !request.is_read()) {
            self.demand(who, UPDATE, &service.key)?;
        }
        let began = Instant::now();
        let mut compared = Vec::new();
        for request in requests {
            if began.elapsed() > WHOLE_MAX {
                break;
            }
            compared.push(sender.compare(request, &against, &revision, compared.len() % 2 == 1).await);
        }
        let failures = compared.iter().filter(|one| one.has_failed()).count();
        let is_good = is_good(compared.len(), failures);
        let mut found = json!({
            "revision": revision, "against": against, "recorded": recorded, "compared": compared.len(), "failures": failures,
            "isShown": is_updater, "differing": compared.iter().filter(|one| one.differs()).count(),
            "serving": summary(compared.iter().map(|one| &one.serving)), "candidate": summary(compared.iter().map(|one| &one.candidate)),
            "comparisons": compared.iter().map(|one| one.written(is_updater)).collect::<Vec<_>>(),
        });
        drop((compared, turn));
        found["promoted"] = json!(promote && is_good && self.shadow_promote(who, &service.key, &revision).await?);
        Ok(found)
    }

    /// The service, when `who` may see and call it.
    fn shadowed(&self, who: &iam::Identity, written: &Value) -> Result<Service, Status> {
        let key = ServiceKey {
            project: self.project.id.clone(),
            region: model::Region::parse(&field(written, "region")?)?,
            service: model::ServiceName::parse(&field(written, "service")?)?,
        };
        self.demand(who, SEE, &key)?;
        self.demand(who, INVOKE, &key)?;
        Ok(self.control.service_get(&key)?.value)
    }

    fn demand(&self, who: &iam::Identity, permission: &str, service: &ServiceKey) -> Result<(), Status> {
        match self.may(who, permission, service) {
            true => Ok(()),
            false => Err(Status::permission_denied(permission, &service.resource())),
        }
    }

    fn may(&self, who: &iam::Identity, permission: &str, service: &ServiceKey) -> bool {
        self.iam.may(Some(who), permission, &service.resource(), service.project.as_str())
    }

    fn sender<'a>(&'a self, who: &iam::Identity, service: &'a ServiceKey) -> Result<Sender<'a>, Status> {
        let host = format!("{}.run.app", model::address::host_deterministic(&service.service, self.project.number, service.region.as_str()));
        let token = self.iam.id_token_issue(who, &format!("https://{host}"), true);
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(Status::internal)?;
        bearer.set_sensitive(true);
        Ok(Sender { own: self, service, host: HeaderValue::from_str(&host).map_err(Status::internal)?, bearer })
    }

    /// Gives the revision what was held from it, as long as it is the latest. Another change at the same time is read again.
    async fn shadow_promote(&self, who: &iam::Identity, key: &ServiceKey, revision: &RevisionName) -> Result<bool, Status> {
        loop {
            let found = self.control.service_get(key)?;
            let mut next = found.value;
            if next.status.latest_ready.as_ref() != Some(revision) || !next.shadow_release() {
                return Ok(false);
            }
            match self.control.service_replace(who, next, Some(found.revision), false).await {
                Ok((stored, _)) => {
                    self.control.service_wait(key, stored.value.generation, SETTLE_MAX).await?;
                    return Ok(true);
                }
                Err(status) if status.code == Code::Aborted => {}
                Err(status) => return Err(status),
            }
        }
    }
}

/// Whether a revision may have traffic: where nothing was compared nothing was shown.
fn is_good(compared: usize, failures: usize) -> bool {
    compared > 0 && failures == 0
}

/// Those of which copies may be sent.
fn allowed<'a>(service: &Service, recent: &'a [RecentRequest]) -> impl Iterator<Item = &'a RecentRequest> {
    let shadow = Shadow::of(&service.annotations);
    recent.iter().filter(move |request| shadow == Shadow::All || request.is_read())
}

/// The one with the largest share of the requests.
fn serving_revision(service: &Service) -> Result<RevisionName, Status> {
    let most = service.status.traffic.iter().filter(|target| target.percent > 0).max_by_key(|target| target.percent);
    most.map(|target| target.revision.clone()).ok_or_else(|| Status::failed_precondition("No revision of the service takes traffic yet."))
}

/// Sends copies.
struct Sender<'a> {
    own: &'a Own,
    service: &'a ServiceKey,
    host: HeaderValue,
    bearer: HeaderValue,
}

/// What both revisions answered to copies of one request.
struct Comparison<'a> {
    request: &'a RecentRequest,
    serving: Reply,
    candidate: Reply,
    /// And whether the serving revision differs so from itself.
    differences: Vec<(Difference, bool)>,
}

impl Sender<'_> {
    /// `turned`: the candidate is asked first, so that neither always has the warmer cache.
    async fn compare<'a>(&self, request: &'a RecentRequest, serving: &RevisionName, candidate: &RevisionName, turned: bool) -> Comparison<'a> {
        let (first, second) = if turned { (candidate, serving) } else { (serving, candidate) };
        let (first, second) = (self.send(request, first).await, self.send(request, second).await);
        let (serving_reply, candidate_reply) = if turned { (second, first) } else { (first, second) };
        let found = reply::differences(&serving_reply, &candidate_reply);
        let noise = if found.is_empty() { Vec::new() } else { reply::differences(&serving_reply, &self.send(request, serving).await) };
        let differences = found.into_iter().map(|one| (noise.iter().any(|other| other.is_at(&one)), one)).map(|(is_noise, one)| (one, is_noise)).collect();
        Comparison { request, serving: serving_reply, candidate: candidate_reply, differences }
    }

    async fn send(&self, request: &RecentRequest, revision: &RevisionName) -> Reply {
        let mut copy = request.copy(&self.host);
        copy.headers_mut().insert(header::AUTHORIZATION, self.bearer.clone());
        let origin = Origin::Inside { project: self.service.project.to_string() };
        let began = Instant::now();
        let answered = tokio::time::timeout(REPLY_MAX, async {
            let response = self.own.control.serving().handle_revision(origin, self.service, revision, copy).await;
            let (parts, body) = response.into_parts();
            Reply::read(parts.status.as_u16(), parts.headers, body, began).await
        });
        match answered.await {
            Ok(reply) => reply,
            Err(_) => Reply::none(began.elapsed()),
        }
    }
}

impl Comparison<'_> {
    /// The candidate breaks where the serving one does not.
    fn has_failed(&self) -> bool {
        self.candidate.is_failure() && !self.serving.is_failure()
    }

    fn differs(&self) -> bool {
        self.differences.iter().any(|(_, is_noise)| !is_noise)
    }

    /// Without a word of the replies unless they are `shown`.
    fn written(&self, shown: bool) -> Value {
        let differences: Vec<_> = self
            .differences
            .iter()
            .map(|(one, is_noise)| match shown {
                true => json!({ "what": one.what, "where": one.place, "serving": one.serving, "candidate": one.candidate, "isNoise": is_noise }),
                false => json!({ "what": one.what, "where": one.place, "isNoise": is_noise }),
            })
            .collect();
        json!({
            "method": self.request.method.as_str(), "target": self.request.target.to_string(), "failed": self.has_failed(),
            "serving": self.serving.written(shown), "candidate": self.candidate.written(shown), "differences": differences,
        })
    }
}

/// Latencies without those of cold starts, which say nothing of the code.
fn summary<'a>(replies: impl Iterator<Item = &'a Reply>) -> Value {
    let replies: Vec<_> = replies.collect();
    let mut warm: Vec<_> = replies.iter().filter(|reply| !reply.is_cold).map(|reply| reply.latency).collect();
    warm.sort();
    let ms = |part: f64| {
        let at = ((warm.len() as f64 * part).ceil() as usize).clamp(1, warm.len().max(1)) - 1;
        warm.get(at).map(|latency| latency.as_secs_f64() * 1e3)
    };
    let mean = (!warm.is_empty()).then(|| warm.iter().sum::<Duration>().as_secs_f64() * 1e3 / warm.len() as f64);
    json!({
        "latencyMsP50": ms(0.5), "latencyMsP99": ms(0.99), "latencyMsMean": mean,
        "coldStarts": replies.len() - warm.len(), "errors": replies.iter().filter(|reply| reply.is_failure()).count(),
    })
}

/// What a function says of a request is its own; what the platform adds to each answer says nothing of the revision.
fn told(headers: &HeaderMap) -> impl Iterator<Item = (&str, String)> {
    const PLATFORM: [&str; 9] =
        ["date", "server", "x-cloud-trace-context", "traceparent", "content-length", "transfer-encoding", "tanebi-cold-start", "alt-svc", "via"];
    headers.iter().filter(|(name, _)| !PLATFORM.contains(&name.as_str())).map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        // A session that was begun for a copy is nobody's to see.
        let value = if *name == header::SET_COOKIE { value.split('=').next().unwrap_or_default().to_owned() } else { value.into_owned() };
        (name.as_str(), value)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, Uri};

    use super::*;

    #[test]
    fn nothing_compared_is_not_good() {
        for (compared, failures, expect) in [(0, 0, false), (1, 0, true), (30, 0, true), (30, 1, false)] {
            assert_eq!(is_good(compared, failures), expect, "{compared} {failures}");
        }
    }

    #[test]
    fn who_may_not_update_is_told_no_word_of_a_reply() {
        let request = RecentRequest { method: Method::GET, target: Uri::from_static("/a"), headers: HeaderMap::new(), body: Bytes::new() };
        let reply = |word: &str| reply::tests::reply(200, &[("x-word", word)], word);
        let (serving, candidate) = (reply("said-before"), reply("said-now"));
        let differences = reply::differences(&serving, &candidate).into_iter().map(|one| (one, false)).collect();
        let one = Comparison { request: &request, serving, candidate, differences };
        let (shown, hidden) = (one.written(true).to_string(), one.written(false).to_string());
        assert!(shown.matches("said-now").count() == 3 && shown.matches("said-before").count() == 3, "{shown}");
        assert!(!hidden.contains("said-") && hidden.contains("x-word"), "{hidden}");
    }
}
