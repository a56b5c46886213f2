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
    let conditions = ["Ready", "ConfigurationsReady", "RoutesReady"].map(|kind| Verdict::waiting("", "").condition(kind, now)).to_vec();
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
            if configurations.state == State::Unknown && follows_latest {
                Verdict::waiting("Deploying", "Waiting for the latest revision.")
            } else {
                Verdict::GOOD
            }
        }
        // What served before goes on serving.
        Err(verdict) => verdict,
    };
    let parts = [&configurations, &routes];
    let first = |state| parts.into_iter().find(|verdict| verdict.state == state);
    let ready = match wanted {
        // Nothing is decided before the revision is made, whatever is wrong with the traffic: who waits must see it.
        Wanted::Missing => configurations.clone(),
        Wanted::Made | Wanted::Impossible(_) => first(State::False).or_else(|| first(State::Unknown)).cloned().unwrap_or(Verdict::GOOD),
    };
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
                None => {
                    return Err(Verdict::bad("RevisionMissing", format!("Revision '{name}' does not exist.")));
                }
            },
        };
        traffic.push(TrafficStatus { revision: revision.name.clone(), latest: target.revision.is_none(), percent: target.percent, tag: target.tag.clone() });
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

#[cfg(test)]
mod tests {
    use super::*;
    use State::{False, True, Unknown};

    /// A service `f` with `targets` (`@` is the latest) and revisions `f-1`, `f-2`... in these states.
    fn sample(targets: &[(&str, u32)], states: &[State]) -> (Service, Vec<Revision>) {
        let mut service = crate::tests::service("f");
        service.generation = states.len() as u64;
        let named = |name: &str| (name != "@").then(|| crate::tests::name(name));
        service.traffic = targets.iter().map(|(name, percent)| crate::tests::target(named(name).as_ref(), *percent, None)).collect();
        let revision = |(n, state): (usize, &State)| Revision {
            service: service.key.clone(),
            name: crate::tests::name(&format!("f-{}", n + 1)),
            uid: n.to_string(),
            service_uid: service.uid.clone(),
            generation: n as u64 + 1,
            created: service.created,
            creator: String::new(),
            template: service.template.clone(),
            image: None,
            conditions: vec![Verdict { state: *state, reason: String::new(), message: format!("f-{}", n + 1) }.condition("Ready", service.created)],
            client: String::new(),
            client_version: String::new(),
        };
        let revisions = states.iter().enumerate().map(revision).collect();
        (service, revisions)
    }

    #[test]
    fn traffic_and_conditions_follow_the_revisions() {
        type Case = (&'static [(&'static str, u32)], &'static [State], Wanted, [State; 3], &'static [(&'static str, u32)]);
        let impossible = || Wanted::Impossible("taken".into());
        // Targets, revisions, what is wanted; then ConfigurationsReady, RoutesReady, Ready, and what serves (nothing before).
        let cases: Vec<Case> = vec![
            (&[("@", 100)], &[], Wanted::Missing, [Unknown, Unknown, Unknown], &[]),
            (&[("@", 100)], &[Unknown], Wanted::Made, [Unknown, Unknown, Unknown], &[]),
            (&[("@", 100)], &[True], Wanted::Made, [True, True, True], &[("f-1", 100)]),
            (&[("@", 100)], &[False], Wanted::Made, [False, False, False], &[]),
            (&[("@", 100)], &[True, Unknown], Wanted::Made, [Unknown, Unknown, Unknown], &[("f-1", 100)]),
            (&[("@", 100)], &[True, False], Wanted::Made, [False, True, False], &[("f-1", 100)]),
            (&[("@", 100)], &[True, True], Wanted::Made, [True, True, True], &[("f-2", 100)]),
            // An older one that comes later.
            (&[("@", 100)], &[Unknown, True], Wanted::Made, [True, True, True], &[("f-2", 100)]),
            (&[("@", 100)], &[True], Wanted::Missing, [Unknown, Unknown, Unknown], &[("f-1", 100)]),
            (&[("@", 100)], &[True], impossible(), [False, True, False], &[("f-1", 100)]),
            (&[("f-1", 90), ("@", 10)], &[True, True], Wanted::Made, [True, True, True], &[("f-1", 90), ("f-2", 10)]),
            // Pinned traffic does not wait for the latest.
            (&[("f-1", 100)], &[True, Unknown], Wanted::Made, [Unknown, True, Unknown], &[("f-1", 100)]),
            (&[("f-2", 50), ("@", 50)], &[True, Unknown], Wanted::Made, [Unknown, Unknown, Unknown], &[]),
            (&[("f-1", 50), ("@", 50)], &[False, True], Wanted::Made, [True, False, False], &[]),
            (&[("f-9", 100)], &[True], Wanted::Made, [True, False, False], &[]),
            (&[("f-9", 100)], &[True], Wanted::Missing, [Unknown, Unknown, Unknown], &[]),
            // A target that failed decides nothing before the revision is made.
            (&[("f-1", 50), ("@", 50)], &[False, True], Wanted::Missing, [Unknown, False, Unknown], &[]),
            (&[("f-1", 50), ("@", 50)], &[False, Unknown], Wanted::Made, [Unknown, False, False], &[]),
        ];
        for (targets, states, wanted, expect, serves) in cases {
            let (service, revisions) = sample(targets, states);
            let status = status_next(&service, &revisions, &wanted, service.created);
            let state = |kind| condition::find(&status.conditions, kind).unwrap().state;
            let case = format!("{targets:?} {states:?} {wanted:?}");
            assert_eq!(["ConfigurationsReady", "RoutesReady", "Ready"].map(state), expect, "{case}");
            let served: Vec<(&str, u32)> = status.traffic.iter().map(|t| (t.revision.as_str(), t.percent)).collect();
            assert_eq!(served, serves, "{case}");
            assert_eq!(status.observed_generation, service.generation);
            // Doing it twice equals doing it once.
            let again = Service { status: status.clone(), ..service };
            assert_eq!(status_next(&again, &revisions, &wanted, Timestamp::MAX), status, "{case}");
        }
    }
}
