//! Runs the tests one after another: each has a server and a machine of two cores to itself.
//!
//! A test that fails is run once more. What passes then is told as such, with its first failure: on a machine that others
//! use too a time limit can be missed, and it must be seen without making the whole run worthless.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Result, anyhow};

/// A test by `PART::NAME`.
pub struct Test {
    pub name: &'static str,
    pub run: fn() -> Result<()>,
}

/// `tests!["seed"; a, b]`: a list of the module's functions by name.
#[macro_export]
macro_rules! tests {
    ($part:literal; $($function:ident),* $(,)?) => {
        vec![$($crate::runner::Test { name: concat!($part, "::", stringify!($function)), run: $function }),*]
    };
}

/// Runs those that match a word of the command line (all without one) and, with TANEBI_PART, belong to that part.
pub fn run(tests: &[Test]) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let part = std::env::var("TANEBI_PART").ok().map(|part| format!("{part}::"));
    let chosen: Vec<_> = tests
        .iter()
        .filter(|t| part.as_ref().is_none_or(|part| t.name.starts_with(part)) && (words.is_empty() || words.iter().any(|w| t.name.contains(w))))
        .collect();
    if std::env::args().any(|a| a == "--list") {
        for test in chosen {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed, mut second) = (0, Vec::new(), Vec::new());
    for test in &chosen {
        let started = Instant::now();
        match attempt(test) {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({:.1} s)", test.name, started.elapsed().as_secs_f64());
            }
            Err(first) => {
                println!("test {} ... failed, running it once more: {first:#}", test.name);
                match attempt(test) {
                    Ok(()) => {
                        passed += 1;
                        second.push(test.name);
                        println!("test {} ... ok at the second try ({:.1} s)", test.name, started.elapsed().as_secs_f64());
                    }
                    Err(error) => {
                        println!("test {} ... FAILED ({:.1} s)\n{error:#}", test.name, started.elapsed().as_secs_f64());
                        failed.push(test.name);
                    }
                }
            }
        }
    }
    if !second.is_empty() {
        println!("passed only at the second try: {}", second.join(", "));
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn attempt(test: &Test) -> Result<()> {
    catch_unwind(AssertUnwindSafe(test.run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(anyhow!("panicked: {}", text.unwrap_or_default()))
    })
}
