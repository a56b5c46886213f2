//! A resource that a question is about: that it is there, and what of it decides.

use events::pubsub::{Kind, Name};
use model::{
    ProjectId, Region, ServiceKey, ServiceName, Status,
    secret::{SecretId, SecretKey},
    service::Ingress,
    trigger::TriggerKey,
};

use super::absent;
use crate::app::App;

/// A resource with a policy.
pub(super) struct Resource {
    /// As `iam` calls it.
    pub(super) name: String,
    /// An id.
    pub(super) project: String,
    /// Of a service.
    pub(super) ingress: Option<Ingress>,
    pub(super) invoker_iam_disabled: bool,
}

impl Resource {
    fn plain(name: String, project: &str) -> Self {
        Self { name, project: project.to_owned(), ingress: None, invoker_iam_disabled: false }
    }

    pub(super) fn is_service(&self) -> bool {
        self.ingress.is_some()
    }

    pub(super) fn is_project(&self) -> bool {
        self.name == format!("projects/{}", self.project)
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub(super) fn service(app: &App, key: &ServiceKey) -> Result<Self, Status> {
        let name = key.resource();
        let service = app.control.service_get(key).map_err(|status| absent(status, &name))?.value;
        Ok(Self { name, project: key.project.to_string(), ingress: Some(service.ingress), invoker_iam_disabled: service.invoker_iam_disabled })
    }

    /// The resource of a name: `projects/P/...`, `buckets/B` or `gs://B`, with or without `//API/` in front.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a name of no kind that is known, `NOT_FOUND`; `PERMISSION_DENIED` for a name in any other project than the
    /// asked one, whether there is such a project or not.
    pub(super) fn find(app: &App, written: &str, project: &str) -> Result<Self, Status> {
        let name = written.strip_prefix("//").and_then(|rest| rest.split_once('/')).map_or(written, |(_, name)| name);
        let name = name.strip_prefix("projects/_/").unwrap_or(name);
        let name = name.strip_prefix("gs://").map_or_else(|| name.to_owned(), |bucket| format!("buckets/{}", bucket.trim_end_matches('/')));
        let parts: Vec<&str> = name.split('/').collect();
        let id = |written: &str| match app.control.project_get(written) {
            Ok(found) if found.id.as_str() == project => Ok(found.id),
            _ => Err(Status::permission_denied(super::READ, &format!("projects/{written}"))),
        };
        let there = |found: Result<(), Status>, project: &ProjectId| {
            found.map(|()| Self::plain(name.clone(), project.as_str())).map_err(|status| absent(status, &name))
        };
        match parts[..] {
            ["projects", written] => Ok(Self::plain(format!("projects/{}", id(written)?), project)),
            ["projects", project, "locations", region, "services", service] => {
                Self::service(app, &ServiceKey { project: id(project)?, region: Region::parse(region)?, service: ServiceName::parse(service)? })
            }
            ["projects", project, "locations", region, "functions", function] => {
                let key = ServiceKey { project: id(project)?, region: Region::parse(region)?, service: ServiceName::parse(function)? };
                there(app.control.function_get(&key).map(drop), &key.project)
            }
            ["projects", project, "locations", location, "triggers", trigger] => {
                let key = TriggerKey::new(id(project)?, Region::parse_location(location)?, trigger)?;
                there(app.control.trigger_get(&key).map(drop), &key.project)
            }
            ["projects", project, "secrets", secret] => {
                let key = SecretKey { project: id(project)?, secret: SecretId::parse(secret)? };
                there(app.control.secret_get(&key).map(drop), &key.project)
            }
            ["projects", written, "serviceAccounts", email] => {
                let within = if written == "-" { ProjectId::parse(project)? } else { id(written)? };
                let account = app.iam.service_account_get(Some(&within), email).map_err(|status| absent(status, &name))?;
                Ok(Self::plain(format!("projects/{}/serviceAccounts/{}", account.project, account.email), account.project.as_str()))
            }
            ["projects", project, kind, one] => {
                let kinds = [Kind::Topics, Kind::Subscriptions, Kind::Snapshots, Kind::Schemas];
                let Some(kind) = kinds.into_iter().find(|known| known.collection() == kind) else { return Err(unknown(written)) };
                let key = Name::new(kind, id(project)?, one)?;
                let found = match kind {
                    Kind::Topics => app.pubsub.topic_get(&key).map(drop),
                    Kind::Subscriptions => app.pubsub.subscription_get(&key).map(drop),
                    Kind::Snapshots => app.pubsub.snapshot_get(&key).map(drop),
                    Kind::Schemas => app.pubsub.schema_get(&key, None).map(drop),
                };
                there(found, &key.project)
            }
            ["buckets", bucket] => {
                // A bucket of another project is not told of.
                let found = app.control.bucket_get(bucket).ok().filter(|bucket| bucket.value.project.as_str() == project);
                let bucket = found.ok_or_else(|| Status::not_found(format!("{name} does not exist")))?;
                Ok(Self::plain(name, bucket.value.project.as_str()))
            }
            _ => Err(unknown(written)),
        }
    }
}

fn unknown(written: &str) -> Status {
    Status::invalid_field(
        "resource",
        format!(
            "{written:?} is no resource with a policy: projects/P, projects/P/locations/R/services/S, .../functions/F, .../triggers/T, projects/P/secrets/S, \
             projects/P/serviceAccounts/EMAIL, projects/P/topics/T (subscriptions, snapshots, schemas) or gs://BUCKET"
        ),
    )
}
