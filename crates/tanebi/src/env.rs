//! `tanebi env`, `shell` and `exec`: an environment in which gcloud, curl and Google's client libraries speak to the running
//! server and to nothing else, without a login and without touching a setting of the user's own.
//!
//! gcloud gets a configuration folder of its own in which the owner is signed in already: with a refresh token that this server
//! issued, it starts in half the time that it needs by way of a metadata server. A service account (`--as`) goes by way of one.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use base64::Engine;
use serde_json::{Value, json};

use crate::{ca, client::Client, running, trust_store};

/// Holds what the variables were before, for `--unset`.
const SAVED: &str = "TANEBI_SAVED";
/// The form has a place for it; this server's token endpoint, like any for installed applications, does not rely on it.
const CLIENT_SECRET: &str = "none";
/// What gcloud asks for at a sign-in.
pub const SCOPES: [&str; 7] = [
    "openid",
    "https://www.googleapis.com/auth/userinfo.email",
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/appengine.admin",
    "https://www.googleapis.com/auth/sqlservice.login",
    "https://www.googleapis.com/auth/compute",
    "https://www.googleapis.com/auth/accounts.reauth",
];
/// Where CA bundles are named, all set to the same file.
const CA_VARIABLES: [&str; 9] = [
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "HTTPLIB2_CA_CERTS",
];
/// Files that hold the system's roots, by distribution.
const SYSTEM_BUNDLES: [&str; 4] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"];

#[derive(clap::Args, Clone, Debug)]
pub struct IdentityArgs {
    /// Folder of the running server
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Be this identity instead of the owner: a user or a service account, with no role until one is granted
    #[arg(long = "as", value_name = "EMAIL")]
    pub identity: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Sh,
    Json,
}

/// Variable to value; `None` clears it.
pub type Variables = BTreeMap<String, Option<String>>;

/// `tanebi env`: prints the exports.
pub async fn print(args: &IdentityArgs, format: Format) -> Result<ExitCode> {
    let environment = Environment::make(args).await?;
    let mut variables = environment.variables.clone();
    match format {
        Format::Json => {
            let (running, server) = (&environment.client.running, &environment.client.server);
            let console = environment.console_link().await?;
            let document = json!({
                "variables": variables,
                "listen": running.listen, "tlsListen": running.tls_listen, "project": server.project, "projectNumber": server.project_number.to_string(),
                "region": server.region, "identity": environment.email,
                "console": console,
            });
            println!("{}", serde_json::to_string_pretty(&document)?);
        }
        Format::Sh => {
            variables.insert(SAVED.to_owned(), Some(saved(&variables)?));
            print!("{}", shell_lines(&variables));
            println!("# Sets this shell up for tanebi: eval \"$(tanebi env)\". Undo: eval \"$(tanebi env --unset)\"");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `tanebi env --unset`: prints what restores the variables as they were.
pub fn print_unset() -> Result<ExitCode> {
    let Ok(text) = std::env::var(SAVED) else {
        println!("# this shell is not set up for tanebi");
        return Ok(ExitCode::SUCCESS);
    };
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).context(SAVED)?;
    let mut before: Variables = serde_json::from_slice(&bytes).context(SAVED)?;
    before.insert(SAVED.to_owned(), None);
    print!("{}", shell_lines(&before));
    Ok(ExitCode::SUCCESS)
}

/// `tanebi exec -- CMD`: one command in that environment. Replaces this process.
pub async fn exec(args: &IdentityArgs, command: &[OsString]) -> Result<ExitCode> {
    let environment = Environment::make(args).await?;
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]);
    environment.apply(&mut process, &environment.for_child());
    let error = process.exec();
    bail!("{}: {error}", command[0].to_string_lossy())
}

/// `tanebi shell`: a subshell whose prompt says (tanebi).
pub async fn shell(args: &IdentityArgs) -> Result<ExitCode> {
    let environment = Environment::make(args).await?;
    let shell = std::env::var_os("SHELL").filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let name = Path::new(&shell).file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    let mut process = Command::new(&shell);
    let mut variables = environment.for_child();
    match name.as_str() {
        "bash" => {
            let rc = environment.dir.join("bashrc");
            ca::write_private(&rc, b"[ -f ~/.bashrc ] && . ~/.bashrc\nPS1=\"(tanebi) ${PS1-$ }\"\n")?;
            process.arg("--rcfile").arg(rc).arg("-i");
        }
        "zsh" => {
            let home = environment.dir.join("zsh");
            dir_own(&home)?;
            ca::write_private(
                &home.join(".zshrc"),
                b"ZDOTDIR=\"${TANEBI_ZDOTDIR:-$HOME}\"\n[ -f \"$ZDOTDIR/.zshrc\" ] && . \"$ZDOTDIR/.zshrc\"\nPROMPT=\"(tanebi) $PROMPT\"\n",
            )?;
            variables.insert("TANEBI_ZDOTDIR".into(), std::env::var("ZDOTDIR").ok());
            variables.insert("ZDOTDIR".into(), Some(path_text(&home)?));
        }
        _ => {
            variables.insert("PS1".into(), Some("(tanebi) $ ".into()));
        }
    }
    environment.apply(&mut process, &variables);
    let status = process.status().with_context(|| shell.to_string_lossy().into_owned())?;
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
}

/// A running server's environment for one identity.
pub struct Environment {
    pub client: Client,
    pub email: String,
    /// An access token of the identity.
    pub access_token: String,
    /// The identity's folder: gcloud's configuration and the CA bundle.
    dir: PathBuf,
    variables: Variables,
    trust_store: PathBuf,
}

impl Environment {
    /// Signs the identity in and writes its folder.
    ///
    /// # Errors
    /// When no server runs, it refuses the identity, or a file cannot be written.
    pub async fn make(args: &IdentityArgs) -> Result<Self> {
        let data_dir = crate::config::data_dir(args.data_dir.as_deref())?;
        let client = Client::find(&data_dir).await?;
        let email = args.identity.clone().unwrap_or_else(|| client.server.owner.clone());
        let session = client.own(http::Method::POST, "/_tanebi/v1/sessions", Some(json!({ "email": email }))).await?;
        let text = |name: &str| session.get(name).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("the server's session has no {name}"));
        let email = text("email")?;
        let dir = running::client_dir(&data_dir).join("identities").join(folder_name(&email));
        dir_own(dir.parent().context("a parent")?)?;
        dir_own(&dir)?;
        let bundle = dir.join("ca-bundle.pem");
        let roots = bundle_make(&text("caPem")?)?;
        // The same server as the last time: what gcloud keeps of it is good, and a gcloud that runs now may be reading it.
        let is_known = std::fs::read(&bundle).is_ok_and(|known| known == roots);
        ca::write_public(&bundle, &roots)?;

        let listen = client.running.listen;
        let mut variables = Variables::new();
        // What the user had for Google's tools would lead them elsewhere.
        for (name, _) in std::env::vars_os() {
            if let Some(name) = name.to_str()
                && (name.starts_with("CLOUDSDK_") || name.starts_with("GOOGLE_CLOUD_") || name.ends_with("_EMULATOR_HOST"))
            {
                variables.insert(name.to_owned(), None);
            }
        }
        for name in
            ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_QUOTA_PROJECT", "GOOGLE_API_KEY", "GCLOUD_PROJECT", "GCE_METADATA_IP", "ALL_PROXY", "all_proxy"]
        {
            variables.insert(name.to_owned(), None);
        }
        let mut set = |name: &str, value: String| variables.insert(name.to_owned(), Some(value));
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            set(name, format!("http://{listen}"));
        }
        for name in ["no_proxy", "NO_PROXY"] {
            set(name, "localhost,127.0.0.1,::1".into());
        }
        for name in CA_VARIABLES {
            set(name, path_text(&bundle)?);
        }
        let config = dir.join("gcloud");
        set("CLOUDSDK_CONFIG", path_text(&config)?);
        // A browser knows nothing of this shell's proxy: it is sent to this server by its own address.
        set("CLOUDSDK_AUTH_AUTH_HOST", format!("http://{listen}/o/oauth2/auth"));
        // gcloud's OAuth library refuses a page without TLS, which on this machine's loopback protects nobody.
        set("OAUTHLIB_INSECURE_TRANSPORT", "1".into());
        set("GOOGLE_CLOUD_PROJECT", client.server.project.clone());
        set("GCLOUD_PROJECT", client.server.project.clone());
        set("TANEBI_DATA_DIR", path_text(&data_dir)?);

        let project = client.server.project.clone();
        match session.get("refreshToken").and_then(Value::as_str) {
            Some(refresh_token) => {
                let credentials = gcloud_sign_in(&config, &email, &project, refresh_token, is_known)?;
                // Python and Java find them beside gcloud's settings, Go and older Node.js libraries in the home folder only.
                variables.insert("GOOGLE_APPLICATION_CREDENTIALS".into(), Some(path_text(&credentials)?));
                variables.insert("GCE_METADATA_HOST".into(), None);
                variables.insert("GCE_METADATA_ROOT".into(), None);
                // Nothing of the network answers as a metadata server; libraries need not ask.
                variables.insert("NO_GCE_CHECK".into(), Some("true".into()));
            }
            None => {
                let metadata = format!("{listen}{}", text("metadataPath")?);
                gcloud_configure(&config, None, &project)?;
                set_metadata(&mut variables, &metadata);
            }
        }
        let trust_store = java_trust_store(&dir, &bundle)?;
        Ok(Self { access_token: text("accessToken")?, email, client, dir, variables, trust_store })
    }

    /// The console's address with a link that signs the identity in; without one for a service account, which has no browser.
    async fn console_link(&self) -> Result<String> {
        let port = self.client.running.listen.port();
        if self.email.ends_with("gserviceaccount.com") {
            return Ok(format!("http://{}:{port}/", crate::console::HOST));
        }
        let made = self.client.own(http::Method::POST, "/_tanebi/v1/consoleLinks", Some(json!({ "email": self.email }))).await?;
        Ok(crate::console::link(port, made["secret"].as_str().context("the link has no secret")?))
    }

    /// For one child process: Node and Java are told by variables that a whole shell should not carry.
    fn for_child(&self) -> Variables {
        let mut variables = self.variables.clone();
        let listen = self.client.running.listen;
        // Node 24 honours the proxy variables with this; older ones need an agent of their own.
        variables.insert("NODE_USE_ENV_PROXY".into(), Some("1".into()));
        let mut java = format!(
            "-Dhttp.proxyHost={host} -Dhttp.proxyPort={port} -Dhttps.proxyHost={host} -Dhttps.proxyPort={port} -Dhttp.nonProxyHosts=localhost|127.0.0.1|[::1]",
            host = listen.ip(),
            port = listen.port()
        );
        java.push_str(&format!(" -Djavax.net.ssl.trustStore={}", self.trust_store.display()));
        if let Ok(before) = std::env::var("JAVA_TOOL_OPTIONS") {
            java = format!("{before} {java}");
        }
        variables.insert("JAVA_TOOL_OPTIONS".into(), Some(java));
        variables
    }

    fn apply(&self, process: &mut Command, variables: &Variables) {
        for (name, value) in variables {
            match value {
                Some(value) => process.env(name, value),
                None => process.env_remove(name),
            };
        }
    }
}

fn set_metadata(variables: &mut Variables, metadata: &str) {
    for name in ["GCE_METADATA_ROOT", "GCE_METADATA_HOST", "GCE_METADATA_IP"] {
        variables.insert(name.to_owned(), Some(metadata.to_owned()));
    }
    variables.insert("NO_GCE_CHECK".into(), None);
}

/// What each variable is now, for `--unset`. A shell that is set up already keeps what it had before that.
fn saved(variables: &Variables) -> Result<String> {
    let mut before: Variables = match std::env::var(SAVED) {
        Ok(text) => serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).context(SAVED)?).context(SAVED)?,
        Err(_) => Variables::new(),
    };
    for name in variables.keys() {
        before.entry(name.clone()).or_insert_with(|| std::env::var(name).ok());
    }
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(serde_json::to_vec(&before)?))
}

fn shell_lines(variables: &Variables) -> String {
    variables
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("export {name}='{}'\n", value.replace('\'', r"'\''")),
            None => format!("unset {name}\n"),
        })
        .collect()
}

/// The roots that the shell used so far, and tanebi's.
fn bundle_make(ca_pem: &str) -> Result<Vec<u8>> {
    let ours = |path: &str| path.contains("/client/identities/");
    let before = CA_VARIABLES.iter().filter_map(|name| std::env::var(name).ok()).find(|path| !path.is_empty() && !ours(path) && Path::new(path).is_file());
    let path = before.or_else(|| SYSTEM_BUNDLES.iter().find(|path| Path::new(path).is_file()).map(|p| (*p).to_owned()));
    let mut bundle = match &path {
        Some(path) => std::fs::read(path).with_context(|| path.clone())?,
        None => Vec::new(),
    };
    if !bundle.ends_with(b"\n") && !bundle.is_empty() {
        bundle.push(b'\n');
    }
    bundle.extend_from_slice(ca_pem.as_bytes());
    Ok(bundle)
}

/// Has gcloud ask for new access tokens: by its own clock those that it keeps are good, by a server's that was moved they may not be.
pub fn tokens_forget(data_dir: &Path) {
    let identities = std::fs::read_dir(crate::running::client_dir(data_dir).join("identities"));
    for identity in identities.into_iter().flatten().flatten() {
        // One that is not there is forgotten already.
        let _ = std::fs::remove_file(identity.path().join("gcloud/access_tokens.db"));
    }
}

/// gcloud's configuration folder, with `email` signed in. The file of its application default credentials.
fn gcloud_sign_in(config: &Path, email: &str, project: &str, refresh_token: &str, is_known: bool) -> Result<PathBuf> {
    gcloud_configure(config, Some(email), project)?;
    let credentials = json!({
        "client_id": iam::GCLOUD_CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "refresh_token": refresh_token,
        "revoke_uri": "https://accounts.google.com/o/oauth2/revoke",
        "scopes": SCOPES,
        "token_uri": "https://oauth2.googleapis.com/token",
        "type": "authorized_user",
        "universe_domain": "googleapis.com",
    });
    let database = rusqlite::Connection::open(config.join("credentials.db")).context("gcloud's credentials.db")?;
    database.execute_batch("CREATE TABLE IF NOT EXISTS credentials (account_id TEXT PRIMARY KEY, value BLOB)")?;
    database.execute("REPLACE INTO credentials (account_id, value) VALUES (?1, ?2)", (email, credentials.to_string()))?;
    if !is_known {
        // A token of an earlier server would be tried first.
        let _ = std::fs::remove_file(config.join("access_tokens.db"));
    }
    let adc = json!({
        "client_id": iam::GCLOUD_CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": refresh_token,
        "type": "authorized_user", "quota_project_id": project, "universe_domain": "googleapis.com",
    });
    let file = config.join("application_default_credentials.json");
    ca::write_private(&file, adc.to_string().as_bytes())?;
    Ok(file)
}

fn gcloud_configure(config: &Path, account: Option<&str>, project: &str) -> Result<()> {
    dir_own(config)?;
    dir_own(&config.join("configurations"))?;
    let file = config.join("configurations/config_default");
    let mut text = String::from("[core]\n");
    if let Some(account) = account {
        text.push_str(&format!("account = {account}\n"));
    }
    // No call home, and no search for updates, which a shell without Google cannot have.
    text.push_str(&format!("project = {project}\ndisable_usage_reporting = true\nsurvey_enabled = false\n[survey]\ndisable_prompts = true\n[component_manager]\ndisable_update_check = true\n"));
    if !file.exists() {
        ca::write_private(&file, text.as_bytes())?;
    }
    ca::write_private(&config.join("active_config"), b"default")
}

/// Java's trust store with tanebi's CA in it.
fn java_trust_store(dir: &Path, bundle: &Path) -> Result<PathBuf> {
    let store = dir.join("cacerts");
    let bytes = trust_store::java(&std::fs::read(bundle).with_context(|| bundle.display().to_string())?);
    if std::fs::read(&store).ok().as_ref() != Some(&bytes) {
        std::fs::write(&store, bytes).with_context(|| store.display().to_string())?;
    }
    Ok(store)
}

/// Makes a folder that only this user reads. One that is there must be a real folder of this user's own.
fn dir_own(path: &Path) -> Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    let metadata = std::fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    let own = std::os::unix::fs::MetadataExt::uid(&metadata) == rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || !own {
        bail!("{} is not a folder of your own: remove it", path.display());
    }
    Ok(())
}

/// An e-mail as a folder's name: what could climb or hide is replaced.
fn folder_name(email: &str) -> String {
    email
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '@' | '.' | '-' | '_') { c } else { '_' })
        .collect::<String>()
        .trim_start_matches('.')
        .to_owned()
}

fn path_text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_lines_survive_quotes() {
        let variables = Variables::from([("A".to_owned(), Some("it's $HOME `x`".to_owned())), ("B".to_owned(), None)]);
        let script = format!("B=1; export B\n{}printf %s \"$A-${{B-unset}}\"", shell_lines(&variables));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's $HOME `x`-unset");
    }

    #[test]
    fn folder_names_stay_in_their_folder() {
        assert_eq!(folder_name("a@b.example"), "a@b.example");
        assert_eq!(folder_name("../../x"), "_.._x");
    }
}
