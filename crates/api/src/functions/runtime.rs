//! The runtimes that functions can be deployed with.

use control::{Runtime, Stage};
use model::{Status, Timestamp};
use proto::google::{cloud::functions::v2 as pb, r#type::Date};

use crate::{app::App, convert::refuse, grpc::Context};

/// Those that a deploy can name now: what is not on this host is not listed.
pub(super) async fn list(app: App, _: Context, request: pb::ListRuntimesRequest) -> Result<pb::ListRuntimesResponse, Status> {
    refuse(!request.filter.is_empty(), "filter")?;
    let now = app.clock.now();
    let here = app.control.runtimes().into_iter().filter(|runtime| runtime.found.is_some());
    Ok(pb::ListRuntimesResponse { runtimes: here.map(|runtime| write(&runtime, now)).collect() })
}

fn write(runtime: &Runtime, now: Timestamp) -> pb::list_runtimes_response::Runtime {
    use pb::list_runtimes_response::RuntimeStage;
    let is_past = |day: &Option<String>| day.as_ref().and_then(|day| format!("{day}T00:00:00Z").parse::<Timestamp>().ok()).is_some_and(|day| day <= now);
    let stage = match runtime.stage {
        _ if is_past(&runtime.decommissioned) => RuntimeStage::Decommissioned,
        _ if is_past(&runtime.deprecated) => RuntimeStage::Deprecated,
        Stage::Ga => RuntimeStage::Ga,
        Stage::Preview => RuntimeStage::Beta,
    };
    let warnings = match stage {
        RuntimeStage::Decommissioned => vec![format!("Google has decommissioned {}: it can be deployed here, and not there.", runtime.id)],
        RuntimeStage::Deprecated => vec![format!("Google has deprecated {}.", runtime.id)],
        _ => Vec::new(),
    };
    pb::list_runtimes_response::Runtime {
        name: runtime.id.clone(),
        display_name: runtime.name.clone(),
        stage: stage as i32,
        warnings,
        environment: pb::Environment::Gen2 as i32,
        deprecation_date: runtime.deprecated.as_deref().and_then(date),
        decommission_date: runtime.decommissioned.as_deref().and_then(date),
    }
}

/// `2030-10-10`.
fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-').map(|part| part.parse::<i32>().ok());
    Some(Date { year: parts.next()??, month: parts.next()??, day: parts.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_stage_follows_googles_days() {
        let runtime = Runtime {
            id: "nodejs20".to_owned(),
            language: control::Language::Nodejs,
            name: "Node.js 20".to_owned(),
            stack: "google-22".to_owned(),
            stage: Stage::Ga,
            deprecated: Some("2026-04-30".to_owned()),
            decommissioned: Some("2026-10-30".to_owned()),
            found: None,
            missing: String::new(),
        };
        use pb::list_runtimes_response::RuntimeStage::{Decommissioned, Deprecated, Ga};
        for (now, expect, warnings) in [("2026-04-29T23:59:59Z", Ga, 0), ("2026-04-30T00:00:00Z", Deprecated, 1), ("2026-10-30T00:00:00Z", Decommissioned, 1)] {
            let written = write(&runtime, now.parse().unwrap());
            assert_eq!((written.stage, written.warnings.len()), (expect as i32, warnings), "{now}");
            assert_eq!(written.deprecation_date, Some(Date { year: 2026, month: 4, day: 30 }));
        }
    }
}
