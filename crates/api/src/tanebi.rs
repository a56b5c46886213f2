//! tanebi v1: what Google has no method for, of a service of Cloud Run, with that service's permissions.
//!
//! Below `/tanebi/v1/` on Cloud Run's host, so that the console and every client of that API reach it.

use http::Method as Verb;
use model::{Region, ServiceKey, ServiceName, Status};
use serde_json::{Value, json};

use crate::{
    Response,
    app::App,
    error,
    permission::on,
    surface::{Call, Endpoints, Surface},
};

const HOSTS: &[&str] = &["run.googleapis.com"];
const SERVICE: &str = "projects/{project}/locations/{location}/services/{service}";

pub(crate) fn surface(app: &App) -> Surface {
    Endpoints::new(app.clone())
        .on(
            Verb::GET,
            "/tanebi/v1/projects/{project}/locations/{location}/services/{service}/scalingDecisions",
            on("run.services.get", SERVICE),
            scaling_decision_list,
        )
        .surface("tanebi v1", HOSTS)
}

/// Why the service's revisions had more or fewer instances: the last decisions, the newest first. `limit`: at most so many.
async fn scaling_decision_list(app: App, call: Call) -> Result<Response, Status> {
    let key = ServiceKey {
        project: model::ProjectId::parse(call.var("project")?)?,
        region: Region::parse(call.var("location")?)?,
        service: ServiceName::parse(call.var("service")?)?,
    };
    let limit = match call.query("limit") {
        None => usize::MAX,
        Some(text) => text.parse().map_err(|_| Status::invalid_field("limit", format!("{text:?} is no number of decisions")))?,
    };
    app.control.service_get(&key)?;
    let mut all: Vec<_> = app
        .control
        .serving()
        .scaling_decisions(&key)
        .into_iter()
        .flat_map(|(revision, list)| list.into_iter().map(move |one| (revision.clone(), one)))
        .collect();
    all.sort_by_key(|(_, one)| std::cmp::Reverse(one.time));
    let decisions: Vec<Value> = all
        .into_iter()
        .take(limit)
        .map(|(revision, one)| {
            json!({
                "time": one.time.to_string(), "revision": revision, "from": one.from, "to": one.to, "reason": one.decision.reason.name(),
                "wanted": one.decision.limited, "text": one.decision.to_string(),
            })
        })
        .collect();
    Ok(error::json_response(http::StatusCode::OK, &json!({ "scalingDecisions": decisions })))
}
