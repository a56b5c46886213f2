//! One build at a time: runs it and keeps what came of it; forgets old ones.
//!
//! A build that a crash interrupted is run again: its source is a blob, and what it leaves is named by its content.

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};

use model::{
    Service, ServiceKey, ServiceName, Status,
    build::{Build, BuildState},
    key,
    log::{Entry, LogName, Payload, Severity, Source},
    revision::Start,
};
use store::{Change, Expect, Write};

use super::Reconciler;
use crate::{
    Context,
    build::{BuildRecord, key_of},
    image, records,
};

pub(crate) struct Builds(pub Arc<Context>);

/// Finished builds of a region that are kept.
const KEPT_MAX: usize = 1000;
/// Stands for the look at all finished builds; no build has such a key.
const RETENTION: &str = "retention";
/// How much of a failure's text is kept, in characters.
const FAILURE_MAX_CHARS: usize = 8000;

impl Reconciler for Builds {
    const NAME: &'static str = "builds";
    const PREFIXES: &'static [&'static str] = &[key::BUILDS];

    /// As many as the builder runs at once, so that `Working` means that it works; and one for the look at old builds.
    fn parallel(&self) -> usize {
        std::thread::available_parallelism().map_or(1, NonZeroUsize::get) + 1
    }

    fn concerned(&self, change: &Change) -> Vec<String> {
        change.value.is_some().then(|| change.key.clone()).into_iter().collect()
    }

    fn all(&self) -> Result<Vec<String>, Status> {
        let builds = records::all::<Build>(&self.0.store, key::BUILDS)?;
        let mut open: Vec<Build> = builds.into_iter().map(|build| build.value).filter(|build| !build.state.is_done()).collect();
        open.sort_by_key(|build| build.created);
        let mut keys = vec![RETENTION.to_owned()];
        keys.extend(open.iter().map(key_of));
        Ok(keys)
    }

    async fn step(&self, key: &str) -> Result<(), Status> {
        if key == RETENTION {
            return retain(&self.0).await;
        }
        let Some(record) = records::read::<BuildRecord>(&self.0.store, key)? else {
            return Ok(());
        };
        if record.value.build.state.is_done() {
            return Ok(());
        }
        run(&self.0, key, record.value).await
    }
}

async fn run(cx: &Arc<Context>, key: &str, record: BuildRecord) -> Result<(), Status> {
    let BuildRecord { build, archive } = record;
    let log = build_log(cx, &build);
    if build.state == BuildState::Working {
        log(Severity::Warning, "The server stopped during this build; it is run again.".to_owned());
    }
    let started = cx.clock.now();
    let working = records::update::<BuildRecord>(&cx.store, key, |stored| {
        stored.build.state = BuildState::Working;
        stored.build.started = Some(started);
        true
    });
    if working.await?.is_none() {
        return Ok(());
    }
    let request = build::Request {
        project: build.project.to_string(),
        id: build.id.clone(),
        archive,
        base_image: build.base_image.clone(),
        function_target: build.function_target.clone(),
        env: build.env.clone(),
        tells_shared: may_clone(cx, &build)?,
    };
    let lines = log.clone();
    let (state, digest, failure) =
        match cx.images.build(request, Arc::new(move |line| lines(if line.starts_with("WARNING: ") { Severity::Warning } else { Severity::Info }, line))).await
        {
            Ok(built) => (BuildState::Success, Some(built.digest), String::new()),
            Err(build::Error::User(text)) => (BuildState::Failure, None, text),
            Err(error @ build::Error::Timeout(_)) => (BuildState::Timeout, None, error.to_string()),
            Err(build::Error::Internal(why)) => {
                tracing::error!(build = build.id, why, "a build failed by our own fault");
                (BuildState::InternalError, None, format!("The build failed by a fault of the server: {why}"))
            }
        };
    if !failure.is_empty() {
        log(Severity::Error, failure.clone());
    }
    finish(cx, key, &build, state, digest, failure).await
}

/// Whether instances of what is built may be clones: not of a service that is there and wants none. gcloud names the service in a tag.
fn may_clone(cx: &Context, build: &Build) -> Result<bool, Status> {
    for name in build.tags.iter().filter_map(|tag| tag.strip_prefix("service_")) {
        let Ok(service) = ServiceName::parse(name) else { continue };
        let key = ServiceKey { project: build.project.clone(), region: build.region.clone(), service };
        if records::read::<Service>(&cx.store, &key::service(&key))?.is_some_and(|service| service.value.template.start() == Start::Off) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The image's names and the build's end, in one commit: whoever reads of a success finds the image.
async fn finish(cx: &Context, key: &str, build: &Build, state: BuildState, digest: Option<model::image::ImageDigest>, failure: String) -> Result<(), Status> {
    let failure: String = failure.chars().take(FAILURE_MAX_CHARS).collect();
    loop {
        let Some(mut stored) = records::read::<BuildRecord>(&cx.store, key)? else {
            return Ok(());
        };
        if stored.value.build.state.is_done() {
            return Ok(());
        }
        stored.value.build.state = state;
        stored.value.build.finished = Some(cx.clock.now());
        stored.value.build.image.clone_from(&digest);
        stored.value.build.failure.clone_from(&failure);
        let mut writes = digest.as_ref().map_or_else(Vec::new, |digest| image::image_writes(&build.image_uri, digest));
        writes.push(Write::put(key, Expect::Revision(stored.revision), &stored.value));
        if records::commit(&cx.store, writes).await?.is_some() {
            tracing::info!(build = build.id, ?state, "build ended");
            return Ok(());
        }
    }
}

type Log = Arc<dyn Fn(Severity, String) + Send + Sync>;

/// Where the lines of a build go: the project's log of builds.
fn build_log(cx: &Arc<Context>, build: &Build) -> Log {
    let source = Arc::new(Source {
        project: build.project.to_string(),
        region: build.region.to_string(),
        service: String::new(),
        revision: String::new(),
        instance: String::new(),
        build: build.id.clone(),
        job: String::new(),
        managed_by: String::new(),
    });
    let cx = cx.clone();
    Arc::new(move |severity, line| {
        (cx.log)(Entry {
            source: source.clone(),
            log: LogName::Build,
            time: cx.clock.now(),
            severity,
            payload: Payload::Text(line),
            http: None,
            trace: String::new(),
            span: String::new(),
            trace_sampled: false,
            labels: std::collections::BTreeMap::new(),
        });
    })
}

/// Forgets the oldest finished builds of each region; their images stay.
async fn retain(cx: &Context) -> Result<(), Status> {
    let mut builds: Vec<Build> = records::all::<Build>(&cx.store, key::BUILDS)?.into_iter().map(|build| build.value).collect();
    builds.retain(|build| build.state.is_done());
    builds.sort_by_key(|build| std::cmp::Reverse(build.created));
    let mut kept: HashMap<(String, String), usize> = HashMap::new();
    for build in builds {
        let count = kept.entry((build.project.to_string(), build.region.to_string())).or_default();
        *count += 1;
        if *count > KEPT_MAX {
            records::commit(&cx.store, vec![Write::delete(key_of(&build), Expect::Any)]).await?;
        }
    }
    Ok(())
}
