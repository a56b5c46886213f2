//! `tanebi doctor`: what this host gives (walls, control groups, runtimes) and what is missing, measured by making it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

#[derive(clap::Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Data folder to look at
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    data_dir: Option<PathBuf>,
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
    let mark = |yes: bool| if yes { "yes" } else { "NO" };
    println!("walls around functions and builds");
    println!("  root                      {}", mark(walls.root));
    println!("  own uid                   {}", mark(walls.own_uid));
    println!("  network of its own        {}", mark(walls.network_redirect));
    println!("  system call filter        {}", mark(walls.seccomp));
    println!("  Landlock                  {}", if walls.landlock_abi == 0 { "NO".to_owned() } else { format!("ABI {}", walls.landlock_abi) });
    println!("  control groups            {}", if walls.cgroup_version == 0 { "none".to_owned() } else { format!("version {}", walls.cgroup_version) });
    println!("    memory limit            {}", mark(walls.memory_limit));
    println!("    cpu limit               {}", mark(walls.cpu_limit));
    println!("    limit of processes      {}", mark(walls.pids_limit));
    println!("    freezing                {}", mark(walls.freezer));
    println!("runtimes");
    let catalogue = crate::serve::catalogue(&data_dir, None);
    for interpreter in catalogue.interpreters() {
        println!("  {:<8} {:<10} {}", interpreter.language.name(), interpreter.version.to_string(), interpreter.path.display());
    }
    for line in catalogue.skipped() {
        println!("  skipped: {line}");
    }
    println!("processor");
    for (name, state) in vulnerabilities() {
        println!("  {name:<25} {state}");
    }
    if walls.missing.is_empty() {
        println!("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    println!("missing");
    for line in &walls.missing {
        println!("  {line}");
    }
    Ok(ExitCode::FAILURE)
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
