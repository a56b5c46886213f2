//! A template that means harm: whatever it does before it is stopped, no code of it runs without the filter, nothing of it goes on
//! beside its clones, and nothing that it has prepared reaches into what the engine does.

use std::{path::PathBuf, process::Command, time::Duration};

use sandbox::{Error, Spec};

use crate::{
    clones::{cloned, get, template},
    suite::{Suite, mount, until, wait_for},
};

pub fn checks(suite: &mut Suite) {
    if !suite.root {
        return;
    }
    let Some(program) = compiled(suite) else {
        return println!("  (no C compiler on this machine: what a hostile template does is not tried)");
    };
    let hostile = |suite: &Suite, id: &str, words: &[&str]| -> Spec {
        let mut spec = suite.spec(id, &[["/app/hostile"].as_slice(), words].concat());
        spec.mounts.push(mount(&program, "/app"));
        spec.working_dir = "/app".into();
        spec.template = true;
        spec
    };
    suite.check("a hostile template that does nothing is cloned", |suite| {
        let _template = template(suite, "h-none", &hostile(suite, "h-none", &["none"]));
        let _clone = cloned(suite, "h-none", "h-none-1");
        assert_eq!(get(suite, "h-none-1", "/"), "ran 0 unfiltered 0 errno 0");
        end(suite, &["h-none-1", "h-none"]);
    });
    suite.check("a template's signal handler does not run when it is cloned", |suite| {
        let _template = template(suite, "h-alarm", &hostile(suite, "h-alarm", &["alarm"]));
        for number in 0..10 {
            // Its timer runs out in between.
            std::thread::sleep(Duration::from_millis(30));
            let id = format!("h-alarm-{number}");
            let _clone = cloned(suite, "h-alarm", &id);
            let said = get(suite, &id, "/");
            assert!(said.ends_with("unfiltered 0 errno 0"), "{said}");
            end(suite, &[&id]);
        }
        end(suite, &["h-alarm"]);
    });
    suite.check("no code of a template runs without its filter while it is stopped", |suite| {
        for number in 0..10 {
            let id = format!("h-spin-{number}");
            let _template = template(suite, &id, &hostile(suite, &id, &["spin"]));
            let clone = format!("{id}-c");
            let _clone = cloned(suite, &id, &clone);
            let said = get(suite, &clone, "/");
            assert!(said.ends_with("unfiltered 0 errno 0"), "{said}");
            end(suite, &[&clone, &id]);
        }
    });
    suite.check("a process that shares a template's memory without being its thread or child is refused", |suite| {
        let refused = refused(suite, "h-beside", &hostile(suite, "h-beside", &["beside"]));
        assert!(refused.contains("another process"), "{refused}");
    });
    suite.check("an address that the kernel writes to may not lie where the engine will write", |suite| {
        let _template = template(suite, "h-region", &hostile(suite, "h-region", &["none", "1234567", "12345"]));
        let _clone = cloned(suite, "h-region", "h-region-1");
        let region = get(suite, "h-region-1", "/region");
        end(suite, &["h-region-1", "h-region"]);
        println!("  region and where the clone stops: {region}");
        let (size, at) = region.split_once(' ').expect("it has a region");
        // It would have to guess: the region lies somewhere else in each template.
        let sandbox = suite.keeper().start(&hostile(suite, "h-address", &["address", size, at])).unwrap();
        wait_for(&sandbox.stdout, "ready");
        match suite.keeper().template("h-address") {
            Ok(()) => {}
            Err(Error::Refused(why)) => assert!(why.contains("address"), "{why}"),
            Err(error) => panic!("{error}"),
        }
        end(suite, &["h-address"]);
    });
    suite.check("threads that make the next and end are all stopped, or the template is refused", |suite| {
        let mut made = 0;
        for number in 0..30 {
            let id = format!("h-chain-{number}");
            let sandbox = suite.keeper().start(&hostile(suite, &id, &["chain"])).unwrap();
            wait_for(&sandbox.stdout, "ready");
            match suite.keeper().template(&id) {
                Ok(()) => {
                    made += 1;
                    let pid = process_of_hostile();
                    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|thread| thread.path());
                    for thread in threads {
                        let status = std::fs::read_to_string(thread.join("status")).unwrap();
                        let stopped = status.contains("State:\tt (tracing stop)") && !status.contains("TracerPid:\t0\n");
                        assert!(stopped, "{status}");
                    }
                    let clone = format!("{id}-c");
                    let _clone = cloned(suite, &id, &clone);
                    let ran = |said: &str| said.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
                    let first = ran(&get(suite, &clone, "/"));
                    until("the chain goes on in the clone", || ran(&get(suite, &clone, "/")) > first);
                    end(suite, &[&clone]);
                }
                Err(Error::Refused(why)) => println!("  refused: {why}"),
                Err(error) => panic!("{error}"),
            }
            end(suite, &[&id]);
        }
        println!("  {made} of 30 became templates");
        assert!(made >= 20, "{made}");
    });
}

/// The program, in a folder of its own.
fn compiled(suite: &Suite) -> Option<PathBuf> {
    let folder = suite.dir.join("hostile");
    std::fs::create_dir_all(&folder).unwrap();
    let source = folder.join("hostile.c");
    std::fs::write(&source, include_str!("hostile.c")).unwrap();
    let made = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(folder.join("hostile")).arg(&source).status();
    made.is_ok_and(|status| status.success()).then_some(folder)
}

/// The one that runs it, on the host.
fn process_of_hostile() -> i32 {
    *crate::suite::processes_with("/app/hostile").first().expect("it runs")
}

pub fn refused(suite: &Suite, id: &str, spec: &Spec) -> String {
    let sandbox = suite.keeper().start(spec).unwrap();
    wait_for(&sandbox.stdout, "ready");
    let answer = suite.keeper().template(id);
    end(suite, &[id]);
    match answer {
        Err(Error::Refused(why)) => why,
        other => panic!("it is not refused: {other:?}"),
    }
}

pub fn end(suite: &Suite, ids: &[&str]) {
    for id in ids {
        suite.keeper().end(id).unwrap();
    }
}
