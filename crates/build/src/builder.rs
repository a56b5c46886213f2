//! A build from its place in the queue to its image.

use std::{
    collections::HashSet,
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use model::image::{Image, Layer};
use sandbox::Keeper;
use store::Store;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    Built, Config, Error, LogLine, Request, Runtime,
    archive::{self, Limits},
    cache::Cache,
    catalogue::{BaseImage, KNOWN},
    code,
    dependencies::Installer,
    environment::{Base, PackageEnvironment},
    image::image_put,
    known::{self, KNOWN_FOLDER},
    log::BuildLog,
    python::{self, ENVIRONMENT, Plan, WORKSPACE},
    step::{Runner, blocking},
    tree::TreeReader,
    uv::{self, Finder},
    variables::Variables,
    work::{self, WORK, Work, folder_make},
};

/// Builds that wait or run at the same time; one more is refused.
const QUEUE_MAX: usize = 200;

/// Builds functions. Clones share queue and caches: one build a core at a time, the rest in order.
#[derive(Clone)]
pub struct Builder {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    store: Store,
    keeper: Arc<Keeper>,
    base: Base,
    cache: Arc<Cache>,
    /// Fair: who came first is served first.
    cores: Semaphore,
    in_queue: AtomicUsize,
    /// One build fetches uv, the others wait for it.
    uv: tokio::sync::Mutex<()>,
}

impl Builder {
    /// Prepares the folder: what a build left that did not end is discarded.
    /// # Errors
    /// `Internal` when the folder cannot be used.
    pub fn new(config: Config, store: Store, keeper: Arc<Keeper>) -> Result<Self, Error> {
        for folder in [WORK, KNOWN_FOLDER] {
            folder_make(&config.dir.join(folder))?;
        }
        for path in entries(&config.dir.join(WORK))? {
            work::discard(&keeper, &path);
        }
        let package = PackageEnvironment::new(&config.package_environment);
        for note in &package.notes {
            tracing::info!("{note}");
        }
        for skipped in config.catalogue.skipped() {
            tracing::debug!("interpreter not used: {skipped}");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let base = Base {
            ca_bundle: config.ca_bundle.clone(),
            package,
            memory_bytes: config.memory_bytes,
            cpu_millis: u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(1000).min(1_000_000),
        };
        let cache = Arc::new(Cache::open(config.dir.join("downloads"), keeper.clone())?);
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                store,
                keeper,
                base,
                cache,
                cores: Semaphore::new(cores),
                in_queue: AtomicUsize::new(0),
                uv: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// Runs to the end; `log` gets each line as it comes. Dropping the future ends the build and its sandbox.
    /// # Errors
    /// See [`Error`]; the log's last line says it too.
    pub async fn build(&self, request: Request, log: Arc<dyn Fn(LogLine) + Send + Sync>) -> Result<Built, Error> {
        let log = BuildLog::new(log);
        let built = self.queued(request, &log).await;
        match &built {
            Ok(built) => log.say(format!("Built {} for {} (Python {}).", built.digest, built.image.runtime, built.image.runtime_version)),
            Err(Error::Internal(_)) => log.say("ERROR: the build failed for a reason that is not in the source. The log of tanebi says which."),
            Err(error) => error.to_string().lines().enumerate().for_each(|(at, line)| {
                log.say(if at == 0 { format!("ERROR: {line}") } else { line.to_owned() });
            }),
        }
        built
    }

    /// Base image names that can be built on now, with their interpreters' versions and paths.
    pub fn runtimes(&self) -> Vec<Runtime> {
        let catalogue = &self.shared.config.catalogue;
        let found = KNOWN.runtimes.iter().filter_map(|runtime| {
            let interpreter = catalogue.interpreter(runtime)?;
            Some(Runtime { id: runtime.id.clone(), version: interpreter.version.to_string(), interpreter: interpreter.path.clone() })
        });
        found.collect()
    }

    /// The full URI by which gcloud shows a base image: `REGION-docker.pkg.dev/serverless-runtimes/google-22/runtimes/python312`.
    /// # Errors
    /// `Error::User` for a name that is no base image or not on this host.
    pub fn base_image_uri(&self, base_image: &str, region: &str) -> Result<String, Error> {
        let base = BaseImage::parse(base_image)?;
        self.shared.config.catalogue.interpreter_of(&base)?;
        Ok(base.uri(region))
    }

    /// Forgets the caches' entries above their bounds, the longest unused first; the layers that the others name. Blocks.
    /// # Errors
    /// `Internal` when the folder cannot be read or written.
    pub fn layers_cached(&self) -> Result<HashSet<String>, Error> {
        let Shared { config, store, .. } = &*self.shared;
        let mut layers = known::prune(&config.dir.join(KNOWN_FOLDER), store.layers(), config.clock.now())?;
        layers.extend(uv::layer_remembered(&config.dir)?);
        Ok(layers)
    }

    async fn queued(&self, request: Request, log: &BuildLog) -> Result<Built, Error> {
        let shared = &self.shared;
        let place = Place::take(&shared.in_queue)?;
        if shared.cores.available_permits() == 0 {
            log.say(format!("Waiting: {} builds run or wait before this one.", place.before));
        }
        let _core = shared.cores.acquire().await.map_err(|e| Error::Internal(format!("the queue of builds: {e}")))?;
        let runner = Runner {
            keeper: shared.keeper.clone(),
            egress: shared.config.egress.clone(),
            log: log.clone(),
            deadline: Instant::now() + shared.config.timeout,
            timeout: shared.config.timeout,
        };
        // Steps end themselves at the deadline; this is for what lies between them.
        match tokio::time::timeout_at(runner.deadline, shared.build(request, &runner)).await {
            Ok(built) => built,
            Err(_) => Err(Error::Timeout(shared.config.timeout)),
        }
    }
}

impl Shared {
    async fn build(&self, request: Request, runner: &Runner) -> Result<Built, Error> {
        let began = Instant::now();
        let log = &runner.log;
        let mut times = String::new();
        let variables = Variables::parse(&request.function_target, &request.env)?;
        let work = Work::new(&self.config.dir, &request.id, self.keeper.clone())?;

        let (staging, unpacked, plan) = self.source(&request, variables.clone()).await?;
        let _ = write!(times, "source {:.2} s", began.elapsed().as_secs_f64());
        log.say(format!("Source: {} files, {} KiB.", unpacked.files, unpacked.bytes.div_ceil(1024)));
        log.say(format!("Base image {}: Python {} of this host.", plan.base.id, plan.interpreter.version));
        plan.notes.iter().for_each(|note| log.say(note.as_str()));

        let source = staging.path().to_owned();
        let step = Instant::now();
        let (bytecode, compiled) = code::compile(&source, &plan, &self.base, runner, &work).await?;
        let _ = write!(times, ", compiling {:.2} s", step.elapsed().as_secs_f64());

        let step = Instant::now();
        let installer = Installer {
            dir: &self.config.dir,
            store: &self.store,
            cache: &self.cache,
            base: &self.base,
            runner,
            work: &work,
            clock: self.config.clock.as_ref(),
            source: &source,
            archive: &request.archive,
            variables: &variables.own,
        };
        let dependencies = self.dependencies(&installer, &plan).await?;
        let _ = write!(times, ", dependencies {:.2} s", step.elapsed().as_secs_f64());

        let step = Instant::now();
        let code = blocking(move || {
            code::bytecode_take(&bytecode, staging.path())?;
            staging.commit().map_err(|e| Error::Internal(format!("keeping the code: {e}")))
        })
        .await??;
        let image = image_of(plan, code, dependencies);
        let digest = image_put(&self.store, &image).await?;
        let _ = write!(times, ", keeping {:.2} s", step.elapsed().as_secs_f64());
        drop(work);
        log.say(format!("Done in {:.2} s: {times}; compiling took {} MiB.", began.elapsed().as_secs_f64(), compiled.memory_peak_bytes >> 20));
        Ok(Built { digest, image })
    }

    /// Unpacks the archive and decides what to do with it.
    async fn source(&self, request: &Request, variables: Variables) -> Result<(store::Staging, archive::Unpacked, Plan), Error> {
        let (store, id, base_image) = (self.store.clone(), request.archive.clone(), request.base_image.clone());
        let catalogue = self.config.catalogue.clone();
        blocking(move || {
            let internal = |e: &dyn std::fmt::Display| Error::Internal(format!("opening the source: {e}"));
            let file = store.blobs().open(&id).map_err(|e| internal(&e))?;
            let file = file.ok_or_else(|| Error::User("The source archive is gone. Upload it again, then deploy again.".to_owned()))?;
            let staging = store.layers().staging().map_err(|e| internal(&e))?;
            let unpacked = archive::unpack(file, staging.path(), &Limits::SOURCE).map_err(|e| match e {
                archive::Error::Io(_) => Error::Internal(e.to_string()),
                user => Error::User(user.to_string()),
            })?;
            let tree = TreeReader::open(staging.path()).map_err(|e| internal(&e))?;
            let plan = python::plan(&tree, &base_image, &variables, &catalogue)?;
            Ok((staging, unpacked, plan))
        })
        .await?
    }

    /// The layer of the dependencies: known, or installed now.
    async fn dependencies(&self, installer: &Installer<'_>, plan: &Plan) -> Result<String, Error> {
        let log = &installer.runner.log;
        let old = match installer.known(plan)? {
            Some((layer, true)) => {
                log.say("The dependencies are those of an earlier build.");
                return Ok(layer);
            }
            Some((layer, false)) => {
                log.say("The dependencies are a day old: looking for newer ones.");
                Some(layer)
            }
            None => None,
        };
        self.base.package.notes.iter().for_each(|note| log.say(note.as_str()));
        let uv = {
            let _one = self.uv.lock().await;
            let finder = Finder {
                dir: installer.dir,
                store: installer.store,
                catalogue: &self.config.catalogue,
                base: &self.base,
                runner: installer.runner,
                work: installer.work,
            };
            finder.find(&plan.interpreter).await?
        };
        installer.install(plan, &uv, old).await
    }
}

fn image_of(plan: Plan, code: String, dependencies: String) -> Image {
    Image {
        runtime: plan.base.id,
        runtime_version: plan.interpreter.version.to_string(),
        runtime_paths: plan.interpreter.runtime_paths,
        layers: vec![Layer { digest: code, target: WORKSPACE.into() }, Layer { digest: dependencies, target: ENVIRONMENT.into() }],
        command: plan.command,
        working_dir: WORKSPACE.into(),
        env: plan.env,
    }
}

/// A place in the queue, given back on drop.
struct Place<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize) -> Result<Self, Error> {
        let before = count.fetch_add(1, Ordering::AcqRel);
        let place = Self { count, before };
        if before >= QUEUE_MAX {
            return Err(Error::User(format!("{QUEUE_MAX} builds are waiting already. Deploy again when some have ended.")));
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

fn entries(folder: &std::path::Path) -> Result<Vec<PathBuf>, Error> {
    let read = std::fs::read_dir(folder).and_then(|read| read.map(|entry| entry.map(|entry| entry.path())).collect());
    read.map_err(|e| Error::Internal(format!("reading {}: {e}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_an_end_and_places_are_given_back() {
        let count = AtomicUsize::new(0);
        let places: Vec<Place<'_>> = (0..QUEUE_MAX).map(|_| Place::take(&count).unwrap()).collect();
        assert_eq!(places.last().unwrap().before, QUEUE_MAX - 1);
        let full = Place::take(&count).err().unwrap().to_string();
        assert!(full.contains("200 builds are waiting already"), "{full}");
        drop(places);
        assert_eq!(Place::take(&count).unwrap().before, 0);
    }
}
