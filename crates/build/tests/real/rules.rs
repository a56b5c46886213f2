//! The cases of the table of rules that must be built to know.

use std::{collections::BTreeMap, time::Instant};

use build::{Error, Request};
use serde::Deserialize;

use crate::world::{World, build_with};

#[derive(Debug, Deserialize)]
struct Expect {
    stage: String,
    error: Option<String>,
    #[serde(default)]
    command_contains: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    base_image: String,
    #[serde(default)]
    function: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    expect: Expect,
}

#[derive(Deserialize)]
struct Table {
    case: Vec<Case>,
}

const TABLES: [(&str, &str); 4] = [
    ("python", include_str!("../rules/python.toml")),
    ("nodejs", include_str!("../rules/nodejs.toml")),
    ("go", include_str!("../rules/go.toml")),
    ("java", include_str!("../rules/java.toml")),
];

/// Builds each, one after the other. `TANEBI_RULES` chooses by a part of `LANGUAGE: NAME`.
pub async fn googles_rules_hold_in_builds(world: &World) {
    let chosen = std::env::var("TANEBI_RULES").unwrap_or_default();
    let (mut count, mut faults) = (0, Vec::new());
    for (language, table) in TABLES {
        for case in toml::from_str::<Table>(table).unwrap().case {
            let name = format!("{language}: {}", case.name);
            if case.expect.stage != "build" || !name.contains(&chosen) {
                continue;
            }
            count += 1;
            let began = Instant::now();
            if let Some(fault) = fault(world, &case).await {
                faults.push(format!("{name}: {fault}"));
            }
            println!("  {name} ({:.1} s)", began.elapsed().as_secs_f64());
        }
    }
    assert!(faults.is_empty(), "{} of {count}:\n{}", faults.len(), faults.join("\n"));
}

async fn fault(world: &World, case: &Case) -> Option<String> {
    let files: Vec<(&str, &str)> = case.files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let request = Request { base_image: case.base_image.clone(), env: case.env.clone(), ..world.request(&files, &case.function) };
    let (built, log) = build_with(&world.builder, request).await;
    match (built, &case.expect.error) {
        (Err(Error::User(text)), Some(part)) if text.contains(part) || log.iter().any(|line| line.contains(part)) => None,
        (Ok(built), None) => {
            let command = built.image.command.join(" ");
            let missing: Vec<&String> = case.expect.command_contains.iter().filter(|part| !command.contains(*part)).collect();
            (!missing.is_empty()).then(|| format!("the command is {command}, without {missing:?}"))
        }
        (Ok(built), Some(part)) => Some(format!("was built ({:?}), expected {part}\n{}", built.image.command, log.join("\n"))),
        (Err(error), expect) => Some(format!("{error}\n   expected {expect:?}\n{}", log.join("\n"))),
    }
}
