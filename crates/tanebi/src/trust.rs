//! `tanebi trust [--remove]`: the CA into (out of) the lists that browsers and system tools read.
//!
//! It says beforehand what it changes, and asks unless told not to. What it cannot change it says with the command that would.

use std::{
    io::{BufRead, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

#[derive(clap::Args, Clone, Debug)]
pub struct TrustArgs {
    /// Folder of the server whose CA it is
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Take the CA out again
    #[arg(long)]
    remove: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

const NICKNAME: &str = "tanebi local CA";

/// One list of trusted authorities.
enum Place {
    /// A folder of PEM files and the command that reads it: Debian, Fedora, Arch.
    System { file: PathBuf, command: &'static [&'static str] },
    /// A browser's own database: `certutil` writes it.
    Nss { database: PathBuf },
}

pub fn trust(args: &TrustArgs) -> Result<ExitCode> {
    let data_dir = crate::config::data_dir(args.data_dir.as_deref())?;
    let cert = data_dir.join("ca/ca.pem");
    if !cert.is_file() {
        anyhow::bail!("there is no CA in {} yet: start tanebi once with this data folder", data_dir.display());
    }
    let places = places();
    if places.is_empty() {
        println!("No list of trusted authorities was found that can be changed here. The certificate is {}", cert.display());
        return Ok(ExitCode::FAILURE);
    }
    println!("This will {} the certificate {} {}:", if args.remove { "remove" } else { "add" }, cert.display(), if args.remove { "from" } else { "to" });
    for place in &places {
        match place {
            Place::System { file, command } => println!("  the system's list: {} (then: {})", file.display(), command.join(" ")),
            Place::Nss { database } => println!("  a browser's list: {}", database.display()),
        }
    }
    if !args.remove {
        println!("Whoever can read {} can then make certificates that your browser believes.", data_dir.join("ca/ca.key").display());
    }
    if !args.yes && !confirmed()? {
        println!("Nothing was changed.");
        return Ok(ExitCode::FAILURE);
    }
    let mut code = ExitCode::SUCCESS;
    for place in &places {
        if let Err(error) = place.change(&cert, args.remove) {
            eprintln!("error: {error:#}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn confirmed() -> Result<bool> {
    print!("Go on? [y/N] ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn places() -> Vec<Place> {
    let mut places = Vec::new();
    let systems: [(&str, &[&str]); 3] = [
        ("/usr/local/share/ca-certificates", &["update-ca-certificates"]),
        ("/etc/pki/ca-trust/source/anchors", &["update-ca-trust", "extract"]),
        ("/etc/ca-certificates/trust-source/anchors", &["trust", "extract-compat"]),
    ];
    if let Some((folder, command)) = systems.into_iter().find(|(folder, _)| Path::new(folder).is_dir()) {
        places.push(Place::System { file: Path::new(folder).join("tanebi-local-ca.crt"), command });
    }
    if let Some(home) = std::env::var_os("HOME") {
        let home = PathBuf::from(home);
        let mut databases = vec![home.join(".pki/nssdb")];
        let profiles = std::fs::read_dir(home.join(".mozilla/firefox")).into_iter().flatten().flatten().map(|entry| entry.path());
        databases.extend(profiles);
        places.extend(databases.into_iter().filter(|d| d.join("cert9.db").is_file()).map(|database| Place::Nss { database }));
    }
    places
}

impl Place {
    fn change(&self, cert: &Path, remove: bool) -> Result<()> {
        match self {
            Place::System { file, command } => {
                if remove {
                    match std::fs::remove_file(file) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context(root_hint(file)),
                        _ => {}
                    }
                } else {
                    std::fs::copy(cert, file).with_context(|| root_hint(file))?;
                }
                run(Command::new(command[0]).args(&command[1..]))
            }
            Place::Nss { database } => {
                let database = format!("sql:{}", database.display());
                let certutil = |arguments: &[&str]| {
                    let mut command = Command::new("certutil");
                    command.args(["-d", &database]).args(arguments);
                    command
                };
                if remove {
                    return run(&mut certutil(&["-D", "-n", NICKNAME]));
                }
                run(certutil(&["-A", "-t", "C,,", "-n", NICKNAME, "-i"]).arg(cert))
                    .context("a browser's list is written by certutil (apt-get install libnss3-tools)")
            }
        }
    }
}

fn root_hint(file: &Path) -> String {
    format!("{}: the system's list belongs to root; try: sudo tanebi trust", file.display())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| command.get_program().to_string_lossy().into_owned())?;
    if !output.status.success() {
        anyhow::bail!("{}: {}", command.get_program().to_string_lossy(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
