//! What one build leaves for others: tried by sources that want to leave more.

use std::{collections::BTreeMap, path::Path, time::Duration};

use build::Request;

use crate::world::{World, build_with, builder_of, built, refused};

const FUNCTION: (&str, &str) = ("index.js", "exports.hello = (request, response) => response.send('hi');\n");

/// A program that writes where a tool or a download would be, and then does as if nothing were.
const WRITES: &str = "--import=data:text/javascript,import{writeFileSync}from'node:fs';for(const%20f%20of['/tool','/cache','/go/cache','/modules'])try{writeFileSync(f+'/planted','x')}catch{}";

fn request(world: &World, base_image: &str, function: &str, files: &[(&str, &str)], env: &[(&str, &str)]) -> Request {
    Request {
        tells_shared: true,
        base_image: base_image.to_owned(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>(),
        ..world.request(files, function)
    }
}

/// Whether a file of this name lies in a cache or a layer.
fn is_planted(world: &World) -> bool {
    fn walk(folder: &Path) -> bool {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name() == "planted" || (entry.file_type().is_ok_and(|kind| kind.is_dir()) && walk(&entry.path())))
    }
    ["build/downloads", "build/downloads-npm", "build/downloads-go"].iter().any(|cache| walk(&world.dir.join(cache)))
}

pub async fn a_variable_has_no_part_in_tools_and_downloads_of_all(world: &World) {
    let env = [("NODE_OPTIONS", WRITES)];
    let (made, _) = built(build_with(&world.builder, request(world, "nodejs20", "hello", &[FUNCTION], &env)).await);
    assert_eq!(world.layer_file(&made, "/layers/framework", "planted"), None, "the framework of all was made with a variable of one");
    let package = ("package.json", r#"{"name":"f","version":"1.0.0","dependencies":{"ms":"2.1.3"}}"#);
    built(build_with(&world.builder, request(world, "nodejs20", "hello", &[FUNCTION, package], &env)).await);
    assert!(!is_planted(world), "a variable led npm into the downloads of all");
}

/// npm runs what an .npmrc names as git, whatever it is told of scripts.
pub async fn a_file_that_leads_npm_has_no_part_in_the_downloads_of_all(world: &World) {
    let package = ("package.json", r#"{"name":"f","version":"1.0.0","optionalDependencies":{"y":"git+https://nohost.invalid/y.git"}}"#);
    // The package that cannot be had is taken away, so that the install succeeds.
    let writes = format!("{WRITES};try{{writeFileSync('/workspace/package.json','{{}}')}}catch{{}}");
    let settings = format!("git=/usr/bin/npm\nnode-options=\"{writes}\"\n");
    let files = [FUNCTION, package, (".npmrc", settings.as_str())];
    // Built or refused: what matters is what it left.
    let _ = build_with(&world.builder, request(world, "nodejs20", "hello", &files, &[])).await;
    assert!(!is_planted(world), "an .npmrc led npm into the downloads of all");
}

/// gcc looks for its assembler where COMPILER_PATH says.
pub async fn a_variable_has_no_part_in_the_compiled_packages_of_all(world: &World) {
    let files = [
        ("go.mod", "module example.com/f\n\ngo 1.25\n"),
        ("f.go", "package f\n\nimport \"net/http\"\n\nfunc Hello(w http.ResponseWriter, r *http.Request) {}\n"),
        ("bin/as", "#!/bin/sh\ntouch /go/cache/planted /modules/planted\nexec /usr/bin/as \"$@\"\n"),
    ];
    let env = [("COMPILER_PATH", "/source/bin"), ("CGO_CFLAGS", "-O1")];
    let _ = build_with(&world.builder, request(world, "go126", "Hello", &files, &env)).await;
    assert!(!is_planted(world), "a variable led the compiler into the packages of all");
}

/// A pipe where a jar should be would hold up whoever opens it.
pub async fn a_jar_that_is_none_holds_nothing_up(world: &World) {
    let pom = "<project xmlns='http://maven.apache.org/POM/4.0.0'><modelVersion>4.0.0</modelVersion><groupId>g</groupId><artifactId>a</artifactId><version>1</version></project>";
    for (what, wrapper) in [
        ("pipe", "mkdir -p target; mkfifo target/a-1.jar"),
        ("link", "mkdir -p target; ln -s /etc/passwd target/a-1.jar"),
        ("text", "mkdir -p target; echo PK > target/a-1.jar"),
    ] {
        let builder = builder_of(world, world.catalogue.clone(), Duration::from_secs(60));
        let files = [("pom.xml", pom), ("mvnw", wrapper)];
        let text = refused(build_with(&builder, request(world, "java17", "g.A", &files, &[])).await, "");
        assert!(
            text.contains("did not produce the class \"g.A\"") || text.contains("cannot be kept") || text.contains("expected output jar"),
            "{what}: {text}"
        );
    }
}

/// Wheels of the source that a variable leads to are one project's, and one source's.
pub async fn what_a_variable_leads_to_is_asked_anew_for_each_source(world: &World) {
    let main = ("main.py", "def hello(request):\n    return 'x'\n");
    let env = [("UV_FIND_LINKS", "/workspace/wheels")];
    for (project, note) in [("p", "1"), ("p", "2"), ("q", "2")] {
        let files = [main, ("requirements.txt", "six\n"), ("wheels/note.txt", note)];
        let request = Request { project: project.to_owned(), ..request(world, "python312", "hello", &files, &env) };
        let (_, log) = built(build_with(&world.builder, request).await);
        assert!(!log.contains("The dependencies are those of an earlier build."), "{project} {note}: {log}");
    }
}
