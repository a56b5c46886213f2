//! The providers of events: those whose events there are here.
//!
//! Descriptions: `gcloud eventarc providers describe`, as users have published what it prints.

use model::{
    Region, Status,
    address::{LOCATIONS, REGIONS},
    storage::ChangeKind,
    trigger::EventKind,
};
use proto::google::cloud::eventarc::v1 as pb;

use crate::{app::App, convert::refuse, filter::Filter, grpc::Context, transcode};

/// Name, what it is called, and its events.
const PROVIDERS: [(&str, &str, &[EventKind]); 3] = [
    ("cloudaudit.googleapis.com", "Cloud Audit Logs", &[EventKind::AuditLog]),
    ("pubsub.googleapis.com", "Cloud Pub/Sub", &[EventKind::MessagePublished]),
    (
        "storage.googleapis.com",
        "Cloud Storage",
        &[
            EventKind::Object(ChangeKind::Archive),
            EventKind::Object(ChangeKind::Delete),
            EventKind::Object(ChangeKind::Finalize),
            EventKind::Object(ChangeKind::MetadataUpdate),
        ],
    ),
];

pub(super) async fn get(_: App, context: Context, request: pb::GetProviderRequest) -> Result<pb::Provider, Status> {
    let (location, id) = (context.location()?, context.var("provider")?);
    let found = PROVIDERS.iter().find(|(name, ..)| *name == id);
    found
        .map(|row| write(context.var("project")?, location.as_str(), row))
        .unwrap_or_else(|| Err(Status::not_found(format!("Resource '{}' was not found", request.name))))
}

pub(super) async fn list(app: App, context: Context, request: pb::ListProvidersRequest) -> Result<pb::ListProvidersResponse, Status> {
    refuse(!request.order_by.is_empty(), "order_by")?;
    let (project, location) = (context.var("project")?, context.location_or_all()?);
    let filter = Filter::parse(&request.filter)?;
    let scope = format!("providers/{project}/{}/{}", context.var("location")?, request.filter);
    let asked = app.pages.read(&scope, &request.page_token, i64::from(request.page_size)).await?;
    let mut all = Vec::new();
    let locations = match &location {
        Some(location) => vec![location.as_str()],
        None => everywhere(),
    };
    for location in locations {
        for row in &PROVIDERS {
            let provider = write(project, location, row)?;
            if request.filter.is_empty() || filter.matches(&transcode::to_json(&provider)?) {
                all.push(provider);
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rest = all.into_iter().filter(|provider| asked.after.as_deref().is_none_or(|after| provider.name.as_str() > after));
    let providers: Vec<pb::Provider> = rest.by_ref().take(asked.size).collect();
    let next_page_token = match (providers.last(), rest.next()) {
        (Some(last), Some(_)) => app.pages.token(&scope, &last.name).await?,
        _ => String::new(),
    };
    Ok(pb::ListProvidersResponse { providers, next_page_token, ..Default::default() })
}

fn everywhere() -> Vec<&'static str> {
    REGIONS.iter().map(|(region, _)| *region).chain(LOCATIONS.iter().copied()).collect()
}

fn write(project: &str, location: &str, (name, display_name, kinds): &(&str, &str, &[EventKind])) -> Result<pb::Provider, Status> {
    // Whoever asks for one by name must name a location that there is.
    Region::parse_location(location)?;
    Ok(pb::Provider {
        name: format!("projects/{project}/locations/{location}/providers/{name}"),
        display_name: (*display_name).to_owned(),
        event_types: kinds.iter().map(|kind| kind_write(*kind)).collect(),
    })
}

fn kind_write(kind: EventKind) -> pb::EventType {
    let description = match kind {
        EventKind::MessagePublished => "A message is published to the specified Pub/Sub topic.",
        EventKind::Object(ChangeKind::Archive) => "The live version of an object has become a noncurrent version.",
        EventKind::Object(ChangeKind::Delete) => "An object has been permanently deleted.",
        EventKind::Object(ChangeKind::Finalize) => {
            "A new object has been created, or an existing object has been overwritten, and a new generation of the object has been created."
        }
        EventKind::Object(ChangeKind::MetadataUpdate) => "The metadata of an existing object has changed.",
        EventKind::AuditLog => "An audit log is created that matches the trigger's filter criteria.",
    };
    let attribute = |attribute: &str, description: &str, required: bool, path_pattern_supported: bool| pb::FilteringAttribute {
        attribute: attribute.to_owned(),
        description: description.to_owned(),
        required,
        path_pattern_supported,
    };
    let own = kind.attributes().iter().map(|found| {
        let description = match found.name {
            "bucket" => "The bucket name being watched.",
            "methodName" => "The identifier of the service's operation.",
            "resourceName" => "The complete path to a resource. Used to filter events for a specific resource.",
            _ => "The identifier of the Google Cloud service.",
        };
        attribute(found.name, description, found.is_required, found.takes_pattern)
    });
    pb::EventType {
        r#type: kind.name().to_owned(),
        description: description.to_owned(),
        filtering_attributes: own.chain([attribute("type", "", true, false)]).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_events_has_a_provider() {
        for kind in EventKind::ALL {
            assert_eq!(PROVIDERS.iter().filter(|(.., kinds)| kinds.contains(&kind)).count(), 1, "{kind:?}");
        }
        let audit = write("p", "global", &PROVIDERS[0]).unwrap();
        let of = |name: &str| audit.event_types[0].filtering_attributes.iter().find(|attribute| attribute.attribute == name).unwrap().clone();
        assert!(of("resourceName").path_pattern_supported && !of("resourceName").required);
        assert!(of("serviceName").required && of("type").required);
    }
}
