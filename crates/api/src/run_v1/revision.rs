//! Revision of run v1, and label selectors by which revisions are listed.

use control::{Project, Versioned};
use model::{Revision, Status};
use serde_json::json;

use super::{
    annotation,
    service::{LOCATION, conditions_write},
    template,
    types::{self as v1, API_VERSION},
};
use crate::run_v2::revision::image_by_digest;

/// The label that names a revision's service.
pub(super) const SERVICE: &str = "serving.knative.dev/service";

/// The revision as clients see it.
pub(super) fn write(found: &Versioned<Revision>, project: &Project) -> v1::Revision {
    let revision = &found.value;
    let service = &revision.service.service;
    let mut labels = revision.template.labels.clone();
    for (key, value) in [
        (SERVICE, service.to_string()),
        ("serving.knative.dev/configuration", service.to_string()),
        ("serving.knative.dev/configurationGeneration", revision.generation.to_string()),
        ("serving.knative.dev/route", service.to_string()),
        ("serving.knative.dev/serviceUid", revision.service_uid.clone()),
        (LOCATION, revision.service.region.to_string()),
    ] {
        labels.insert(key.to_owned(), value);
    }
    let mut annotations = annotation::template_write(&revision.template);
    annotations.insert("serving.knative.dev/creator".to_owned(), revision.creator.clone());
    let image = &revision.template.container.image;
    let mut status = json!({ "observedGeneration": 1, "conditions": conditions_write(&revision.conditions) });
    if let Some(digest) = &revision.image {
        status["imageDigest"] = json!(image_by_digest(image, digest.as_str()));
    }
    v1::Revision {
        api_version: API_VERSION,
        kind: "Revision",
        metadata: v1::ObjectMeta {
            name: revision.name.to_string(),
            namespace: project.number.to_string(),
            self_link: format!("/apis/{API_VERSION}/namespaces/{}/revisions/{}", project.number, revision.name),
            uid: revision.uid.clone(),
            resource_version: format!("{:x}", found.revision),
            generation: 1,
            creation_timestamp: revision.created.to_string(),
            labels,
            annotations,
            owner_references: json!([{
                "kind": "Configuration",
                "name": service,
                "uid": revision.service_uid,
                "apiVersion": API_VERSION,
                "controller": true,
                "blockOwnerDeletion": true,
            }]),
            ..Default::default()
        },
        spec: template::spec_write(&revision.template),
        status,
    }
}

/// Labels that must have given values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<(String, String)>);

impl Selector {
    /// Reads `key = value, key2=value2`, spaces as the client likes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for the other operators of Kubernetes.
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        let bad = || Status::invalid_field("labelSelector", format!("{text:?} is not understood; only KEY=VALUE, joined by commas, is supported"));
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            let (key, value) = (key.trim(), value.strip_prefix('=').unwrap_or(value).trim());
            let good = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
            if key.is_empty() || !good(key) || !good(value) { Err(bad()) } else { Ok((key.to_owned(), value.to_owned())) }
        };
        Ok(Self(text.split(',').map(pair).collect::<Result<_, _>>()?))
    }

    /// The service that is asked for, when one is.
    pub(super) fn service(&self) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == SERVICE).map(|(_, value)| value.as_str())
    }

    pub(super) fn selects(&self, revision: &v1::Revision) -> bool {
        self.0.iter().all(|(key, value)| revision.metadata.labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read() {
        let check = |text: &str, expect: Option<&[(&str, &str)]>| {
            let expect = expect.map(|pairs| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>());
            assert_eq!(Selector::parse(text).ok().map(|s| s.0), expect, "{text}");
        };
        check("", Some(&[]));
        check("serving.knative.dev/service = one", Some(&[("serving.knative.dev/service", "one")]));
        check("a==b,c=d", Some(&[("a", "b"), ("c", "d")]));
        for bad in ["a", "a!=b", "a in (b, c)", "!a", "=b", "a=b,"] {
            check(bad, None);
        }
        assert_eq!(Selector::parse("serving.knative.dev/service = one").unwrap().service(), Some("one"));
    }
}
