//! `tanebi clock show|advance|set` and `tanebi wait-idle`: moving a clock that stands, and waiting until nothing is under way.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use crate::client::Client;

#[derive(clap::Args, Clone, Debug)]
pub struct ClockArgs {
    /// Folder of the running server
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: ClockCommand,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum ClockCommand {
    /// Print where it stands
    Show,
    /// Move it on by 24h, 90s, 1d 12h...; what is due on the way happens at its instant, in order
    Advance { by: String },
    /// Move it on to an instant such as 2026-01-01T09:00:00+09:00
    Set { instant: String },
}

#[derive(clap::Args, Clone, Debug)]
pub struct WaitIdleArgs {
    /// Folder of the running server
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// How long to wait, in seconds, before it is an error
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

pub async fn clock(args: &ClockArgs) -> Result<ExitCode> {
    let data_dir = crate::config::data_dir(args.data_dir.as_deref())?;
    let client = Client::find(&data_dir).await?;
    let answer = match &args.command {
        ClockCommand::Show => client.own(Method::GET, "/_tanebi/v1/clock", None).await?,
        ClockCommand::Advance { by } => advance(&client, &data_dir, json!({ "by": by })).await?,
        ClockCommand::Set { instant } => advance(&client, &data_dir, json!({ "to": instant })).await?,
    };
    println!("{}", answer["now"].as_str().unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

async fn advance(client: &Client, data_dir: &Path, to: Value) -> Result<Value> {
    let moved = client.own(Method::POST, "/_tanebi/v1/clock:advance", Some(to)).await;
    // However far it came.
    crate::env::tokens_forget(data_dir);
    moved
}

pub async fn wait_idle(args: &WaitIdleArgs) -> Result<ExitCode> {
    let client = Client::find(&crate::config::data_dir(args.data_dir.as_deref())?).await?;
    client.own(Method::POST, "/_tanebi/v1/idle:wait", Some(json!({ "timeoutSeconds": args.timeout }))).await?;
    Ok(ExitCode::SUCCESS)
}
