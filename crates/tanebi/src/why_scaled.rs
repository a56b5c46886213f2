//! `tanebi why-scaled NAME`: why a service had more or fewer instances, by the autoscaler's last decisions.

use std::process::ExitCode;

use anyhow::Result;
use http::Method;
use serde_json::Value;

use crate::{
    env::{Environment, IdentityArgs},
    format::Format,
};

#[derive(clap::Args, Clone, Debug)]
pub struct WhyScaledArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    /// Name of the service
    service: String,
    #[arg(long)]
    region: Option<String>,
    /// How many of the newest
    #[arg(long, default_value_t = 20)]
    limit: usize,
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub async fn why_scaled(args: &WhyScaledArgs) -> Result<ExitCode> {
    let environment = Environment::make(&args.identity).await?;
    let server = &environment.client.server;
    let region = args.region.as_ref().unwrap_or(&server.region);
    let path = format!("/tanebi/v1/projects/{}/locations/{region}/services/{}/scalingDecisions?limit={}", server.project, args.service, args.limit);
    let answer = environment.client.api(&environment.access_token, Method::GET, "run.googleapis.com", &path, None).await?;
    let decisions = answer["scalingDecisions"].as_array().map(Vec::as_slice).unwrap_or_default();
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(decisions)?),
        Format::Table => table(decisions),
    }
    Ok(ExitCode::SUCCESS)
}

/// The oldest first: the newest stands above the prompt.
fn table(decisions: &[Value]) {
    if decisions.is_empty() {
        eprintln!("nothing was decided since the server started: no revision of the service has run");
        return;
    }
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    println!("{:<24} {:<32} {:<12} WHY", "TIME", "REVISION", "INSTANCES");
    for one in decisions.iter().rev() {
        let time: String = text(one, "time").chars().take(23).collect();
        let instances = if one["from"] == one["to"] { one["to"].to_string() } else { format!("{} -> {}", one["from"], one["to"]) };
        println!("{time:<24} {:<32} {instances:<12} {}", text(one, "revision"), text(one, "text"));
    }
}
