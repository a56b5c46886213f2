//! Builds by the real keeper, in real sandboxes, from the real registry. Needs root, a Python 3.12 and PyPI.
//!
//! One process, one story: it forks the keeper while it has one thread, drops root for good, and then is the daemon.

#[path = "real/egress.rs"]
mod egress;
#[path = "real/rules.rs"]
mod rules;
#[path = "real/sharing.rs"]
mod sharing;
#[path = "real/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use build::{Builder, Built, Catalogue, Error};
use rules::googles_rules_hold_in_builds;
use sandbox::KeeperConfig;
use sharing::{
    a_file_that_leads_npm_has_no_part_in_the_downloads_of_all, a_jar_that_is_none_holds_nothing_up, a_variable_has_no_part_in_the_compiled_packages_of_all,
    a_variable_has_no_part_in_tools_and_downloads_of_all, what_a_variable_leads_to_is_asked_anew_for_each_source,
};
use world::{World, build_with, builder_of, built, refused, small_builder, wait_until};

const DAEMON: u32 = 60_999;

fn main() {
    // In a build's sandbox: what looks at the source.
    if let [_, look, language, folder] = &std::env::args().collect::<Vec<_>>()[..]
        && look == "look"
    {
        return print!("{}", build::look::program(language, Path::new(folder)).unwrap());
    }
    if !rustix::process::geteuid().is_root() {
        println!("real: not run, as it needs root (the keeper makes namespaces and cgroups)");
        return;
    }
    match std::env::args().find_map(|argument| argument.strip_prefix("--in=").map(PathBuf::from)) {
        Some(dir) => daemon(&dir),
        None => parent(),
    }
}

/// Stays root to remove what the daemon's tests leave, whatever they do.
fn parent() {
    let dir = tempfile::Builder::new().prefix("tanebi-build-").tempdir_in("/var/tmp").unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(std::env::args().skip(1))
        .arg(format!("--in={}", dir.path().display()))
        .status()
        .unwrap();
    // The keeper may need a moment to notice that the daemon is gone.
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(e) = std::fs::remove_dir_all(dir.path()) {
        assert!(Instant::now() < deadline, "removing {}: {e}", dir.path().display());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(status.success(), "{status}");
}

fn daemon(base: &Path) {
    let search: Vec<PathBuf> = std::env::var_os("HOME")
        .map(|home| Path::new(&home).join(".pyenv/versions"))
        .into_iter()
        .chain(["/usr/local/bin", "/usr/local/go", "/usr/lib/jvm", "/usr/bin"].map(PathBuf::from))
        .collect();
    let catalogue = Catalogue::discover(&search, None);
    let ca_bundle = std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    for name in ["keeper", "data", "data/build", "data/small"] {
        std::fs::create_dir(base.join(name)).unwrap();
    }
    std::fs::set_permissions(base.join("keeper"), std::fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["", "data", "data/build", "data/small"] {
        std::os::unix::fs::chown(base.join(name), Some(DAEMON), Some(DAEMON)).unwrap();
    }
    let keeper = sandbox::fork_keeper(KeeperConfig {
        dir: base.join("keeper"),
        writable_under: vec![base.join("data/build"), base.join("data/small")],
        daemon_uid: DAEMON,
        daemon_gid: DAEMON,
    })
    .unwrap();
    sandbox::drop_privileges(DAEMON, DAEMON).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let failed = runtime.block_on(async {
        let world = World::new(base.join("data"), Arc::new(keeper), catalogue, ca_bundle);
        let mut failed = 0;
        macro_rules! run {
            // As with the usual harness, an argument chooses by name; the first one is needed by the others.
            ($($test:ident),* $(,)?) => {$(if wanted(stringify!($test)) {
                let began = Instant::now();
                let world = world.clone();
                let result = tokio::spawn(async move { $test(&world).await }).await;
                println!("test {} ... {} ({:.1} s)", stringify!($test), if result.is_ok() { "ok" } else { "FAILED" }, began.elapsed().as_secs_f64());
                failed += usize::from(result.is_err());
            })*};
        }
        run!(
            the_articles_function_is_built_and_answers,
            changed_code_is_built_without_network,
            the_same_source_gives_the_same_image,
            day_old_dependencies_are_looked_up_again_and_kept_when_the_registry_is_away,
            the_framework_is_added_and_gives_way_to_the_users_versions,
            a_project_with_a_lock_is_built,
            an_application_is_built_and_answers,
            the_hosts_own_python_is_built_on,
            a_package_that_does_not_exist_is_named,
            what_clones_would_share_is_told_and_kept,
            a_syntax_error_is_named,
            a_missing_main_is_named,
            packages_that_do_not_fit_are_named,
            a_package_without_a_wheel_is_built_inside_and_its_downloads_are_not_kept,
            a_wheel_that_runs_when_python_starts_does_not_run_beside_the_downloads,
            a_build_that_takes_too_much_memory_is_ended,
            a_build_that_takes_too_long_is_ended,
            a_build_that_nobody_waits_for_is_ended,
            a_hostile_archive_is_refused,
            a_variable_has_no_part_in_tools_and_downloads_of_all,
            a_file_that_leads_npm_has_no_part_in_the_downloads_of_all,
            a_variable_has_no_part_in_the_compiled_packages_of_all,
            a_jar_that_is_none_holds_nothing_up,
            what_a_variable_leads_to_is_asked_anew_for_each_source,
            googles_rules_hold_in_builds,
            nothing_is_left_of_builds,
        );
        failed
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    assert_eq!(failed, 0, "{failed} tests failed");
}

fn wanted(test: &str) -> bool {
    let mut chosen = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    chosen.peek().is_none() || chosen.any(|part| test.contains(&part)) || test.contains("nothing_is_left")
}

const MAIN: &str = "import functions_framework

@functions_framework.http
def hello_http(request):
    request_json = request.get_json(silent=True)
    name = request_json['name'] if request_json and 'name' in request_json else 'World'
    return 'Hello {}!'.format(name)
";
const REQUIREMENTS: (&str, &str) = ("requirements.txt", "functions-framework==3.*\n");
const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 23\r\nConnection: close\r\n\r\n{ \"name\": \"Developer\" }";
const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

async fn the_articles_function_is_built_and_answers(world: &World) {
    let (made, log) = built(world.build(&[("main.py", MAIN), REQUIREMENTS], "hello_http").await);
    println!("{log}");
    assert!(log.contains("Fetching uv") || world.catalogue.interpreters().is_empty(), "{log}");
    assert_eq!(made.image.runtime, "python312");
    assert_eq!(build::image_get(&world.store, &made.digest).unwrap(), Some(made.image.clone()));
    let reply = world.answer(&made, POST).await;
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("Hello Developer!"), "{reply}");
    assert!(world.layer_file(&made, "/workspace", "main.py").is_some());
    let bytecode = world.store.layers().path(&made.image.layers[0].digest).unwrap().join("__pycache__/main.cpython-312.pyc");
    // Flag word 1: by hash, unchecked.
    assert_eq!(std::fs::read(bytecode).unwrap()[4..8], [1, 0, 0, 0]);
    assert!(world.dir.join("build/downloads").read_dir().unwrap().count() == 1);
}

async fn changed_code_is_built_without_network(world: &World) {
    world.egress.is_cut.store(true, SeqCst);
    let before = world.egress.refused.load(SeqCst);
    let code = MAIN.replace("Hello {}!", "Changed {}!");
    let began = Instant::now();
    let (made, log) = built(world.build(&[("main.py", &code), REQUIREMENTS], "hello_http").await);
    println!("changed code: {:.2} s\n{log}", began.elapsed().as_secs_f64());
    world.egress.is_cut.store(false, SeqCst);
    assert!(log.contains("those of an earlier build"), "{log}");
    assert_eq!(world.egress.refused.load(SeqCst), before);
    // Well below a second alone on a machine; this one is shared.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(world.answer(&made, GET).await.ends_with("Changed World!"));
}

async fn the_same_source_gives_the_same_image(world: &World) {
    let files = [("main.py", MAIN), ("pkg/a.py", "X = {'a': (1, 2), 'b': frozenset([3])}\n"), REQUIREMENTS];
    let (first, _) = built(world.build(&files, "hello_http").await);
    let (second, _) = built(world.build(&files, "hello_http").await);
    assert_eq!(first.digest, second.digest);
    let (other, _) = built(world.build(&files, "other").await);
    assert_ne!(first.digest, other.digest);
    assert_eq!(first.image.layers, other.image.layers);
}

async fn day_old_dependencies_are_looked_up_again_and_kept_when_the_registry_is_away(world: &World) {
    let files = [("main.py", MAIN), REQUIREMENTS];
    *world.clock.0.lock().unwrap() = "2026-01-02T00:00:01Z".parse().unwrap();
    world.egress.is_cut.store(true, SeqCst);
    let (_, log) = built(world.build(&files, "hello_http").await);
    world.egress.is_cut.store(false, SeqCst);
    assert!(log.contains("a day old") && log.contains("WARNING: the package registry cannot be reached"), "{log}");
    let before = world.egress.connections.load(SeqCst);
    let (_, log) = built(world.build(&files, "hello_http").await);
    assert!(log.contains("a day old") && world.egress.connections.load(SeqCst) > before, "{log}");
    let (_, log) = built(world.build(&files, "hello_http").await);
    assert!(log.contains("those of an earlier build"), "{log}");
}

async fn the_framework_is_added_and_gives_way_to_the_users_versions(world: &World) {
    let (made, log) = built(world.build(&[("main.py", MAIN)], "hello_http").await);
    assert!(log.contains("Adding functions-framework==3.10.2") && log.contains("gunicorn==23.0.0"), "{log}");
    assert!(world.answer(&made, GET).await.ends_with("Hello World!"));
    let (_, log) = built(world.build(&[("main.py", MAIN), ("requirements.txt", "-r more.txt\n"), ("more.txt", "flask==3.1.0\n")], "hello_http").await);
    assert!(log.contains("trying any version") && log.contains("flask==3.1.0"), "{log}");
}

async fn a_project_with_a_lock_is_built(world: &World) {
    let project = "[project]\nname = 'p'\nversion = '1'\nrequires-python = '>=3.9'\ndependencies = ['functions-framework==3.10.2']\n";
    let (made, log) = built(world.build(&[("main.py", MAIN), ("pyproject.toml", project)], "hello_http").await);
    assert!(log.contains("generate and commit uv.lock"), "{log}");
    assert!(world.answer(&made, GET).await.ends_with("Hello World!"));
    let error = refused(
        world.build(&[("main.py", MAIN), ("pyproject.toml", "[project]\nname = 'p'\nversion = '1'\ndependencies = []\n")], "hello_http").await,
        "have not included the Functions Framework",
    );
    assert!(error.contains("Please add it to your pyproject.toml"));
}

async fn an_application_is_built_and_answers(world: &World) {
    let app = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'from the app']\n";
    let (made, log) = built(world.build(&[("main.py", app)], "").await);
    assert!(log.contains("Setting default entrypoint"), "{log}");
    assert!(world.answer(&made, GET).await.contains("from the app"));
}

async fn the_hosts_own_python_is_built_on(world: &World) {
    // Whatever /usr/bin has, if anything: it is another layout than that of an interpreter with a prefix of its own.
    let catalogue = Catalogue::discover(&["/usr/bin".into()], None);
    let builder = builder_of(world, catalogue, Duration::from_secs(600));
    let Some(runtime) = builder.runtimes().into_iter().rfind(|runtime| runtime.language == build::Language::Python && runtime.found.is_some()) else {
        println!("no Python in /usr/bin");
        return;
    };
    let uri = builder.base_image_uri(&runtime.id, "asia-northeast1").unwrap();
    let mut request = world.request(&[("main.py", MAIN), REQUIREMENTS], "hello_http");
    request.base_image = uri;
    let (made, _) = built(build_with(&builder, request).await);
    assert_eq!((made.image.runtime.as_str(), made.image.runtime_paths.as_slice()), (runtime.id.as_str(), &["/usr".into()][..]));
    assert!(world.answer(&made, GET).await.ends_with("Hello World!"));
}

async fn a_package_that_does_not_exist_is_named(world: &World) {
    let files = [("main.py", MAIN), ("requirements.txt", "functions-framework\ntanebi-has-no-such-package-xyzzy\n")];
    let text = refused(world.build(&files, "hello_http").await, "tanebi-has-no-such-package-xyzzy was not found in the package registry");
    assert!(text.ends_with("Mend requirements.txt, then deploy again."), "{text}");
    let files = [("main.py", MAIN), ("requirements.txt", "functions-framework==99\n")];
    refused(world.build(&files, "hello_http").await, "there is no version of functions-framework==99");
}

async fn what_clones_would_share_is_told_and_kept(world: &World) {
    let main = format!("import uuid, time\nID = uuid.uuid4()\nSTARTED = time.time()\n{MAIN}");
    let (found, log) = built(world.build(&[("main.py", &main), REQUIREMENTS], "hello_http").await);
    let told: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("WARNING: ")).collect();
    assert_eq!(found.image.start_notes, told);
    assert!(told.len() == 2 && told[0].starts_with("main.py:2: uuid.uuid4() is drawn") && told[1].starts_with("main.py:3: time.time() is read"), "{log:#?}");
    println!("{}", log.lines().find(|line| line.contains("looking ")).unwrap());
    // Whose owner wants no clones is told nothing; the image is the same.
    let request = build::Request { tells_shared: false, ..world.request(&[("main.py", &main), REQUIREMENTS], "hello_http") };
    let (silent, log) = built(build_with(&world.builder, request).await);
    assert_eq!(silent.digest, found.digest);
    assert!(!log.lines().any(|line| line.starts_with("WARNING: ")), "{log:#?}");
    // And where nothing is shared there is nothing to tell.
    let (other, _) = built(world.build(&[("main.py", MAIN), REQUIREMENTS], "hello_http").await);
    assert_eq!(other.image.start_notes, [""; 0]);
}

async fn a_syntax_error_is_named(world: &World) {
    let text = refused(world.build(&[("main.py", "def f(:\n  pass\n"), REQUIREMENTS], "f").await, "SyntaxError: ");
    assert!(text.lines().next().unwrap().contains("\"./main.py\", line 1"), "{text}");
    assert!(text.contains("def f(:"), "{text}");
}

async fn a_missing_main_is_named(world: &World) {
    refused(world.build(&[("app.py", MAIN), REQUIREMENTS], "f").await, "missing main.py and GOOGLE_FUNCTION_SOURCE not specified");
    let mut request = world.request(&[("main.py", MAIN)], "f");
    request.base_image = "python399".to_owned();
    refused(build_with(&world.builder, request).await, "Unknown base image \"python399\"");
    let mut request = world.request(&[("main.py", MAIN)], "f");
    request.env.insert("GOOGLE_BUILDABLE".to_owned(), "x".to_owned());
    refused(build_with(&world.builder, request).await, "GOOGLE_BUILDABLE is for Go and Java");
    let mut request = world.request(&[("main.py", MAIN)], "f");
    request.archive = "0".repeat(64);
    refused(build_with(&world.builder, request).await, "The source archive is gone");
}

async fn packages_that_do_not_fit_are_named(world: &World) {
    let files = [("main.py", MAIN), ("requirements.txt", "functions-framework==3.10.2\nflask==3.0.3\nwerkzeug==2.0.0\n")];
    refused(world.build(&files, "hello_http").await, "The dependencies could not be installed: No solution found");
}

/// A package of the source whose build script looks for ways out and writes down what it found.
const PROBE_SETUP: &str = include_str!("real/probe_setup.py");

async fn a_package_without_a_wheel_is_built_inside_and_its_downloads_are_not_kept(world: &World) {
    let setup = PROBE_SETUP.replace("DATA", &world.dir.display().to_string());
    let port = world.host.local_addr().unwrap().port().to_string();
    let files = [
        ("main.py", MAIN),
        ("requirements.txt", "functions-framework==3.10.2\n./probe\n"),
        ("probe/setup.py", setup.as_str()),
        ("probe/port.txt", port.as_str()),
    ];
    let (made, log) = built(world.build(&files, "hello_http").await);
    assert!(log.contains("must be built"), "{log}");
    let found = world.layer_file(&made, "/layers/python", "lib/python3.12/site-packages/probe_pkg/found.json").unwrap();
    println!("{found}");
    let found: BTreeMap<String, String> = serde_json::from_str(&found).unwrap();
    assert_eq!(found.len(), 18);
    for (what, result) in &found {
        assert!(what == "uid" || result.starts_with("closed"), "{what}: {result}");
    }
    assert_ne!(found["uid"], "0");
    assert_eq!(world.host.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    no_poison(world).await;
}

/// What build steps downloaded is shared: nothing of a package's making may be in it.
async fn no_poison(world: &World) {
    // Downloads are put away after the answer.
    world.builder.settled().await;
    let mut folders = vec![world.dir.join("build/downloads")];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            // Of an older copy, which nobody sees any more and which is being removed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => panic!("{error}"),
        };
        for entry in entries {
            let entry = entry.unwrap();
            assert_ne!(entry.file_name(), "poison");
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
}

async fn a_wheel_that_runs_when_python_starts_does_not_run_beside_the_downloads(world: &World) {
    // A line with `import` in a .pth file is code that every start of the environment's interpreter runs.
    let pth: &[u8] = b"import os; open('/cache/poison', 'w').close()\n";
    let wheel = world::zip_of(&[
        ("evil.pth", pth),
        ("evil-1.dist-info/METADATA", b"Metadata-Version: 2.1\nName: evil\nVersion: 1\n"),
        ("evil-1.dist-info/WHEEL", b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ("evil-1.dist-info/RECORD", b"evil.pth,,\nevil-1.dist-info/METADATA,,\nevil-1.dist-info/WHEEL,,\nevil-1.dist-info/RECORD,,\n"),
    ]);
    let mut request = world.request(&[], "hello_http");
    let source = world::zip_of(&[
        ("main.py", MAIN.as_bytes()),
        ("requirements.txt", b"functions-framework==3.10.2\n./evil-1-py3-none-any.whl\nsix\n"),
        ("evil-1-py3-none-any.whl", &wheel),
    ]);
    request.archive = world.store.blobs().put(&source).unwrap();
    let (made, log) = built(build_with(&world.builder, request).await);
    // Its downloads were kept, and it is installed: it could have.
    assert!(!log.contains("must be built"), "{log}");
    assert!(world.layer_file(&made, "/layers/python", "lib/python3.12/site-packages/evil.pth").is_some());
    no_poison(world).await;
}

/// A package of the source whose build script does one thing.
async fn build_script(world: &World, builder: &Builder, script: &str) -> (Result<Built, Error>, Vec<String>) {
    let setup = format!("from setuptools import setup\n{script}\nsetup(name='x', version='1')\n");
    let files = [("main.py", MAIN), ("requirements.txt", "./x\n"), ("x/setup.py", setup.as_str())];
    build_with(builder, world.request(&files, "hello_http")).await
}

async fn a_build_that_takes_too_much_memory_is_ended(world: &World) {
    let builder = small_builder(world, Duration::from_secs(600));
    let result = build_script(world, &builder, "x = []\nwhile True: x.append(bytearray(1 << 20))").await;
    refused(result, "The build needed more than 512 MiB of memory");
}

async fn a_build_that_takes_too_long_is_ended(world: &World) {
    // uv is there from the last one; the script would sleep for an hour.
    let builder = small_builder(world, Duration::from_secs(25));
    let began = Instant::now();
    let (result, log) = build_script(world, &builder, "import time\ntime.sleep(3600)").await;
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?} {log:?}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(log.last().unwrap(), "ERROR: the build took longer than 25s");
}

async fn a_build_that_nobody_waits_for_is_ended(world: &World) {
    let builder = small_builder(world, Duration::from_secs(600));
    let (send, receive) = tokio::sync::oneshot::channel();
    let send = Mutex::new(Some(send));
    let setup = "import time\nfrom setuptools import setup\ntime.sleep(3600)\n";
    let files = [("main.py", MAIN), ("requirements.txt", "./x\n"), ("x/setup.py", setup)];
    let request = world.request(&files, "hello_http");
    let running = tokio::spawn(async move {
        let log = move |line: String| {
            if line.contains("must be built")
                && let Some(send) = send.lock().unwrap().take()
            {
                let _ = send.send(());
            }
        };
        builder.build(request, Arc::new(log)).await.map(drop)
    });
    receive.await.unwrap();
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // Its folder is discarded, which waits for the sandbox's end.
    wait_until("the folder of the build is gone", || std::fs::read_dir(world.dir.join("small/work")).unwrap().count() == 0).await;
}

async fn a_hostile_archive_is_refused(world: &World) {
    let mut request = world.request(&[], "f");
    request.archive = world.store.blobs().put(b"this is no archive").unwrap();
    refused(build_with(&world.builder, request).await, "neither a zip nor a tar.gz");
    let request = world.request(&[("main.py", MAIN), ("../../evil.py", "")], "f");
    refused(build_with(&world.builder, request).await, "`..`");
}

async fn nothing_is_left_of_builds(world: &World) {
    // What was never made (a test of it was not chosen) is not left either.
    let count = |folder: &str| std::fs::read_dir(world.dir.join(folder)).map_or(0, Iterator::count);
    for folder in ["small/work", "build/work", "store/staging"] {
        wait_until(&format!("nothing is left in {folder}"), || count(folder) == 0).await;
    }
    assert_eq!(world.egress.open.load(SeqCst), 0, "networks of steps are still served");
    wait_until("one generation of downloads is left", || count("build/downloads") == 1).await;
}
