//! tanebi: Cloud Run functions on your own machine.
//!
//! The one binary: commands, configuration, and [`wire`], which creates and connects everything once.

mod access;
mod ca;
mod client;
mod clock;
mod config;
mod console;
mod doctor;
mod env;
mod folder;
mod format;
mod front;
mod history;
mod instances;
mod logs;
mod own;
mod packages;
mod ports;
mod refused;
mod run;
mod running;
mod runtimes;
mod serve;
mod shadow;
mod source;
mod supervise;
mod time;
mod trace;
mod trust;
mod trust_store;
mod tunnel;
mod why_scaled;
mod wire;

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Cloud Run functions on your own machine.
#[derive(Parser, Debug)]
#[command(name = "tanebi", version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Start the server; stays in the foreground
    Serve(config::ServeArgs),
    /// Print what sets a shell up for the running server: eval "$(tanebi env)"
    Env {
        #[command(flatten)]
        identity: env::IdentityArgs,
        #[arg(long, value_enum, default_value = "sh")]
        format: env::Format,
        /// Print what restores the shell as it was
        #[arg(long)]
        unset: bool,
    },
    /// Open a subshell that is set up for the running server
    Shell {
        #[command(flatten)]
        identity: env::IdentityArgs,
    },
    /// Run one command that way: tanebi exec -- gcloud run services list
    Exec {
        #[command(flatten)]
        identity: env::IdentityArgs,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<OsString>,
    },
    /// Deploy, list, describe, delete and call services without gcloud
    Run(run::RunArgs),
    /// Print what services and platform wrote
    Logs(logs::LogsArgs),
    /// Tell why somebody was not let in, and who would be
    Iam(access::IamArgs),
    /// List or end running instances
    Instances(instances::InstancesArgs),
    /// Show where the time of starts went
    Trace(trace::TraceArgs),
    /// Tell why a service had more or fewer instances
    WhyScaled(why_scaled::WhyScaledArgs),
    /// Show or move the clock of a server that was started with --clock manual
    Clock(time::ClockArgs),
    /// List what was delivered to services, show one event, or send it again
    Events(history::EventsArgs),
    /// Wait until no job, push or trigger is being delivered
    WaitIdle(time::WaitIdleArgs),
    /// List base images and what of them is here, or install one
    Runtimes(runtimes::RuntimesArgs),
    /// Make browsers on this machine believe tanebi's certificates, or no longer
    Trust(trust::TrustArgs),
    /// Tell what a source makes while it loads: what a build runs in a sandbox
    #[command(hide = true)]
    Look { language: String, folder: std::path::PathBuf },
    /// Show what this host gives and what is missing
    Doctor(doctor::DoctorArgs),
}

fn main() -> ExitCode {
    match command(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(args) if std::env::var_os(supervise::CHILD).is_some() => serve::serve(&args),
        Command::Serve(args) => {
            // What is wrong with the settings is said once, here.
            config::Config::resolve(&args)?;
            supervise::supervise()
        }
        Command::Env { unset: true, .. } => env::print_unset(),
        Command::Env { identity, format, .. } => wait(env::print(&identity, format)),
        Command::Shell { identity } => wait(env::shell(&identity)),
        Command::Exec { identity, command } => wait(env::exec(&identity, &command)),
        Command::Run(args) => wait(run::run(&args)),
        Command::Logs(args) => wait(logs::logs(&args)),
        Command::Iam(args) => wait(access::access(&args)),
        Command::Instances(args) => wait(instances::instances(&args)),
        Command::Trace(args) => wait(trace::trace(&args)),
        Command::WhyScaled(args) => wait(why_scaled::why_scaled(&args)),
        Command::Clock(args) => wait(time::clock(&args)),
        Command::Events(args) => wait(history::events(&args)),
        Command::WaitIdle(args) => wait(time::wait_idle(&args)),
        Command::Runtimes(args) => wait(runtimes::runtimes(&args)),
        Command::Trust(args) => trust::trust(&args),
        Command::Look { language, folder } => {
            print!("{}", build::look::program(&language, &folder).map_err(anyhow::Error::msg)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(args) => doctor::doctor(&args),
    }
}

fn wait(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")?.block_on(work)
}
