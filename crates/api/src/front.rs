//! From a request to its method: by host, then by path.
//!
//! A host of Google's reaches only the APIs that live there. Any other host is this server addressed directly: all APIs
//! answer, by path alone. A region in front of the host (`asia-northeast1-run.googleapis.com`) is the request's region.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use futures_util::FutureExt as _;
use http::Method;
use iam::Identity;
use model::{Hops, Region, Status};
use tower::ServiceExt;

use crate::{
    CallerAddress, Credentials, Deps, MetadataIdentity, Request, Response, Served,
    app::App,
    artifact_registry, audit,
    caller::caller_check,
    cloud_build, credentials, deny_policies, error, eventarc, functions, groups,
    grpc::{self, Methods},
    iam_admin, iam_policy, iam_roles, location, logging, metadata, monitoring, oauth, operation,
    permission::{self, Need, Passed, Vars},
    pubsub, resource_manager, run_v1, run_v2, scheduler, secret_manager, service_usage, sign_in, simulator, storage,
    surface::Surface,
    tanebi,
    transcode::Transcoder,
    transport,
};

/// Every route of the APIs.
pub(crate) struct Front {
    deps: Deps,
    surfaces: Vec<Surface>,
    /// Tried after all others: its paths begin with anyone's bucket.
    xml: Surface,
    /// Surface and row, those tried first first.
    order: Vec<(usize, usize)>,
    methods: Methods,
    /// Hosts of Google's that something lives on, beside those of buckets.
    hosts: HashSet<&'static str>,
    /// Made when the first REST call of a method of a proto arrives: it wants the descriptors.
    transcoder: OnceLock<Transcoder>,
    /// Of tries to sign in.
    guard: Arc<sign_in::Guard>,
}

/// The surfaces, in no order that matters.
fn surfaces(app: &App, guard: &Arc<sign_in::Guard>) -> Vec<Surface> {
    let deps = || (**app).clone();
    vec![
        run_v1::surface(app),
        functions::surface(app),
        resource_manager::surface(app),
        tanebi::surface(app),
        storage::surface(deps()),
        oauth::surface(deps()),
        sign_in::surface(deps(), guard.clone()),
        simulator::surface(app),
        groups::surface(app),
    ]
}

/// The methods that protos describe, in no order that matters.
fn methods(app: &App) -> Vec<grpc::Method> {
    let groups = [
        run_v2::methods,
        operation::methods,
        location::methods,
        cloud_build::methods,
        artifact_registry::methods,
        functions::methods,
        service_usage::methods,
        resource_manager::methods,
        iam_admin::methods,
        iam_roles::methods,
        deny_policies::methods,
        credentials::methods,
        logging::methods,
        monitoring::methods,
        secret_manager::methods,
        pubsub::methods,
        scheduler::methods,
        iam_policy::methods,
        eventarc::methods,
    ];
    groups.into_iter().flat_map(|group| group(app)).collect()
}

impl Front {
    pub(crate) fn new(deps: Deps) -> Self {
        let app = App::new(deps.clone());
        let guard = Arc::default();
        let surfaces = surfaces(&app, &guard);
        let methods = Methods::new(deps.clone(), methods(&app));
        if let Some(twice) = ambiguity(&surfaces) {
            panic!("two methods claim {twice}");
        }
        let mut order: Vec<_> = surfaces.iter().enumerate().flat_map(|(s, surface)| (0..surface.rows.len()).map(move |r| (s, r))).collect();
        order.sort_by_key(|(s, r)| surfaces[*s].rows[*r].template.rank());
        let xml = storage::xml::surface(deps.clone());
        let hosts = surfaces.iter().map(|surface| surface.hosts).chain(methods.iter().map(|method| method.hosts)).flatten().copied().collect();
        Self { deps, surfaces, xml, order, methods, hosts, transcoder: OnceLock::new(), guard }
    }

    pub(crate) async fn sign_in(&self, credentials: Credentials) -> Result<iam::Identity, Status> {
        match sign_in::identify(&self.deps.iam, &self.guard, credentials).await {
            Ok(Some(who)) => Ok(who),
            Ok(None) => {
                Err(Status::new(model::Code::Unauthenticated, "E-mail address, password or link is wrong, or the link was used or is older than 15 minutes."))
            }
            Err(_) => Err(Status::new(model::Code::ResourceExhausted, "Too many attempts. Please try again in a minute.")),
        }
    }

    /// Whether an API lives on `host`, where that is one of Google's.
    pub(crate) fn plays(&self, host: &str) -> bool {
        self.lives_on(&Host::parse(host))
    }

    fn lives_on(&self, host: &Host) -> bool {
        !host.google || self.hosts.contains(host.name.as_str()) || host.name.ends_with(storage::xml::BUCKET_HOSTS)
    }

    pub(crate) async fn handle(&self, host: &str, mut request: Request) -> Response {
        let host = Host::parse(host);
        let lives = self.lives_on(&host);
        if grpc::is_grpc(request.headers()) {
            return if lives { self.methods.serve(request).await } else { error::grpc(&Status::unimplemented(error::not_played(&host.name))).into_http() };
        }
        if !lives {
            return error::rest(&Status::not_found(error::not_played(&host.name)));
        }
        transport::method_restore(&mut request);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if let Some((surface, row, vars)) = self.find(&host, &method, &path) {
            return self.endpoint(&host, &self.surfaces[surface], row, vars, transport::body_unpack(request)).await;
        }
        if method == Method::POST && path == storage::batch::PATH && host.serves(&["storage.googleapis.com", "www.googleapis.com"]) {
            return self.batch(&host, transport::body_unpack(request)).await;
        }
        if let Some(found) = self.transcoder().find(&method, &path, |hosts| host.serves(hosts)) {
            return found.call(&self.methods, transport::body_unpack(request)).await;
        }
        match storage::xml::path(&host.name, host.google, &path) {
            // On a host of no API's own, a path is of this one only when a bucket is there.
            Some(path) if host.google || storage::xml::bucket_of(&self.deps, &path).is_some() => self.objects(&host, &path, request).await,
            _ => error::rest(&error::no_method(&method, &host.name, &path)),
        }
    }

    /// Each call of a batch, one after the other, as if it had come by itself.
    async fn batch(&self, host: &Host, request: Request) -> Response {
        let (from, hops) = (request.extensions().get::<CallerAddress>().copied(), request.extensions().get::<Hops>().cloned());
        let parts = match storage::batch::read(request).await {
            Ok(parts) => parts,
            Err(error) => return error.into_response(),
        };
        let mut answers = Vec::new();
        for part in parts {
            let (id, mut request) = part.take();
            if let Some(from) = from {
                request.extensions_mut().insert(from);
            }
            if let Some(hops) = hops.clone() {
                request.extensions_mut().insert(hops);
            }
            answers.push((id, Box::pin(self.handle(&host.name, request)).await));
        }
        storage::batch::write(answers).await
    }

    /// Storage's XML API, at `path`.
    async fn objects(&self, host: &Host, path: &str, mut request: Request) -> Response {
        let (method, asked) = (request.method().clone(), request.headers().clone());
        let bucket = path[1..].split('/').next().unwrap_or_default().to_owned();
        if method == Method::OPTIONS {
            return storage::xml::preflight(&self.deps, &bucket, &asked);
        }
        let found = self.xml.rows.iter().enumerate().filter(|(_, row)| row.verb == method).find_map(|(at, row)| Some((at, row.template.matches(path)?)));
        let Some((row, vars)) = found else { return (self.xml.error)(&error::no_method(&method, &host.name, path)) };
        if let Some(refused) = storage::xml::signed(&self.deps, path, &mut request) {
            return refused;
        }
        let mut response = self.endpoint(host, &self.xml, row, vars.into_iter().collect(), request).await;
        storage::xml::cors(&self.deps, &bucket, method.as_str(), &asked, &mut response);
        response
    }

    pub(crate) async fn metadata(&self, identity: MetadataIdentity, request: Request) -> Response {
        metadata::answer(&self.deps, &identity, &request)
    }

    fn transcoder(&self) -> &Transcoder {
        self.transcoder.get_or_init(|| Transcoder::new(&self.methods))
    }

    /// Everything that is served over REST.
    pub(crate) fn served(&self) -> Vec<Served> {
        let endpoints = self.surfaces.iter().chain([&self.xml]).flat_map(|surface| {
            surface.rows.iter().map(|row| Served {
                api: surface.name.to_owned(),
                verb: row.verb.clone(),
                host: surface.hosts[0],
                path: row.template.to_string(),
                needs: row.need.into(),
            })
        });
        let needs: std::collections::HashMap<_, _> = self.methods.iter().map(|method| (method.name, method.need)).collect();
        let methods = self.transcoder().iter().map(|(verb, hosts, template, name)| Served {
            api: name.to_owned(),
            verb: verb.clone(),
            host: hosts[0],
            path: template.to_string(),
            needs: needs[name].into(),
        });
        endpoints.chain(methods).collect()
    }

    fn find(&self, host: &Host, method: &Method, path: &str) -> Option<(usize, usize, Vars)> {
        self.order.iter().find_map(|&(s, r)| {
            let (surface, row) = (&self.surfaces[s], &self.surfaces[s].rows[r]);
            if row.verb != *method || !host.serves(surface.hosts) {
                return None;
            }
            Some((s, r, row.template.matches(path)?.into_iter().collect()))
        })
    }

    async fn endpoint(&self, host: &Host, surface: &Surface, row: usize, mut vars: Vars, mut request: Request) -> Response {
        let need = surface.rows[row].need;
        let region = match self.region(host, &vars) {
            Ok(region) => region,
            Err(status) => return (surface.error)(&status),
        };
        vars.entry("location".to_owned()).or_insert_with(|| region.to_string());
        let from = audit::Client::of(request.headers(), request.extensions());
        let mut who = None;
        let query: Vars = request.uri().query().map(|q| form_urlencoded::parse(q.as_bytes()).into_owned().collect()).unwrap_or_default();
        let passed = (|| {
            let signed = request.extensions().get::<storage::signed::SignedBy>().map(|signed| signed.0.clone());
            who = match (need, signed) {
                (Need::Public, _) => None,
                (_, Some(who)) => Some(who),
                (_, None) => caller_check(&self.deps.iam, request.headers())?,
            };
            if who.is_some() {
                permission::quota_project_check(&self.deps, request.headers(), request.uri().query())?;
            }
            permission::check(&self.deps, who.as_ref(), need, &mut vars, &query)
        })();
        let audited = who.clone().zip(audit::endpoint_of(surface.name, surface.hosts[0], request.method(), need));
        // Before the call: afterwards the bucket may be gone that says which project it is of, and where it lies.
        let audited = audited.and_then(|(who, (service, method))| {
            let (permission, resource, project) = match need {
                Need::On { permission, resource } => {
                    let resource = permission::fill(resource, &vars, &query).ok()?;
                    let project = self.project_of(&resource);
                    (permission, resource, project)
                }
                // What is in no project is the default one's business.
                Need::Inside { permission } => (permission, request.uri().path().to_owned(), self.deps.config.default_project.to_string()),
                Need::Public | Need::SignedIn => return None,
            };
            let location = audit::location_of(&self.deps, &resource);
            Some(Audited { deps: self.deps.clone(), project, location, resource, permission, who, service, method, from })
        });
        if let Err(status) = passed {
            if let Some(audited) = &audited {
                audited.write(Some(&status), false).await;
            }
            return (surface.error)(&status);
        }
        if let Some(who) = &who {
            request.extensions_mut().insert(who.clone());
        }
        request.extensions_mut().insert(Passed { who: who.clone(), vars: vars.clone(), region, row });
        let answer = surface.router.clone().oneshot(request).map(|Ok(response)| response);
        let Some(audited) = audited else { return answer.await };
        // On a task of its own: a caller who hangs up does not leave a change that nobody wrote down.
        let answered = tokio::spawn(async move {
            let response = answer.await;
            let granted = !matches!(need, Need::Inside { .. }) || response.status() != http::StatusCode::FORBIDDEN;
            audited.write(audit::status_of(response.status()).as_ref(), granted).await;
            response
        });
        answered.await.unwrap_or_else(|error| (surface.error)(&Status::internal(error)))
    }

    /// The id of the project that a resource is in; empty when it is in none.
    fn project_of(&self, resource: &str) -> String {
        match resource.strip_prefix("buckets/") {
            Some(bucket) => self.deps.control.bucket_get(bucket).map(|bucket| bucket.value.project.to_string()).unwrap_or_default(),
            None => resource.split('/').nth(1).unwrap_or_default().to_owned(),
        }
    }

    /// The region that the path names, else the host, else the default.
    fn region(&self, host: &Host, vars: &Vars) -> Result<Region, Status> {
        match (vars.get("location").filter(|l| *l != "-" && *l != "global"), &host.region) {
            (Some(location), _) => Region::parse(location),
            (None, Some(region)) => Ok(region.clone()),
            (None, None) => Ok(self.deps.config.default_region.clone()),
        }
    }
}

/// A call of an endpoint that is to be written down.
struct Audited {
    deps: Deps,
    resource: String,
    location: Option<String>,
    project: String,
    permission: &'static str,
    who: Identity,
    service: &'static str,
    method: String,
    from: audit::Client,
}

impl Audited {
    async fn write(&self, status: Option<&Status>, granted: bool) {
        let Self { deps, resource, location, project, permission, who, service, method, from } = self;
        let (resource, location, project) = (resource.clone(), location.clone(), project.clone());
        audit::write(deps, &audit::Call { service, method, resource, location, project, permission, who, granted, status, from }).await;
    }
}

/// A request's host, understood.
struct Host {
    /// Without a region in front.
    name: String,
    region: Option<Region>,
    /// Whether it is one of Google's: then it serves its own APIs only.
    google: bool,
}

impl Host {
    fn parse(host: &str) -> Self {
        // A bucket's name may begin like a region.
        if host.ends_with(storage::xml::BUCKET_HOSTS) {
            return Self { name: host.to_owned(), region: None, google: true };
        }
        // `run.asia-northeast1.rep.googleapis.com` is another way to write a region's endpoint.
        if let Some((api, region)) = host.strip_suffix(".rep.googleapis.com").and_then(|rest| rest.split_once('.'))
            && let Ok(region) = Region::parse(region)
        {
            return Self { name: format!("{api}.googleapis.com"), region: Some(region), google: true };
        }
        let region = model::address::REGIONS
            .iter()
            .map(|(region, _)| *region)
            .find(|region| host.strip_prefix(region).is_some_and(|rest| rest.starts_with('-')))
            .and_then(|region| Region::parse(region).ok());
        let name = match &region {
            Some(region) => host[region.as_str().len() + 1..].to_owned(),
            None => host.to_owned(),
        };
        let google = name.ends_with(".googleapis.com") || name == "accounts.google.com" || name.ends_with(".google.internal");
        Self { name, region, google }
    }

    fn serves(&self, hosts: &[&str]) -> bool {
        !self.google || hosts.contains(&self.name.as_str())
    }
}

/// A method and path that two rows of one host claim.
fn ambiguity(surfaces: &[Surface]) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    for surface in surfaces {
        for row in &surface.rows {
            for host in surface.hosts {
                let claim = format!("{} {host}{}", row.verb, row.template.shape());
                if !seen.insert(claim.clone()) {
                    return Some(claim);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_understood() {
        let check = |host: &str, name: &str, region: Option<&str>, google: bool| {
            let found = Host::parse(host);
            assert_eq!((found.name.as_str(), found.region.as_ref().map(Region::as_str), found.google), (name, region, google), "{host}");
        };
        check("run.googleapis.com", "run.googleapis.com", None, true);
        check("asia-northeast1-run.googleapis.com", "run.googleapis.com", Some("asia-northeast1"), true);
        check("europe-west10-run.googleapis.com", "run.googleapis.com", Some("europe-west10"), true);
        check("run.asia-northeast1.rep.googleapis.com", "run.googleapis.com", Some("asia-northeast1"), true);
        check("run.nowhere.rep.googleapis.com", "run.nowhere.rep.googleapis.com", None, true);
        check("asia-northeast1-run.localhost", "run.localhost", Some("asia-northeast1"), false);
        check("127.0.0.1", "127.0.0.1", None, false);
        check("asia-northeast1-b.storage.googleapis.com", "asia-northeast1-b.storage.googleapis.com", None, true);
        check("asia-northeast1-storage.googleapis.com", "storage.googleapis.com", Some("asia-northeast1"), true);
        check("accounts.google.com", "accounts.google.com", None, true);
    }
}
