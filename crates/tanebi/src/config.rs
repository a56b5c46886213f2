//! What an operator sets: one struct, one table. Order: built-in, file, environment (`TANEBI_...`), flag.
//!
//! The doc comment of a field is its help text. `clap` gives flags and environment; the file has the same names with underscores.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The plain port when none is asked for: HTTP/1.1, h2c, gRPC, proxy requests.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7070";
pub const TLS_LISTEN_DEFAULT: &str = "127.0.0.1:7443";

const ARMED_MAX_DEFAULT: usize = 8;
const ARMED_MAX_MAX: usize = 100;
/// Twice what AWS Lambda allows a loop; a chain of functions that is meant is much shorter.
const HOPS_MAX_DEFAULT: u32 = 32;
const HOPS_MAX_MAX: u32 = 1_000_000;

/// As typed: what is not set stays open.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Folder that holds everything: state, keys, caches
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the plain port (HTTP/1.1, h2c, gRPC, proxy); port 0 takes a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR", env = "TANEBI_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Address of the TLS port [default: 127.0.0.1:7443]
    #[arg(long, value_name = "ADDR", env = "TANEBI_TLS_LISTEN")]
    pub tls_listen: Option<SocketAddr>,
    /// A domain of your own under which services answer too, beside run.app and run.localhost
    #[arg(long, value_name = "DOMAIN", env = "TANEBI_DOMAIN")]
    pub domain: Option<String>,
    /// Project id [default: tanebi-local]
    #[arg(long, value_name = "ID", env = "TANEBI_PROJECT")]
    pub project: Option<String>,
    /// Region that commands take when they name none [default: asia-northeast1]
    #[arg(long, value_name = "REGION", env = "TANEBI_REGION")]
    pub region: Option<String>,
    /// E-mail of the project's owner [default: developer@tanebi.local]
    #[arg(long, value_name = "EMAIL", env = "TANEBI_OWNER")]
    pub owner: Option<String>,
    /// Refuse proxy requests, pushes and jobs to hosts that tanebi does not play, instead of passing them on
    #[arg(long, env = "TANEBI_OFFLINE")]
    pub offline: bool,
    /// A host of Google's APIs that is the real one, for shells and functions, instead of being played here; more than once for more
    /// hosts. Tokens of tanebi are worth nothing there
    #[arg(long = "google-host", value_name = "HOST", env = "TANEBI_GOOGLE_HOSTS", value_delimiter = ',')]
    pub google_hosts: Vec<String>,
    /// A host, HOST or HOST:PORT, that pushes and jobs may reach although its address is not public; `*.` stands for labels before it.
    /// More than once for more hosts. This machine itself is never one
    #[arg(long = "outside-host", value_name = "HOST", env = "TANEBI_OUTSIDE_HOSTS", value_delimiter = ',')]
    pub outside_hosts: Vec<String>,
    /// How many clones of a revision may wait, stopped, for the next requests that find no instance: as many as its load needs, at most
    /// these; with 0 instances are cloned when they are asked for [default: 8]
    #[arg(long, value_name = "NUMBER", env = "TANEBI_ARMED_MAX")]
    pub armed_max: Option<usize>,
    /// How many functions may start one another, by messages, objects, jobs, audited calls or requests, before what comes next is stopped
    /// as a loop [default: 32]
    #[arg(long, value_name = "NUMBER", env = "TANEBI_HOPS_MAX")]
    pub hops_max: Option<u32>,
    /// `manual` for a clock that stands until `tanebi clock` moves it, for tests; at first at the real time, or at the instant of
    /// `manual=2026-01-01T00:00:00Z`, later where it stood [default: system]
    #[arg(long, value_name = "CLOCK", env = "TANEBI_CLOCK")]
    pub clock: Option<String>,
    /// Configuration file (TOML, the same names with underscores) [default: DATA_DIR/tanebi.toml when it is there]
    #[arg(long, value_name = "FILE", env = "TANEBI_CONFIG")]
    pub config: Option<PathBuf>,
}

/// The file's form.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    tls_listen: Option<SocketAddr>,
    domain: Option<String>,
    project: Option<String>,
    region: Option<String>,
    owner: Option<String>,
    offline: Option<bool>,
    google_hosts: Option<Vec<String>>,
    outside_hosts: Option<Vec<String>>,
    armed_max: Option<usize>,
    hops_max: Option<u32>,
    clock: Option<String>,
}

/// Which clock the server goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    System,
    /// Moved by hand; the instant is where it stands when it never stood anywhere.
    Manual(Option<model::Timestamp>),
}

/// What holds.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub tls_listen: SocketAddr,
    /// Whether the port was asked for: then a taken one is an error and not passed over.
    pub listen_given: bool,
    pub tls_listen_given: bool,
    pub domain: Option<String>,
    pub project: model::ProjectId,
    pub region: model::Region,
    pub owner: String,
    pub offline: bool,
    /// Hosts of Google's that are not played.
    pub google_hosts: Vec<String>,
    /// Reached by pushes and jobs wherever they are.
    pub outside_hosts: Vec<serving::egress::AllowedHost>,
    pub armed_max: usize,
    pub hops_max: u32,
    pub clock: ClockKind,
}

impl Config {
    /// # Errors
    /// A file that cannot be read or names what is unknown; a name that breaks its rule; a listener beyond loopback.
    pub fn resolve(args: &ServeArgs) -> Result<Self> {
        let data_dir = args.data_dir.clone();
        let file = file_read(args.config.as_deref(), data_dir.as_deref())?;
        let data_dir = match data_dir.or(file.data_dir) {
            Some(dir) => dir,
            None => data_dir_default()?,
        };
        let data_dir = std::path::absolute(&data_dir).with_context(|| format!("data_dir {}", data_dir.display()))?;
        let listen_given = args.listen.or(file.listen);
        let tls_listen_given = args.tls_listen.or(file.tls_listen);
        let status = |error: model::Status| anyhow::anyhow!("{}", error.outer);
        let config = Self {
            data_dir,
            listen: listen_given.unwrap_or(LISTEN_DEFAULT.parse().expect("a constant address")),
            tls_listen: tls_listen_given.unwrap_or(TLS_LISTEN_DEFAULT.parse().expect("a constant address")),
            listen_given: listen_given.is_some(),
            tls_listen_given: tls_listen_given.is_some(),
            domain: args.domain.clone().or(file.domain).map(|d| domain_check(&d)).transpose()?,
            project: model::ProjectId::parse(args.project.as_deref().or(file.project.as_deref()).unwrap_or("tanebi-local")).map_err(status)?,
            region: model::Region::parse(args.region.as_deref().or(file.region.as_deref()).unwrap_or("asia-northeast1")).map_err(status)?,
            owner: owner_check(args.owner.as_deref().or(file.owner.as_deref()).unwrap_or("developer@tanebi.local"))?,
            offline: args.offline || file.offline.unwrap_or(false),
            google_hosts: google_hosts_check(if args.google_hosts.is_empty() { file.google_hosts.as_deref().unwrap_or_default() } else { &args.google_hosts })?,
            outside_hosts: outside_hosts_read(if args.outside_hosts.is_empty() {
                file.outside_hosts.as_deref().unwrap_or_default()
            } else {
                &args.outside_hosts
            })?,
            armed_max: args.armed_max.or(file.armed_max).unwrap_or(ARMED_MAX_DEFAULT),
            hops_max: args.hops_max.or(file.hops_max).unwrap_or(HOPS_MAX_DEFAULT),
            clock: clock_parse(args.clock.as_deref().or(file.clock.as_deref()).unwrap_or("system"))?,
        };
        if config.armed_max > ARMED_MAX_MAX {
            bail!("armed_max {} is above {ARMED_MAX_MAX}: say a number from 0 to {ARMED_MAX_MAX}", config.armed_max);
        }
        if !(1..=HOPS_MAX_MAX).contains(&config.hops_max) {
            bail!("hops_max {} is out of range: say a number from 1 to {HOPS_MAX_MAX}", config.hops_max);
        }
        for (name, address) in [("listen", config.listen), ("tls_listen", config.tls_listen)] {
            if !address.ip().is_loopback() {
                bail!(
                    "{name} {address} is beyond loopback. That needs a certificate that the world trusts and is not supported yet; use 127.0.0.1 or [::1], and a TLS front of your own for the world"
                );
            }
        }
        Ok(config)
    }
}

fn file_read(given: Option<&Path>, data_dir: Option<&Path>) -> Result<File> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let dir = match data_dir {
                Some(dir) => dir.to_owned(),
                None => data_dir_default()?,
            };
            let path = dir.join("tanebi.toml");
            if !path.exists() {
                return Ok(File::default());
            }
            path
        }
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("configuration file {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
}

/// The data folder of a command: the one that was said, or the usual one.
pub fn data_dir(said: Option<&Path>) -> Result<PathBuf> {
    match said {
        Some(dir) => Ok(std::path::absolute(dir)?),
        None => data_dir_default(),
    }
}

/// Where data lies when nobody says: the system's place for root, the user's own for others.
pub fn data_dir_default() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_DATA_HOME").filter(|d| Path::new(d).is_absolute()) {
        return Ok(Path::new(&dir).join("tanebi"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/tanebi".into());
    }
    match std::env::var_os("HOME").filter(|h| !h.is_empty()) {
        Some(home) => Ok(Path::new(&home).join(".local/share/tanebi")),
        None => bail!("neither HOME nor XDG_DATA_HOME is set: say --data-dir DIR"),
    }
}

fn domain_check(text: &str) -> Result<String> {
    let domain = text.trim_end_matches('.').to_ascii_lowercase();
    let label =
        |l: &str| !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !l.starts_with('-') && !l.ends_with('-');
    if domain.len() > 200 || domain.split('.').count() < 2 || !domain.split('.').all(label) {
        bail!("domain {text:?} is no domain name such as run.example.com");
    }
    for taken in ["googleapis.com", "google.com", "run.app", "google.internal", "cloudfunctions.net"] {
        if domain == taken || domain.ends_with(&format!(".{taken}")) {
            bail!("domain {text:?} is one of Google's; take one of your own");
        }
    }
    Ok(domain)
}

/// Names of APIs below googleapis.com. Not those by which this server's own tokens are had: it could not be used without them.
fn google_hosts_check(hosts: &[String]) -> Result<Vec<String>> {
    let own = ["oauth2", "openidconnect", "iamcredentials", "www"];
    for host in hosts {
        match host.strip_suffix(".googleapis.com") {
            Some(name) if own.contains(&name) => bail!("google_hosts {host:?} is what this server gives its tokens by"),
            Some(name) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.')) => {}
            _ => bail!("google_hosts {host:?} is no host of Google's APIs such as translation.googleapis.com"),
        }
    }
    Ok(hosts.to_vec())
}

fn outside_hosts_read(texts: &[String]) -> Result<Vec<serving::egress::AllowedHost>> {
    texts.iter().map(|text| serving::egress::AllowedHost::parse(text).map_err(|why| anyhow::anyhow!("outside_hosts: {why}"))).collect()
}

fn clock_parse(text: &str) -> Result<ClockKind> {
    match text.split_once('=') {
        None if text == "system" => Ok(ClockKind::System),
        None if text == "manual" => Ok(ClockKind::Manual(None)),
        Some(("manual", at)) => match at.parse() {
            Ok(at) => Ok(ClockKind::Manual(Some(at))),
            Err(error) => bail!("clock {text:?}: {at:?} is no instant such as 2026-01-01T00:00:00Z: {error}"),
        },
        _ => bail!("clock {text:?} is none of system, manual and manual=INSTANT"),
    }
}

fn owner_check(text: &str) -> Result<String> {
    match model::policy::Member::parse(&format!("user:{text}")) {
        Ok(model::policy::Member::User(email)) => Ok(email),
        _ => bail!("owner {text:?} is no e-mail address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: ServeArgs, expect: Result<&str, &str>) {
        let args = ServeArgs { data_dir: Some(args.data_dir.unwrap_or("/nonexistent/tanebi".into())), ..args };
        match (Config::resolve(&args), expect) {
            (Ok(config), Ok(listen)) => assert_eq!(config.listen.to_string(), listen),
            (Err(error), Err(part)) => assert!(format!("{error:#}").contains(part), "{error:#}"),
            (got, expect) => panic!("{got:?} {expect:?}"),
        }
    }

    #[test]
    fn nothing_set_is_enough() {
        check(ServeArgs::default(), Ok(LISTEN_DEFAULT));
    }

    #[test]
    fn flags_win_over_the_file_which_refuses_what_it_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let with = |text: &str, args: ServeArgs| {
            std::fs::write(dir.path().join("tanebi.toml"), text).unwrap();
            ServeArgs { data_dir: Some(dir.path().into()), ..args }
        };
        check(with("listen = '127.0.0.1:9'", ServeArgs::default()), Ok("127.0.0.1:9"));
        check(with("listen = '127.0.0.1:9'", ServeArgs { listen: Some("127.0.0.1:10".parse().unwrap()), ..Default::default() }), Ok("127.0.0.1:10"));
        check(with("lisen = '127.0.0.1:9'", ServeArgs::default()), Err("lisen"));
    }

    #[test]
    fn what_is_not_safe_or_not_a_name_is_refused() {
        check(ServeArgs { listen: Some("0.0.0.0:80".parse().unwrap()), ..Default::default() }, Err("beyond loopback"));
        check(ServeArgs { project: Some("X".into()), ..Default::default() }, Err("project"));
        check(ServeArgs { region: Some("mars-east1".into()), ..Default::default() }, Err("mars-east1"));
        check(ServeArgs { domain: Some("run.app".into()), ..Default::default() }, Err("Google's"));
        check(ServeArgs { google_hosts: vec!["translation.googleapis.com".into(), "example.com".into()], ..Default::default() }, Err("example.com"));
        check(ServeArgs { google_hosts: vec!["oauth2.googleapis.com".into()], ..Default::default() }, Err("gives its tokens by"));
        check(ServeArgs { outside_hosts: vec!["a".into(), "http://b".into()], ..Default::default() }, Err("\"http://b\" is not HOST"));
        check(ServeArgs { owner: Some("nobody".into()), ..Default::default() }, Err("e-mail"));
        check(ServeArgs { armed_max: Some(101), ..Default::default() }, Err("armed_max 101 is above 100"));
        check(ServeArgs { hops_max: Some(0), ..Default::default() }, Err("hops_max 0 is out of range"));
        check(ServeArgs { clock: Some("manual=9:00".into()), ..Default::default() }, Err("no instant such as"));
        check(ServeArgs { clock: Some("sundial".into()), ..Default::default() }, Err("none of system, manual"));
    }

    #[test]
    fn clocks() {
        let check = |text: &str, expect: ClockKind| assert_eq!(clock_parse(text).unwrap(), expect, "{text}");
        check("system", ClockKind::System);
        check("manual", ClockKind::Manual(None));
        check("manual=2026-01-01T00:00:00Z", ClockKind::Manual(Some("2026-01-01T00:00:00Z".parse().unwrap())));
        check("manual=2026-01-01T09:00:00+09:00", ClockKind::Manual(Some("2026-01-01T00:00:00Z".parse().unwrap())));
    }
}
