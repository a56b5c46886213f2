//! `tanebi trace cold-starts NAME`: where the time of a service's last cold starts went.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use http::Method;
use serde_json::Value;

use crate::{client::Client, format::Format};

#[derive(clap::Args, Clone, Debug)]
pub struct TraceArgs {
    /// Folder of the running server
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum TraceCommand {
    /// From a request that found no instance to its answer's first byte, in milliseconds
    ColdStarts {
        service: String,
        #[arg(long)]
        region: Option<String>,
        /// How many of the newest
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
}

pub async fn trace(args: &TraceArgs) -> Result<ExitCode> {
    let data_dir = crate::config::data_dir(args.data_dir.as_deref())?;
    let client = Client::find(&data_dir).await?;
    let TraceCommand::ColdStarts { service, region, limit, format } = &args.command;
    let region = region.as_ref().unwrap_or(&client.server.region);
    let answer = client.own(Method::GET, "/_tanebi/v1/coldStarts", None).await?;
    let mut found: Vec<&Value> = answer["coldStarts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|one| one["service"].as_str() == Some(service) && one["region"].as_str() == Some(region))
        .collect();
    // Each revision's are in order already. To the second: what follows it is not always as long.
    found.sort_by_key(|one| one["time"].as_str().unwrap_or_default().chars().take(19).collect::<String>());
    let found = &found[found.len().saturating_sub(*limit)..];
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(found)?),
        Format::Table => table(found),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(found: &[&Value]) {
    let ms = |us: &Value| format!("{:.3}", us.as_f64().unwrap_or(0.0) / 1e3);
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    println!("{:<24} {:<32} {:<8} {:>10}{}", "TIME", "REVISION", "RUNG", "WHOLE", serving::COLD_START_PARTS.map(|part| format!(" {part:>10}")).concat());
    for one in found {
        let parts = serving::COLD_START_PARTS.map(|part| format!(" {:>10}", ms(&one["partsUs"][part]))).concat();
        let time: String = text(one, "time").chars().take(23).collect();
        println!("{time:<24} {:<32} {:<8} {:>10}{parts}", text(one, "revision"), text(one, "rung"), ms(&one["wholeUs"]));
    }
    for rung in telemetry::RUNGS {
        let mut whole: Vec<u64> = found.iter().filter(|one| one["rung"] == rung).filter_map(|one| one["wholeUs"].as_u64()).collect();
        whole.sort_unstable();
        if let Some(last) = whole.last() {
            println!("{rung}: {} starts, median {:.3} ms, at most {:.3} ms", whole.len(), whole[whole.len() / 2] as f64 / 1e3, *last as f64 / 1e3);
        }
    }
}
