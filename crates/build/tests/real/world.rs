//! The daemon of the tests: its folder, its keeper, its builders, and what is asked of what they made.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use build::{Builder, Built, Catalogue, Config, Error, Request};
use model::Timestamp;
use sandbox::{Keeper, Limits, Mount, Network, Spec};
use store::Store;

use crate::egress::{Egress, Shared};

pub struct Clock(pub Mutex<Timestamp>);

impl model::Clock for Clock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn until(&self, _: Timestamp) -> model::clock::Until {
        Box::pin(std::future::pending())
    }
}

pub struct World {
    pub dir: PathBuf,
    pub store: Store,
    pub keeper: Arc<Keeper>,
    pub catalogue: Catalogue,
    pub clock: Arc<Clock>,
    pub egress: Arc<Egress>,
    pub builder: Builder,
    /// On the host's loopback: nothing of a build may come here.
    pub host: TcpListener,
}

impl World {
    pub fn new(dir: PathBuf, keeper: Arc<Keeper>, catalogue: Catalogue, ca_bundle: Vec<u8>) -> Arc<Self> {
        let store = Store::open(&dir.join("store")).unwrap();
        let egress = Arc::new(Egress::default());
        let clock = Arc::new(Clock(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap())));
        let config = Config {
            dir: dir.join("build"),
            ca_bundle,
            looker: Some(std::env::current_exe().unwrap()),
            java_trust_store: std::fs::read("/etc/ssl/certs/java/cacerts").unwrap_or_default(),
            egress: Arc::new(Shared(egress.clone())),
            timeout: Duration::from_secs(600),
            memory_bytes: 2 << 30,
            package_environment: ["UV_DEFAULT_INDEX", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"]
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
                .collect(),
            catalogue: catalogue.clone(),
            clock: clock.clone(),
        };
        let builder = Builder::new(config, store.clone(), keeper.clone()).unwrap();
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        host.set_nonblocking(true).unwrap();
        Arc::new(Self { dir, store, keeper, catalogue, clock, egress, builder, host })
    }

    pub fn archive(&self, files: &[(&str, &str)]) -> String {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        self.store.blobs().put(&zip_of(&files)).unwrap()
    }

    pub fn request(&self, files: &[(&str, &str)], target: &str) -> Request {
        Request {
            tells_shared: true,
            project: "p".to_owned(),
            id: "0a1b2c3d-0000-4000-8000-000000000000".to_owned(),
            archive: self.archive(files),
            base_image: "python312".to_owned(),
            function_target: target.to_owned(),
            env: BTreeMap::new(),
        }
    }

    pub async fn build(&self, files: &[(&str, &str)], target: &str) -> (Result<Built, Error>, Vec<String>) {
        build_with(&self.builder, self.request(files, target)).await
    }

    /// Starts the image as an instance would be, sends a request, returns the reply.
    pub async fn answer(&self, built: &Built, request: &str) -> String {
        let image = &built.image;
        let mut mounts: Vec<Mount> = image.runtime_paths.iter().map(|path| Mount { source: path.clone(), target: path.clone(), writable: false }).collect();
        for layer in &image.layers {
            let source = self.store.layers().path(&layer.digest).unwrap();
            mounts.push(Mount { source, target: layer.target.clone(), writable: false });
        }
        let mut env = image.env.clone();
        env.push(("PORT".to_owned(), "8080".to_owned()));
        let id = format!("instance-{}", built.digest.hex()[..8].to_owned());
        let spec = Spec {
            id: id.clone(),
            mounts,
            files: vec![],
            command: image.command.clone(),
            env,
            working_dir: image.working_dir.clone(),
            limits: Limits { memory_bytes: 512 << 20, cpu_millis: 1000, pids: 100, files_open: 1024, tmp_bytes: 64 << 20 },
            network: Network { redirected: false, metadata: false },
            volumes: Vec::new(),
            changing: Vec::new(),
            template: false,
        };
        let sandbox = self.keeper.start(&spec).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let reply = loop {
            if let Some(reply) = self.try_request(&id, request) {
                break reply;
            }
            if Instant::now() > deadline {
                let mut said = vec![0; 64 << 10];
                let n = rustix::io::read(&sandbox.stderr, &mut said[..]).unwrap_or(0);
                panic!("no answer: {}", String::from_utf8_lossy(&said[..n]));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        self.keeper.end(&id).unwrap();
        reply
    }

    fn try_request(&self, id: &str, request: &str) -> Option<String> {
        let mut stream = TcpStream::from(self.keeper.connect(id, 8080).ok()?);
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        (!reply.is_empty()).then_some(reply)
    }

    pub fn layer_file(&self, built: &Built, target: &str, path: &str) -> Option<String> {
        let layer = built.image.layers.iter().find(|layer| layer.target == Path::new(target))?;
        std::fs::read_to_string(self.store.layers().path(&layer.digest)?.join(path)).ok()
    }
}

pub fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub async fn build_with(builder: &Builder, request: Request) -> (Result<Built, Error>, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let built = builder.build(request, Arc::new(move |line| sink.lock().unwrap().push(line))).await;
    builder.settled().await;
    let lines = lines.lock().unwrap().clone();
    (built, lines)
}

#[track_caller]
pub fn built((built, log): (Result<Built, Error>, Vec<String>)) -> (Built, String) {
    let log = log.join("\n");
    match built {
        Ok(built) => (built, log),
        Err(error) => panic!("{error}\n{log}"),
    }
}

#[track_caller]
pub fn refused((built, log): (Result<Built, Error>, Vec<String>), expect: &str) -> String {
    match built {
        Err(Error::User(text)) => {
            assert!(text.lines().next().unwrap_or("").contains(expect), "{text}\n{}", log.join("\n"));
            assert!(log.iter().any(|line| line.starts_with("ERROR: ")), "{log:?}");
            text
        }
        other => panic!("{other:?}\n{}", log.join("\n")),
    }
}

pub fn small_builder(world: &World, timeout: Duration) -> Builder {
    builder_of(world, world.catalogue.clone(), timeout)
}

pub fn builder_of(world: &World, catalogue: Catalogue, timeout: Duration) -> Builder {
    let config = Config {
        dir: world.dir.join("small"),
        looker: None,
        ca_bundle: std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default(),
        java_trust_store: std::fs::read("/etc/ssl/certs/java/cacerts").unwrap_or_default(),
        egress: Arc::new(Shared(world.egress.clone())),
        timeout,
        memory_bytes: 512 << 20,
        package_environment: vec![],
        catalogue,
        clock: world.clock.clone(),
    };
    Builder::new(config, world.store.clone(), world.keeper.clone()).unwrap()
}

pub async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not true after a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
