//! End to end: the built program, used as a user uses it.

mod cli;
mod clients;
mod clones;
mod console;
mod eventarc;
mod faults;
mod functions_api;
mod gcloud;
mod hostile;
mod identity;
mod languages;
mod pubsub;
mod readme;
mod scheduler;
mod secrets;
mod seed;
mod serving;
mod settings;
mod soak;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests: Vec<_> = [
        seed::tests(),
        gcloud::tests(),
        serving::tests(),
        settings::tests(),
        cli::tests(),
        secrets::tests(),
        functions_api::tests(),
        clients::tests(),
        clones::tests(),
        console::tests(),
        languages::tests(),
        readme::tests(),
        scheduler::tests(),
        pubsub::tests(),
        eventarc::tests(),
        hostile::tests(),
        identity::tests(),
        faults::tests(),
        soak::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    e2e::runner::run(&tests)
}
