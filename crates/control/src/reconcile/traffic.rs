//! Which revisions serve, and what is said of a service: one rule from its wish and its revisions.
//!
//! Pure. `reconcile::service` writes what comes out; `serving` reads it by watch. Conditions as in Knative:
//! `ConfigurationsReady` speaks of the latest revision, `RoutesReady` of the traffic, `Ready` of both.

use model::{
    Revision, Service, Timestamp,
    condition::{self, Condition, State},
    service::{ServiceStatus, TrafficStatus},
};

/// The status of a service that nobody has looked at yet.
pub(crate) fn status_first(now: Timestamp) -> ServiceStatus {
    let conditions =
        ["Ready", "ConfigurationsReady", "RoutesReady"].map(|kind| Verdict::waiting("", "").condition(kind, now)).to_vec();
    ServiceStatus { conditions, ..ServiceStatus::default() }
}

/// What is true of one part of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    state: State,
    reason: String,
    message: String,
}

impl Verdict {
    const GOOD: Self = Self { state: State::True, reason: String::new(), message: String::new() };

    fn waiting(reason: &str, message: &str) -> Self {
        Self { state: State::Unknown, reason: reason.to_owned(), message: message.to_owned() }
    }

    fn bad(reason: &str, message: impl Into<String>) -> Self {
        Self { state: State::False, reason: reason.to_owned(), message: message.into() }
    }

    fn of_revision(revision: &Revision) -> Self {
        match condition::find(&revision.conditions, "Ready") {
            Some(Condition { state: State::True, .. }) => Self::GOOD,
            Some(Condition { state: State::False, reason, message, .. }) => Self::bad(reason, message),
            _ => Self::waiting("Deploying", "Deploying Revision."),
        }
    }

    fn condition(self, kind: &str, since: Timestamp) -> Condition {
        Condition { kind: kind.to_owned(), state: self.state, reason: self.reason, message: self.message, since }
    }
}

/// Whether a revision's first instance has listened.
pub(crate) fn is_ready(revision: &Revision) -> bool {
    Verdict::of_revision(revision).state == State::True
}

/// Whether it is decided whether a revision can serve.
pub(crate) fn is_proven(revision: &Revision) -> bool {
    Verdict::of_revision(revision).state != State::Unknown
}

/// The youngest of `revisions`: each comes from a generation of its own.
pub(crate) fn latest(revisions: &[Revision]) -> Option<&Revision> {
    revisions.iter().max_by_key(|revision| revision.generation)
}

/// What stands between the wish and its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing: the latest revision is what the owner asked for.
    Made,
    /// A revision that is not made yet.
    Missing,
    /// A revision that cannot be made, and why.
    Impossible(String),
}

/// The status that follows from what `service` asks for and what its `revisions` are.
pub(crate) fn status_next(service: &Service, revisions: &[Revision], wanted: &Wanted, now: Timestamp) -> ServiceStatus {
    let mut status = service.status.clone();
    let latest = latest(revisions);
    if let Some(latest) = latest
        && status.latest_created.as_ref() != Some(&latest.name)
    {
        status.latest_created = Some(latest.name.clone());
        status.revisions_created += 1;
    }
    let latest_ready = revisions.iter().filter(|revision| is_ready(revision)).max_by_key(|revision| revision.generation);
    status.latest_ready = latest_ready.map(|revision| revision.name.clone());

    let configurations = match (wanted, latest) {
        (Wanted::Impossible(why), _) => Verdict::bad("RevisionNameTaken", why),
        (Wanted::Made, Some(latest)) => Verdict::of_revision(latest),
        (Wanted::Missing, _) | (Wanted::Made, None) => Verdict::waiting("Deploying", "Creating Revision."),
    };
    let routes = match traffic_next(service, revisions, latest_ready, &configurations) {
        Ok(traffic) => {
            status.traffic = traffic;
            let follows_latest = service.traffic.iter().any(|target| target.revision.is_none());
            // What serves now is right only until the latest revision is ready.
            if configurations.state == State::Unknown && follows_latest { Verdict::waiting("Deploying", "Waiting for the latest revision.") } else { Verdict::GOOD }
        }
        // What served before goes on serving.
        Err(verdict) => verdict,
    };
    let ready = [&configurations, &routes]
        .into_iter()
        .find(|verdict| verdict.state == State::False)
        .or_else(|| [&configurations, &routes].into_iter().find(|verdict| verdict.state == State::Unknown))
        .unwrap_or(&Verdict::GOOD)
        .clone();
    for (kind, verdict) in [("Ready", ready), ("ConfigurationsReady", configurations), ("RoutesReady", routes)] {
        condition::set(&mut status.conditions, verdict.condition(kind, now));
    }
    status.observed_generation = service.generation;
    status
}

/// The wish with names in it; an error when a target cannot serve, or not yet. Then nothing changes: half of a split is no split.
fn traffic_next(service: &Service, revisions: &[Revision], latest_ready: Option<&Revision>, configurations: &Verdict) -> Result<Vec<TrafficStatus>, Verdict> {
    let mut traffic = Vec::with_capacity(service.traffic.len());
    let mut waiting = None;
    for target in &service.traffic {
        let revision = match &target.revision {
            None => match latest_ready {
                Some(revision) => revision,
                None if configurations.state == State::False => return Err(configurations.clone()),
                None => {
                    waiting = Some(Verdict::waiting("Deploying", "Waiting for the first revision."));
                    continue;
                }
            },
            Some(name) => match revisions.iter().find(|revision| revision.name == *name) {
                Some(revision) => {
                    let verdict = Verdict::of_revision(revision);
                    match verdict.state {
                        State::True => revision,
                        State::False => return Err(verdict),
                        State::Unknown => {
                            waiting = Some(Verdict::waiting("Deploying", &format!("Waiting for revision '{name}'.")));
                            continue;
                        }
                    }
                }
                None if configurations.state == State::Unknown => {
                    waiting = Some(Verdict::waiting("Deploying", &format!("Waiting for revision '{name}'.")));
                    continue;
                }
                None => return Err(Verdict::bad("RevisionMissing", format!("Revision '{name}' does not exist."))),
            },
        };
        traffic.push(TrafficStatus {
            revision: revision.name.clone(),
            latest: target.revision.is_none(),
            percent: target.percent,
            tag: target.tag.clone(),
        });
    }
    waiting.map_or(Ok(traffic), Err)
}

/// The `Active` condition that `revision` should have; `None` while it is not proven.
pub(crate) fn active_next(service: &Service, revision: &Revision, now: Timestamp) -> Option<Condition> {
    if !is_proven(revision) {
        return None;
    }
    let serves = service.status.traffic.iter().any(|target| target.revision == revision.name && (target.percent > 0 || target.tag.is_some()));
    let verdict = if serves { Verdict::GOOD } else { Verdict::bad("Retired", "Revision retired.") };
    Some(verdict.condition("Active", now))
}
