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

use model::image::Image;
use sandbox::Keeper;
use store::Store;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    Built, Catalogue, Config, Error, Language, LogLine, Request, Runtime,
    archive::{self, Limits},
    cache::Caches,
    catalogue::{BaseImage, KNOWN, base_image_any, host_paths},
    environment::{Base, PackageEnvironment},
    go,
    image::image_put,
    java,
    job::{Job, Output},
    known::{self, KNOWN_FOLDER},
    later::{Chores, Later},
    log::BuildLog,
    look, nodejs,
    plan::{self, Plan, Recipe, WORKSPACE},
    python, runtime,
    step::{Runner, blocking},
    tree::TreeReader,
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
    caches: Caches,
    /// The host's interpreters and those that were installed.
    catalogue: parking_lot::RwLock<Catalogue>,
    /// Fair: who came first is served first.
    cores: Semaphore,
    in_queue: AtomicUsize,
    /// One build fetches a tool, the others wait for it.
    tools: Arc<tokio::sync::Mutex<()>>,
    /// What builds that have answered still put away.
    chores: Chores,
}

impl Builder {
    /// Prepares the folder: what a build left that did not end is discarded.
    /// # Errors
    /// `Internal` when the folder cannot be used.
    pub fn new(config: Config, store: Store, keeper: Arc<Keeper>) -> Result<Self, Error> {
        for folder in [WORK, KNOWN_FOLDER, runtime::FOLDER] {
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
            java_trust_store: config.java_trust_store.clone(),
            package,
            memory_bytes: config.memory_bytes,
            cpu_millis: u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(1000).min(1_000_000),
        };
        let caches = Caches::open(&config.dir, &keeper)?;
        let mut catalogue = config.catalogue.clone();
        for installed in runtime::installed(&config.dir, &store)? {
            catalogue.add(installed);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                store,
                keeper,
                base,
                caches,
                catalogue: parking_lot::RwLock::new(catalogue),
                cores: Semaphore::new(cores),
                in_queue: AtomicUsize::new(0),
                tools: Arc::default(),
                chores: Chores::new(),
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
            Ok(built) => log.say(format!("Built {} for {} ({}).", built.digest, built.image.runtime, built.image.runtime_version)),
            Err(Error::Internal(_)) => log.say("ERROR: the build failed for a reason that is not in the source. The log of tanebi says which."),
            Err(error) => error.to_string().lines().enumerate().for_each(|(at, line)| {
                log.say(if at == 0 { format!("ERROR: {line}") } else { line.to_owned() });
            }),
        }
        built
    }

    /// Every base image that Google has, and what of it is here.
    pub fn runtimes(&self) -> Vec<Runtime> {
        let catalogue = self.shared.catalogue.read();
        let mut runtimes = Vec::new();
        for language in KNOWN.languages() {
            for known in &language.runtimes {
                let interpreter = catalogue.interpreter(language.language, known);
                runtimes.push(Runtime {
                    id: known.id.clone(),
                    language: language.language,
                    name: format!("{} {}", language.name, known.version),
                    stack: known.stack.clone(),
                    stage: known.stage,
                    deprecated: known.deprecated.clone(),
                    decommissioned: known.decommissioned.clone(),
                    found: interpreter.map(|found| (found.version.to_string(), found.path.clone(), found.layer.is_some())),
                    missing: match (&language.unavailable, interpreter) {
                        (Some(why), _) => why.clone(),
                        (None, None) => runtime::how(language.language, known),
                        (None, Some(_)) => String::new(),
                    },
                });
            }
        }
        runtimes
    }

    /// Fetches an interpreter from a registry, proves it by running it, and keeps it. `log` gets each line as it comes.
    /// # Errors
    /// `User` when no registry has it.
    pub async fn runtime_install(&self, id: &str, log: Arc<dyn Fn(LogLine) + Send + Sync>) -> Result<Runtime, Error> {
        let shared = &self.shared;
        let log = BuildLog::new(log);
        let runner = Runner { also: runtime::HOSTS, ..self.runner(&log) };
        let work = Work::new(&shared.config.dir, "runtime", shared.keeper.clone())?;
        let catalogue = shared.catalogue.read().clone();
        let later = Later::default();
        let job = shared.job(&catalogue, &runner, &work, &later, std::path::Path::new(""), "", "", &[]);
        let installed = match tokio::time::timeout_at(runner.deadline, runtime::install(&job, id)).await {
            Ok(installed) => installed?,
            Err(_) => return Err(Error::Timeout(shared.config.timeout)),
        };
        shared.catalogue.write().add(installed);
        self.runtimes().into_iter().find(|runtime| runtime.id == id).ok_or_else(|| Error::Internal(format!("runtime {id} is gone again")))
    }

    /// The full URI by which gcloud shows a base image; one that leaves the language to the source stays as it is: `REGION-docker.pkg.dev/serverless-runtimes/google-22/runtimes/python312`.
    /// # Errors
    /// `Error::User` for a name that is no base image or not on this host.
    pub fn base_image_uri(&self, base_image: &str, region: &str) -> Result<String, Error> {
        if let Some(any) = base_image_any(base_image) {
            return Ok(any.to_owned());
        }
        let base = BaseImage::parse(base_image)?;
        self.shared.catalogue.read().interpreter_of(&base)?;
        Ok(base.uri(region))
    }

    /// Forgets the caches' entries above their bounds, the longest unused first; the layers that the others name. Blocks.
    /// # Errors
    /// `Internal` when the folder cannot be read or written.
    pub fn layers_cached(&self) -> Result<HashSet<String>, Error> {
        let Shared { config, store, .. } = &*self.shared;
        let mut layers = known::prune(&config.dir.join(KNOWN_FOLDER), store.layers(), config.clock.now())?;
        layers.extend(python::layer_remembered(&config.dir)?);
        layers.extend(runtime::layers(&config.dir)?);
        Ok(layers)
    }

    /// Waits until what earlier builds left for later ones is put away; a build does so itself.
    pub async fn settled(&self) {
        self.shared.chores.settled().await;
    }

    async fn queued(&self, request: Request, log: &BuildLog) -> Result<Built, Error> {
        let shared = &self.shared;
        let place = Place::take(&shared.in_queue)?;
        if shared.cores.available_permits() == 0 {
            log.say(format!("Waiting: {} builds run or wait before this one.", place.before));
        }
        let _core = shared.cores.acquire().await.map_err(|e| Error::Internal(format!("the queue of builds: {e}")))?;
        shared.chores.settled().await;
        let runner = self.runner(log);
        // Steps end themselves at the deadline; this is for what lies between them.
        match tokio::time::timeout_at(runner.deadline, shared.build(request, &runner)).await {
            Ok(built) => built,
            Err(_) => Err(Error::Timeout(shared.config.timeout)),
        }
    }
}

impl Builder {
    fn runner(&self, log: &BuildLog) -> Runner {
        let config = &self.shared.config;
        Runner {
            keeper: self.shared.keeper.clone(),
            egress: config.egress.clone(),
            also: &[],
            log: log.clone(),
            deadline: Instant::now() + config.timeout,
            timeout: config.timeout,
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
        let later = Later::default();

        let catalogue = self.catalogue.read().clone();
        let (staging, unpacked, plan) = self.source(&request, variables.clone(), catalogue.clone()).await?;
        let _ = write!(times, "source {:.2} s", began.elapsed().as_secs_f64());
        log.say(format!("Source: {} files, {} KiB.", unpacked.files, unpacked.bytes.div_ceil(1024)));
        log.say(format!("Base image {}: {} {}.", plan.base.id, plan.interpreter.language.name(), plan.interpreter.version));
        plan.notes.iter().for_each(|note| log.say(note.as_str()));

        let step = Instant::now();
        let source = staging.path().to_owned();
        let job = self.job(&catalogue, runner, &work, &later, &source, &request.archive, &request.project, &variables.own);
        let start_notes = match &self.config.looker {
            Some(looker) => look::watch::shared(&job, looker, &plan.interpreter).await,
            None => Vec::new(),
        };
        if request.tells_shared {
            start_notes.iter().for_each(|note| log.say(format!("WARNING: {note}")));
        }
        let _ = write!(times, ", looking {:.2} s", step.elapsed().as_secs_f64());

        let step = Instant::now();
        let output = match &plan.recipe {
            Recipe::Python(dependencies) => python::build(&job, &plan, dependencies, staging).await,
            Recipe::Nodejs(recipe) => nodejs::build(&job, &plan, recipe, staging).await,
            Recipe::Go(recipe) => go::build(&job, &plan, recipe, staging).await,
            Recipe::Java(recipe) => java::build(&job, &plan, recipe, staging).await,
        };
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                // What was downloaded is good for the next try.
                self.chores.begin(later, work);
                return Err(error);
            }
        };
        let _ = write!(times, ", building {:.2} s", step.elapsed().as_secs_f64());

        let step = Instant::now();
        let image = image_of(plan, output, start_notes);
        let digest = image_put(&self.store, &image).await?;
        let _ = write!(times, ", keeping {:.2} s", step.elapsed().as_secs_f64());
        self.chores.begin(later, work);
        log.say(format!("Done in {:.2} s: {times}.", began.elapsed().as_secs_f64()));
        Ok(Built { digest, image })
    }

    #[expect(clippy::too_many_arguments, reason = "what a job is of; each has its own name there")]
    fn job<'a>(
        &'a self,
        catalogue: &'a Catalogue,
        runner: &'a Runner,
        work: &'a Work,
        later: &'a Later,
        source: &'a std::path::Path,
        archive: &'a str,
        project: &'a str,
        variables: &'a [(String, String)],
    ) -> Job<'a> {
        Job {
            dir: &self.config.dir,
            store: &self.store,
            caches: &self.caches,
            catalogue,
            base: &self.base,
            runner,
            work,
            later,
            clock: self.config.clock.as_ref(),
            tools: &self.tools,
            source,
            archive,
            project,
            variables,
        }
    }

    /// Unpacks the archive and decides what to do with it.
    async fn source(&self, request: &Request, variables: Variables, catalogue: Catalogue) -> Result<(store::Staging, archive::Unpacked, Plan), Error> {
        let (store, id, base_image) = (self.store.clone(), request.archive.clone(), request.base_image.clone());
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
            let plan = plan::plan(&tree, &base_image, &variables, &catalogue)?;
            Ok((staging, unpacked, plan))
        })
        .await?
    }
}

fn image_of(plan: Plan, output: Output, start_notes: Vec<String>) -> Image {
    let mut layers = output.layers;
    let mut runtime_paths = plan.interpreter.runtime_paths;
    match plan.interpreter.language {
        // A program needs its compiler no more.
        Language::Go => runtime_paths = host_paths(),
        _ => layers.extend(plan.interpreter.layer),
    }
    Image {
        runtime: plan.base.id,
        runtime_version: plan.interpreter.version.to_string(),
        runtime_paths,
        layers,
        command: output.command.unwrap_or(plan.command),
        working_dir: WORKSPACE.into(),
        env: plan.env,
        memory_env: plan.memory_env,
        start_notes,
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
