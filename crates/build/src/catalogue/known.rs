//! The catalogue files: what exists at Google, and with what we build. Compiled in.

use std::sync::LazyLock;

use serde::Deserialize;

use super::Version;
use crate::Language;

pub(crate) static KNOWN: LazyLock<Known> = LazyLock::new(Known::read);

/// All of them.
#[derive(Debug)]
pub(crate) struct Known {
    languages: Vec<KnownLanguage>,
    pub(crate) python: PythonTools,
    pub(crate) nodejs: NodejsTools,
    pub(crate) go: GoTools,
    pub(crate) java: JavaTools,
}

/// One language.
#[derive(Debug)]
pub(crate) struct KnownLanguage {
    pub(crate) language: Language,
    pub(crate) name: String,
    pub(crate) prefix: String,
    /// Files that make a source one of it; `*.py` is an ending.
    pub(crate) detect: Vec<String>,
    /// Why nothing of it can be built here.
    pub(crate) unavailable: Option<String>,
    /// Oldest first.
    pub(crate) runtimes: Vec<KnownRuntime>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownRuntime {
    /// `python312`.
    pub(crate) id: String,
    /// `3.12`; for languages whose runtimes are named by the first number only, that.
    pub(crate) version: String,
    /// `google-22`.
    pub(crate) stack: String,
    #[serde(default)]
    pub(crate) stage: Stage,
    /// The days on which Google deprecates and decommissions it, as `2030-10-10`.
    pub(crate) deprecated: Option<String>,
    pub(crate) decommissioned: Option<String>,
}

/// How finished Google calls it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Stage {
    #[default]
    Ga,
    Preview,
}

impl KnownRuntime {
    /// Whether an interpreter of this version is this runtime.
    pub(crate) fn is(&self, version: Version) -> bool {
        let own = format!("{}.{}", version.major, version.minor);
        self.version == own || self.version == version.major.to_string()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<T> {
    name: String,
    prefix: String,
    detect: Vec<String>,
    unavailable: Option<String>,
    #[serde(rename = "runtime")]
    runtimes: Vec<KnownRuntime>,
    tools: Option<T>,
    /// For whoever adds the language.
    #[serde(rename = "rules")]
    _rules: Option<toml::Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PythonTools {
    pub(crate) uv: KnownUv,
    pub(crate) framework: Pins,
    pub(crate) webserver: Pins,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownUv {
    pub(crate) version: String,
    pub(crate) hashes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    pub(crate) package: String,
    pub(crate) pins: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodejsTools {
    pub(crate) framework: Package,
    /// Package manager and version.
    pub(crate) managers: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Package {
    pub(crate) package: String,
    pub(crate) version: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GoTools {
    pub(crate) framework: Package,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JavaTools {
    pub(crate) invoker: Invoker,
    pub(crate) maven: Maven,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invoker {
    /// `GROUP:ARTIFACT`.
    pub(crate) artifact: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Maven {
    pub(crate) version: String,
    pub(crate) sha512: String,
}

/// A file without tools.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Known {
    fn read() -> Self {
        macro_rules! file {
            ($folder:literal) => {
                include_str!(concat!("../../../../runtimes/", $folder, "/catalogue.toml"))
            };
        }
        let mut languages = Vec::new();
        let python = language(&mut languages, Language::Python, file!("python")).expect("it has tools");
        let nodejs = language(&mut languages, Language::Nodejs, file!("nodejs")).expect("it has tools");
        let go = language(&mut languages, Language::Go, file!("go")).expect("it has tools");
        let java = language(&mut languages, Language::Java, file!("java")).expect("it has tools");
        for (which, text) in [(Language::Ruby, file!("ruby")), (Language::Php, file!("php")), (Language::Dotnet, file!("dotnet")), (Language::Os, file!("os"))]
        {
            language::<Nothing>(&mut languages, which, text);
        }
        Self { languages, python, nodejs, go, java }
    }

    pub(crate) fn of(&self, language: Language) -> &KnownLanguage {
        self.languages.iter().find(|known| known.language == language).expect("each has a file")
    }

    pub(crate) fn languages(&self) -> &[KnownLanguage] {
        &self.languages
    }

    /// The runtime of an id, and its language.
    pub(crate) fn runtime(&self, id: &str) -> Option<(&KnownLanguage, &KnownRuntime)> {
        self.languages.iter().find_map(|language| Some((language, language.runtimes.iter().find(|runtime| runtime.id == id)?)))
    }
}

fn language<T: for<'de> Deserialize<'de>>(languages: &mut Vec<KnownLanguage>, language: Language, text: &str) -> Option<T> {
    let file: File<T> = toml::from_str(text).unwrap_or_else(|e| panic!("the catalogue of {language:?} is compiled in, and a test reads it: {e}"));
    let File { name, prefix, detect, unavailable, runtimes, tools, .. } = file;
    languages.push(KnownLanguage { language, name, prefix, detect, unavailable, runtimes });
    tools
}
