//! What the rules of Python make of a source.

use super::*;
use crate::plan::tests::plan_of as plan_any;

fn plan_of(files: &[(&str, &str)], base_image: &str, target: &str, env: &[(&str, &str)]) -> Result<Plan, Error> {
    plan_any(files, base_image, target, env)
}

fn dependencies_of(plan: &Plan) -> &Dependencies {
    match &plan.recipe {
        Recipe::Python(dependencies) => dependencies,
        other => panic!("{other:?}"),
    }
}

const MAIN: (&str, &str) = ("main.py", "");
const FRAMEWORK: (&str, &str) = ("requirements.txt", "functions-framework==3.*\n");

#[test]
fn the_articles_function_is_planned() {
    let plan = plan_of(&[MAIN, FRAMEWORK], "python312", "hello_http", &[]).unwrap();
    assert_eq!(plan.base.id, "python312");
    assert_eq!(plan.interpreter.version.to_string(), "3.12.1");
    assert_eq!(plan.command, ["/layers/python/bin/python", "/layers/python/bin/functions-framework"]);
    assert_eq!(dependencies_of(&plan).kind, Kind::Requirements);
    assert_eq!(dependencies_of(&plan).added, None);
    assert!(!dependencies_of(&plan).is_local);
    let env: Vec<String> = plan.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        env,
        [
            "FUNCTION_TARGET=hello_http",
            "HOME=/tmp",
            "LANG=C.UTF-8",
            "PATH=/layers/python/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONUNBUFFERED=TRUE",
            "VIRTUAL_ENV=/layers/python",
        ]
    );
}

#[test]
fn the_framework_is_added_where_google_adds_it() {
    fn check(files: &[(&str, &str)], env: &[(&str, &str)], expect: Result<&[&str], &str>) {
        let mut files = files.to_vec();
        files.push(MAIN);
        match (plan_of(&files, "python312", "f", env), expect) {
            (Ok(plan), Ok(pins)) => assert_eq!(dependencies_of(&plan).added.clone().map_or(vec![], |added| added.pins), pins, "{files:?}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, _) => panic!("{files:?}: {got:?}"),
        }
    }
    let all: &[&str] = &["functions-framework==3.10.2", "Flask==3.0.3", "gunicorn==23.0.0", "cloudevents==1.11.0"];
    check(&[], &[], Ok(all));
    check(&[("requirements.txt", "six\n")], &[], Ok(all));
    check(&[("requirements.txt", "flask==3.1.0\n")], &[], Ok(&[all[0], all[2], all[3]]));
    check(&[FRAMEWORK], &[], Ok(&[]));
    check(&[FRAMEWORK], &[("GOOGLE_SKIP_FRAMEWORK_INJECTION", "true")], Ok(&[]));
    check(&[], &[("GOOGLE_SKIP_FRAMEWORK_INJECTION", "true")], Err("must be set as a dependency when skipping"));
    check(&[("requirements.txt", "six"), ("wheels/x", "")], &[("GOOGLE_VENDOR_PIP_DEPENDENCIES", "wheels")], Err("Vendored dependencies detected"));
    check(&[FRAMEWORK], &[("GOOGLE_VENDOR_PIP_DEPENDENCIES", "../x")], Err("is no folder of the source"));
    check(&[], &[("GOOGLE_VENDOR_PIP_DEPENDENCIES", "wheels")], Err("needs a folder"));
    let project = "[project]\nname = 'p'\nversion = '1'\ndependencies = ['functions-framework']\n";
    check(&[("pyproject.toml", project)], &[], Ok(&[]));
    check(&[("pyproject.toml", "[project]\nname = 'p'\nversion = '1'\n")], &[], Err("have not included the Functions Framework"));
    check(&[("pyproject.toml", "[project\n")], &[], Err("Could not parse pyproject.toml"));
    check(&[("pyproject.toml", "[tool.poetry]\n")], &[], Err("have not included the Functions Framework"));
    check(&[("pyproject.toml", "[tool.poetry.dependencies]\nFunctions_Framework = '3.*'\n")], &[], Ok(&[]));
    check(&[("pyproject.toml", project), ("poetry.lock", "")], &[], Ok(&[]));
    check(&[("pyproject.toml", "[tool.poetry]\n"), ("requirements.txt", "six")], &[], Ok(all));
}

#[test]
fn what_is_missing_is_said_in_googles_words() {
    fn check(files: &[(&str, &str)], base: &str, target: &str, env: &[(&str, &str)], expect: &str) {
        let error = plan_of(files, base, target, env).unwrap_err().to_string();
        assert!(error.contains(expect), "{files:?}: {error}");
    }
    check(&[FRAMEWORK], "python312", "f", &[], "missing main.py and GOOGLE_FUNCTION_SOURCE not specified");
    check(&[MAIN], "python312", "f", &[("GOOGLE_FUNCTION_SOURCE", "x.py")], "GOOGLE_FUNCTION_SOURCE specified file \"x.py\" but it does not exist");
    check(&[MAIN], "python312", "f", &[("GOOGLE_FUNCTION_SOURCE", "/etc/passwd")], "does not exist");
    check(&[MAIN], "python314", "f", &[], "needs Python 3.14, which is not installed");
    check(&[MAIN], "python399", "f", &[], "Unknown base image");
    check(&[("Dockerfile", ""), MAIN], "", "", &[], "has a Dockerfile");
    check(&[("README", "")], "", "", &[], "No buildpack groups passed detection");
    check(&[("x.py", "")], "python312", "", &[], "provide a main.py or app.py file");
    check(&[("Procfile", "worker: x")], "python312", "", &[], "web process not found in Procfile, found processes: [worker]");
    check(&[MAIN], "python312", "f", &[("GOOGLE_RUNTIME", "nodejs22")], "GOOGLE_RUNTIME=\"nodejs22\"");
    check(&[MAIN], "python312", "f", &[("GOOGLE_RUNTIME", "python311")], "is not the base image");
    check(&[MAIN], "python312", "f", &[("GOOGLE_PYTHON_VERSION", "3.11")], "another Python than the base image");
    check(&[MAIN], "", "f", &[("GOOGLE_PYTHON_VERSION", "^3.11")], "invalid Python version specified");
    check(&[MAIN], "", "f", &[("GOOGLE_PYTHON_VERSION", "3.14")], "GOOGLE_PYTHON_VERSION asks for Python 3.14, which is not installed");
    check(&[MAIN, (".python-version", "\n# nothing\n")], "", "f", &[], ".python-version exists but does not specify a version");
    check(&[MAIN], "python312", "f", &[("GOOGLE_ENTRYPOINT", "x")], "no meaning for a function");
}

#[test]
fn without_a_base_image_the_source_chooses() {
    fn check(files: &[(&str, &str)], env: &[(&str, &str)], expect: &str) {
        let plan = plan_of(files, "", "f", env).unwrap();
        assert_eq!(format!("{} {}", plan.base.id, plan.interpreter.version), expect);
    }
    check(&[MAIN], &[], "python313 3.13.0");
    check(&[MAIN, (".python-version", "3.11\n")], &[], "python311 3.11.7");
    check(&[MAIN, (".python-version", "# pinned\n3.12.1\n")], &[], "python312 3.12.1");
    check(&[MAIN, (".python-version", "3.11")], &[("GOOGLE_PYTHON_VERSION", "3.12.x")], "python312 3.12.1");
    check(&[MAIN], &[("GOOGLE_RUNTIME_VERSION", "3")], "python313 3.13.0");
    check(&[MAIN], &[("GOOGLE_RUNTIME", "python312")], "python312 3.12.1");
    check(&[MAIN], &[("GOOGLE_RUNTIME", "python312"), ("GOOGLE_RUNTIME_VERSION", "3.12.1")], "python312 3.12.1");
    check(&[MAIN, ("Dockerfile", "")], &[], "python313 3.13.0");
}

#[test]
fn an_application_starts_as_google_starts_it() {
    fn check(base: &str, files: &[(&str, &str)], env: &[(&str, &str)], expect: &str, adds_gunicorn: bool) {
        let plan = plan_of(files, base, "", env).unwrap();
        assert_eq!(plan.command[1..], ["-c", expect], "{files:?}");
        assert_eq!(dependencies_of(&plan).added.is_some(), adds_gunicorn, "{files:?}");
    }
    let requirements = |text| ("requirements.txt", text);
    check("python312", &[MAIN], &[], "gunicorn -b :$PORT main:app", true);
    check("python312", &[("app.py", "")], &[], "gunicorn -b :$PORT app:app", true);
    check("python312", &[MAIN, requirements("uvicorn")], &[], "gunicorn -b :$PORT main:app", true);
    check("python313", &[MAIN, requirements("uvicorn")], &[], "uvicorn main:app --port $PORT --host 0.0.0.0", false);
    check("python313", &[MAIN, requirements("uvicorn\ngunicorn")], &[], "gunicorn -b :$PORT main:app", false);
    check("python313", &[MAIN, requirements("fastapi[standard]")], &[], "uvicorn main:app --port $PORT --host 0.0.0.0", false);
    check("python313", &[MAIN, requirements("streamlit")], &[], "streamlit run main.py --server.address 0.0.0.0 --server.port $PORT", false);
    check("python312", &[MAIN, ("Procfile", "worker: x\nweb: python main.py --port $PORT\n")], &[], "python main.py --port $PORT", false);
    check("python312", &[MAIN, ("Procfile", "web: a")], &[("GOOGLE_ENTRYPOINT", "b")], "b", false);
}

#[test]
fn what_decides_the_dependencies_is_in_their_key() {
    fn check(files: &[(&str, &str)], names: &[&str], is_local: bool, is_locked: bool) {
        let mut all = files.to_vec();
        all.push(MAIN);
        let plan = plan_of(&all, "python312", "f", &[]).unwrap();
        let found = dependencies_of(&plan);
        assert_eq!(found.files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!((found.is_local, found.is_locked), (is_local, is_locked), "{files:?}");
    }
    let project = ("pyproject.toml", "[project]\nname = 'p'\nversion = '1'\ndependencies = ['functions-framework']\n");
    check(&[], &[], false, false);
    check(&[FRAMEWORK], &["requirements.txt"], false, false);
    check(&[("requirements.txt", "-r more.txt")], &["requirements.txt"], true, false);
    check(&[FRAMEWORK, project], &["pyproject.toml", "requirements.txt"], false, false);
    check(&[FRAMEWORK, project, ("uv.toml", "")], &["uv.toml", "pyproject.toml", "requirements.txt"], true, false);
    check(&[project], &["pyproject.toml"], true, false);
    check(&[project, ("uv.lock", "")], &["pyproject.toml", "uv.lock"], false, true);
    let built = ("pyproject.toml", "[project]\nname = 'p'\nversion = '1'\ndependencies = ['functions-framework']\n[build-system]\nrequires = ['hatchling']\n");
    check(&[built, ("uv.lock", "")], &["pyproject.toml", "uv.lock"], true, true);
}
