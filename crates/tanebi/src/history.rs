//! `tanebi events list|show|replay`: what the platform delivered to services since the server started, and sending it again.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, anyhow};
use http::Method;
use serde_json::{Value, json};

use crate::client::Client;

#[derive(clap::Args, Clone, Debug)]
pub struct EventsArgs {
    /// Folder of the running server
    #[arg(long, value_name = "DIR", env = "TANEBI_DATA_DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum EventsCommand {
    /// List the last ones, the oldest first: number, time, status, latency, attempts, where from and where to
    List {
        /// How many of the newest
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one with its attempts, headers and body
    Show { id: u64 },
    /// Send one once more
    Replay {
        id: u64,
        /// To this revision of the same service, whatever its traffic says
        #[arg(long)]
        revision: Option<String>,
    },
}

pub async fn events(args: &EventsArgs) -> Result<ExitCode> {
    let client = Client::find(&crate::config::data_dir(args.data_dir.as_deref())?).await?;
    match &args.command {
        EventsCommand::List { limit } => {
            let answer = client.own(Method::GET, "/_tanebi/v1/events", None).await?;
            let events = answer["events"].as_array().cloned().unwrap_or_default();
            for event in &events[events.len().saturating_sub(*limit)..] {
                let last = event["attempts"].as_array().and_then(|attempts| attempts.last()).unwrap_or(&Value::Null);
                println!("{}\t{}\t{}\t{}\t{}", event["id"], outcome(last), count(&event["attemptsAll"]), text(&event["from"]), text(&event["target"]));
            }
        }
        EventsCommand::Show { id } => {
            let answer = client.own(Method::GET, "/_tanebi/v1/events", None).await?;
            let found = answer["events"].as_array().into_iter().flatten().find(|event| event["id"] == *id);
            show(found.ok_or_else(|| anyhow!("event {id} is not kept; tanebi events list shows those that are"))?);
        }
        EventsCommand::Replay { id, revision } => {
            let mut body = json!({ "id": id });
            if let Some(revision) = revision {
                body["revision"] = json!(revision);
            }
            let event = client.own(Method::POST, "/_tanebi/v1/events:replay", Some(body)).await?;
            let last = event["attempts"].as_array().and_then(|attempts| attempts.last()).unwrap_or(&Value::Null);
            println!("{}\n{}", outcome(last), text(&last["answer"]));
            let is_good = last["status"].as_u64().is_some_and(|status| (200..300).contains(&status));
            return Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(event: &Value) {
    println!("event {} of {} {}", event["id"], text(&event["sender"]), text(&event["from"]));
    for attempt in event["attempts"].as_array().into_iter().flatten() {
        let by_hand = match (attempt["isReplay"] == true, attempt["revision"].as_str()) {
            (true, Some(revision)) => format!("\treplay to {revision}"),
            (true, None) => "\treplay".to_owned(),
            _ => String::new(),
        };
        println!("{}{by_hand}", outcome(attempt));
    }
    println!("{} {}", text(&event["method"]), text(&event["target"]));
    for (name, value) in event["headers"].as_object().into_iter().flatten() {
        println!("{name}: {}", text(value));
    }
    if event["isWhole"] == true {
        println!("\n{}", text(&event["body"]));
    } else {
        println!("\n(a body of {} bytes, which was not kept)", event["bodyBytes"]);
    }
}

fn count(attempts: &Value) -> String {
    if *attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") }
}

/// Time, status and latency of an attempt.
fn outcome(attempt: &Value) -> String {
    let status = attempt["status"].as_u64().map_or_else(|| text(&attempt["failure"]).to_owned(), |status| status.to_string());
    let ms = attempt["latencyUs"].as_u64().unwrap_or_default() as f64 / 1000.0;
    format!("{}\t{status}\t{ms:.1} ms", text(&attempt["began"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
