//! Service of run v1, both ways.

use control::Project;
use model::{
    RevisionName, Service, ServiceKey, Status,
    condition::{Condition, State},
    service::TrafficTarget,
};
use serde_json::{Value as Json, json};

use super::{
    annotation, template,
    types::{self as v1, API_VERSION, refuse_rest},
};
use crate::{
    convert::{count, int},
    run_v2::service::{blank, tag_url, traffic_default},
    version::version,
};

/// The region, as a label that the server writes.
pub(super) const LOCATION: &str = "cloud.googleapis.com/location";

/// What the owner wrote.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the field at fault.
pub(super) fn read(key: ServiceKey, service: v1::Service) -> Result<Service, Status> {
    kind_check(&service)?;
    refuse_rest("", &service.rest)?;
    refuse_rest("metadata", &service.metadata.rest)?;
    refuse_rest("spec", &service.spec.rest)?;
    let mut out = blank(key, template::read(service.spec.template)?);
    out.labels = service.metadata.labels;
    out.labels.remove(LOCATION);
    out.traffic = traffic_read(service.spec.traffic)?;
    annotation::service_read(service.metadata.annotations, &mut out)?;
    Ok(out)
}

fn kind_check(service: &v1::Service) -> Result<(), Status> {
    if service.api_version != API_VERSION {
        return Err(Status::invalid_field("apiVersion", format!("{:?} must be {API_VERSION}", service.api_version)));
    }
    if service.kind != "Service" {
        return Err(Status::invalid_field("kind", format!("{:?} must be Service", service.kind)));
    }
    Ok(())
}

/// The service as clients see it. `urls`: all of its URLs, that of the service first. `operation`: what is working on it.
pub(super) fn write(service: &Service, project: &Project, urls: &[String], operation: Option<&str>) -> v1::Service {
    let mut annotations = annotation::service_write(service);
    annotations.insert("serving.knative.dev/creator".to_owned(), service.creator.clone());
    annotations.insert("serving.knative.dev/lastModifier".to_owned(), service.last_modifier.clone());
    if !urls.is_empty() {
        annotations.insert("run.googleapis.com/urls".to_owned(), json!(urls).to_string());
    }
    annotations.extend(operation.map(|id| ("run.googleapis.com/operation-id".to_owned(), id.to_owned())));
    let mut labels = service.labels.clone();
    labels.insert(LOCATION.to_owned(), service.key.region.to_string());
    v1::Service {
        api_version: API_VERSION.to_owned(),
        kind: "Service".to_owned(),
        metadata: v1::ObjectMeta {
            name: service.key.service.to_string(),
            namespace: project.number.to_string(),
            self_link: format!("/apis/{API_VERSION}/namespaces/{}/services/{}", project.number, service.key.service),
            uid: service.uid.clone(),
            resource_version: version(service),
            generation: service.generation.cast_signed(),
            creation_timestamp: service.created.to_string(),
            deletion_timestamp: service.deleted.map(|at| at.to_string()).unwrap_or_default(),
            labels,
            annotations,
            ..Default::default()
        },
        spec: v1::ServiceSpec {
            template: template::write(&service.template),
            traffic: service.traffic.iter().map(traffic_write).collect(),
            rest: Default::default(),
        },
        status: status_write(service, urls),
        rest: Default::default(),
    }
}

fn status_write(service: &Service, urls: &[String]) -> Json {
    let status = &service.status;
    let mut out = json!({
        "observedGeneration": status.observed_generation,
        "conditions": conditions_write(&status.conditions),
        "traffic": traffic_status(service, urls),
    });
    if let Some(name) = &status.latest_ready {
        out["latestReadyRevisionName"] = json!(name);
    }
    if let Some(name) = &status.latest_created {
        out["latestCreatedRevisionName"] = json!(name);
    }
    if let Some(url) = urls.first() {
        out["url"] = json!(url);
        out["address"] = json!({ "url": url });
    }
    out
}

/// The targets as served, with the URLs of tags.
pub(super) fn traffic_status(service: &Service, urls: &[String]) -> Vec<v1::TrafficTarget> {
    let target = |target: &model::service::TrafficStatus| v1::TrafficTarget {
        revision_name: target.revision.to_string(),
        latest_revision: target.latest.then_some(true),
        percent: (target.percent > 0).then(|| int(target.percent)),
        url: target.tag.as_ref().zip(urls.first()).map(|(tag, url)| tag_url(tag, url)).unwrap_or_default(),
        tag: target.tag.clone().unwrap_or_default(),
        rest: Default::default(),
    };
    service.status.traffic.iter().map(target).collect()
}

/// Conditions, `Ready` first.
pub(super) fn conditions_write(conditions: &[Condition]) -> Json {
    let one = |condition: &Condition| {
        let mut out = json!({
            "type": condition.kind,
            "status": match condition.state {
                State::True => "True",
                State::False => "False",
                State::Unknown => "Unknown",
            },
            "lastTransitionTime": condition.since.to_string(),
        });
        if !condition.reason.is_empty() {
            out["reason"] = json!(condition.reason);
        }
        if !condition.message.is_empty() {
            out["message"] = json!(condition.message);
        }
        out
    };
    let (ready, others): (Vec<_>, Vec<_>) = conditions.iter().partition(|c| c.kind == "Ready");
    ready.into_iter().chain(others).map(one).collect()
}

fn traffic_read(targets: Vec<v1::TrafficTarget>) -> Result<Vec<TrafficTarget>, Status> {
    if targets.is_empty() {
        return Ok(traffic_default());
    }
    let read = |(at, target): (usize, v1::TrafficTarget)| {
        let field = |name: &str| format!("spec.traffic[{at}].{name}");
        refuse_rest(&format!("spec.traffic[{at}]"), &target.rest)?;
        let revision = match (target.latest_revision.unwrap_or(false), target.revision_name.as_str()) {
            (true, "") => None,
            (true, _) => return Err(Status::invalid_field(field("revisionName"), "it does not go with latestRevision")),
            (false, "") => return Err(Status::invalid_field(field("revisionName"), "it is required without latestRevision")),
            (false, name) => Some(RevisionName::parse(name)?),
        };
        let percent = count(&field("percent"), target.percent.unwrap_or(0))?;
        Ok(TrafficTarget { revision, percent, tag: (!target.tag.is_empty()).then_some(target.tag) })
    };
    targets.into_iter().enumerate().map(read).collect()
}

fn traffic_write(target: &TrafficTarget) -> v1::TrafficTarget {
    v1::TrafficTarget {
        revision_name: target.revision.as_ref().map(RevisionName::to_string).unwrap_or_default(),
        latest_revision: target.revision.is_none().then_some(true),
        percent: (target.percent > 0).then(|| int(target.percent)),
        tag: target.tag.clone().unwrap_or_default(),
        ..Default::default()
    }
}
