//! The whole way: a real keeper, real sandboxes, a function in plain Python, real connections.
//!
//! No test harness of Rust's: the keeper must be forked by a process with one thread. A word on the command line selects the
//! checks whose name holds it.

mod world;

mod limits;
mod protocols;
mod requests;
mod scaling;
mod trust;

use std::{panic::AssertUnwindSafe, process::ExitCode, time::Instant};

use futures_util::FutureExt;
use world::World;

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let (ground, keeper) = world::fork();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let failed = runtime.block_on(async {
        let world = World::new(&ground, keeper).await;
        let mut failed = 0;
        for (name, check) in requests::CHECKS.iter().chain(protocols::CHECKS).chain(limits::CHECKS).chain(scaling::CHECKS).chain(trust::CHECKS) {
            if filter.as_ref().is_some_and(|word| !name.contains(word.as_str())) {
                continue;
            }
            let begun = Instant::now();
            let passed = AssertUnwindSafe(check(&world)).catch_unwind().await.is_ok();
            println!("{name} ... {} ({} ms)", if passed { "ok" } else { "FAILED" }, begun.elapsed().as_millis());
            failed += u32::from(!passed);
            world.clear().await;
        }
        if let Some(name) = world.serving.failed().now_or_never() {
            println!("a background task failed: {name}");
            failed += 1;
        }
        world.serving.shutdown(std::time::Duration::from_secs(5)).await;
        failed
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
