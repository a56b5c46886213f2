//! tanebi's own certificate authority: a root made at the first start, a leaf for each host name that it plays.
//!
//! The root's key lies in the data folder, 0600. Leaves live in memory, a week at most, and are made when a host is first asked for.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Leaves kept; the oldest is made again when it is needed.
const LEAVES_MAX: usize = 1024;
const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A leaf is made again this long before it ends.
const LEAF_RENEW: Duration = Duration::from_secs(24 * 3600);
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The authority. Clones share it.
pub struct Authority {
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    leaf_signer: OnceLock<Arc<dyn rustls::sign::SigningKey>>,
    leaves: Mutex<Vec<(String, jiff::Timestamp, Arc<CertifiedKey>)>>,
    clock: Arc<dyn model::Clock>,
    plays: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// The root's two files, read or made.
pub struct Root {
    pub cert_pem: String,
    key_pem: String,
}

/// Reads the root in `dir`, or makes it.
///
/// # Errors
/// Files that cannot be read or written, or are no certificate and key.
pub fn root_ensure(dir: &Path, now: jiff::Timestamp) -> Result<Root> {
    let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
    if cert_path.exists() && key_path.exists() {
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        return Ok(Root { cert_pem: read(&cert_path)?, key_pem: read(&key_path)? });
    }
    let key = KeyPair::generate().context("a key for the certificate authority")?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    // The name says whose machine it is of, so that a browser's list of authorities can be read.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    params.distinguished_name.push(DnType::CommonName, format!("tanebi local CA ({})", host.trim()));
    params.distinguished_name.push(DnType::OrganizationName, "tanebi");
    validity(&mut params, now, ROOT_LIFE)?;
    let cert = params.self_signed(&key).context("the certificate authority's certificate")?;
    let root = Root { cert_pem: cert.pem(), key_pem: key.serialize_pem() };
    // The key first: a certificate without a key would be taken for a whole root.
    write_private(&key_path, root.key_pem.as_bytes())?;
    write_public(&cert_path, root.cert_pem.as_bytes())?;
    Ok(root)
}

impl Authority {
    /// # Errors
    /// A root that is no certificate and key.
    pub fn new(root: Root, clock: Arc<dyn model::Clock>, plays: Arc<dyn Fn(&str) -> bool + Send + Sync>) -> Result<Arc<Self>> {
        let key = KeyPair::from_pem(&root.key_pem).context("ca.key")?;
        let issuer = Issuer::from_ca_cert_pem(&root.cert_pem, key).context("ca.pem")?;
        Ok(Arc::new(Self {
            root_pem: root.cert_pem,
            issuer,
            leaf_key: KeyPair::generate().context("a key for certificates")?,
            leaf_signer: OnceLock::new(),
            leaves: Mutex::new(Vec::new()),
            clock,
            plays,
        }))
    }

    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The TLS side of a listener: any played host's certificate by SNI, `localhost` without.
    ///
    /// # Errors
    /// When the crypto provider refuses its own defaults.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn leaf(&self, host: &str) -> Result<Arc<CertifiedKey>> {
        let now = self.clock.now();
        let mut leaves = self.leaves.lock();
        if let Some(at) = leaves.iter().position(|(name, _, _)| name == host) {
            if now < leaves[at].1 {
                return Ok(leaves[at].2.clone());
            }
            leaves.swap_remove(at);
        }
        let mut params = CertificateParams::new(vec![host.to_owned()]).context("the host's name")?;
        if host == "localhost" {
            for ip in ["127.0.0.1", "::1"] {
                params.subject_alt_names.push(SanType::IpAddress(ip.parse().expect("a constant address")));
            }
        }
        // A common name has 64 characters at most; browsers read the alternative names only.
        params.distinguished_name.push(DnType::CommonName, host.chars().take(64).collect::<String>());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, now, LEAF_LIFE)?;
        let cert = params.signed_by(&self.leaf_key, &self.issuer).context("the host's certificate")?;
        let leaf = Arc::new(CertifiedKey::new(vec![cert.der().clone(), self.root_der()?], self.signer()?));
        if leaves.len() == LEAVES_MAX {
            leaves.remove(0);
        }
        leaves.push((host.to_owned(), now + LEAF_LIFE - LEAF_RENEW, leaf.clone()));
        Ok(leaf)
    }

    fn root_der(&self) -> Result<CertificateDer<'static>> {
        rustls_pemfile::certs(&mut self.root_pem.as_bytes()).next().context("ca.pem holds no certificate")?.context("ca.pem")
    }

    fn signer(&self) -> Result<Arc<dyn rustls::sign::SigningKey>> {
        if let Some(signer) = self.leaf_signer.get() {
            return Ok(signer.clone());
        }
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let signer = provider().key_provider.load_private_key(der).context("the certificates' key")?;
        Ok(self.leaf_signer.get_or_init(|| signer).clone())
    }
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[derive(Debug)]
struct Resolver(Arc<Authority>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().map_or_else(|| "localhost".to_owned(), str::to_ascii_lowercase);
        if !(self.0.plays)(&host) {
            return None;
        }
        self.0.leaf(&host).inspect_err(|error| tracing::error!(%host, error = format!("{error:#}"), "no certificate")).ok()
    }
}

fn validity(params: &mut CertificateParams, now: jiff::Timestamp, life: Duration) -> Result<()> {
    // Clients whose clock is a little behind accept it too.
    let date = |t: jiff::Timestamp| {
        let date = jiff::tz::TimeZone::UTC.to_datetime(t);
        rcgen::date_time_ymd(i32::from(date.year()), u8::try_from(date.month()).expect("1 to 12"), u8::try_from(date.day()).expect("1 to 31"))
    };
    params.not_before = date(now - Duration::from_secs(24 * 3600));
    params.not_after = date(now.checked_add(life).context("the certificate's end")?);
    Ok(())
}

/// Writes a file that only its owner reads, whole or not at all, never through a link.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, 0o600)
}

pub fn write_public(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, 0o644)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().context("a file's path")?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let writing = || -> std::io::Result<()> {
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    writing().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(jiff::Timestamp);
    impl model::Clock for Fixed {
        fn now(&self) -> jiff::Timestamp {
            self.0
        }

        fn until(&self, _: jiff::Timestamp) -> model::clock::Until {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn the_root_is_made_once_and_its_leaves_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let now: jiff::Timestamp = "2026-11-27T06:00:00Z".parse().unwrap();
        let first = root_ensure(dir.path(), now).unwrap();
        let again = root_ensure(dir.path(), now).unwrap();
        assert_eq!(first.cert_pem, again.cert_pem);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
        let authority = Authority::new(again, Arc::new(Fixed(now)), Arc::new(|host| host != "bank.example")).unwrap();
        let leaf = authority.leaf("run.googleapis.com").unwrap();
        assert!(Arc::ptr_eq(&leaf, &authority.leaf("run.googleapis.com").unwrap()));
        authority.server_config().unwrap();
    }
}
