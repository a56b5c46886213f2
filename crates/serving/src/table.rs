//! The table of services and their revisions that requests are routed by.
//!
//! It is read from the store once and follows the store's changes from then on, one service at a time; readers swap to the next
//! table without waiting. Its truth is what the reconcilers wrote (`ServiceStatus::traffic`), never what an owner asked for.
//! A request keeps the entry it began with: a revision's settings outlive it in the table.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::FutureExt;
use model::function::MANAGED_BY;
use model::{
    ProjectId, ProjectNumber, Region, Revision, Service, ServiceKey, ServiceName, address, key,
    log::Source,
    service::{Ingress, Shadow, TrafficStatus},
};
use serde::Deserialize;
use store::{Event, Store, Watch};

use crate::{
    host,
    pool::{Pool, Scale},
    pools::Pools,
    recent::{Recent, Room},
    traffic::Share,
};

/// What requests are routed by.
#[derive(Default)]
pub(crate) struct Table {
    hosts: HashMap<Arc<str>, (Arc<Entry>, Route)>,
    services: HashMap<ServiceKey, Arc<Entry>>,
}

/// Which revisions a host leads to.
#[derive(Clone)]
pub(crate) enum Route {
    /// Those of the service's split.
    Split,
    /// The one that has a tag.
    Tag(Arc<Pool>),
}

/// A service as requests see it.
pub(crate) struct Entry {
    pub(crate) key: ServiceKey,
    /// `projects/P/locations/R/services/S`.
    pub(crate) resource: String,
    pub(crate) ingress: Ingress,
    pub(crate) invoker_iam_disabled: bool,
    pub(crate) default_uri_disabled: bool,
    custom_audiences: Vec<String>,
    pub(crate) shares: Vec<Share>,
    /// The last ones, of those of which copies may be sent.
    pub(crate) recent: Arc<Recent>,
    /// For log entries of requests that no revision saw.
    pub(crate) source: Arc<Source>,
    hosts: Vec<(Arc<str>, Route)>,
}

impl Table {
    /// The service that has `host` (in lower case, without port), exactly.
    pub(crate) fn by_host(&self, host: &str) -> Option<(&Arc<Entry>, &Route)> {
        self.hosts.get(host).map(|(entry, route)| (entry, route))
    }

    pub(crate) fn by_key(&self, key: &ServiceKey) -> Option<&Arc<Entry>> {
        self.services.get(key)
    }

    /// The service of a function.
    pub(crate) fn function(&self, region: &str, project: &str, name: &str) -> Option<&Arc<Entry>> {
        let key = ServiceKey { project: ProjectId::parse(project).ok()?, region: Region::parse(region).ok()?, service: ServiceName::parse(name).ok()? };
        self.by_key(&key).filter(|entry| entry.is_function())
    }

    /// Whether `audience` is one of `entry`'s: any of its URLs, with or without a slash at the end, or a custom one.
    pub(crate) fn is_audience(&self, entry: &Entry, audience: &str) -> bool {
        if entry.is_function() && entry.function_url() == audience.trim_end_matches('/') {
            return true;
        }
        let url = || self.by_host(&host::lowered(host::of_audience(audience)?)).map(|(found, _)| found.key == entry.key);
        entry.custom_audiences.iter().any(|custom| custom == audience) || url().unwrap_or(false)
    }
}

impl Entry {
    fn is_function(&self) -> bool {
        !self.source.managed_by.is_empty()
    }

    fn function_url(&self) -> String {
        let ServiceKey { project, region, service } = &self.key;
        format!("https://{}/{service}", address::host_of_functions(project.as_str(), region.as_str()))
    }
}

/// The part of a project's record that hosts need.
#[derive(Deserialize)]
struct Project {
    id: ProjectId,
    number: ProjectNumber,
}

/// What the table is made of.
pub(crate) struct Follower {
    store: Store,
    domains: Vec<String>,
    pools: Pools,
    watches: [Watch; 3],
    services: HashMap<String, Service>,
    revisions: HashMap<String, Revision>,
    projects: HashMap<String, Project>,
    dirty: HashSet<ServiceKey>,
    room: Room,
}

const PREFIXES: [&str; 3] = [key::SERVICES, key::REVISIONS, key::PROJECTS];
/// Records read from the store at a time.
const SCAN_ROWS: usize = 1000;

impl Follower {
    /// Watches, then reads everything there is.
    pub(crate) fn new(store: Store, domains: Vec<String>, pools: Pools) -> Result<Self, store::Error> {
        let mut follower = Self {
            watches: PREFIXES.map(|prefix| store.watch(prefix)),
            store,
            domains,
            pools,
            services: HashMap::new(),
            revisions: HashMap::new(),
            projects: HashMap::new(),
            dirty: HashSet::new(),
            room: Room::default(),
        };
        for prefix in PREFIXES {
            follower.scan(prefix)?;
        }
        Ok(follower)
    }

    /// Waits for changes and takes in all that are there. `false` when the store is closed.
    ///
    /// # Errors
    /// The store could not be read after changes were missed.
    pub(crate) async fn changed(&mut self) -> Result<bool, store::Error> {
        let [services, revisions, projects] = &mut self.watches;
        let (mut prefix, mut event) = tokio::select! {
            event = services.next() => (PREFIXES[0], event),
            event = revisions.next() => (PREFIXES[1], event),
            event = projects.next() => (PREFIXES[2], event),
        };
        loop {
            match event {
                None => return Ok(false),
                Some(Event::Change(change)) => self.take(&change.key, change.value.as_deref()),
                Some(Event::Resync) => self.scan(prefix)?,
            }
            let more = self.watches.iter_mut().zip(PREFIXES).find_map(|(watch, prefix)| Some((prefix, watch.next().now_or_never()?)));
            match more {
                Some(more) => (prefix, event) = more,
                None => return Ok(true),
            }
        }
    }

    /// The table after `old` with everything taken in since.
    pub(crate) fn table(&mut self, old: &Table) -> Table {
        let mut services = old.services.clone();
        for key in std::mem::take(&mut self.dirty) {
            let recent = services.get(&key).map(|entry| entry.recent.clone());
            match self.entry(&key, recent) {
                Some(entry) => services.insert(key, Arc::new(entry)),
                None => services.remove(&key),
            };
        }
        let hosts = services.values().flat_map(|entry| entry.hosts.iter().map(|(host, route)| (host.clone(), (entry.clone(), route.clone())))).collect();
        Table { hosts, services }
    }

    fn scan(&mut self, prefix: &'static str) -> Result<(), store::Error> {
        let mut gone: HashSet<String> = match prefix {
            key::SERVICES => self.services.keys().cloned().collect(),
            key::REVISIONS => self.revisions.keys().cloned().collect(),
            _ => self.projects.keys().cloned().collect(),
        };
        let mut after = None;
        loop {
            let records = self.store.scan(prefix, after.as_deref(), SCAN_ROWS)?;
            for record in &records {
                gone.remove(&record.key);
                self.take(&record.key, Some(&record.value));
            }
            match records.last() {
                Some(last) if records.len() == SCAN_ROWS => after = Some(last.key.clone()),
                _ => break,
            }
        }
        for key in gone {
            self.take(&key, None);
        }
        Ok(())
    }

    /// Takes in one record, or that it is gone, and marks the services that it concerns.
    fn take(&mut self, key: &str, value: Option<&[u8]>) {
        if key.starts_with(key::SERVICES) {
            let next = value.and_then(|value| parse::<Service>(key, value));
            let old = match next {
                Some(next) => {
                    self.dirty.insert(next.key.clone());
                    self.services.insert(key.to_owned(), next)
                }
                None => self.services.remove(key),
            };
            self.dirty.extend(old.map(|old| old.key));
        } else if key.starts_with(key::REVISIONS) {
            let next = value.and_then(|value| parse::<Revision>(key, value));
            let uid = next.as_ref().map(|next| next.uid.clone());
            let old = match next {
                Some(next) => {
                    self.dirty.insert(next.service.clone());
                    self.pools.recorded(&next.uid);
                    self.revisions.insert(key.to_owned(), next)
                }
                None => self.revisions.remove(key),
            };
            if let Some(old) = old {
                if uid.as_ref() != Some(&old.uid) {
                    self.pools.retire(&old.uid);
                }
                self.dirty.insert(old.service);
            }
        } else if key.starts_with(key::PROJECTS) {
            let next = value.and_then(|value| parse::<Project>(key, value));
            let old = match next {
                Some(next) => self.projects.insert(key.to_owned(), next),
                None => self.projects.remove(key),
            };
            for id in [old.map(|old| old.id), self.projects.get(key).map(|next| next.id.clone())].into_iter().flatten() {
                self.dirty.extend(self.services.values().filter(|service| service.key.project == id).map(|service| service.key.clone()));
            }
        }
    }

    /// The entry of a service; `None` when it is gone or being deleted. Tells the pools of its revisions how many instances they may have.
    /// Its recent requests go on where its old entry had some.
    fn entry(&self, key: &ServiceKey, recent: Option<Arc<Recent>>) -> Option<Entry> {
        let service = self.services.get(&key::service(key)).filter(|service| service.deleted.is_none());
        let revisions = || self.revisions.values().filter(|revision| revision.service == *key);
        let Some(service) = service else {
            revisions().for_each(|revision| self.pools.retire(&revision.uid));
            return None;
        };
        let mut shares = Vec::new();
        let mut tags = Vec::new();
        let mut end = 0;
        for revision in revisions().filter(|revision| revision.service_uid == service.uid) {
            // It never runs.
            if revision.template.container.is_placeholder() {
                continue;
            }
            let scale = scale(service, revision, &service.status.traffic);
            if scale.routed {
                self.pools.of(revision).scale(scale);
            } else if let Some(pool) = self.pools.find(&revision.uid) {
                pool.scale(scale);
            }
        }
        for target in &service.status.traffic {
            let found = self.revisions.get(&key::revision(key, &target.revision)).filter(|revision| revision.service_uid == service.uid);
            let Some(revision) = found else { continue };
            let pool = self.pools.of(revision);
            if target.percent > 0 {
                end += target.percent;
                shares.push(Share { end, pool: pool.clone() });
            }
            if let Some(tag) = &target.tag {
                tags.push((tag.to_ascii_lowercase(), pool));
            }
        }
        let mut hosts: Vec<(Arc<str>, Route)> = Vec::new();
        match self.projects.get(&key::project(&key.project)) {
            Some(project) => {
                hosts.extend(host::names(key, project.number, &self.domains, None).into_iter().map(|host| (host.into(), Route::Split)));
                for (tag, pool) in &tags {
                    let names = host::names(key, project.number, &self.domains, Some(tag));
                    hosts.extend(names.into_iter().map(|host| (host.into(), Route::Tag(pool.clone()))));
                }
            }
            None => tracing::warn!(service = %key.resource(), "no hosts: the project's number is not known"),
        }
        let recent = recent.unwrap_or_else(|| Recent::new(&self.room));
        recent.allow(Shadow::of(&service.annotations));
        Some(Entry {
            key: key.clone(),
            resource: key.resource(),
            ingress: service.ingress,
            invoker_iam_disabled: service.invoker_iam_disabled,
            default_uri_disabled: service.default_uri_disabled,
            custom_audiences: service.custom_audiences.clone(),
            shares,
            recent,
            source: Arc::new(Source {
                project: key.project.to_string(),
                region: key.region.to_string(),
                service: key.service.to_string(),
                revision: String::new(),
                instance: String::new(),
                build: String::new(),
                job: String::new(),
                managed_by: service.labels.get(MANAGED_BY).cloned().unwrap_or_default(),
            }),
            hosts,
        })
    }
}

/// A record that cannot be read is as good as gone for requests; it is said once, here.
fn parse<T: serde::de::DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).map_err(|error| tracing::error!(key, %error, "a record cannot be read and is not served")).ok()
}

/// How many instances a revision may and must have: its own limits, and its share of the service's.
fn scale(service: &Service, revision: &Revision, traffic: &[TrafficStatus]) -> Scale {
    let targets = traffic.iter().filter(|target| target.revision == revision.name);
    let percent: u32 = targets.clone().map(|target| target.percent).sum();
    let tagged = targets.clone().any(|target| target.tag.is_some());
    let part = |of: u32| u32::try_from((u64::from(of) * u64::from(percent)).div_ceil(100)).unwrap_or(u32::MAX);
    let own_max = revision.template.max_instances();
    if let Some(manual) = service.scaling.manual_instances
        && percent > 0
    {
        return Scale { min: part(manual), max: part(manual), is_manual: true, routed: true };
    }
    Scale {
        min: if percent > 0 || tagged { revision.template.min_instances.max(part(service.scaling.min_instances)) } else { 0 },
        max: service.scaling.max_instances.filter(|_| percent > 0).map_or(own_max, |max| own_max.min(part(max).max(1))),
        is_manual: false,
        routed: percent > 0 || tagged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{revision_sample, service_sample};

    #[test]
    fn the_services_limits_are_shared_by_percent() {
        fn check(percent: u32, tag: bool, own: (u32, Option<u32>), service_own: (u32, Option<u32>, Option<u32>), expect: (u32, u32)) {
            let mut service = service_sample("hello");
            (service.scaling.min_instances, service.scaling.max_instances, service.scaling.manual_instances) = service_own;
            let mut revision = revision_sample(&service, "hello-00001-abc");
            (revision.template.min_instances, revision.template.max_instances) = own;
            let traffic = [TrafficStatus { revision: revision.name.clone(), latest: true, percent, tag: tag.then(|| "t".to_owned()) }];
            let got = scale(&service, &revision, &traffic);
            assert_eq!((got.min, got.max), expect, "{percent} {tag} {own:?} {service_own:?}");
        }
        check(100, false, (0, None), (0, None, None), (0, 100));
        check(100, false, (2, Some(5)), (3, None, None), (3, 5));
        check(50, false, (0, Some(50)), (3, Some(9), None), (2, 5));
        check(0, false, (2, Some(5)), (3, Some(1), None), (0, 5));
        check(0, true, (2, Some(5)), (3, None, None), (2, 5));
        check(100, false, (0, None), (0, None, Some(4)), (4, 4));
        check(100, false, (0, None), (0, None, Some(0)), (0, 0));
    }
}
