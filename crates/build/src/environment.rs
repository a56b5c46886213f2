//! What build steps see of the outside: variables of the host's package managers, certificates, the resolver.
//!
//! Indexes and proxies pass; passwords do not, as any package's build script could read them. Files of the host that a
//! variable names are not there inside, so such variables do not pass either.

use sandbox::{Limits, Mount, Network, Spec};

use crate::catalogue::Interpreter;

/// The bundle's place inside: where Debian has it, and what the variables below name.
const CA_PATH: &str = "/etc/ssl/certs/ca-certificates.crt";
/// All DNS is led to the sandbox's own listener whatever the address is.
const RESOLV_CONF: &str = "nameserver 169.254.169.254\noptions timeout:5 attempts:2\n";
/// For programs of the host only: never the environment that is being filled.
const PATH: &str = "/uv:/usr/local/bin:/usr/bin:/bin";

/// Names that pass when their value holds no password.
const PASSED: [&str; 28] = [
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_INDEX_STRATEGY",
    "UV_INSECURE_HOST",
    "UV_HTTP_TIMEOUT",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "npm_config_registry",
    "GOPROXY",
    "GOSUMDB",
    "GONOSUMDB",
    "GOPRIVATE",
    "GONOPROXY",
    "GOINSECURE",
    "TANEBI_MAVEN_REPOSITORY",
    "UV_PYTHON_INSTALL_MIRROR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// What of `Config::package_environment` reaches build steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackageEnvironment {
    pub(crate) variables: Vec<(String, String)>,
    /// One line for each that does not pass.
    pub(crate) notes: Vec<String>,
}

impl PackageEnvironment {
    pub(crate) fn new(given: &[(String, String)]) -> Self {
        let mut made = Self::default();
        for (name, value) in given {
            if !PASSED.contains(&name.as_str()) {
                made.notes.push(format!("{name} of this host is not used in builds: it is neither an index nor a proxy."));
            } else if value.split(|c: char| c.is_whitespace() || matches!(c, ',' | '|')).any(has_password) {
                made.notes.push(format!("{name} of this host is not used in builds: it holds a password, which a package could read."));
            } else {
                made.variables.push((name.clone(), value.clone()));
            }
        }
        // uv does not read pip's variables.
        for (pip, uv, older) in [("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"), ("PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")] {
            let has = |name: &str| made.variables.iter().any(|(known, _)| known == name);
            let value = made.variables.iter().find(|(known, _)| known == pip).map(|(_, value)| value.clone());
            if let Some(value) = value.filter(|_| !has(uv) && !has(older)) {
                made.variables.push((uv.to_owned(), value));
            }
        }
        made.variables.sort();
        made
    }
}

/// `https://user:password@host/`, also behind `name=`, without a scheme, or with a token in its query.
fn has_password(word: &str) -> bool {
    let rest = word.split_once("://").map_or(word, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@') || rest.split_once('?').is_some_and(|(_, query)| !query.is_empty())
}

/// Sets a variable of a sandbox: the last one to set it wins, and it is there once.
pub(crate) fn set(env: &mut Vec<(String, String)>, name: &str, value: impl Into<String>) {
    env.retain(|(known, _)| known != name);
    env.push((name.to_owned(), value.into()));
}

/// What every step of a build has in common.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) ca_bundle: Vec<u8>,
    /// The same for Java.
    pub(crate) java_trust_store: Vec<u8>,
    pub(crate) package: PackageEnvironment,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_millis: u32,
}

/// Whether a step may talk to registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Registries,
    Nothing,
}

impl Base {
    /// A sandbox with an interpreter and nothing else; callers add mounts, files and variables.
    pub(crate) fn spec(&self, id: String, interpreter: &Interpreter, reach: Reach, command: Vec<String>) -> Spec {
        let mut env: Vec<(String, String)> = [("PATH", PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8"), ("NO_COLOR", "1"), ("PYTHONUNBUFFERED", "1")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut files = Vec::new();
        if reach == Reach::Registries {
            files.push(("/etc/resolv.conf".into(), RESOLV_CONF.into()));
            env.extend(self.package.variables.iter().cloned());
            if !self.ca_bundle.is_empty() {
                files.push((CA_PATH.into(), self.ca_bundle.clone()));
                for name in ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"] {
                    env.push((name.to_owned(), CA_PATH.to_owned()));
                }
            }
        }
        Spec {
            id,
            mounts: interpreter.runtime_paths.iter().map(|path| shown(path, path, Access::Read)).collect(),
            files,
            command,
            env,
            working_dir: "/".into(),
            limits: Limits {
                memory_bytes: self.memory_bytes,
                cpu_millis: self.cpu_millis,
                pids: 512,
                files_open: 8192,
                tmp_bytes: (self.memory_bytes / 2).max(64 << 10),
            },
            network: Network { redirected: reach == Reach::Registries, metadata: false },
            volumes: Vec::new(),
            changing: Vec::new(),
            template: false,
        }
    }
}

/// What a sandbox may do with a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

pub(crate) fn shown(source: &std::path::Path, target: impl AsRef<std::path::Path>, access: Access) -> Mount {
    Mount { source: source.to_owned(), target: target.as_ref().to_owned(), writable: access == Access::Write }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_and_proxies_pass_and_passwords_do_not() {
        fn check(given: &[(&str, &str)], expect: &[(&str, &str)], notes: usize) {
            let given: Vec<_> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let made = PackageEnvironment::new(&given);
            let got: Vec<_> = made.variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!((got.as_slice(), made.notes.len()), (expect, notes), "{given:?}");
            assert!(made.notes.iter().all(|note| !note.contains("secret")));
        }
        check(&[], &[], 0);
        check(&[("PIP_INDEX_URL", "https://mirror/simple")], &[("PIP_INDEX_URL", "https://mirror/simple"), ("UV_DEFAULT_INDEX", "https://mirror/simple")], 0);
        check(&[("PIP_INDEX_URL", "https://a/"), ("UV_INDEX_URL", "https://b/")], &[("PIP_INDEX_URL", "https://a/"), ("UV_INDEX_URL", "https://b/")], 0);
        check(&[("HTTPS_PROXY", "http://proxy:3128")], &[("HTTPS_PROXY", "http://proxy:3128")], 0);
        check(&[("HTTPS_PROXY", "http://me:secret@proxy:3128")], &[], 1);
        check(&[("UV_INDEX", "ok=https://x/ private=https://secret@y/")], &[], 1);
        check(&[("PIP_CERT", "/etc/secret"), ("PIP_FIND_LINKS", "/opt/secret")], &[], 2);
        check(&[("PIP_INDEX_URL", "https://host/a@b/")], &[("PIP_INDEX_URL", "https://host/a@b/"), ("UV_DEFAULT_INDEX", "https://host/a@b/")], 0);
    }
}
