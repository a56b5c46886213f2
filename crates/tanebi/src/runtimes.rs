//! `tanebi runtimes list|install`: which base images there are, what of them is here, and fetching what is not.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::client::Client;

#[derive(clap::Args, Clone, Debug)]
pub struct RuntimesArgs {
    /// Folder of the running server
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: RuntimesCommand,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum RuntimesCommand {
    /// List Google's base images, and what of them is on this host
    List {
        /// Only those that can be deployed with now
        #[arg(long)]
        installed: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch one from a registry: tanebi runtimes install nodejs24
    Install {
        /// Such as python313, nodejs24, go125 or java21
        id: String,
    },
}

pub async fn runtimes(args: &RuntimesArgs) -> Result<ExitCode> {
    let data_dir = crate::config::data_dir(args.data_dir.as_deref())?;
    let client = Client::find(&data_dir).await?;
    match &args.command {
        RuntimesCommand::List { installed, json } => {
            let answer = client.own(Method::GET, "/_tanebi/v1/runtimes", None).await?;
            let all = answer["runtimes"].as_array().cloned().unwrap_or_default();
            let shown: Vec<&Value> = all.iter().filter(|runtime| !installed || !runtime["version"].is_null()).collect();
            if *json {
                println!("{}", serde_json::to_string_pretty(&shown)?);
            } else {
                table(&shown);
            }
            Ok(ExitCode::SUCCESS)
        }
        RuntimesCommand::Install { id } => install(&client, id).await,
    }
}

fn table(runtimes: &[&Value]) {
    println!("{:<12} {:<14} {:<10} WHERE", "ID", "NAME", "VERSION");
    for runtime in runtimes {
        let text = |name: &str| runtime[name].as_str().unwrap_or_default();
        let place = match text("path") {
            "" => format!("not here: {}", text("missing")),
            path => path.to_owned(),
        };
        println!("{:<12} {:<14} {:<10} {place}", text("id"), text("name"), text("version"));
    }
}

/// Says each line as it comes, and at the end what is here now.
async fn install(client: &Client, id: &str) -> Result<ExitCode> {
    let response = client.own_stream("/_tanebi/v1/runtimes:install", &json!({ "id": id })).await?;
    let mut body = response.into_body();
    let mut partial = Vec::new();
    while let Some(frame) = body.frame().await {
        partial.extend(frame.context("reading the answer")?.into_data().unwrap_or_default());
        while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = partial.drain(..=end).collect();
            let line: Value = serde_json::from_slice(&line).context("the answer is not JSON")?;
            if let Some(text) = line["line"].as_str() {
                eprintln!("{text}");
            }
            if let Some(error) = line["error"].as_str() {
                bail!("{error}");
            }
            if let Some(runtime) = line.get("runtime") {
                table(&[runtime]);
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    bail!("the server stopped before {id} was installed")
}
