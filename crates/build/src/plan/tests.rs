//! The table of rules: small sources, and what becomes of them.

use std::collections::BTreeMap;

use super::*;
use crate::catalogue::tests::host;

#[path = "../../tests/rules/case.rs"]
mod case;

use case::Case;

/// What a source becomes on a host with Google's usual versions.
pub(crate) fn plan_of(files: &[(&str, &str)], base_image: &str, target: &str, env: &[(&str, &str)]) -> Result<Plan, Error> {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    planned(&files, base_image, target, &env)
}

fn planned(files: &BTreeMap<String, String>, base_image: &str, target: &str, env: &BTreeMap<String, String>) -> Result<Plan, Error> {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let variables = Variables::parse(target, env)?;
    plan(&TreeReader::open(dir.path()).unwrap(), base_image, &variables, &host())
}

impl Recipe {
    /// As the table calls it.
    fn manager(&self, version: Version, env: &BTreeMap<String, String>) -> &'static str {
        match self {
            // Which of the two makes no difference here: it is uv.
            Recipe::Python(dependencies)
                if dependencies.manager(version) == "pip" && env.get("GOOGLE_PYTHON_PACKAGE_MANAGER").is_some_and(|name| name.eq_ignore_ascii_case("uv")) =>
            {
                "uv"
            }
            Recipe::Python(dependencies) => dependencies.manager(version),
            Recipe::Nodejs(recipe) if recipe.has_package => recipe.manager.name(),
            Recipe::Nodejs(_) => "none",
            Recipe::Go(_) => "go",
            Recipe::Java(recipe) => match recipe.tool {
                java::Tool::Maven { .. } => "maven",
                java::Tool::Gradle { .. } => "gradle",
                java::Tool::Jar(_) => "jar",
                java::Tool::Classes(_) => "none",
            },
        }
    }

    fn framework(&self) -> &'static str {
        let added = match self {
            Recipe::Python(dependencies) => dependencies.added.is_some(),
            Recipe::Nodejs(recipe) => recipe.framework == Some(nodejs::Framework::Added),
            Recipe::Go(recipe) => matches!(recipe.kind, go::Kind::Function { is_own: false, .. }),
            Recipe::Java(_) => false,
        };
        if added { "added" } else { "own" }
    }
}

fn fault(case: &Case) -> Option<String> {
    let mut env = case.env.clone();
    if case.function.as_deref() == Some("") {
        env.insert("GOOGLE_FUNCTION_TARGET".to_owned(), String::new());
    }
    let got = planned(&case.files, &case.base_image, case.function.as_deref().unwrap_or_default(), &env);
    let expect = &case.expect;
    let plan = match (got, &expect.error) {
        (Err(error), Some(part)) => return (!error.to_string().contains(part)).then(|| format!("said {error}\n   expected {part}")),
        (Err(error), None) => return Some(format!("was refused: {error}")),
        (Ok(plan), Some(part)) => return Some(format!("was taken ({:?}), expected {part}", plan.command)),
        (Ok(plan), None) => plan,
    };
    let mut faults = Vec::new();
    let mut same = |what: &str, got: &str, expect: &Option<String>| {
        if expect.as_deref().is_some_and(|expect| expect != got) {
            faults.push(format!("{what} is {got}, expected {expect:?}"));
        }
    };
    same("runtime", &plan.base.id, &expect.runtime);
    same("manager", plan.recipe.manager(plan.interpreter.version, &case.env), &expect.manager);
    if !matches!(plan.recipe, Recipe::Java(_)) {
        // Java's is known when its jars are there.
        same("framework", plan.recipe.framework(), &expect.framework);
    }
    // What only the build knows is not asked here.
    let command = plan.command.join(" ");
    if !plan.command.is_empty() {
        faults.extend(expect.command_contains.iter().filter(|part| !command.contains(*part)).map(|part| format!("command is {command}, expected {part}")));
    }
    for (name, value) in &expect.env_contains {
        if !plan.env.iter().any(|(known, got)| known == name && got == value) {
            faults.push(format!("{name}={value} is not in {:?}", plan.env));
        }
    }
    (!faults.is_empty()).then(|| faults.join("; "))
}

#[test]
fn googles_rules_hold() {
    let (mut count, mut faults) = (0, Vec::new());
    for (language, case) in case::cases("plan") {
        count += 1;
        faults.extend(fault(&case).map(|fault| format!("{language}: {}: {fault}", case.name)));
    }
    assert!(count > 150, "{count} cases");
    assert!(faults.is_empty(), "{} of {count}:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_version_is_asked_for_in_few_ways() {
    fn check(text: &str, expect: Option<(u32, Option<u32>, Option<u32>)>) {
        let got = Wanted::parse("X", text, Language::Python).ok().map(|wanted| (wanted.major, wanted.minor, wanted.patch));
        assert_eq!(got, expect, "{text}");
    }
    check("3", Some((3, None, None)));
    check("3.12.x", Some((3, Some(12), None)));
    check("3.*", Some((3, None, None)));
    check(" 3.12.1\n", Some((3, Some(12), Some(1))));
    for text in ["", "x", "3.x.1", "3.12.1.x", "3.12.1.1", "^3", ">=3.12", "3.12rc1"] {
        check(text, None);
    }
}
