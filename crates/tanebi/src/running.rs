//! How commands find the running server: a file in the data folder with its addresses, and the operator's secret beside it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::ca;

/// `client/running.json`: written when the ports are bound.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    pub pid: u32,
    pub listen: SocketAddr,
    pub tls_listen: SocketAddr,
    pub version: String,
}

/// The folder of what clients need: running.json, the secret, gcloud's configurations, CA bundles. Of the user who starts the server.
pub fn client_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("client")
}

fn running_path(data_dir: &Path) -> PathBuf {
    client_dir(data_dir).join("running.json")
}

/// The operator's secret: who can read it is the owner of this server. Made at the first start.
///
/// # Errors
/// When it cannot be read or made.
pub fn secret_ensure(data_dir: &Path) -> Result<String> {
    let path = client_dir(data_dir).join("secret");
    match std::fs::read_to_string(&path) {
        Ok(secret) if secret.len() == 64 => return Ok(secret),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    let secret = hex::encode(rand::random::<[u8; 32]>());
    ca::write_private(&path, secret.as_bytes())?;
    Ok(secret)
}

impl Running {
    pub fn write(&self, data_dir: &Path) -> Result<()> {
        ca::write_private(&running_path(data_dir), &serde_json::to_vec_pretty(self)?)
    }

    /// The server of `data_dir`, which accepted a connection just now.
    ///
    /// # Errors
    /// When none runs: the text says how to start one.
    pub fn find(data_dir: &Path) -> Result<Self> {
        let path = running_path(data_dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("no tanebi runs with the data folder {0}. Start it: tanebi serve --data-dir {0}", data_dir.display())
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let running: Self = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
        if std::net::TcpStream::connect_timeout(&running.listen, std::time::Duration::from_secs(2)).is_err() {
            bail!("the tanebi of {0} is not running (it listened on {1}). Start it: tanebi serve --data-dir {0}", data_dir.display(), running.listen);
        }
        Ok(running)
    }

    pub fn secret(data_dir: &Path) -> Result<String> {
        let path = client_dir(data_dir).join("secret");
        std::fs::read_to_string(&path).with_context(|| format!("{}: only who runs this tanebi can read it", path.display()))
    }
}
