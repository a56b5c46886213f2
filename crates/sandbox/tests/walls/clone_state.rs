//! What a clone keeps, looked at from inside: each case in two clones that are there at the same time, and in one made afterwards.

use sandbox::Spec;

use crate::{
    clone_hostile::end,
    clones::{cloned, get, python, rest},
    suite::{Suite, wait_for},
};

const PROGRAM: &str = include_str!("clone_state.py");

pub fn checks(suite: &mut Suite) {
    if !suite.root {
        return;
    }
    for (number, case) in cases().into_iter().enumerate() {
        suite.check(&format!("a clone keeps: {}", case.replace('_', " ")), |suite| kept(suite, &format!("state-{number}"), case));
    }
    suite.check("a clone keeps everything at once", |suite| kept(suite, "state-all", &cases().join(",")));
}

fn cases() -> Vec<&'static str> {
    PROGRAM.split("\n@case\ndef ").skip(1).map(|case| case.split('(').next().expect("a name")).collect()
}

fn kept(suite: &Suite, id: &str, cases: &str) {
    let _template = stopped(suite, id, &program(suite, id, cases));
    let clones = [1, 2, 3].map(|number| format!("{id}-{number}"));
    let count = cases.split(',').count();
    let as_expected = |clone: &str| {
        let said = get(suite, clone, "/all");
        let wrong: Vec<&str> = said.lines().filter(|line| !line.ends_with(" ok")).collect();
        assert!(wrong.is_empty(), "{clone}: {}", wrong.join("\n"));
        assert_eq!(said.lines().count(), count, "{said}");
    };
    let mut sandboxes = vec![cloned(suite, id, &clones[0]), cloned(suite, id, &clones[1])];
    as_expected(&clones[0]);
    as_expected(&clones[1]);
    sandboxes.push(cloned(suite, id, &clones[2]));
    as_expected(&clones[2]);
    for clone in &clones {
        end(suite, &[clone]);
    }
    end(suite, &[id]);
    if cases.contains("output_by_name") {
        for clone in sandboxes {
            assert!(wait_for(&clone.stdout, "by name").ends_with("by name\n") && wait_for(&clone.stderr, "by name").contains("by name\n"));
        }
    }
}

fn program(suite: &Suite, id: &str, cases: &str) -> Spec {
    let mut spec = python(suite, id);
    spec.files[0].1 = PROGRAM.as_bytes().to_vec();
    spec.command.push(cases.to_owned());
    spec.limits.pids = 128;
    spec
}

/// A program that says that it is ready and is stopped; nobody has been connected to it.
pub fn stopped(suite: &Suite, id: &str, spec: &Spec) -> sandbox::Sandbox {
    let sandbox = suite.keeper().start(spec).unwrap();
    wait_for(&sandbox.stdout, "ready");
    if let Err(error) = suite.keeper().template(id) {
        end(suite, &[id]);
        panic!("{error}; {:?}", rest(&sandbox.stderr));
    }
    sandbox
}
