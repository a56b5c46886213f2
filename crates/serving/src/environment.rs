//! What an instance is made of: its environment, files, mounts and limits, from the revision's template and its image.
//!
//! A rule without effects; the sandbox is made from its result by `instances.rs`. Source: Cloud Run's container contract.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use iam::Payload;
use model::{
    image::Image,
    limits,
    revision::{SecretMount, SecretRef},
};
use sandbox::{Limits, Mount, Network, Spec, Volume};

use crate::{Config, StartFailure, pool::Pool};

/// The sandbox of an instance. `layer` finds the folder of a layer by its digest, `secret` reads a secret.
///
/// # Errors
/// A layer or a secret that is not there, or a command that is not.
pub(crate) fn spec(
    pool: &Pool,
    image: &Image,
    config: &Config,
    id: String,
    layer: impl Fn(&str) -> Option<PathBuf>,
    secret: impl Fn(&SecretRef) -> Result<Payload, String>,
) -> Result<Spec, StartFailure> {
    let secret = |source: &SecretRef| secret(source).map_err(StartFailure::Platform);
    let template = &pool.template;
    let mut mounts: Vec<Mount> = image.runtime_paths.iter().map(|path| Mount { source: path.clone(), target: path.clone(), writable: false }).collect();
    for folder in GCLOUD.map(Path::new) {
        if image.runtime_paths.iter().any(|path| folder.starts_with(path)) && folder.is_dir() {
            mounts.push(Mount { source: config.empty.clone(), target: folder.to_owned(), writable: false });
        }
    }
    for part in &image.layers {
        let source = layer(&part.digest).ok_or_else(|| StartFailure::Platform(format!("layer {} of the image is not there", part.digest)))?;
        mounts.push(Mount { source, target: part.target.clone(), writable: false });
    }
    let mut owner = template.container.env.clone();
    for (name, source) in &template.container.secret_env {
        let value = String::from_utf8(secret(source)?.as_bytes().to_vec());
        let value = value.ok().filter(|value| !value.contains('\0'));
        let no_text = || StartFailure::Platform(format!("the secret {} is no text: it cannot be the variable {name}", source.secret));
        owner.push((name.clone(), value.ok_or_else(no_text)?));
    }
    let mut files = files(image, config);
    files.extend(limits_told(template.memory_bytes(), template.cpu_millis()));
    for (path, source) in template.container.secret_mounts.iter().flat_map(SecretMount::files) {
        files.push((path.into(), secret(&source)?.as_bytes().to_vec()));
    }
    let changing = template.container.changing_secrets().into_iter().map(|(path, _)| path.into()).collect();
    let volumes = &template.container.memory_mounts;
    let volumes = volumes.iter().map(|mount| Volume { target: mount.path.clone().into(), bytes: template.volume_bytes(mount) }).collect();
    let env = variables(image, template.memory_bytes(), &owner, &names(pool), template.port(), template.timeout().as_secs());
    let command = command(&template.container.command, &template.container.args, &image.command);
    Ok(Spec {
        id,
        command: found(command, &env, &mounts, &image.working_dir).map_err(StartFailure::Exec)?,
        mounts,
        volumes,
        files,
        changing,
        env,
        working_dir: image.working_dir.clone(),
        limits: Limits {
            memory_bytes: template.memory_bytes(),
            cpu_millis: if template.container.startup_cpu_boost { boosted(template.cpu_millis()) } else { template.cpu_millis() },
            pids: PIDS,
            files_open: FILES_OPEN,
            tmp_bytes: template.memory_bytes(),
        },
        network: Network { redirected: true, metadata: true },
        template: false,
    })
}

/// What the platform calls the service and the revision.
struct Names {
    service: String,
    revision: String,
}

fn names(pool: &Pool) -> Names {
    Names { service: pool.service.service.to_string(), revision: pool.revision.to_string() }
}

/// Processes and threads of one instance.
const PIDS: u32 = 512;
/// Google gives 25,000; a host whose own limit is lower cannot.
const FILES_OPEN: u32 = 20_000;
/// Where the Google Cloud CLI is installed below `/usr`. No image of Google's has one, and Google's Node.js library would start it, for
/// most of a second, in each client that it makes.
const GCLOUD: [&str; 3] = ["/usr/lib/google-cloud-sdk", "/usr/lib64/google-cloud-sdk", "/usr/local/google-cloud-sdk"];
/// Where Linux programs look for trusted roots.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where Java looks for them on Debian, and is told to look everywhere.
const JAVA_TRUST_STORE: &str = "/etc/ssl/certs/java/cacerts";
/// Variables by which runtimes that bring roots of their own are told to use ours.
const CA_VARIABLES: [&str; 5] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"];

/// The CPU that an instance has while it starts and for 10 s more, by Google's table: 2 vCPU up to one, then twice the limit, 8 at most.
pub(crate) fn boosted(cpu_millis: u32) -> u32 {
    if cpu_millis <= 1000 { 2000 } else { (cpu_millis * 2).min(8000).max(cpu_millis) }
}

fn files(image: &Image, config: &Config) -> Vec<(PathBuf, Vec<u8>)> {
    let file = |path: &str, content: &[u8]| (Path::new(path).to_owned(), content.to_owned());
    let mut files = vec![
        file(CA_BUNDLE, &config.ca_bundle),
        // All DNS is led to the listener of the instance, whatever the address.
        file("/etc/resolv.conf", b"nameserver 169.254.169.254\noptions timeout:5 attempts:2\n"),
    ];
    if image.runtime.starts_with("java") {
        files.push(file(JAVA_TRUST_STORE, &config.java_trust_store));
    }
    files
}

/// The limits where programs look for them, in the names of both versions of control groups. There is nothing else of `/sys`: what a host's
/// groups show is not an instance's to see.
fn limits_told(memory_bytes: u64, cpu_millis: u32) -> [(PathBuf, Vec<u8>); 8] {
    const PERIOD_US: u64 = 100_000;
    let quota_us = PERIOD_US * u64::from(cpu_millis) / 1000;
    let file = |name: &str, text: String| (Path::new("/sys/fs/cgroup").join(name), format!("{text}\n").into_bytes());
    [
        file("cgroup.controllers", "cpu memory".to_owned()),
        file("memory.max", memory_bytes.to_string()),
        file("memory.high", "max".to_owned()),
        file("cpu.max", format!("{quota_us} {PERIOD_US}")),
        file("memory/memory.limit_in_bytes", memory_bytes.to_string()),
        // The kernel's for "none".
        file("memory/memory.soft_limit_in_bytes", (i64::MAX as u64 / 4096 * 4096).to_string()),
        file("cpu/cpu.cfs_quota_us", quota_us.to_string()),
        file("cpu/cpu.cfs_period_us", PERIOD_US.to_string()),
    ]
}

/// The owner's command and arguments where given, else the image's.
fn command(command: &[String], args: &[String], image: &[String]) -> Vec<String> {
    match (command, args) {
        ([], []) => image.to_vec(),
        ([], args) => image.first().into_iter().chain(args).cloned().collect(),
        (command, args) => command.iter().chain(args).cloned().collect(),
    }
}

/// The command with its program's path. A name without a slash is looked for along PATH, as a container's is: in what is mounted, and
/// by who may run it. A path is as it is: what lies there is seen when it is run.
///
/// # Errors
/// It is nowhere, in Google's words.
fn found(mut command: Vec<String>, env: &[(String, String)], mounts: &[Mount], working_dir: &Path) -> Result<Vec<String>, String> {
    let Some(program) = command.first_mut().filter(|program| !program.starts_with('/')) else { return Ok(command) };
    if program.contains('/') {
        *program = working_dir.join(program.trim_start_matches("./")).to_string_lossy().into_owned();
        return Ok(command);
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path.as_str());
    let places = path.split(':').map(Path::new);
    // The last mount that covers a path is the one that is seen. A link may lead to what is there in the sandbox only.
    let is_there = |inside: &Path| {
        let is_plain = inside.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
        let outside = mounts.iter().rev().find_map(|mount| Some(mount.source.join(inside.strip_prefix(&mount.target).ok()?)));
        let found = outside.filter(|_| is_plain).and_then(|outside| outside.symlink_metadata().ok());
        found.is_some_and(|found| found.is_symlink() || found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = places.clone().map(|place| place.join(&*program)).find(|inside| inside.is_absolute() && is_there(inside));
    let found = found.ok_or_else(|| {
        let places = places.map(|place| place.to_string_lossy()).collect::<Vec<_>>().join(" ");
        format!("failed to resolve binary path: error finding executable \"{program}\" in PATH [{places}]: no such file or directory")
    })?;
    *program = found.to_string_lossy().into_owned();
    Ok(command)
}

/// The whole environment: the platform's defaults, over them the image's, over them the owner's, over all what an owner cannot set.
fn variables(image: &Image, memory_bytes: u64, owner: &[(String, String)], names: &Names, port: u16, timeout_s: u64) -> Vec<(String, String)> {
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    all.insert("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    // The one folder that is writable.
    all.insert("HOME", "/tmp".to_owned());
    all.insert("CLOUD_RUN_TIMEOUT_SECONDS", timeout_s.to_string());
    all.extend(CA_VARIABLES.map(|name| (name, CA_BUNDLE.to_owned())));
    for (name, value) in image.env.iter().chain(owner) {
        all.insert(name, value.clone());
    }
    for variable in &image.memory_env {
        let value = variable.value(memory_bytes);
        match all.get_mut(variable.name.as_str()) {
            None => drop(all.insert(&variable.name, value)),
            Some(own) if !variable.unless.is_empty() && !own.contains(&variable.unless) => *own = format!("{own} {value}"),
            Some(_) => {}
        }
    }
    let reserved: [(&str, String); limits::ENV_RESERVED.len()] =
        [("PORT", port.to_string()), ("K_SERVICE", names.service.clone()), ("K_REVISION", names.revision.clone()), ("K_CONFIGURATION", names.service.clone())];
    all.extend(reserved);
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use model::image::MemoryVariable;

    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn image(env: &[(&str, &str)]) -> Image {
        Image {
            runtime: "nodejs20".to_owned(),
            runtime_version: "20.0.0".to_owned(),
            runtime_paths: vec![],
            layers: vec![],
            command: vec![],
            working_dir: "/".into(),
            env: pairs(env),
            memory_env: vec![MemoryVariable {
                name: "NODE_OPTIONS".to_owned(),
                before: "--max-old-space-size=".to_owned(),
                percent: 80,
                after: String::new(),
                unless: "max-old-space-size".to_owned(),
            }],
            start_notes: Vec::new(),
        }
    }

    #[test]
    fn a_runtime_is_told_of_its_memory_beside_what_its_owner_says() {
        let names = Names { service: "hello".to_owned(), revision: "hello-00001-abc".to_owned() };
        let options = |owner: &[(&str, &str)]| {
            let got: BTreeMap<String, String> = variables(&image(&[]), 512 << 20, &pairs(owner), &names, 8080, 300).into_iter().collect();
            got["NODE_OPTIONS"].clone()
        };
        assert_eq!(options(&[]), "--max-old-space-size=409");
        assert_eq!(options(&[("NODE_OPTIONS", "--no-warnings")]), "--no-warnings --max-old-space-size=409");
        assert_eq!(options(&[("NODE_OPTIONS", "--max-old-space-size=64")]), "--max-old-space-size=64");
    }

    #[test]
    fn the_owners_variables_win_over_all_but_the_reserved() {
        let names = Names { service: "hello".to_owned(), revision: "hello-00001-abc".to_owned() };
        let image = image(&[("FUNCTION_TARGET", "hello_http"), ("LANG", "C.UTF-8"), ("PORT", "1")]);
        let owner = pairs(&[("LANG", "ja_JP.UTF-8"), ("K_SERVICE", "other"), ("SSL_CERT_FILE", "/own.pem"), ("EMPTY", "")]);
        let got: BTreeMap<String, String> = variables(&image, 512 << 20, &owner, &names, 8080, 300).into_iter().collect();
        for (name, expect) in [
            ("FUNCTION_TARGET", "hello_http"),
            ("LANG", "ja_JP.UTF-8"),
            ("PORT", "8080"),
            ("K_SERVICE", "hello"),
            ("K_REVISION", "hello-00001-abc"),
            ("K_CONFIGURATION", "hello"),
            ("CLOUD_RUN_TIMEOUT_SECONDS", "300"),
            ("SSL_CERT_FILE", "/own.pem"),
            ("NODE_EXTRA_CA_CERTS", CA_BUNDLE),
            ("EMPTY", ""),
        ] {
            assert_eq!(got.get(name).map(String::as_str), Some(expect), "{name}");
        }
    }

    #[test]
    fn limits_are_told_by_the_names_of_control_groups() {
        let told: BTreeMap<PathBuf, Vec<u8>> = limits_told(512 << 20, 500).into_iter().collect();
        let check = |name: &str, expect: &str| assert_eq!(told[&Path::new("/sys/fs/cgroup").join(name)], expect.as_bytes(), "{name}");
        check("memory.max", "536870912\n");
        check("cpu.max", "50000 100000\n");
        check("memory/memory.limit_in_bytes", "536870912\n");
        check("cpu/cpu.cfs_quota_us", "50000\n");
    }

    #[test]
    fn the_owners_command_replaces_the_images() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let image = list(&["/bin/python", "main.py"]);
        assert_eq!(command(&[], &[], &image), image);
        assert_eq!(command(&[], &list(&["other.py"]), &image), list(&["/bin/python", "other.py"]));
        assert_eq!(command(&list(&["/bin/sh"]), &list(&["-c", "x"]), &image), list(&["/bin/sh", "-c", "x"]));
    }

    #[test]
    fn programs_are_looked_for_along_the_path() {
        let host = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(host.path().join("bin")).unwrap();
        std::fs::write(host.path().join("bin/tool"), "").unwrap();
        std::fs::set_permissions(host.path().join("bin/tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(host.path().join("bin/text"), "").unwrap();
        let mounts = [Mount { source: host.path().to_owned(), target: "/usr".into(), writable: false }];
        let check = |program: &str, path: &str, expect: Option<&str>| {
            let got = found(vec![program.to_owned(), "-x".to_owned()], &pairs(&[("PATH", path)]), &mounts, Path::new("/usr"));
            assert_eq!(got.ok().map(|command| command[0].clone()).as_deref(), expect, "{program} {path}");
        };
        check("tool", "/nothing:/usr/bin", Some("/usr/bin/tool"));
        check("tool", "/nothing:relative", None);
        check("/any/path", "", Some("/any/path"));
        check("./bin/tool", "", Some("/usr/bin/tool"));
        check("./bin/absent", "", Some("/usr/bin/absent"));
        check("bin", "/usr", None);
        check("text", "/usr/bin", None);
        let words = found(vec!["no".to_owned()], &pairs(&[("PATH", "/usr/bin:/bin")]), &mounts, Path::new("/usr")).unwrap_err();
        assert_eq!(words, "failed to resolve binary path: error finding executable \"no\" in PATH [/usr/bin /bin]: no such file or directory");
    }

    #[test]
    fn the_boost_is_googles_table() {
        for (cpu, expect) in [(80, 2000), (500, 2000), (1000, 2000), (2000, 4000), (4000, 8000), (6000, 8000), (8000, 8000)] {
            assert_eq!(boosted(cpu), expect);
        }
    }
}
