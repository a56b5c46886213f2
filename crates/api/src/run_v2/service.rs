//! Service of run v2, both ways. Source: google/cloud/run/v2/{service,vendor_settings,traffic_target}.proto.

use std::collections::BTreeMap;

use model::{
    RevisionName, Service, ServiceKey, Status, Timestamp,
    condition::{Condition, State},
    service::{BuildConfig, Ingress, ServiceScaling, ServiceStatus, TrafficTarget},
};
use proto::google::{api::LaunchStage, cloud::run::v2 as pb};

use super::template;
use crate::{
    convert::{count, int, refuse, time},
    version::version,
};

/// Where run v1 keeps the launch stage; `model` keeps it there too.
const LAUNCH_STAGE: &str = "run.googleapis.com/launch-stage";

/// What the owner wrote. Output-only fields are passed over, as Google does: clients write back what they read.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the field at fault.
pub(super) fn read(key: ServiceKey, service: pb::Service) -> Result<Service, Status> {
    refuse(service.binary_authorization.is_some(), "binary_authorization")?;
    refuse(service.iap_enabled, "iap_enabled")?;
    refuse(service.multi_region_settings.is_some(), "multi_region_settings")?;
    let mut annotations = template::annotations_read("annotations", service.annotations)?;
    if let Some(stage) = launch_stage_read(service.launch_stage)? {
        annotations.insert(LAUNCH_STAGE.to_owned(), stage.to_owned());
    }
    let template = service.template.ok_or_else(|| Status::invalid_field("template", "it is required"))?;
    Ok(Service {
        labels: service.labels.into_iter().collect(),
        annotations,
        client: service.client,
        client_version: service.client_version,
        description: service.description,
        ingress: match service.ingress {
            0 | 1 => Ingress::All,
            2 => Ingress::Internal,
            3 => Ingress::InternalAndLoadBalancer,
            4 => Ingress::None,
            other => return Err(Status::invalid_field("ingress", format!("{other} is none of its values"))),
        },
        invoker_iam_disabled: service.invoker_iam_disabled,
        default_uri_disabled: service.default_uri_disabled,
        custom_audiences: service.custom_audiences,
        scaling: scaling_read(service.scaling.unwrap_or_default())?,
        build_config: service.build_config.map(build_config_read),
        traffic: traffic_read(service.traffic)?,
        ..blank(key, template::read(template)?)
    })
}

/// Puts back what run v2 does not show: annotations of the system other than the launch stage, and the build's id.
pub(super) fn hidden_keep(new: &mut Service, old: &Service) {
    for (key, value) in old.annotations.iter().filter(|(key, _)| template::is_system(key) && *key != LAUNCH_STAGE) {
        new.annotations.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if let (Some(new), Some(old)) = (&mut new.build_config, &old.build_config)
        && new.name == old.name
    {
        new.id.clone_from(&old.id);
    }
}

/// A service of which nothing is said but its key and template; what is left is `control`'s to set.
pub(crate) fn blank(key: ServiceKey, template: model::revision::RevisionTemplate) -> Service {
    Service {
        key,
        uid: String::new(),
        generation: 0,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH,
        deleted: None,
        creator: String::new(),
        last_modifier: String::new(),
        client: String::new(),
        client_version: String::new(),
        description: String::new(),
        ingress: Ingress::All,
        invoker_iam_disabled: false,
        default_uri_disabled: false,
        custom_audiences: Vec::new(),
        scaling: ServiceScaling::default(),
        build_config: None,
        template,
        traffic: traffic_default(),
        status: ServiceStatus::default(),
    }
}

/// All to the latest revision.
pub(crate) fn traffic_default() -> Vec<TrafficTarget> {
    vec![TrafficTarget { revision: None, percent: 100, tag: None }]
}

/// The service as clients see it. `urls`: all of its URLs, that of the service first.
pub(super) fn write(service: &Service, urls: Vec<String>) -> pb::Service {
    let name = service.key.resource();
    let revision = |name_: &Option<RevisionName>| name_.as_ref().map(|r| format!("{name}/revisions/{r}")).unwrap_or_default();
    let (ready, others): (Vec<_>, Vec<_>) = service.status.conditions.iter().partition(|c| c.kind == "Ready");
    let settled = service.is_settled();
    pb::Service {
        description: service.description.clone(),
        uid: service.uid.clone(),
        generation: service.generation.cast_signed(),
        labels: service.labels.clone().into_iter().collect(),
        annotations: template::annotations_write(&service.annotations),
        create_time: Some(time(service.created)),
        update_time: Some(time(service.updated)),
        delete_time: service.deleted.map(time),
        creator: service.creator.clone(),
        last_modifier: service.last_modifier.clone(),
        client: service.client.clone(),
        client_version: service.client_version.clone(),
        ingress: match service.ingress {
            Ingress::All => 1,
            Ingress::Internal => 2,
            Ingress::InternalAndLoadBalancer => 3,
            Ingress::None => 4,
        },
        launch_stage: launch_stage_write(&service.annotations),
        template: Some(template::write(&service.template)),
        traffic: service.traffic.iter().map(traffic_write).collect(),
        scaling: scaling_write(&service.scaling),
        invoker_iam_disabled: service.invoker_iam_disabled,
        default_uri_disabled: service.default_uri_disabled,
        uri: urls.first().cloned().unwrap_or_default(),
        custom_audiences: service.custom_audiences.clone(),
        observed_generation: service.status.observed_generation.cast_signed(),
        terminal_condition: ready.into_iter().map(condition_write).next(),
        conditions: others.into_iter().map(condition_write).collect(),
        latest_ready_revision: revision(&service.status.latest_ready),
        latest_created_revision: revision(&service.status.latest_created),
        traffic_statuses: service
            .status
            .traffic
            .iter()
            .map(|target| pb::TrafficTargetStatus {
                r#type: if target.latest { 1 } else { 2 },
                revision: target.revision.to_string(),
                percent: int(target.percent),
                uri: target.tag.as_ref().zip(urls.first()).map(|(tag, url)| tag_url(tag, url)).unwrap_or_default(),
                tag: target.tag.clone().unwrap_or_default(),
            })
            .collect(),
        build_config: service.build_config.as_ref().map(build_config_write),
        reconciling: !settled,
        etag: format!("\"{}\"", version(service)),
        urls,
        name,
        ..Default::default()
    }
}

/// The URL of a tagged target: `https://TAG---SERVICE-...`.
pub(crate) fn tag_url(tag: &str, url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{tag}---{rest}"),
        None => String::new(),
    }
}

/// A condition of a service or revision.
pub(super) fn condition_write(condition: &Condition) -> pb::Condition {
    pb::Condition {
        r#type: condition.kind.clone(),
        state: match condition.state {
            State::True => pb::condition::State::ConditionSucceeded,
            State::False => pb::condition::State::ConditionFailed,
            State::Unknown => pb::condition::State::ConditionReconciling,
        } as i32,
        message: condition.message.clone(),
        last_transition_time: Some(time(condition.since)),
        severity: if condition.state == State::False { pb::condition::Severity::Error as i32 } else { 0 },
        reasons: reason_write(&condition.reason),
    }
}

/// `HealthCheckContainerError` of run v1 is `HEALTH_CHECK_CONTAINER_ERROR` here.
fn reason_write(reason: &str) -> Option<pb::condition::Reasons> {
    use pb::condition::{CommonReason, Reasons, RevisionReason};
    let mut name = String::new();
    for (at, c) in reason.char_indices() {
        if at > 0 && c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    let revision = RevisionReason::from_str_name(&name).map(|r| Reasons::RevisionReason(r as i32));
    CommonReason::from_str_name(&name).map(|r| Reasons::Reason(r as i32)).or(revision)
}

fn launch_stage_read(stage: i32) -> Result<Option<&'static str>, Status> {
    match LaunchStage::try_from(stage) {
        Ok(LaunchStage::Unspecified | LaunchStage::Ga) => Ok(None),
        Ok(LaunchStage::Beta) => Ok(Some("BETA")),
        Ok(LaunchStage::Alpha) => Ok(Some("ALPHA")),
        _ => Err(Status::invalid_field("launch_stage", "it must be ALPHA, BETA or GA")),
    }
}

fn launch_stage_write(annotations: &BTreeMap<String, String>) -> i32 {
    match annotations.get(LAUNCH_STAGE).map(String::as_str) {
        Some("BETA") => LaunchStage::Beta as i32,
        Some("ALPHA") => LaunchStage::Alpha as i32,
        _ => LaunchStage::Ga as i32,
    }
}

fn scaling_read(scaling: pb::ServiceScaling) -> Result<ServiceScaling, Status> {
    let manual = scaling.manual_instance_count.map(|n| count("scaling.manual_instance_count", n)).transpose()?;
    let manual_instances = match (scaling.scaling_mode, manual) {
        (0 | 1, None) => None,
        (0 | 1, Some(_)) => return Err(Status::invalid_field("scaling.manual_instance_count", "it goes with scaling_mode MANUAL only")),
        (2, Some(n)) => Some(n),
        (2, None) => return Err(Status::invalid_field("scaling.manual_instance_count", "it is required with scaling_mode MANUAL")),
        (other, _) => return Err(Status::invalid_field("scaling.scaling_mode", format!("{other} is none of its values"))),
    };
    let max = count("scaling.max_instance_count", scaling.max_instance_count)?;
    Ok(ServiceScaling {
        min_instances: count("scaling.min_instance_count", scaling.min_instance_count)?,
        max_instances: (max != 0).then_some(max),
        manual_instances,
    })
}

fn scaling_write(scaling: &ServiceScaling) -> Option<pb::ServiceScaling> {
    (*scaling != ServiceScaling::default()).then(|| pb::ServiceScaling {
        min_instance_count: int(scaling.min_instances),
        max_instance_count: int(scaling.max_instances.unwrap_or(0)),
        scaling_mode: if scaling.manual_instances.is_some() { 2 } else { 0 },
        manual_instance_count: scaling.manual_instances.map(int),
    })
}

fn build_config_read(config: pb::BuildConfig) -> BuildConfig {
    BuildConfig {
        id: config.name.rsplit_once("/builds/").map(|(_, id)| id.to_owned()).unwrap_or_default(),
        name: config.name,
        source_location: config.source_location,
        function_target: config.function_target,
        image_uri: config.image_uri,
        base_image: config.base_image,
        enable_automatic_updates: config.enable_automatic_updates,
        environment_variables: config.environment_variables.into_iter().collect(),
        service_account: config.service_account,
        worker_pool: config.worker_pool,
    }
}

fn build_config_write(config: &BuildConfig) -> pb::BuildConfig {
    pb::BuildConfig {
        name: config.name.clone(),
        source_location: config.source_location.clone(),
        function_target: config.function_target.clone(),
        image_uri: config.image_uri.clone(),
        base_image: config.base_image.clone(),
        enable_automatic_updates: config.enable_automatic_updates,
        worker_pool: config.worker_pool.clone(),
        environment_variables: config.environment_variables.clone().into_iter().collect(),
        service_account: config.service_account.clone(),
    }
}

fn traffic_read(targets: Vec<pb::TrafficTarget>) -> Result<Vec<TrafficTarget>, Status> {
    if targets.is_empty() {
        return Ok(traffic_default());
    }
    let read = |(at, target): (usize, pb::TrafficTarget)| {
        let field = |name: &str| format!("traffic[{at}].{name}");
        let revision = match (target.r#type, target.revision.as_str()) {
            (0 | 1, "") => None,
            (1, _) => return Err(Status::invalid_field(field("revision"), "it does not go with type TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST")),
            (2, "") => return Err(Status::invalid_field(field("revision"), "it is required with type TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION")),
            (0 | 2, name) => Some(RevisionName::parse(name)?),
            (other, _) => return Err(Status::invalid_field(field("type"), format!("{other} is none of its values"))),
        };
        Ok(TrafficTarget { revision, percent: count(&field("percent"), target.percent)?, tag: (!target.tag.is_empty()).then_some(target.tag) })
    };
    targets.into_iter().enumerate().map(read).collect()
}

fn traffic_write(target: &TrafficTarget) -> pb::TrafficTarget {
    pb::TrafficTarget {
        r#type: if target.revision.is_some() { 2 } else { 1 },
        revision: target.revision.as_ref().map(RevisionName::to_string).unwrap_or_default(),
        percent: int(target.percent),
        tag: target.tag.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    proptest! {
        /// What the owner wrote comes back; the system's annotations come back by the update's own care.
        #[test]
        fn services_come_back(service in arbitrary::service()) {
            let mut back = read(service.key.clone(), write(&service, Vec::new())).unwrap();
            template::hidden_keep(&mut back.template, &service.template);
            let expect = arbitrary::owner_part(service);
            prop_assert_eq!(back, expect);
        }
    }

    #[test]
    fn reasons_are_translated() {
        use pb::condition::{CommonReason, Reasons, RevisionReason};
        assert_eq!(reason_write("ContainerMissing"), Some(Reasons::Reason(CommonReason::ContainerMissing as i32)));
        assert_eq!(reason_write("HealthCheckContainerError"), Some(Reasons::RevisionReason(RevisionReason::HealthCheckContainerError as i32)));
        assert_eq!(reason_write("Retired"), Some(Reasons::RevisionReason(RevisionReason::Retired as i32)));
        assert_eq!(reason_write("SomethingOfOurs"), None);
        assert_eq!(reason_write(""), None);
    }

    #[test]
    fn tags_have_urls() {
        assert_eq!(tag_url("blue", "https://s-9.asia-northeast1.run.app"), "https://blue---s-9.asia-northeast1.run.app");
    }
}
