//! A case of the tables in this folder, as both of their readers have it: one plans, one builds.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What a case expects. `stage`: `plan` where reading the source is enough to know, else `build`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub stage: String,
    pub error: Option<String>,
    pub runtime: Option<String>,
    #[allow(dead_code, reason = "seen by the reader that plans")]
    pub manager: Option<String>,
    #[allow(dead_code, reason = "seen by the reader that plans")]
    pub framework: Option<String>,
    #[serde(default)]
    pub command_contains: Vec<String>,
    #[serde(default)]
    pub env_contains: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    pub base_image: String,
    /// Empty is not the same as none.
    pub function: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    pub expect: Expect,
}

/// All cases of a stage, each with its language.
pub fn cases(stage: &str) -> Vec<(&'static str, Case)> {
    #[derive(Deserialize)]
    struct Table {
        case: Vec<Case>,
    }
    let tables = [
        ("python", include_str!("python.toml")),
        ("nodejs", include_str!("nodejs.toml")),
        ("go", include_str!("go.toml")),
        ("java", include_str!("java.toml")),
    ];
    let all = tables.into_iter().flat_map(|(language, table)| {
        let table: Table = toml::from_str(table).unwrap_or_else(|e| panic!("the table of {language}: {e}"));
        table.case.into_iter().map(move |case| (language, case))
    });
    all.filter(|(_, case)| case.expect.stage == stage).collect()
}
