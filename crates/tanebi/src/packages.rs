//! Which registries the host's own package managers are set to, and how a build is told.
//!
//! Read once, before privileges are dropped: the files may be root's. Only names of registries and the settings that lead to them
//! enter a build's sandbox; a function's never sees them: of pip and uv, npm, Go and Maven.

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
const NPM: &str = "https://registry.npmjs.org/";
/// Where yarn's lock files lead.
const YARN: &str = "https://registry.yarnpkg.com/";
const GO_PROXY: &str = "https://proxy.golang.org";
const GO_SUMS: &str = "https://sum.golang.org";
const MAVEN: [&str; 2] = ["https://repo.maven.apache.org/maven2", "https://repo1.maven.org/maven2"];
/// Gradle's plugins, and itself where a source has its wrapper.
const GRADLE: [&str; 3] = ["https://plugins.gradle.org/", "https://services.gradle.org/", "https://downloads.gradle.org/"];

/// Variables of uv's that may hold index URLs, passed on as they are.
const UV_VARIABLES: [&str; 5] = ["UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INSECURE_HOST"];
/// Variables of Go's that say where modules come from.
const GO_VARIABLES: [&str; 6] = ["GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GONOPROXY", "GOINSECURE"];

impl Packages {
    /// From `variables` (the environment) and the configuration files below `home` and of the host.
    pub fn read(variables: impl Fn(&str) -> Option<String>, home: Option<&Path>) -> Self {
        let variables = |name: &str| variables(name).filter(|value| !value.is_empty());
        let mut packages = Self::default();
        packages.python(&variables, &pip_files(home));
        packages.npm(&variables, home);
        packages.go(&variables, home);
        packages.maven(home);
        packages
    }

    fn python(&mut self, variables: &impl Fn(&str) -> Option<String>, files: &[PathBuf]) {
        let mut urls = Vec::new();
        for name in UV_VARIABLES {
            if let Some(value) = variables(name) {
                urls.extend(value.split_whitespace().map(|v| v.split_once('=').map_or(v, |(name, url)| if name.contains("://") { v } else { url }).to_owned()));
                self.environment.push((name.to_owned(), value));
            }
        }
        if urls.is_empty() {
            let pip = |variable: &str, key: &str| variables(variable).or_else(|| files.iter().find_map(|file| pip_setting(file, key)));
            if let Some(index) = pip("PIP_INDEX_URL", "index-url") {
                self.environment.push(("UV_DEFAULT_INDEX".into(), index.clone()));
                urls.push(index);
            }
            if let Some(more) = pip("PIP_EXTRA_INDEX_URL", "extra-index-url") {
                self.environment.push(("UV_INDEX".into(), more.clone()));
                urls.extend(more.split_whitespace().map(str::to_owned));
            }
        }
        let names_default = self.environment.iter().any(|(name, _)| name == "UV_DEFAULT_INDEX" || name == "UV_INDEX_URL");
        if !names_default {
            urls.push(PYPI.to_owned());
        }
        if let Some(mirror) = variables("UV_PYTHON_INSTALL_MIRROR") {
            self.environment.push(("UV_PYTHON_INSTALL_MIRROR".into(), mirror.clone()));
            urls.push(mirror);
        }
        for url in &urls {
            if self.host_add(url).as_deref() == Some("pypi.org") {
                self.hosts.push(AllowedHost { name: PYPI_FILES.into(), port: Some(443) });
            }
        }
    }

    fn npm(&mut self, variables: &impl Fn(&str) -> Option<String>, home: Option<&Path>) {
        let file = home.map(|home| home.join(".npmrc")).and_then(|file| line_setting(&file, "registry"));
        match variables("npm_config_registry").or_else(|| variables("NPM_CONFIG_REGISTRY")).or(file) {
            Some(registry) => {
                self.host_add(&registry);
                self.environment.push(("npm_config_registry".into(), registry));
            }
            None => {
                self.host_add(NPM);
                self.host_add(YARN);
            }
        }
    }

    fn go(&mut self, variables: &impl Fn(&str) -> Option<String>, home: Option<&Path>) {
        let file = home.map(|home| home.join(".config/go/env"));
        let mut set = Vec::new();
        for name in GO_VARIABLES {
            if let Some(value) = variables(name).or_else(|| line_setting(file.as_deref()?, name)) {
                set.push((name.to_owned(), value));
            }
        }
        let value = |name: &str| set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        match value("GOPROXY") {
            Some(proxies) => proxies.split([',', '|']).filter(|proxy| proxy.contains("://")).for_each(|proxy| drop(self.host_add(proxy))),
            None => drop(self.host_add(GO_PROXY)),
        }
        match value("GOSUMDB") {
            // `NAME URL`, or a name that is a host.
            Some(sums) => {
                if let Some(url) = sums.split_whitespace().find(|word| word.contains("://")) {
                    self.host_add(url);
                } else if sums != "off" {
                    self.host_add(&format!("https://{}", sums.split('+').next().unwrap_or_default()));
                }
            }
            None => drop(self.host_add(GO_SUMS)),
        }
        self.environment.extend(set);
    }

    fn maven(&mut self, home: Option<&Path>) {
        let file = home.map(|home| home.join(".m2/settings.xml"));
        match file.and_then(|file| maven_mirror(&file)) {
            Some(mirror) => {
                self.host_add(&mirror);
                self.environment.push(("TANEBI_MAVEN_REPOSITORY".into(), mirror));
            }
            None => MAVEN.iter().chain(&GRADLE).for_each(|url| drop(self.host_add(url))),
        }
    }

    /// The host of a URL, from now on reachable.
    fn host_add(&mut self, url: &str) -> Option<String> {
        let uri = url.parse::<http::Uri>().ok()?;
        let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        self.hosts.push(AllowedHost { name: host.clone(), port: Some(port) });
        Some(host)
    }
}

/// The value of a line `name = value`, as .npmrc and Go's file have them.
fn line_setting(file: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| {
        let (known, value) = line.split_once('=')?;
        (known.trim() == name).then(|| value.trim().to_owned())
    });
    value.filter(|value| !value.is_empty())
}

/// Where a settings.xml of Maven's leads what would be asked of Central.
fn maven_mirror(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let document = roxmltree::Document::parse(&text).ok()?;
    let text_of = |mirror: roxmltree::Node<'_, '_>, name: &str| {
        mirror.children().find(|child| child.tag_name().name() == name).and_then(|child| child.text()).map(|text| text.trim().to_owned())
    };
    document.descendants().filter(|node| node.tag_name().name() == "mirror").find_map(|mirror| {
        let of = text_of(mirror, "mirrorOf")?;
        let is_of_central = of.split(',').any(|of| matches!(of.trim(), "*" | "central" | "external:*"));
        is_of_central.then(|| text_of(mirror, "url"))?
    })
}

/// pip's configuration files in its own order, the user's first.
fn pip_files(home: Option<&Path>) -> Vec<PathBuf> {
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
    fn without_settings_it_is_where_everybody_publishes() {
        let packages = Packages::read(|_| None, None);
        assert_eq!(
            hosts(&packages),
            [
                "pypi.org:443",
                "files.pythonhosted.org:443",
                "registry.npmjs.org:443",
                "registry.yarnpkg.com:443",
                "proxy.golang.org:443",
                "sum.golang.org:443",
                "repo.maven.apache.org:443",
                "repo1.maven.org:443",
                "plugins.gradle.org:443",
                "services.gradle.org:443",
                "downloads.gradle.org:443",
            ]
        );
        assert!(packages.environment.is_empty());
    }

    #[test]
    fn pips_settings_lead_uv() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".pip")).unwrap();
        let text = "[install]\nindex-url = https://no.example\n[global]\n# x\nindex-url = http://user:pw@mirror.example:8080/simple\nextra-index-url =\n    https://a.example/simple\n    https://b.example\n";
        std::fs::write(home.path().join(".pip/pip.conf"), text).unwrap();
        let packages = Packages::read(|_| None, Some(home.path()));
        assert_eq!(hosts(&packages)[..3], ["mirror.example:8080", "a.example:443", "b.example:443"]);
        assert_eq!(packages.environment[1], ("UV_INDEX".to_owned(), "https://a.example/simple https://b.example".to_owned()));
        let packages = Packages::read(|name| (name == "PIP_INDEX_URL").then(|| "https://c.example/x".to_owned()), Some(home.path()));
        assert_eq!(hosts(&packages)[0], "c.example:443");
        let packages = Packages::read(|name| (name == "UV_INDEX").then(|| "own=https://d.example/x".to_owned()), None);
        assert_eq!(hosts(&packages)[..3], ["d.example:443", "pypi.org:443", "files.pythonhosted.org:443"]);
    }

    #[test]
    fn each_manager_is_led_by_its_own_file() {
        let home = tempfile::tempdir().unwrap();
        for (path, text) in [
            (".npmrc", "# x\nfund=false\nregistry = https://npm.example/x/\n"),
            (".config/go/env", "GOPROXY=https://go.example,direct\nGOSUMDB=off\nGOPRIVATE=a.example\n"),
            (
                ".m2/settings.xml",
                "<settings xmlns='http://maven.apache.org/SETTINGS/1.0.0'><mirrors><mirror><mirrorOf>other</mirrorOf><url>https://no.example</url></mirror>\
                 <mirror><mirrorOf>*,!x</mirrorOf><url> https://maven.example/m2 </url></mirror></mirrors></settings>",
            ),
        ] {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let packages = Packages::read(|_| None, Some(home.path()));
        assert_eq!(hosts(&packages)[2..], ["npm.example:443", "go.example:443", "maven.example:443"]);
        let names: Vec<&str> = packages.environment.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["npm_config_registry", "GOPROXY", "GOSUMDB", "GOPRIVATE", "TANEBI_MAVEN_REPOSITORY"]);
        let packages = Packages::read(|name| (name == "GOPROXY").then(|| "https://env.example".to_owned()), Some(home.path()));
        assert!(hosts(&packages).contains(&"env.example:443".to_owned()));
    }
}
