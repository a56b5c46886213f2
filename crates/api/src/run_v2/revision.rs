//! Revision of run v2. Source: google/cloud/run/v2/revision.proto.

use model::{Revision, condition::State};
use proto::google::cloud::run::v2 as pb;

use super::{service::condition_write, template};
use crate::convert::{int, time};

/// The revision as clients see it.
pub(crate) fn write(revision: &Revision, etag: u64) -> pb::Revision {
    let service = revision.service.resource();
    let template = &revision.template;
    let mut container = template::container_write(&template.container);
    if let Some(digest) = &revision.image {
        container.image = image_by_digest(&template.container.image, digest.as_str());
    }
    pb::Revision {
        name: format!("{service}/revisions/{}", revision.name),
        uid: revision.uid.clone(),
        generation: 1,
        labels: template.labels.clone().into_iter().collect(),
        annotations: template::annotations_write(&template.annotations),
        create_time: Some(time(revision.created)),
        update_time: Some(time(revision.conditions.iter().map(|c| c.since).max().unwrap_or(revision.created))),
        service: revision.service.service.to_string(),
        scaling: template::scaling_write(template),
        max_instance_request_concurrency: int(template.concurrency()),
        timeout: template::timeout_write(template),
        service_account: template.service_account.clone(),
        containers: vec![container],
        volumes: template::volumes_write(&template.container),
        execution_environment: template::environment_write(template.execution_environment),
        session_affinity: template.session_affinity,
        reconciling: revision.conditions.iter().any(|c| c.kind == "Ready" && c.state == State::Unknown),
        conditions: revision.conditions.iter().map(condition_write).collect(),
        observed_generation: 1,
        creator: revision.creator.clone(),
        etag: format!("\"{etag:x}\""),
        ..Default::default()
    }
}

/// `NAME@sha256:...` for whatever tag or digest `image` has.
pub(crate) fn image_by_digest(image: &str, digest: &str) -> String {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    // A colon behind the last slash begins a tag, one before it a port.
    let name = match name.rfind(':') {
        Some(at) if !name[at..].contains('/') => &name[..at],
        _ => name,
    };
    format!("{name}@{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_digest() {
        for image in ["r.dev:5000/p/n", "r.dev:5000/p/n:latest", "r.dev:5000/p/n@sha256:00"] {
            assert_eq!(image_by_digest(image, "sha256:11"), "r.dev:5000/p/n@sha256:11", "{image}");
        }
    }
}
