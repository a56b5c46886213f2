//! Runs the tests, each with a server of its own: two at a time, as they mostly wait; then one by one those that need the machine.
//!
//! A test that fails is run once more, at the end and alone. What passes then is told as such, after its first failure: on a machine that
//! others use too a time limit can be missed, and it must be seen without making the whole run worthless.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::Mutex,
    time::Instant,
};

use anyhow::{Result, anyhow};

const LANES: usize = 2;
/// Parts whose tests load the whole machine on purpose, or look at all of it.
const ALONE: [&str; 4] = ["clones", "faults", "hostile", "soak"];

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
    let (alone, beside): (Vec<_>, Vec<_>) = chosen.iter().partition(|test| test.is_alone());
    let mut again = lanes(&beside, LANES);
    again.extend(lanes(&alone, 1));
    let failed = lanes(&again, 1);
    let names = |tests: &[&Test]| tests.iter().map(|test| test.name).collect::<Vec<_>>().join(", ");
    let second: Vec<_> = again.into_iter().filter(|test| !failed.iter().any(|failed| failed.name == test.name)).collect();
    if !second.is_empty() {
        println!("passed only at the second try: {}", names(&second));
    }
    if !failed.is_empty() {
        println!("failed: {}", names(&failed));
    }
    println!("{} passed, {} failed", chosen.len() - failed.len(), failed.len());
    if failed.is_empty() && !chosen.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Test {
    fn is_alone(&self) -> bool {
        ALONE.iter().any(|part| self.name.split("::").next() == Some(part))
    }
}

/// Runs `tests`, so many at a time; those that failed.
fn lanes<'a>(tests: &[&'a Test], count: usize) -> Vec<&'a Test> {
    let (next, failed) = (Mutex::new(tests.iter()), Mutex::new(Vec::new()));
    let lane = || {
        while let Some(test) = { next.lock().expect("no panic").next() } {
            let started = Instant::now();
            let result = attempt(test);
            let s = started.elapsed().as_secs_f64();
            match result {
                Ok(()) => println!("test {} ... ok ({s:.1} s)", test.name),
                Err(error) => {
                    println!("test {} ... FAILED ({s:.1} s)\n{error:#}", test.name);
                    failed.lock().expect("no panic").push(*test);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..count).for_each(|_| drop(scope.spawn(lane))));
    failed.into_inner().expect("no panic")
}

fn attempt(test: &Test) -> Result<()> {
    catch_unwind(AssertUnwindSafe(test.run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(anyhow!("panicked: {}", text.unwrap_or_default()))
    })
}
