//! `tanebi logs [SERVICE]`: what functions and platform wrote, oldest first, by the Logging API.

use std::process::ExitCode;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use crate::env::{Environment, IdentityArgs};

#[derive(clap::Args, Clone, Debug)]
pub struct LogsArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    /// Service; every one without it
    service: Option<String>,
    #[arg(long)]
    region: Option<String>,
    /// How many of the newest
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// A filter more, in Google's Logging query language
    #[arg(long)]
    log_filter: Option<String>,
}

pub async fn logs(args: &LogsArgs) -> Result<ExitCode> {
    let environment = Environment::make(&args.identity).await?;
    let mut filter = vec!["resource.type=\"cloud_run_revision\"".to_owned()];
    if let Some(service) = &args.service {
        filter.push(format!("resource.labels.service_name={}", json!(service)));
    }
    if let Some(region) = &args.region {
        filter.push(format!("resource.labels.location={}", json!(region)));
    }
    if let Some(more) = &args.log_filter {
        filter.push(format!("({more})"));
    }
    let project = &environment.client.server.project;
    let answer = environment
        .client
        .api(
            &environment.access_token,
            Method::POST,
            "logging.googleapis.com",
            "/v2/entries:list",
            Some(json!({ "resourceNames": [format!("projects/{project}")], "filter": filter.join(" AND "), "orderBy": "timestamp desc", "pageSize": args.limit })),
        )
        .await?;
    for entry in answer["entries"].as_array().into_iter().flatten().rev() {
        println!("{}", line(entry));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(entry: &Value) -> String {
    let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let payload = match (entry.get("textPayload"), entry.get("jsonPayload"), entry.get("httpRequest")) {
        (Some(Value::String(text)), _, _) => text.clone(),
        (_, Some(json), _) => structured(json),
        (_, _, Some(request)) => {
            let part = |name: &str| request[name].as_str().map_or_else(|| request[name].to_string(), str::to_owned);
            format!("{} {} {} {}", part("requestMethod"), part("status"), part("latency"), part("requestUrl"))
        }
        _ => String::new(),
    };
    let severity = if text("/severity").is_empty() { "DEFAULT" } else { text("/severity") };
    format!("{} {:<8} {} {}", text("/timestamp"), severity, text("/resource/labels/service_name"), harmless(&payload))
}

/// What a structured line says: its message, then its other fields; what it tells the log about itself (`logging.googleapis.com/...`) is left out.
fn structured(json: &Value) -> String {
    let (Some(message), Some(fields)) = (json["message"].as_str(), json.as_object()) else { return json.to_string() };
    let mut rest = fields.clone();
    rest.retain(|name, _| name != "message" && !name.starts_with("logging.googleapis.com/"));
    if rest.is_empty() { message.to_owned() } else { format!("{message} {}", Value::Object(rest)) }
}

/// A function's own text, or a caller's, cannot speak to the terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() && c != '\t' { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_structured_line_begins_with_its_message() {
        let check = |payload: serde_json::Value, expect: &str| assert_eq!(super::structured(&payload), expect);
        check(json!({ "message": "hi", "logging.googleapis.com/sourceLocation": { "file": "f" } }), "hi");
        check(json!({ "message": "hi", "a": 1 }), r#"hi {"a":1}"#);
        check(json!({ "a": 1 }), r#"{"a":1}"#);
        check(json!({ "message": { "deep": 1 } }), r#"{"message":{"deep":1}}"#);
    }

    #[test]
    fn escapes_are_shown_and_not_obeyed() {
        assert_eq!(super::harmless("a\u{1b}[31m\r\nb\tc"), "a\\u{1b}[31m\\r\\nb\tc");
    }
}
