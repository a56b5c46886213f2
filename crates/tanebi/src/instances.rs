//! `tanebi instances list|templates|stop`: what runs now, what it is made from, and ending it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use crate::client::Client;

#[derive(clap::Args, Clone, Debug)]
pub struct InstancesArgs {
    /// Folder of the running server
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: InstancesCommand,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum InstancesCommand {
    /// List them
    List,
    /// What revisions' instances are clones of, or why they are none
    Templates,
    /// End those of a service, or all: scale to zero now
    Stop {
        service: Option<String>,
        #[arg(long)]
        region: Option<String>,
    },
}

pub async fn instances(args: &InstancesArgs) -> Result<ExitCode> {
    let data_dir = crate::config::data_dir(args.data_dir.as_deref())?;
    let client = Client::find(&data_dir).await?;
    match &args.command {
        InstancesCommand::List => {
            let answer = client.own(Method::GET, "/_tanebi/v1/instances", None).await?;
            for instance in answer["instances"].as_array().into_iter().flatten() {
                let text = |name: &str| instance[name].as_str().map_or_else(|| instance[name].to_string(), str::to_owned);
                let id = text("id");
                println!(
                    "{}\t{}\t{}\t{} in flight\tsince {}\t{}\t{}",
                    text("service"),
                    text("revision"),
                    text("state"),
                    text("inFlight"),
                    text("started"),
                    text("start"),
                    &id[..id.len().min(16)]
                );
            }
        }
        InstancesCommand::Templates => {
            let answer = client.own(Method::GET, "/_tanebi/v1/templates", None).await?;
            for template in answer["templates"].as_array().into_iter().flatten() {
                let text = |name: &str| template[name].as_str().map_or_else(|| template[name].to_string(), str::to_owned);
                let mib = template["bytes"].as_u64().unwrap_or(0) >> 20;
                println!("{}\t{}\t{}\t{} armed\t{mib} MiB\t{}", text("service"), text("revision"), text("state"), text("armed"), text("why"));
            }
        }
        InstancesCommand::Stop { service, region } => {
            let region = region.clone().unwrap_or_else(|| client.server.region.clone());
            let body = service.as_ref().map_or(json!({}), |service| json!({ "service": service, "region": region }));
            let answer = client.own(Method::POST, "/_tanebi/v1/instances:stop", Some(body)).await?;
            eprintln!("stopped {}", answer["stopped"].as_u64().map_or(Value::Null, Value::from));
        }
    }
    Ok(ExitCode::SUCCESS)
}
