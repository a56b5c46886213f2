//! How the command of a template differs from an instance's: a launcher around the same framework, which makes what a process seeds
//! while it loads differ in each clone, and which serves from one process.
//!
//! The launchers are `runtimes/<language>/launch.*`; what they and the engine say to each other is in docs/internals/sandbox.md.

use std::path::{Path, PathBuf};

use model::image::Image;
use sandbox::Spec;

const FOLDER: &str = "/run/tanebi";
/// Where a Java function's image has the launcher that its build compiled.
const JAVA_FOLDER: &str = "/layers/launcher";
const PYTHON: &str = include_str!("../../../runtimes/python/launch.py");
const NODEJS: &str = include_str!("../../../runtimes/nodejs/launch.js");

/// Where a template is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// When it has loaded the revision's code and listens.
    Revision,
    /// When it has loaded the framework, before it loads the revision's code.
    Runtime,
}

/// Puts the launcher of the image's runtime into the command. False: there is none for this, and the command is as it was.
pub(crate) fn prepare(image: &Image, level: Level, spec: &mut Spec) -> bool {
    let is_framework = |word: &String| word.ends_with("/functions-framework");
    match spec.command.as_slice() {
        [python, framework, ..] if image.runtime.starts_with("python") && is_framework(framework) => {
            let launcher = format!("{FOLDER}/launch.py");
            let rest = spec.command[2..].to_vec();
            spec.command = [vec![python.clone(), launcher.clone()], rest].concat();
            file(spec, launcher, PYTHON);
        }
        [node, _, ..] if image.runtime.starts_with("nodejs") && node.ends_with("/node") => {
            let launcher = format!("{FOLDER}/launch.js");
            // V8 collects garbage once it has been idle for 8 s: a clone, whose clock has jumped, during its first request. Before 20 the
            // launcher keeps it from that, as the flag would cost Node.js the compiled code of its own modules.
            let is_before_20 = image.runtime["nodejs".len()..].parse().is_ok_and(|version: u32| version < 20);
            let flags = if is_before_20 { &[][..] } else { &["--no-memory-reducer"] };
            spec.command.splice(1..1, flags.iter().copied().chain(["--require", &launcher]).map(str::to_owned));
            file(spec, launcher, NODEJS);
        }
        [java, ..] if image.runtime.starts_with("java") && image.layers.iter().any(|layer| layer.target == Path::new(JAVA_FOLDER)) => {
            let java = java.clone();
            let options = format!("{FOLDER}/java.options");
            // Of lower rank than any option of the owner's. The performance data is a file that is mapped and written to.
            file(spec, options.clone(), "-UsePerfData\n");
            let word = if level == Level::Runtime { "=runtime" } else { "" };
            spec.command.splice(..1, [java, format!("-XX:Flags={options}"), format!("-javaagent:{JAVA_FOLDER}/launch.jar{word}")]);
            // The option is the mode: a variable would be seen by the owner's children.
            return true;
        }
        // Compiled into the program by its build, as the revision's code is: there is nothing to be loaded before that.
        _ if image.runtime.starts_with("go") && level == Level::Revision => {}
        _ => return false,
    }
    let word = if level == Level::Runtime { "runtime" } else { "1" };
    spec.env.push(("TANEBI_TEMPLATE".to_owned(), word.to_owned()));
    true
}

fn file(spec: &mut Spec, path: String, text: &str) {
    spec.files.push((PathBuf::from(path), text.as_bytes().to_vec()));
}
