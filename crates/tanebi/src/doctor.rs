//! `tanebi doctor`: what this host gives (walls, control groups, runtimes) and what is missing, measured by making it. A running server
//! says the same of itself.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use serde_json::{Value, json};

#[derive(clap::Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Data folder to look at
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn doctor(args: &DoctorArgs) -> Result<ExitCode> {
    let data_dir = crate::config::data_dir(args.data_dir.as_deref())?;
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // A keeper of its own in a folder of its own: a running server's is left alone.
    let scratch = std::env::temp_dir().join(format!("tanebi-doctor-{}-{}", std::process::id(), hex::encode(rand::random::<[u8; 8]>())));
    crate::folder::ensure(&scratch, me, 0o700)?;
    let walls = sandbox::fork_keeper(sandbox::KeeperConfig { dir: scratch.join("keeper"), writable_under: Vec::new(), daemon_uid: me.0, daemon_gid: me.1 })
        .and_then(|keeper| keeper.walls())
        .context("making a sandbox to look at");
    let _ = std::fs::remove_dir_all(&scratch);
    let walls = walls?;
    let found = report(&walls, &Runtimes::of(&crate::serve::catalogue(&data_dir, None)));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        print(&found);
    }
    Ok(if walls.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a host runs functions by.
#[derive(Clone)]
pub struct Runtimes {
    /// Language, version, path.
    here: Vec<[String; 3]>,
    /// What was passed over, and why.
    skipped: Vec<String>,
}

impl Runtimes {
    pub fn of(catalogue: &build::Catalogue) -> Self {
        let here = catalogue.interpreters().iter().map(|one| [one.language.name().to_owned(), one.version.to_string(), one.path.display().to_string()]);
        Self { here: here.collect(), skipped: catalogue.skipped().to_vec() }
    }
}

/// The walls as they are named to people, in their order.
const WALLS: [(&str, &str); 10] = [
    ("root", "root"),
    ("ownUid", "own uid"),
    ("network", "network of its own"),
    ("seccomp", "system call filter"),
    ("landlock", "Landlock"),
    ("cgroups", "control groups"),
    ("memoryLimit", "  memory limit"),
    ("cpuLimit", "  cpu limit"),
    ("pidsLimit", "  limit of processes"),
    ("freezer", "  freezing"),
];

/// All of it: `walls` by [`WALLS`] (yes or no, or a version of which 0 is none), `runtimes`, `skipped`, `processor`, `missing`.
pub fn report(walls: &sandbox::Walls, runtimes: &Runtimes) -> Value {
    let values = [
        json!(walls.root),
        json!(walls.own_uid),
        json!(walls.network_redirect),
        json!(walls.seccomp),
        json!(walls.landlock_abi),
        json!(walls.cgroup_version),
        json!(walls.memory_limit),
        json!(walls.cpu_limit),
        json!(walls.pids_limit),
        json!(walls.freezer),
    ];
    let walls_told: Vec<_> = WALLS.iter().zip(values).map(|((id, _), value)| json!({ "id": id, "value": value })).collect();
    let here: Vec<_> = runtimes.here.iter().map(|[language, version, path]| json!({ "language": language, "version": version, "path": path })).collect();
    let processor: Vec<_> = vulnerabilities().into_iter().map(|(name, state)| json!({ "name": name, "state": state })).collect();
    json!({ "walls": walls_told, "runtimes": here, "skipped": runtimes.skipped, "processor": processor, "missing": walls.missing })
}

fn print(found: &Value) {
    let list = |name: &str| found[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    println!("walls around functions and builds");
    for (wall, (_, name)) in list("walls").iter().zip(WALLS) {
        let value = match &wall["value"] {
            Value::Bool(true) => "yes".to_owned(),
            Value::Number(version) if version.as_u64() > Some(0) => format!("version {version}"),
            _ => "NO".to_owned(),
        };
        println!("  {name:<25} {value}");
    }
    println!("runtimes");
    for one in list("runtimes") {
        println!("  {:<8} {:<10} {}", text(&one["language"]), text(&one["version"]), text(&one["path"]));
    }
    for line in list("skipped") {
        println!("  skipped: {}", text(&line));
    }
    println!("processor");
    for one in list("processor") {
        println!("  {:<25} {}", text(&one["name"]), text(&one["state"]));
    }
    let missing = list("missing");
    println!("{}", if missing.is_empty() { "nothing is missing" } else { "missing" });
    for line in missing {
        println!("  {}", text(&line));
    }
}

/// What the kernel says of the processor's leaks: one kernel is shared, and no promise is made about side channels.
fn vulnerabilities() -> Vec<(String, String)> {
    let mut found: Vec<_> = std::fs::read_dir("/sys/devices/system/cpu/vulnerabilities")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let state = std::fs::read_to_string(entry.path()).ok()?;
            state.starts_with("Vulnerable").then(|| (entry.file_name().to_string_lossy().into_owned(), state.trim().to_owned()))
        })
        .collect();
    found.sort();
    found
}
