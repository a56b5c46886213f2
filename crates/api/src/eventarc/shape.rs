//! A trigger from Google's shape and into it.

use control::TriggerWish;
use model::{
    Region, ServiceKey, ServiceName, Status, function,
    trigger::{Destination, EventFilter, Trigger, TriggerKey},
};
use proto::google::{cloud::eventarc::v1 as pb, rpc};

use crate::{
    Deps,
    convert::{refuse, time, unsupported},
    permission::name_read,
};

const PATTERN: &str = "match-path-pattern";
const JSON: &str = "application/json";
/// The APIs whose calls are in the audit log.
const AUDITED: [&str; 12] = [
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "cloudscheduler.googleapis.com",
    "eventarc.googleapis.com",
    "iam.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "serviceusage.googleapis.com",
    "storage.googleapis.com",
];

/// Filters as (attribute, value, operator).
///
/// # Errors
/// `INVALID_ARGUMENT` for an operator that there is not, and for an API whose calls would never come.
pub(crate) fn filters_read(filters: impl IntoIterator<Item = (String, String, String)>) -> Result<Vec<EventFilter>, Status> {
    let read = filters.into_iter().map(|(attribute, value, operator)| {
        let is_pattern = match operator.as_str() {
            "" => false,
            PATTERN => true,
            _ => return Err(Status::invalid(format!("The request was invalid: invalid operator \"{operator}\" in trigger.event_filters"))),
        };
        if attribute == "serviceName" && !is_pattern && !AUDITED.contains(&value.as_str()) {
            return Err(Status::invalid(format!(
                "The request was invalid: invalid value for attribute \"serviceName\" in trigger.event_filters: no calls of \"{value}\" are in the audit log of this server"
            )));
        }
        Ok(EventFilter { attribute, value, is_pattern })
    });
    read.collect()
}

pub(crate) fn filter_operator(filter: &EventFilter) -> String {
    if filter.is_pattern { PATTERN.to_owned() } else { String::new() }
}

/// What a client asks for; `current` is what it changes.
pub(super) fn read(deps: &Deps, key: &TriggerKey, written: pb::Trigger, current: Option<&Trigger>) -> Result<TriggerWish, Status> {
    if !written.name.is_empty() && name_read(super::TRIGGER, &written.name).is_none_or(|vars| vars["trigger"] != key.id) {
        return Err(Status::invalid_field("trigger.name", format!("{:?} is not {}", written.name, key.resource())));
    }
    refuse(!written.channel.is_empty(), "trigger.channel")?;
    if !matches!(written.event_data_content_type.as_str(), "" | JSON) {
        return Err(Status::invalid_field(
            "trigger.event_data_content_type",
            format!("{:?} is not served; events have {JSON}", written.event_data_content_type),
        ));
    }
    let is_tried_once = match written.retry_policy.map_or(0, |policy| policy.max_attempts) {
        0 => false,
        1 => true,
        other => return Err(Status::invalid_field("trigger.retry_policy.max_attempts", format!("must be 1 or unset, and is {other}"))),
    };
    let destination = written.destination.ok_or_else(|| Status::invalid_field("trigger.destination", "it is required"))?;
    refuse(destination.network_config.is_some_and(|config| !config.network_attachment.is_empty()), "trigger.destination.network_config")?;
    let destination = destination_read(key, destination.descriptor, current)?;
    let topic = match written.transport.and_then(|transport| transport.intermediary) {
        Some(pb::transport::Intermediary::Pubsub(pubsub)) => Some(pubsub.topic).filter(|topic| !topic.is_empty()),
        None => None,
    };
    let topic = topic.filter(|topic| current.is_none_or(|current| current.transport.topic != *topic));
    let topic = topic.map(|topic| topic_read(deps, &topic)).transpose()?;
    let account = &written.service_account;
    // By its e-mail or its unique id.
    let service_account = deps.iam.service_account_get(None, account).map_or_else(|_| account.clone(), |found| found.email);
    Ok(TriggerWish {
        key: key.clone(),
        labels: written.labels.into_iter().collect(),
        filters: filters_read(written.event_filters.into_iter().map(|filter| (filter.attribute, filter.value, filter.operator)))?,
        destination,
        service_account: if account.is_empty() { String::new() } else { service_account },
        topic,
        is_tried_once,
    })
}

fn destination_read(key: &TriggerKey, written: Option<pb::destination::Descriptor>, current: Option<&Trigger>) -> Result<Destination, Status> {
    use pb::destination::Descriptor;
    const FIELD: &str = "trigger.destination";
    match written {
        Some(Descriptor::CloudRun(run)) => {
            if run.region.is_empty() {
                return Err(Status::invalid_field(format!("{FIELD}.cloud_run.region"), "it is required"));
            }
            let service = ServiceKey { project: key.project.clone(), region: Region::parse(&run.region)?, service: ServiceName::parse(&run.service)? };
            Ok(Destination { service, path: run.path, is_function: false })
        }
        Some(Descriptor::CloudFunction(name)) => match current.map(|current| &current.destination) {
            Some(same) if same.is_function && function::resource(&same.service) == name => Ok(same.clone()),
            _ => Err(Status::invalid_field(
                format!("{FIELD}.cloud_function"),
                "it is read-only: triggers of functions are made with the function; name its service as cloud_run instead",
            )),
        },
        Some(Descriptor::Gke(_)) => Err(unsupported(format!("{FIELD}.gke"))),
        Some(Descriptor::Workflow(_)) => Err(unsupported(format!("{FIELD}.workflow"))),
        Some(Descriptor::HttpEndpoint(_)) => Err(unsupported(format!("{FIELD}.http_endpoint"))),
        None => Err(Status::invalid_field(FIELD, "a cloud_run is required")),
    }
}

/// `projects/P/topics/T`, with the project's id where its number was written.
fn topic_read(deps: &Deps, written: &str) -> Result<String, Status> {
    const FORM: &str = "projects/{project}/topics/{topic}";
    let bad = || Status::invalid_field("trigger.transport.pubsub.topic", format!("Invalid resource name {written:?}: expected the form {FORM}"));
    let vars = name_read(FORM, written).ok_or_else(bad)?;
    let project = deps.control.project_get(&vars["project"]).map_or_else(|_| vars["project"].clone(), |project| project.id.to_string());
    Ok(format!("projects/{project}/topics/{}", vars["topic"]))
}

/// Changes with what the owner wrote.
pub(super) fn etag(trigger: &Trigger) -> String {
    format!("\"{}-{}\"", trigger.uid.get(..8).unwrap_or_default(), trigger.generation)
}

pub(super) fn write(trigger: &Trigger) -> pb::Trigger {
    use pb::destination::Descriptor;
    let Destination { service, path, is_function } = &trigger.destination;
    let descriptor = if *is_function {
        Descriptor::CloudFunction(function::resource(service))
    } else {
        Descriptor::CloudRun(pb::CloudRun { service: service.service.to_string(), path: path.clone(), region: service.region.to_string() })
    };
    let filters = trigger.filters.iter();
    let filters = filters.map(|filter| pb::EventFilter { attribute: filter.attribute.clone(), value: filter.value.clone(), operator: filter_operator(filter) });
    let conditions = trigger.status.failure.iter().map(|why| {
        let code = rpc::Code::try_from(why.code as i32).unwrap_or(rpc::Code::Unknown);
        ("TRANSPORT".to_owned(), pb::StateCondition { code: code as i32, message: why.outer.clone() })
    });
    let pubsub = pb::Pubsub { topic: trigger.transport.topic.clone(), subscription: trigger.transport.subscription.clone() };
    pb::Trigger {
        name: trigger.key.resource(),
        uid: trigger.uid.clone(),
        create_time: Some(time(trigger.created)),
        update_time: Some(time(trigger.updated)),
        event_filters: filters.collect(),
        service_account: trigger.service_account.clone(),
        destination: Some(pb::Destination { descriptor: Some(descriptor), network_config: None }),
        transport: Some(pb::Transport { intermediary: Some(pb::transport::Intermediary::Pubsub(pubsub)) }),
        labels: trigger.labels.clone().into_iter().collect(),
        conditions: conditions.collect(),
        event_data_content_type: JSON.to_owned(),
        retry_policy: trigger.is_tried_once.then_some(pb::trigger::RetryPolicy { max_attempts: 1 }),
        etag: etag(trigger),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_with_their_operators() {
        let read = |attribute: &str, value: &str, operator: &str| filters_read([(attribute.to_owned(), value.to_owned(), operator.to_owned())]);
        assert!(read("resourceName", "/a/*", PATTERN).unwrap()[0].is_pattern && !read("type", "t", "").unwrap()[0].is_pattern);
        assert!(read("type", "t", "path_pattern").unwrap_err().outer.contains("invalid operator \"path_pattern\""));
        assert!(read("serviceName", "bigquery.googleapis.com", "").unwrap_err().outer.contains("\"bigquery.googleapis.com\""));
        assert!(AUDITED.is_sorted() && AUDITED.iter().all(|service| read("serviceName", service, "").is_ok()));
    }
}
