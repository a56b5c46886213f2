//! The event trigger of a function from Google's shape and into it.

use model::{
    ProjectNumber, Region, ServiceKey, Status,
    function::EventTrigger,
    trigger::{EventFilter, EventKind, TriggerKey},
};
use proto::google::cloud::functions::v2 as pb;

use crate::{
    Deps,
    convert::refuse,
    eventarc::{filter_operator, filters_read},
};

/// The trigger's id is the control plane's.
pub(super) fn from(key: &ServiceKey, number: ProjectNumber, written: pb::EventTrigger) -> Result<EventTrigger, Status> {
    const FIELD: &str = "function.event_trigger";
    refuse(!written.channel.is_empty(), "function.event_trigger.channel")?;
    refuse(!written.service.is_empty(), "function.event_trigger.service")?;
    if written.event_type.is_empty() {
        return Err(Status::invalid_field(format!("{FIELD}.event_type"), "it is required"));
    }
    let location = if written.trigger_region.is_empty() { key.region.clone() } else { Region::parse_location(&written.trigger_region)? };
    let kind = ("type".to_owned(), written.event_type, String::new());
    let others = written.event_filters.into_iter().map(|filter| (filter.attribute, filter.value, filter.operator));
    let topic = match written.pubsub_topic {
        topic if topic.is_empty() => None,
        // The project's number may stand for its id.
        topic => Some(topic.replacen(&format!("projects/{number}/"), &format!("projects/{}/", key.project), 1)),
    };
    let service_account = match written.service_account_email {
        email if email.is_empty() => format!("{number}-compute@developer.gserviceaccount.com"),
        email => email,
    };
    Ok(EventTrigger {
        key: TriggerKey { project: key.project.clone(), location, id: String::new() },
        filters: filters_read([kind].into_iter().chain(others))?,
        topic,
        service_account,
        is_retried: written.retry_policy == pb::event_trigger::RetryPolicy::Retry as i32,
    })
}

pub(super) fn to(deps: &Deps, trigger: &EventTrigger) -> pb::EventTrigger {
    use pb::event_trigger::RetryPolicy;
    let is_type = |filter: &&EventFilter| filter.attribute == "type";
    let event_type = trigger.filters.iter().find(is_type).map(|filter| filter.value.clone()).unwrap_or_default();
    let filters = trigger.filters.iter().filter(|filter| !is_type(filter));
    // A topic that was made for the trigger is told, as a topic that was named.
    let made = || deps.control.trigger_get(&trigger.key).ok().map(|found| found.value.transport.topic);
    let topic = trigger.topic.clone().or_else(|| (event_type == EventKind::MessagePublished.name()).then(made).flatten());
    pb::EventTrigger {
        trigger: trigger.key.resource(),
        trigger_region: trigger.key.location.to_string(),
        event_filters: filters
            .map(|filter| pb::EventFilter { attribute: filter.attribute.clone(), value: filter.value.clone(), operator: filter_operator(filter) })
            .collect(),
        event_type,
        pubsub_topic: topic.unwrap_or_default(),
        service_account_email: trigger.service_account.clone(),
        retry_policy: if trigger.is_retried { RetryPolicy::Retry } else { RetryPolicy::DoNotRetry } as i32,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_googles_default() {
        let key: ServiceKey = serde_json::from_value(serde_json::json!({ "project": "local-project", "region": "asia-northeast1", "service": "f" })).unwrap();
        let written = pb::EventTrigger {
            event_type: "google.cloud.pubsub.topic.v1.messagePublished".into(),
            pubsub_topic: "projects/9/topics/t".into(),
            ..Default::default()
        };
        let trigger = from(&key, ProjectNumber(9), written).unwrap();
        assert_eq!(trigger.key.location.as_str(), "asia-northeast1");
        assert_eq!(trigger.topic.as_deref(), Some("projects/local-project/topics/t"));
        assert_eq!((trigger.service_account.as_str(), trigger.is_retried), ("9-compute@developer.gserviceaccount.com", false));
    }
}
