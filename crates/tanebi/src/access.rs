//! `tanebi iam why-denied` and `tanebi iam who-can`: why somebody was not let in, and who would be.

use std::process::ExitCode;

use anyhow::Result;
use http::Method;
use serde_json::Value;

use crate::{
    env::{Environment, IdentityArgs},
    format::Format,
    logs::harmless,
};

const HOST: &str = "policytroubleshooter.googleapis.com";

#[derive(clap::Args, Clone, Debug)]
pub struct IamArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(subcommand)]
    command: IamCommand,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum IamCommand {
    /// Name what stands in the way of a caller, and the line that mends it
    WhyDenied(WhyDeniedArgs),
    /// List who has a permission: tanebi iam who-can invoke SERVICE
    WhoCan {
        /// invoke, or a permission such as storage.objects.get
        permission: String,
        /// Name of a service, or a resource such as projects/P or gs://BUCKET
        resource: String,
        #[arg(long)]
        region: Option<String>,
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct WhyDeniedArgs {
    /// Trace of a request that was not let in: its log entry has it
    #[arg(long, value_name = "ID", conflicts_with_all = ["principal", "service", "resource", "permission", "inside"])]
    request: Option<String>,
    /// ADDRESS, user:ADDRESS, serviceAccount:ADDRESS or allUsers
    #[arg(long, required_unless_present = "request")]
    principal: Option<String>,
    /// Name of a service
    #[arg(long, conflicts_with = "resource")]
    service: Option<String>,
    #[arg(long)]
    region: Option<String>,
    /// Any other resource with a policy, such as gs://BUCKET; the project when none is named
    #[arg(long)]
    resource: Option<String>,
    /// run.routes.invoke when none is named
    #[arg(long)]
    permission: Option<String>,
    /// The call comes from an instance of the project
    #[arg(long)]
    inside: bool,
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub async fn access(args: &IamArgs) -> Result<ExitCode> {
    let environment = Environment::make(&args.identity).await?;
    let (method, query, format) = match &args.command {
        IamCommand::WhyDenied(why) => ("whyDenied", why.query(), why.format),
        IamCommand::WhoCan { permission, resource, region, format } => ("whoCan", who_can(permission, resource, region.as_deref()), *format),
    };
    let path = format!("/tanebi/v1/projects/{}:{method}?{query}", environment.client.server.project);
    let answer = environment.client.api(&environment.access_token, Method::GET, HOST, &path, None).await?;
    match (format, method) {
        (Format::Json, _) => println!("{}", serde_json::to_string_pretty(&answer)?),
        (Format::Table, "whyDenied") => print!("{}", why_text(&harmless_all(&answer))),
        (Format::Table, _) => print!("{}", who_text(&harmless_all(&answer))),
    }
    Ok(ExitCode::SUCCESS)
}

impl WhyDeniedArgs {
    fn query(&self) -> String {
        let from = self.inside.then(|| "inside".to_owned());
        let pairs = [
            ("request", &self.request),
            ("principal", &self.principal),
            ("service", &self.service),
            ("region", &self.region),
            ("resource", &self.resource),
            ("permission", &self.permission),
            ("from", &from),
        ];
        query(pairs.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))))
    }
}

fn who_can(permission: &str, resource: &str, region: Option<&str>) -> String {
    let permission = if permission == "invoke" { "run.routes.invoke" } else { permission };
    let is_name = !resource.contains('/');
    let place = if is_name { "service" } else { "resource" };
    query([("permission", permission), (place, resource)].into_iter().chain(region.map(|region| ("region", region))))
}

fn query<'a>(pairs: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// An answer whose texts, of which callers wrote some, are shown and not obeyed.
fn harmless_all(answer: &Value) -> Value {
    match answer {
        Value::String(text) => Value::String(harmless(text)),
        Value::Array(list) => list.iter().map(harmless_all).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), harmless_all(value))).collect(),
        other => other.clone(),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn why_text(answer: &Value) -> String {
    let (who, permission, resource) = (text(answer, "principal"), text(answer, "permission"), text(answer, "resource"));
    let mut out = String::new();
    match text(answer, "time") {
        "" if answer["allowed"] == true => out += &format!("{who} has {permission} on {resource}.\n"),
        "" => out += &format!("{who} has not {permission} on {resource}:\n"),
        time => {
            let who = if who.is_empty() { "somebody" } else { who };
            out += &format!("At {time} a call of {who} to {resource} was refused:\n");
        }
    }
    if answer["invokerIamDisabled"] == true {
        out += "The service asks no caller for a permission.\n";
    }
    for grant in answer["grants"].as_array().into_iter().flatten() {
        out += &format!("  by {} in the policy of {}\n", text(grant, "role"), text(grant, "policy"));
    }
    for reason in answer["reasons"].as_array().into_iter().flatten() {
        out += &format!("  {}: {}\n", text(reason, "kind"), text(reason, "message"));
        if let Some(fix) = reason["fix"].as_str() {
            out += &format!("    $ {fix}\n");
        }
    }
    out
}

fn who_text(answer: &Value) -> String {
    let mut out = String::new();
    if answer["invokerIamDisabled"] == true {
        out += "Anyone: the service asks no caller for a permission.\n";
    }
    let principals = answer["principals"].as_array().map_or(&[][..], Vec::as_slice);
    if principals.is_empty() {
        out += &format!("No binding gives anyone {} on {}.\n", text(answer, "permission"), text(answer, "resource"));
        return out;
    }
    out += &format!("{:<5} {:<48} {:<32} {}\n", "NOW", "MEMBER", "ROLE", "POLICY");
    for one in principals {
        let via = one["via"].as_str().map_or_else(String::new, |via| format!(" (in {via})"));
        let note = [one["condition"]["expression"].as_str().map(|when| format!(" when {when}")), one["why"].as_str().map(|why| format!(" ({why})"))];
        let may = if one["may"] == true { "yes" } else { "no" };
        let member = format!("{}{via}", text(one, "member"));
        out += &format!("{may:<5} {member:<48} {:<32} {}{}\n", text(one, "role"), text(one, "policy"), note.into_iter().flatten().collect::<String>());
    }
    if answer["truncated"] == true {
        out += "There are more.\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_is_told_with_the_line_that_mends_it() {
        let answer = json!({
            "allowed": false, "principal": "user:a@b.c", "permission": "run.routes.invoke", "resource": "projects/p/locations/r/services/s",
            "reasons": [{ "kind": "MISSING_BINDING", "message": "No binding.", "fix": "gcloud run x" }, { "kind": "INGRESS", "message": "Internal." }],
        });
        assert_eq!(
            why_text(&answer),
            "user:a@b.c has not run.routes.invoke on projects/p/locations/r/services/s:\n  MISSING_BINDING: No binding.\n    $ gcloud run x\n  INGRESS: Internal.\n"
        );
    }

    #[test]
    fn what_a_token_says_is_shown_and_not_obeyed() {
        let answer = json!({
            "allowed": false, "principal": "", "permission": "run.routes.invoke", "resource": "r", "time": "t",
            "reasons": [{ "kind": "AUDIENCE", "message": "It says that it is \u{1b}[2Jx's.", "fix": "gcloud \u{9b}31m\r" }],
        });
        let told = why_text(&harmless_all(&answer));
        assert!(told.contains("\\u{1b}[2Jx") && told.contains("gcloud \\u{9b}31m\\r") && !told.contains(['\u{1b}', '\u{9b}', '\r']), "{told:?}");
    }

    #[test]
    fn a_bare_name_is_a_service() {
        assert_eq!(who_can("invoke", "hello", Some("r")), "permission=run.routes.invoke&service=hello&region=r");
        assert_eq!(who_can("storage.objects.get", "gs://b", None), "permission=storage.objects.get&resource=gs%3A%2F%2Fb");
    }
}
