//! The cases of the table of rules that must be built to know.

use std::time::Instant;

use build::{Error, Request};

use crate::world::{World, build_with};

#[path = "../rules/case.rs"]
mod case;

use case::Case;

/// Builds each, one after the other. `TANEBI_RULES` chooses by a part of `LANGUAGE: NAME`.
pub async fn googles_rules_hold_in_builds(world: &World) {
    let chosen = std::env::var("TANEBI_RULES").unwrap_or_default();
    let (mut count, mut faults) = (0, Vec::new());
    for (language, case) in case::cases("build") {
        let name = format!("{language}: {}", case.name);
        if !name.contains(&chosen) {
            continue;
        }
        count += 1;
        let began = Instant::now();
        if let Some(fault) = fault(world, &case).await {
            faults.push(format!("{name}: {fault}"));
        }
        println!("  {name} ({:.1} s)", began.elapsed().as_secs_f64());
    }
    assert!(faults.is_empty(), "{} of {count}:\n{}", faults.len(), faults.join("\n"));
}

async fn fault(world: &World, case: &Case) -> Option<String> {
    let files: Vec<(&str, &str)> = case.files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let request = Request { base_image: case.base_image.clone(), env: case.env.clone(), ..world.request(&files, case.function.as_deref().unwrap_or_default()) };
    let (built, log) = build_with(&world.builder, request).await;
    match (built, &case.expect.error) {
        (Err(Error::User(text)), Some(part)) if text.contains(part) || log.iter().any(|line| line.contains(part)) => None,
        (Ok(built), None) => {
            let (image, expect) = (&built.image, &case.expect);
            let command = image.command.join(" ");
            let mut faults: Vec<String> = expect
                .command_contains
                .iter()
                .filter(|part| !command.contains(*part))
                .map(|part| format!("the command is {command}, without {part}"))
                .collect();
            faults.extend(expect.runtime.iter().filter(|runtime| **runtime != image.runtime).map(|runtime| format!("it is {}, not {runtime}", image.runtime)));
            let is_set = |name: &String, value: &String| image.env.iter().any(|(known, got)| known == name && got == value);
            faults.extend(expect.env_contains.iter().filter(|(name, value)| !is_set(name, value)).map(|(name, value)| format!("{name}={value} is not set")));
            (!faults.is_empty()).then(|| faults.join("; "))
        }
        (Ok(built), Some(part)) => Some(format!("was built ({:?}), expected {part}\n{}", built.image.command, log.join("\n"))),
        (Err(error), expect) => Some(format!("{error}\n   expected {expect:?}\n{}", log.join("\n"))),
    }
}
