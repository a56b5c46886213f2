//! Which registries the host's own package managers are set to, and how a build is told.
//!
//! Read once, before privileges are dropped: the files may be root's. Only names of registries and the settings that lead to them
//! enter a build's sandbox; a function's never sees them. Python today: pip's and uv's settings, as environment for uv.

use std::path::{Path, PathBuf};

use serving::egress::AllowedHost;

/// What the host says.
#[derive(Clone, Debug, Default)]
pub struct Packages {
    /// Variable and value for a build's package managers.
    pub environment: Vec<(String, String)>,
    /// What a build may reach.
    pub hosts: Vec<AllowedHost>,
}

const PYPI: &str = "https://pypi.org/simple";
/// Where PyPI's own index leads for files.
const PYPI_FILES: &str = "files.pythonhosted.org";

/// Variables of uv's that may hold index URLs, passed on as they are.
const UV_VARIABLES: [&str; 5] = ["UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INSECURE_HOST"];

impl Packages {
    /// From `variables` (the environment) and pip's configuration files, the first of them that names an index.
    pub fn read(variables: impl Fn(&str) -> Option<String>, files: &[PathBuf]) -> Self {
        let mut packages = Self::default();
        let mut urls = Vec::new();
        for name in UV_VARIABLES {
            if let Some(value) = variables(name).filter(|v| !v.is_empty()) {
                urls.extend(value.split_whitespace().map(|v| v.split_once('=').map_or(v, |(name, url)| if name.contains("://") { v } else { url }).to_owned()));
                packages.environment.push((name.to_owned(), value));
            }
        }
        if urls.is_empty() {
            let pip =
                |variable: &str, key: &str| variables(variable).filter(|v| !v.is_empty()).or_else(|| files.iter().find_map(|file| pip_setting(file, key)));
            if let Some(index) = pip("PIP_INDEX_URL", "index-url") {
                packages.environment.push(("UV_DEFAULT_INDEX".into(), index.clone()));
                urls.push(index);
            }
            if let Some(more) = pip("PIP_EXTRA_INDEX_URL", "extra-index-url") {
                packages.environment.push(("UV_INDEX".into(), more.clone()));
                urls.extend(more.split_whitespace().map(str::to_owned));
            }
        }
        let names_default = packages.environment.iter().any(|(name, _)| name == "UV_DEFAULT_INDEX" || name == "UV_INDEX_URL");
        if !names_default {
            urls.push(PYPI.to_owned());
        }
        for url in &urls {
            let Ok(uri) = url.parse::<http::Uri>() else { continue };
            let Some(host) = uri.host() else { continue };
            let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
            if host == "pypi.org" {
                packages.hosts.push(AllowedHost { name: PYPI_FILES.into(), port: Some(443) });
            }
            packages.hosts.push(AllowedHost { name: host, port: Some(port) });
        }
        packages
    }
}

/// pip's configuration files in its own order, the user's first.
pub fn pip_files(home: Option<&Path>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(home) = home {
        files.push(home.join(".config/pip/pip.conf"));
        files.push(home.join(".pip/pip.conf"));
    }
    files.push("/etc/pip.conf".into());
    files
}

/// `key` of the section `[global]` of a pip.conf; a value's continuation lines are joined.
fn pip_setting(file: &Path, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut section = "";
    let mut value: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || trimmed.is_empty() {
            continue;
        }
        if let (Some(value), true) = (&mut value, line.starts_with([' ', '\t'])) {
            value.push(' ');
            value.push_str(trimmed);
            continue;
        }
        if value.is_some() {
            break;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|s| s.strip_suffix(']')) {
            section = name;
        } else if section == "global"
            && let Some((name, text)) = trimmed.split_once(['=', ':'])
            && name.trim().replace('_', "-") == key
        {
            value = Some(text.trim().to_owned());
        }
    }
    value.map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(packages: &Packages) -> Vec<String> {
        packages.hosts.iter().map(|h| format!("{}:{}", h.name, h.port.unwrap_or(0))).collect()
    }

    #[test]
    fn without_settings_it_is_pypi() {
        let packages = Packages::read(|_| None, &[]);
        assert_eq!(hosts(&packages), ["files.pythonhosted.org:443", "pypi.org:443"]);
        assert!(packages.environment.is_empty());
    }

    #[test]
    fn pips_settings_lead_uv() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pip.conf");
        std::fs::write(&file, "[install]\nindex-url = https://no.example\n[global]\n# x\nindex-url = http://user:pw@mirror.example:8080/simple\nextra-index-url =\n    https://a.example/simple\n    https://b.example\n").unwrap();
        let packages = Packages::read(|_| None, std::slice::from_ref(&file));
        assert_eq!(hosts(&packages), ["mirror.example:8080", "a.example:443", "b.example:443"]);
        assert_eq!(packages.environment[1], ("UV_INDEX".to_owned(), "https://a.example/simple https://b.example".to_owned()));
        let packages = Packages::read(|name| (name == "PIP_INDEX_URL").then(|| "https://c.example/x".to_owned()), &[file]);
        assert_eq!(hosts(&packages)[0], "c.example:443");
        let packages = Packages::read(|name| (name == "UV_INDEX").then(|| "own=https://d.example/x".to_owned()), &[]);
        assert_eq!(hosts(&packages), ["d.example:443", "files.pythonhosted.org:443", "pypi.org:443"]);
    }
}
